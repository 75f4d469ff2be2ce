"""A packet socket on a bridge that hears ARP and neighbour discovery, or DHCP, and nothing else.

Sources: packet(7), linux/if_packet.h, linux/filter.h.
"""

from __future__ import annotations

import ctypes
import errno
import selectors
import socket
import struct
import time
from collections.abc import Iterator
from contextlib import suppress

from berth.errors import Denied
from berth.lan.frames import ADVERTISEMENT, ROUTER_ADVERTISEMENT, SOLICITATION

_ALL = 0x0003  # ETH_P_ALL
_SO_ATTACH_FILTER = 26
_SOL_PACKET, _IGNORE_OUTGOING = 263, 23
_TAGGED = 0xFFFFF000 + 48  # SKF_AD_OFF + SKF_AD_VLAN_TAG_PRESENT: frames of a VLAN are about another LAN
_LONGEST = 2048  # bytes of a frame that are looked at
_BATCH = 256  # frames taken at once: a flood leaves time for the rest
_LOAD, _LOAD_HALF, _LOAD_BYTE, _EQUAL, _RETURN = 0x20, 0x28, 0x30, 0x15, 0x06
_LENGTH_OF_HEAD, _LOAD_HALF_BEHIND = 0xB1, 0x48  # of the IPv4 header, and what stands behind it
Program = tuple[tuple[int, int, int, int], ...]
_GONE = (errno.ENETDOWN, errno.ENODEV, errno.ENXIO)

#: ARP, and ICMPv6 of the two types: (code, jump if true, jump if not, value).
NEIGHBOURS: Program = (
    (_LOAD, 0, 0, _TAGGED),
    (_EQUAL, 0, 9, 0),
    (_LOAD_HALF, 0, 0, 12),
    (_EQUAL, 6, 0, 0x0806),
    (_EQUAL, 0, 6, 0x86DD),
    (_LOAD_BYTE, 0, 0, 20),
    (_EQUAL, 0, 4, socket.IPPROTO_ICMPV6),
    (_LOAD_BYTE, 0, 0, 54),
    (_EQUAL, 1, 0, SOLICITATION),
    (_EQUAL, 0, 1, ADVERTISEMENT),
    (_RETURN, 0, 0, _LONGEST),
    (_RETURN, 0, 0, 0),
)
#: Router advertisements.
ROUTERS: Program = (
    (_LOAD, 0, 0, _TAGGED),
    (_EQUAL, 0, 7, 0),
    (_LOAD_HALF, 0, 0, 12),
    (_EQUAL, 0, 5, 0x86DD),
    (_LOAD_BYTE, 0, 0, 20),
    (_EQUAL, 0, 3, socket.IPPROTO_ICMPV6),
    (_LOAD_BYTE, 0, 0, 54),
    (_EQUAL, 0, 1, ROUTER_ADVERTISEMENT),
    (_RETURN, 0, 0, _LONGEST),
    (_RETURN, 0, 0, 0),
)
#: UDP to the port of DHCP clients (RFC 2131 section 4.1).
DHCP: Program = (
    (_LOAD, 0, 0, _TAGGED),
    (_EQUAL, 0, 7, 0),
    (_LOAD_HALF, 0, 0, 12),
    (_EQUAL, 0, 5, 0x0800),
    (_LOAD_BYTE, 0, 0, 23),
    (_EQUAL, 0, 3, socket.IPPROTO_UDP),
    (_LENGTH_OF_HEAD, 0, 0, 14),
    (_LOAD_HALF_BEHIND, 0, 0, 16),
    (_EQUAL, 1, 0, 68),
    (_RETURN, 0, 0, 0),
    (_RETURN, 0, 0, _LONGEST),
)
_DEAF: Program = ((_RETURN, 0, 0, 0),)


class Packets:
    """One socket. It does not hear what this host itself sends by the link."""

    def __init__(self, dev: str, program: Program = NEIGHBOURS) -> None:
        """Hear by a link what the program lets through. Raises `Denied`, and `OSError` for one that is not there."""
        try:
            self._socket = socket.socket(socket.AF_PACKET, socket.SOCK_RAW | socket.SOCK_NONBLOCK, 0)
        except PermissionError:
            raise Denied(
                "may not ask the LAN who has an address: run as root (CAP_NET_RAW), or make the network with"
                " -o conflict=off"
            ) from None
        self._program = program
        try:
            self.hear()
            self._socket.setsockopt(_SOL_PACKET, _IGNORE_OUTGOING, 1)
            self._dev, self._index = dev, socket.if_nametoindex(dev)
            self._socket.bind((dev, _ALL))
        except OSError:
            self._socket.close()
            raise

    @property
    def mac(self) -> str:
        """The link's own MAC."""
        return bytes(self._socket.getsockname()[4]).hex(":")

    def fileno(self) -> int:
        """For a selector."""
        return self._socket.fileno()

    def bound(self) -> bool:
        """Whether the link is there, and is no other of the same name."""
        try:
            return socket.if_nametoindex(self._dev) == self._index
        except OSError:
            return False

    def hear(self) -> None:
        """Hear, from now on; what was heard before is forgotten."""
        self._filter(self._program)
        self.take()

    def deafen(self) -> None:
        """Hear nothing while nobody listens: it costs less than to close the socket, for which the kernel waits."""
        self._filter(_DEAF)

    def _filter(self, program: Program) -> None:
        code = b"".join(struct.pack("HBBI", *step) for step in program)
        buffer = ctypes.create_string_buffer(code)
        self._socket.setsockopt(
            socket.SOL_SOCKET, _SO_ATTACH_FILTER, struct.pack("HP", len(program), ctypes.addressof(buffer))
        )

    def take(self) -> list[bytes]:
        """The frames that have come, some hundreds at most; () for a link that is down or gone."""
        frames: list[bytes] = []
        with suppress(BlockingIOError):
            while len(frames) < _BATCH:
                try:
                    frames.append(self._socket.recv(_LONGEST))
                except OSError as error:
                    if error.errno in _GONE:
                        break
                    raise
        return frames

    def send(self, frame: bytes) -> None:
        """Send a frame; a link that is down or gone, or full, takes none."""
        try:
            self._socket.send(frame)
        except OSError as error:
            if error.errno not in (*_GONE, errno.ENOBUFS, errno.EAGAIN):
                raise

    def close(self) -> None:
        """Hear no more. The kernel takes some 16 ms."""
        self._socket.close()


def heard(packets: Packets, until: float) -> Iterator[bytes]:
    """Frames as they come, until a time of the monotonic clock; an empty one now and again, for who wants to stop."""
    with selectors.DefaultSelector() as selector:
        selector.register(packets, selectors.EVENT_READ)
        while (left := until - time.monotonic()) > 0:
            selector.select(min(left, 0.05))
            yield from packets.take() or [b""]
