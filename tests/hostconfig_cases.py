"""The golden cases of the host's configuration: golden/SYSTEM/CASE/ has uplink.json, and the files before and after.

`before` and `after` are root directories. What is not named in uplink.json has its default; in `ipv4` and `ipv6` too.
"""

from __future__ import annotations

from dataclasses import dataclass
from ipaddress import ip_address, ip_interface, ip_network
from pathlib import Path
from typing import Any

import msgspec

from berth.hostconfig import Edits, File
from berth.model import Addressing, Uplink, UplinkRoute

GOLDEN = Path(__file__).with_name("golden")


@dataclass(frozen=True, slots=True)
class Case:
    """One case: what the host has and what is wanted of it, and what its files are to be."""

    name: str
    uplink: Uplink
    before: dict[str, File]
    after: dict[str, File]


def cases(system: str) -> list[Case]:
    """All cases of a system, by name."""
    found = sorted(path.parent for path in (GOLDEN / system).glob("*/uplink.json"))
    assert found, f"no golden cases of {system}"
    return [
        Case(path.name, uplink((path / "uplink.json").read_bytes()), tree(path / "before"), tree(path / "after"))
        for path in found
    ]


def uplink(data: bytes) -> Uplink:
    """An uplink from its JSON."""
    raw: dict[str, Any] = msgspec.json.decode(data)
    for family in ("ipv4", "ipv6"):
        if family in raw:
            raw[family] = _addressing(**raw[family])
    raw["routes"] = tuple(_route(**each) for each in raw.get("routes", ()))
    raw["dns"] = tuple(ip_address(each) for each in raw.get("dns", ()))
    raw["search"] = tuple(raw.get("search", ()))
    return Uplink(**raw)


def _addressing(method: str, addresses: tuple[str, ...] = (), gateway: str | None = None) -> Addressing:
    router = None if gateway is None else ip_address(gateway)
    return Addressing(method, tuple(ip_interface(each) for each in addresses), router)


def _route(dst: str, via: str | None = None, metric: int = 0, table: int = 254) -> UplinkRoute:
    return UplinkRoute(ip_network(dst), None if via is None else ip_address(via), metric, table)


def tree(root: Path) -> dict[str, File]:
    """All files below a directory, with the modes that their systems want: Git keeps none."""
    return {
        str(path.relative_to(root)): File(
            path.read_text(), 0o600 if path.suffix in (".nmconnection", ".lease") else 0o644
        )
        for path in sorted(root.rglob("*"))
        if path.is_file()
    }


def applied(files: dict[str, File], edits: Edits) -> dict[str, File]:
    """The files with the edits made."""
    result = {path: file for path, file in files.items() if path not in edits}
    return result | {path: file for path, file in edits.items() if file is not None}
