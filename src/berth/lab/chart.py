"""The lab as a tree.

    internet   203.0.113.10/24
    └─ router   203.0.113.1/24   inside: 192.168.2.1/24
       ├─ laptop   192.168.2.50/24
       └─ host
          └─ br0   192.168.2.2/24   flat network lan
             └─ web   192.168.2.3/24

The addresses are those that `ip` shows on each machine; networks and endpoints are those that `berth` lists.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from berth.lab.proofs import Stage
from berth.lab.session import Session


@dataclass(frozen=True, slots=True)
class Branch:
    """One line of a tree, and what hangs from it."""

    text: str
    below: tuple[Branch, ...] = ()

    def lines(self) -> Iterator[str]:
        """The tree, a line at a time."""
        yield self.text
        for number, branch in enumerate(self.below, 1):
            first, *rest = branch.lines()
            last = number == len(self.below)
            yield f"{'└─' if last else '├─'} {first}"
            yield from (f"{'  ' if last else '│ '} {line}" for line in rest)


def chart(stage: Stage) -> Branch:
    """The default lab with Berth's networks in it."""
    lab = stage.lab
    laptop = Branch(f"laptop   {_addresses(lab, 'laptop', 'eth0')}")
    outside, inside = _addresses(lab, "router", "wan0"), _addresses(lab, "router", "lan0")
    router = Branch(f"router   {outside}   inside: {inside}", (laptop, _host(stage)))
    return Branch(f"internet   {_addresses(lab, 'internet', 'eth0')}", (router,))


def _host(stage: Stage) -> Branch:
    masters = {link["ifname"]: link.get("master", "") for link in _ip(stage.lab, "host", "link")}
    bridges: dict[str, list[dict[str, Any]]] = {}
    for ep in stage.endpoints:
        bridges.setdefault(masters[ep["link"]], []).append(ep)
    kinds = {net["Name"]: "NAT" if net["Driver"] == "bridge" else net["Driver"] for net in stage.networks}
    below = []
    for bridge, plugged in bridges.items():
        uplinks = [name for name, master in masters.items() if master == bridge and not name.startswith("bv")]
        network = plugged[0]["network_name"]
        title = f"{bridge}   {_addresses(stage.lab, 'host', bridge)}   {kinds[network]} network {network}"
        below.append(Branch(title, (*_uplinks(uplinks), *map(_endpoint, plugged))))
    return Branch("host", tuple(below))


def _uplinks(names: Sequence[str]) -> tuple[Branch, ...]:
    return tuple(Branch(f"{name}   uplink to the LAN") for name in names)


def _endpoint(ep: dict[str, Any]) -> Branch:
    ports = "".join(f"   {port['host_port']} → {port['port']}/{port['proto']}" for port in ep["ports"])
    return Branch(f"{ep['name']}   {'  '.join(ep['addresses'])}{ports}")


def _addresses(lab: Session, node: str, dev: str) -> str:
    (link,) = _ip(lab, node, "address", "show", "dev", dev)
    found = [f"{each['local']}/{each['prefixlen']}" for each in link["addr_info"] if each["scope"] == "global"]
    return "  ".join(found)


def _ip(lab: Session, node: str, *args: str) -> list[dict[str, Any]]:
    return list(json.loads(lab.run(node, ["ip", "-j", *args], check=True).stdout))
