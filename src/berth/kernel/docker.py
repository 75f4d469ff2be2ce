"""Where Docker has its rules: in iptables of either kind, or in nftables (from Docker 29 on, if it is told to)."""

from __future__ import annotations

import os
import shutil

from berth.kernel import xtables
from berth.kernel.netlink import NETFILTER, Netlink, Refusal, text
from berth.kernel.nft import generation

_GETCHAIN = 0xA04
_TABLE, _NAME = 1, 3
_OWN = ("docker-bridges", "filter-FORWARD")  # the table and a chain of Docker's nftables backend
_IPTABLES = ("filter", "DOCKER")


def backends() -> tuple[str, ...]:
    """The backends that have Docker's rules, the one that Docker uses first: one too many is one that it has left."""
    there = {
        "nftables": _there(*_OWN),
        "iptables-nft": _there(*_IPTABLES),
        "iptables-legacy": ["-N", _IPTABLES[1]] in xtables.listed("ip"),
    }
    found = [name for name, has in there.items() if has]
    if "nftables" in found:  # nothing else makes that table, and Docker deletes it when it begins to use iptables
        return tuple(found)
    return tuple(sorted(found, key=lambda name: name != _installed()))


def _installed() -> str:
    """Which kind `iptables` is: both are links to a program for each (update-alternatives(1))."""
    program = os.path.basename(os.path.realpath(shutil.which("iptables") or ""))
    return "iptables-legacy" if "legacy" in program else "iptables-nft"


def _there(table: str, chain: str) -> bool:
    try:
        Netlink.kept(NETFILTER).ask(_GETCHAIN, generation("ip") + text(_TABLE, table) + text(_NAME, chain))
    except Refusal:
        return False
    return True
