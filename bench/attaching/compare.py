"""Whether two ways of attaching made the same objects: otherwise comparing their times would be a cheat."""

from __future__ import annotations

import json
import subprocess
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from attaching.spaces import visit

Facts = dict[str, Any]

_OWN = {"ifindex", "ifname", "link", "link_index", "link_netnsid", "address", "ifalias", "master", "stats64"}
_OF_PORT = {
    "id",
    "no",
    "designated_port",
    "designated_bridge",
    "root_id",
    "bridge_id",
}  # of this bridge, not of the way


@dataclass(frozen=True, slots=True)
class Attached:
    """Where to look for what one attach made."""

    host: str  # namespaces, by name
    sandbox: str
    outer: str  # the outer end's name


def _ask(*argv: str) -> Any:
    done = subprocess.run(argv, capture_output=True, text=True, check=True)
    return json.loads(done.stdout or "[]")


def facts(where: Attached, home: int) -> Facts:
    """All that an attach makes, without names, indexes and addresses of its own."""
    inner = _ask("ip", "-n", where.sandbox, "-j", "-d", "addr", "show")
    routes = [
        r for f in ("-4", "-6") for r in _ask("ip", "-n", where.sandbox, "-j", f, "route", "show", "table", "all")
    ]
    eth0 = next(link for link in inner if link["ifname"] == "eth0")
    ipv4 = next(a["local"] for a in eth0["addr_info"] if a["family"] == "inet")
    found = {
        "inner": [_plain(link) | {"name": link["ifname"]} for link in inner],
        "routes": sorted(routes, key=json.dumps),
        "settings": _settings(where.sandbox, home),
        "outer": _outer(where),
    }
    text = json.dumps(found)
    net = ipv4.rsplit(".", 2)[0]
    text = text.replace(f'"{ipv4}"', '"ADDRESS"').replace(f'"{net}.', '"NET.')
    plain: Facts = json.loads(text)
    return plain


def _plain(link: Facts) -> Facts:
    return {key: value for key, value in link.items() if key not in _OWN}


def _outer(where: Attached) -> Facts:
    (link,) = _ask("ip", "-n", where.host, "-j", "-d", "link", "show", "dev", where.outer)
    port = link.get("linkinfo", {}).get("info_slave_data", {})
    link["linkinfo"]["info_slave_data"] = {
        key: value for key, value in port.items() if key not in _OF_PORT and "timer" not in key
    }
    return _plain(link) | {"marked": str(link.get("ifalias", "")).startswith("berth:"), "plugged": "master" in link}


def _settings(sandbox: str, home: int) -> dict[str, str]:
    """Every setting of the inner end."""
    found = {}
    with visit(sandbox, home):
        for family in ("ipv4", "ipv6"):
            for file in sorted(Path(f"/proc/sys/net/{family}/conf/eth0").iterdir()):
                try:
                    found[f"{family}.{file.name}"] = file.read_text().strip()
                except OSError:
                    continue  # stable_secret, which nobody has set
    return found


def ports(host: str, home: int) -> list[str]:
    """The published ports of a host namespace."""
    with visit(host, home):
        listed = _ask("nft", "-j", "list", "map", "inet", "berth", "anyport4")
    (found,) = (entry["map"] for entry in listed["nftables"] if "map" in entry)
    return sorted(json.dumps(key) for key, _ in found.get("elem", []))


def differences(one: Any, other: Any, path: str = "") -> list[str]:
    """Where two values differ, as lines to print."""
    if isinstance(one, dict) and isinstance(other, dict):
        names = sorted({*one, *other})
        return [line for name in names for line in differences(one.get(name), other.get(name), f"{path}.{name}")]
    if isinstance(one, list) and isinstance(other, list) and len(one) == len(other):
        return [
            line for n, (a, b) in enumerate(zip(one, other, strict=True)) for line in differences(a, b, f"{path}[{n}]")
        ]
    return [] if one == other else [f"{path.lstrip('.')}: {one} against {other}"]
