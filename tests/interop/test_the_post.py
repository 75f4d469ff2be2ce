"""The post's pair of commands by Docker's own driver and by Berth, on the same LAN: the table in the README."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from berth.lab.session import Lab

from .harbour import HOST, INTERNET, LAPTOP, POST, ROUTER, Harbour

pytestmark = pytest.mark.timeout(120)

README = Path(__file__).parents[2] / "README.md"
ROUTER_MAC = "02:00:00:00:02:01"
THEIRS = ("--driver=bridge", *(word for word in POST if not re.match("--(ipam-)?driver", word)))


def pair(harbour: Harbour, *create: str) -> dict[str, str]:
    """Carry out the pair, and look at what a person would look at."""
    harbour.docker("network", "create", *create, "br0")
    container = harbour.serve("c1", "br0")
    addresses = re.findall(r"inet (\S+)", harbour.sh("ip -4 -o address show br0"))
    # Together and twice: where Docker does not announce a container, Berth does a moment later, and with that the
    # container's kernel forgets its neighbours.
    asked = f"ping -c1 -W2 {ROUTER} >/dev/null; arp -n {ROUTER}"
    behind = harbour.inside("c1", "sh", "-c", f"{asked} | grep -F ether || {{ {asked}; }}", check=False)
    out = harbour.inside("c1", "ping", "-c1", "-W2", INTERNET, check=False)
    return {
        "the host's address on br0": ", ".join(addresses),
        "the host's default route": harbour.sh("ip route show default").removesuffix(" dev br0") or "none",
        "the container's address": container,
        f"who is {ROUTER} for the container": owner(harbour, behind),
        "container → internet": "yes" if "1 packets received" in out else "no",
        "another machine of the LAN → container": "yes" if harbour.asks("laptop", container) == "c1" else "no",
        f"who answers at {HOST}, the host's address": who(harbour, HOST),
    }


def who(harbour: Harbour, address: str) -> str:
    """Who has an address for another machine of the LAN."""
    harbour.sh(f"ip neigh flush to {address}; ping -c1 -W2 {address} || true", "laptop")
    return owner(harbour, harbour.sh(f"ip neigh show {address}", "laptop"))


def owner(harbour: Harbour, neighbour: str) -> str:
    """Who has the MAC that a neighbour's entry names."""
    names = {harbour.sh("ip -br link show br0").split()[2]: "the host", ROUTER_MAC: "the router"}
    mac = re.search("(?:[0-9a-f]{2}:){5}[0-9a-f]{2}", neighbour)
    return names.get(mac[0], "the container") if mac else "nobody"


def test_the_table_in_the_readme(fresh_lab: Lab, engine_kind: str) -> None:
    with Harbour(fresh_lab, engine_kind) as harbour:
        ours = pair(harbour, *POST)
        harbour.clear()
        theirs = pair(harbour, *THEIRS)
    assert LAPTOP not in (ours["the container's address"], theirs["the container's address"])
    readme = README.read_text()
    rows = [f"| {what} | {theirs[what]} | {ours[what]} |" for what in ours]
    assert "\n".join(row for row in rows if row not in readme) == ""
