"""What links have carried, by the kernel's own counters."""

from __future__ import annotations

import struct

from berth.errors import Refused
from berth.kernel.netlink import ROUTE, Netlink, Refusal, attrs, string
from berth.model import Traffic

_COUNTERS = struct.Struct("=4Q")  # the beginning of struct rtnl_link_stats64: packets, then bytes
_GETLINK, _IFINFO = 18, struct.Struct("=BxHiII")
_IFNAME = 3
_STATS64 = 23  # IFLA_STATS64


def read() -> dict[str, Traffic]:
    """Traffic by the name of a link, of all links of the host: one dump. Raises `Refused`."""
    found = {}
    with Netlink(ROUTE) as nl:
        try:
            answers = nl.dump(_GETLINK, _IFINFO.pack(0, 0, 0, 0, 0))
        except Refusal as refusal:
            raise Refused(f"cannot read what the host's links carry: {refusal.strerror}") from None
    for data in answers:
        said = attrs(data, _IFINFO.size)
        counters = said.get(_STATS64, b"")
        if len(counters) >= _COUNTERS.size:
            _, _, rx_bytes, tx_bytes = _COUNTERS.unpack_from(counters)
            found[string(said[_IFNAME])] = Traffic(rx_bytes, tx_bytes)
    return found
