"""Whether packets of tunnels get to another host: asked of its daemon, by the tunnels' own port.

The port is the kernel's, and what the kernel cannot take for a tunnel's packet it drops (RFC 7348 section 5: the
flag I is not set). But a raw socket hears it too, and only what the host's firewall has let in: so the daemon
answers from that very port. An answer is no larger than the question. A question is as large as the path is to be
tried for, and may not be fragmented.
"""

from __future__ import annotations

import ctypes
import os
import selectors
import socket
import struct
import time
from collections.abc import Sequence
from contextlib import ExitStack, suppress
from ipaddress import IPv4Address

from berth.doctor.facts import Peer, Probed
from berth.model import Address

_ROUND, _ROUNDS = 0.25, 4  # seconds for an answer, and how often is asked
_SMALL = 100  # bytes
_LADDER = (8950, 4000, 1500, 1492, 1480, 1472, 1460, 1450, 1440, 1420, 1400, 1380, 1350, 1320, 1300, 1280, 1000, 576)
_HEADS = {4: 28, 6: 48}  # bytes of IP and UDP headers
_PORTS = struct.Struct(">HHHH")  # a UDP header
_BODY = struct.Struct(">8x4sBHI")  # no tunnel's header; who speaks, what, of which size, which asking
_MAGIC, _QUESTION, _ANSWER = b"Brth", 1, 2
_AT = 16  # of the magic, behind the UDP header's beginning
_IP_MTU_DISCOVER, _IP_MTU, _IPV6_MTU_DISCOVER, _IPV6_MTU, _IPV6_DONTFRAG = 10, 14, 23, 24, 62  # linux/in.h, in6.h
_PROBE = 3  # IP_PMTUDISC_PROBE: not fragmented, and whatever is known of the path
_IP_PKTINFO, _IPV6_CHECKSUM, _CHECKSUM_AT = 8, 7, 6
_ATTACH_FILTER = 26


# --- who answers ----------------------------------------------------------------------------------------


def responders() -> tuple[socket.socket, ...]:
    """What hears questions: a raw socket for each IP version that the host has. Raises `OSError`."""
    made = []
    for family in (socket.AF_INET, socket.AF_INET6):
        with suppress(FileNotFoundError):  # IPv6 is not there
            raw = socket.socket(family, socket.SOCK_RAW | socket.SOCK_NONBLOCK, socket.IPPROTO_UDP)
            _only_questions(raw)
            if family == socket.AF_INET6:
                raw.setsockopt(socket.IPPROTO_IPV6, _IPV6_CHECKSUM, _CHECKSUM_AT)
                raw.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_RECVPKTINFO, 1)
            made.append(raw)
    return tuple(made)


def _only_questions(raw: socket.socket) -> None:
    """Let the kernel pass over all else: tunnels' own packets come this way too (linux/filter.h)."""
    magic = int.from_bytes(_MAGIC, "big")
    load = [(0xB1, 0, 0, 0), (0x40, 0, 0, _AT)] if raw.family == socket.AF_INET else [(0x20, 0, 0, _AT)]
    code = [*load, (0x15, 0, 1, magic), (0x06, 0, 0, 0xFFFF), (0x06, 0, 0, 0)]
    program = ctypes.create_string_buffer(b"".join(struct.pack("HBBI", *line) for line in code))
    raw.setsockopt(socket.SOL_SOCKET, _ATTACH_FILTER, struct.pack("HL", len(code), ctypes.addressof(program)))


def answer(raw: socket.socket) -> None:
    """Answer what one of the `responders` has heard."""
    with suppress(OSError):
        data, about, _, where = raw.recvmsg(65536, 64)
        begin = (data[0] & 15) * 4 if raw.family == socket.AF_INET else 0
        asker, port, *_ = _PORTS.unpack_from(data, begin)
        magic, kind, size, number = _BODY.unpack_from(data, begin + _PORTS.size)
        if magic != _MAGIC or kind != _QUESTION:
            return
        body = _BODY.pack(_MAGIC, _ANSWER, size, number)
        # Without a checksum in IPv4 (RFC 768); in IPv6 the kernel makes it.
        head = _PORTS.pack(port, asker, _PORTS.size + len(body), 0)
        if raw.family == socket.AF_INET:  # from the address that was asked
            about = [(socket.IPPROTO_IP, _IP_PKTINFO, struct.pack("i4s4x", 0, data[16:20]))]
        raw.sendmsg([head, body], about, 0, (where[0], 0, *where[2:]))


# --- who asks -------------------------------------------------------------------------------------------


def probe(peers: Sequence[Peer]) -> tuple[Probed, ...]:
    """Ask them all at the same time: a second where one does not answer, else as long as the way takes."""
    with ExitStack() as stack, selectors.DefaultSelector() as selector:
        askings = [_Asking(peer) for peer in peers]
        for asking in askings:
            stack.callback(asking.sock.close)
            selector.register(asking.sock, selectors.EVENT_READ, asking)
        for number in range(_ROUNDS):
            left = [asking for asking in askings if not asking.done]
            for asking in left:
                asking.ask(number)
            until = time.monotonic() + _ROUND
            while not all(asking.done for asking in left) and (patience := until - time.monotonic()) > 0:
                for key, _ in selector.select(patience):
                    key.data.hear()
    return tuple(Probed(asking.peer, asking.size, asking.largest) for asking in askings)


class _Asking:
    """One peer, and what it has answered."""

    def __init__(self, peer: Peer) -> None:
        self.peer, self.largest = peer, 0
        self.size = peer.size
        self._number = int.from_bytes(os.urandom(4), "big")
        four = isinstance(peer.address, IPv4Address)
        self._head = _HEADS[4 if four else 6]
        self.sock = socket.socket(socket.AF_INET if four else socket.AF_INET6, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK)
        with suppress(OSError):  # no way there: nothing is answered
            self._prepare(peer.local, four=four)

    def _prepare(self, local: Address, *, four: bool) -> None:
        level = socket.IPPROTO_IP if four else socket.IPPROTO_IPV6
        self.sock.bind((str(local), 0))
        self.sock.connect((str(self.peer.address), self.peer.port))
        self.size = min(self.peer.size, self.sock.getsockopt(level, _IP_MTU if four else _IPV6_MTU))
        self.sock.setsockopt(level, _IP_MTU_DISCOVER if four else _IPV6_MTU_DISCOVER, _PROBE)
        if not four:
            self.sock.setsockopt(level, _IPV6_DONTFRAG, 1)

    @property
    def done(self) -> bool:
        """Whether nothing is left to find out."""
        return self.largest >= self.size

    def ask(self, number: int) -> None:
        """Once more; how large a packet may be only where small ones get there."""
        between = [size for size in _LADDER if self.largest < size < self.size] if number and self.largest else []
        for size in (_SMALL, *between, self.size):
            body = _BODY.pack(_MAGIC, _QUESTION, size, self._number)
            with suppress(OSError):  # a firewall of this host's, or the other's kernel saying no to the last one
                self.sock.send(body.ljust(size - self._head, b"\0"))

    def hear(self) -> None:
        """Take one answer in."""
        with suppress(OSError, struct.error):
            magic, kind, size, number = _BODY.unpack(self.sock.recv(2048))
            if (magic, kind, number) == (_MAGIC, _ANSWER, self._number):
                self.largest = max(self.largest, size)
