"""UDP: for each client a socket of its own towards the target, so that answers find their way back."""

from __future__ import annotations

import socket
import struct
import time
from collections import OrderedDict
from contextlib import suppress
from select import EPOLLIN
from typing import Any

from berth.proxy.context import Context

IDLE = 90.0  # seconds without a packet either way after which a client is forgotten; Docker's proxy has the same
_MOST = 2048  # clients of one port; then whoever was silent longest is forgotten
_BATCH = 64  # packets before it is another's turn
_EXPIRY = 5.0  # seconds between two looks at who is silent
_LARGEST = memoryview(bytearray(65536))  # bytes of a packet
_CONTROL = 128  # bytes: more than a packet's local address takes
_IP_PKTINFO = 8  # linux/in.h; Python names it only since 3.13
_LINK_LOCAL = b"\xfe\x80"  # of fe80::/64
_IN_PKTINFO = struct.Struct("=i4s4s")  # struct in_pktinfo: link, local address, address in the header
_IN6_PKTINFO = struct.Struct("=16si")  # struct in6_pktinfo: address, link

Asked = tuple[int, int, bytes] | None  # the address a packet came to, as sendmsg(2) takes it; None where it is one


class Flow:
    """One client of a port."""

    __slots__ = ("_port", "asked", "last", "peer", "socket")

    def __init__(self, port: UdpListener, peer: Any, asked: Asked, connected: socket.socket) -> None:
        self._port = port
        self.peer = peer
        self.asked = asked  # an answer comes from there
        self.socket = connected
        self.last = 0.0

    def ready(self, fd: int, events: int) -> None:
        """See `Handler`."""
        for _ in range(_BATCH):
            try:
                size = self.socket.recv_into(_LARGEST)
            except BlockingIOError:
                return
            except OSError:  # nobody listened at the target a moment ago; somebody may soon
                continue
            self._port.answer(self, _LARGEST[:size])


class UdpListener:
    """A port of the host, its target, and its clients."""

    def __init__(self, context: Context, here: tuple[str, int], target: tuple[str, int]) -> None:
        """Listen. Raises `OSError`."""
        self._context = context
        self._target = target
        self._family = socket.AF_INET6 if ":" in target[0] else socket.AF_INET
        self._flows: OrderedDict[tuple[Any, Asked], Flow] = OrderedDict()  # who was silent longest comes first
        self._looking = False
        self.socket = _bound(here)
        context.loop.watch(self.socket.fileno(), self, EPOLLIN)

    def ready(self, fd: int, events: int) -> None:
        """See `Handler`."""
        for _ in range(_BATCH):
            try:
                size, control, _, peer = self.socket.recvmsg_into([_LARGEST], _CONTROL)
            except OSError:
                return
            asked = _asked(control)
            flow = self._flows.get((peer, asked)) or self._begin(peer, asked)
            if flow is not None:
                self._touch(flow)
                _send(flow.socket, _LARGEST[:size])

    def answer(self, flow: Flow, data: memoryview) -> None:
        """Send a client what its target said."""
        self._touch(flow)
        with suppress(OSError):  # as a network may, lose it
            self.socket.sendmsg([data], [flow.asked] if flow.asked else [], 0, flow.peer)

    def close(self) -> None:
        """End, with all flows."""
        self._context.loop.end(self.socket)
        while self._flows:
            self._forget()

    def _touch(self, flow: Flow) -> None:
        flow.last = time.monotonic()
        self._flows.move_to_end((flow.peer, flow.asked))

    def _begin(self, peer: Any, asked: Asked) -> Flow | None:
        """A socket for a new client. None without room for it, when nobody of this port can make some."""
        if len(self._flows) >= _MOST or not self._context.room.take(1):
            if not self._flows:
                return None
            _, silent = self._flows.popitem(last=False)  # whose place it takes
            self._context.loop.end(silent.socket)
        connected = self._connected()
        if connected is None:
            self._context.room.give(1)
            return None
        flow = self._flows[peer, asked] = Flow(self, peer, asked, connected)
        self._context.loop.watch(connected.fileno(), flow, EPOLLIN)
        if not self._looking:
            self._look_later()
        return flow

    def _connected(self) -> socket.socket | None:
        try:
            connected = socket.socket(self._family, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK)
        except OSError:
            return None
        try:
            connected.connect(self._target)
        except OSError:  # no way there
            connected.close()
            return None
        return connected

    def _forget(self) -> None:
        _, flow = self._flows.popitem(last=False)
        self._context.loop.end(flow.socket)
        self._context.loop.turn(self._give)  # when it is closed

    def _give(self) -> None:
        self._context.room.give(1)

    def _look_later(self) -> None:
        self._looking = bool(self._flows)
        if self._looking:
            self._context.loop.after(_EXPIRY, self._look)

    def _look(self) -> None:
        """Forget those who were silent for too long."""
        while self._flows and next(iter(self._flows.values())).last + IDLE <= time.monotonic():
            self._forget()
        self._look_later()


def _send(connected: socket.socket, data: memoryview) -> None:
    """Send, although an earlier packet may have been refused: the kernel tells that instead of sending the next."""
    for _ in range(2):
        try:
            connected.send(data)
        except ConnectionRefusedError:
            continue
        except OSError:  # as a network may, lose it
            return
        return


def _bound(here: tuple[str, int]) -> socket.socket:
    family = socket.AF_INET6 if ":" in here[0] else socket.AF_INET
    bound = socket.socket(family, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK)
    try:
        if family == socket.AF_INET6:
            bound.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        if here[0] == "::":
            bound.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_RECVPKTINFO, 1)
        elif here[0] == "0.0.0.0":
            bound.setsockopt(socket.IPPROTO_IP, _IP_PKTINFO, 1)
        bound.bind(here)
    except OSError:
        bound.close()
        raise
    return bound


def _asked(control: list[tuple[int, int, bytes]]) -> Asked:
    for level, kind, data in control:
        if (level, kind) == (socket.IPPROTO_IP, _IP_PKTINFO):
            _, local, _ = _IN_PKTINFO.unpack_from(data)
            return level, kind, _IN_PKTINFO.pack(0, local, bytes(4))
        if (level, kind) == (socket.IPPROTO_IPV6, socket.IPV6_PKTINFO):
            local, link = _IN6_PKTINFO.unpack_from(data)
            return level, kind, _IN6_PKTINFO.pack(local, link if local[:2] == _LINK_LOCAL else 0)
    return None
