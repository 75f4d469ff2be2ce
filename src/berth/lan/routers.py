"""Which routers a LAN's IPv6 has (RFC 4861 section 6.3.7): asked by frames, as the bridge may have no address."""

from __future__ import annotations

import time
from dataclasses import dataclass
from ipaddress import IPv6Address

from berth.lan import frames, slaac
from berth.lan.dhcp.messages import Malformed
from berth.lan.packets import ROUTERS, Packets, heard
from berth.lan.slaac import Advertised

_HEAD, _TO_HOPS, _TO_SOURCE = 54, 21, 22  # bytes of an Ethernet frame: Ethernet and IPv6, and parts of the latter
_HOPS = 255  # what has passed a router has fewer


@dataclass(frozen=True, slots=True)
class Router6:
    """A router that advertises itself."""

    mac: str
    said: Advertised


class Question:
    """Asked when it is made; answers come while other things are looked at."""

    def __init__(self, dev: str) -> None:
        """Ask the routers of a link. Raises `Denied`, and `OSError` for a link that is not there."""
        self._packets = Packets(dev, ROUTERS)
        self._packets.send(frames.solicit_routers(self._packets.mac))

    def answers(self, until: float) -> tuple[Router6, ...]:
        """Who has answered by then (by the monotonic clock), by address; the first word of each."""
        found: dict[IPv6Address, Router6] = {}
        for frame in heard(self._packets, max(until, time.monotonic() + 0.01)):
            router = _read(frame)
            if router is not None:
                found.setdefault(router.said.router, router)
        return tuple(found[address] for address in sorted(found))

    def close(self) -> None:
        """Hear no more."""
        self._packets.close()


def _read(frame: bytes) -> Router6 | None:
    """The advertisement in a frame; None for any other frame, however broken."""
    if len(frame) < _HEAD or frame[_TO_HOPS] != _HOPS:
        return None
    size = int.from_bytes(frame[18:20], "big")
    try:
        said = slaac.decode(frame[_HEAD : _HEAD + size], IPv6Address(frame[_TO_SOURCE : _TO_SOURCE + 16]))
    except Malformed:
        return None
    return Router6(frame[6:12].hex(":"), said)
