"""What the proxy is to pass on, as the firewall's maps have it."""

from __future__ import annotations

from berth.firewall import proxy, tables
from berth.kernel import nft
from berth.kernel.netlink import NETFILTER, Netlink
from berth.model import Proxied


def proxied() -> frozenset[Proxied] | None:
    """All that is to be passed on in this network namespace; None where Berth's table is not.

    That it is not may be because somebody has flushed the firewall, and Berth is about to put it back.
    Raises `OSError` where it may not be read (CAP_NET_ADMIN).
    """
    with Netlink(NETFILTER) as nl:
        if (tables.FAMILY, tables.TABLE) not in nft.tables(nl):
            return None
        found = nft.read_elements(nl, tables.FAMILY, tables.TABLE, proxy.MAPS)
        return frozenset(proxy.proxied(element) for element in found)
