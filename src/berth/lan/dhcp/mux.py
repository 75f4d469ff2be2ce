"""One packet socket on a LAN bridge for all the clients behind it.

The socket sees what comes up to the bridge itself: broadcasts, which is why clients ask for broadcast answers. There
are servers (Kea) that send even those to the client's MAC, which the bridge hands to its ports only; so the bridge is
promiscuous while an answer is awaited, and no longer: it costs every frame that crosses the bridge a copy.
"""

from __future__ import annotations

import asyncio
import contextlib
import ctypes
import errno
import os
import socket
import struct
from collections.abc import Callable

from berth.errors import BerthError, Denied, NotFound, Refused
from berth.lan.dhcp import frames
from berth.lan.dhcp.messages import Malformed, Message, decode

_SO_ATTACH_FILTER, _SO_RCVBUFFORCE = 26, 33  # asm-generic/socket.h
_ROOM = 4 << 20  # bytes of answers that may wait
_AT_ONCE = 64  # frames before the loop's other work has its turn
_LARGEST_FRAME = 2048
_SOL_PACKET, _JOIN, _LEAVE, _PROMISCUOUS = 263, 1, 2, 1  # linux/if_packet.h
_AWAIT = 5.0  # seconds that an answer may take
_ETH_P_IP = 0x0800
_GONE = (errno.ENXIO, errno.ENODEV)
# Classic BPF (Documentation/networking/filter.rst): IPv4, UDP, not a later fragment, to port 68 — else nothing.
_FILTER = (
    (0x28, 0, 0, 12),
    (0x15, 0, 8, 0x0800),
    (0x30, 0, 0, 23),
    (0x15, 0, 6, 17),
    (0x28, 0, 0, 20),
    (0x45, 4, 0, 0x1FFF),
    (0xB1, 0, 0, 14),
    (0x48, 0, 0, 16),
    (0x15, 0, 1, frames.CLIENT),
    (0x06, 0, 0, 0xFFFF),
    (0x06, 0, 0, 0),
)


class Mux:
    """The way in and out of one LAN; `heard` gets every reply and the MAC that it came from."""

    def __init__(self, dev: str, heard: Callable[[Message, str], None]) -> None:
        self._dev = dev
        self._heard = heard
        self._loop = asyncio.get_running_loop()
        self._socket = _open(dev)
        self._loop.add_reader(self._socket.fileno(), self._receive)
        self._awaits: asyncio.TimerHandle | None = None  # until then the bridge is promiscuous
        self._until = 0.0

    def send(self, datagram: frames.Datagram) -> None:
        """Send a frame. What there is no room for is lost like any other packet: the client sends it again.

        Raises `NotFound` (the bridge is gone), `Denied` and `Refused` (it is down).
        """
        frame = frames.encode(datagram)
        self._await()
        try:
            self._try(frame)
        except OSError as error:
            if error.errno not in _GONE:
                raise _told(self._dev, error) from None
            self._reopen()  # made anew under the same name
            with contextlib.suppress(OSError):
                self._try(frame)

    def close(self) -> None:
        """Hear and say no more."""
        if self._awaits is not None:
            self._awaits.cancel()
        self._loop.remove_reader(self._socket.fileno())
        self._socket.close()

    def _await(self) -> None:
        self._until = self._loop.time() + _AWAIT
        if self._awaits is None:
            self._promiscuous(_JOIN)
            self._awaits = self._loop.call_at(self._until, self._leave)

    def _leave(self) -> None:
        if self._until > self._loop.time():  # more was sent since
            self._awaits = self._loop.call_at(self._until, self._leave)
            return
        self._awaits = None
        self._promiscuous(_LEAVE)

    def _promiscuous(self, how: int) -> None:
        with contextlib.suppress(OSError):  # the link is gone, which sending tells
            index = socket.if_nametoindex(self._dev)
            self._socket.setsockopt(_SOL_PACKET, how, struct.pack("iHH8x", index, _PROMISCUOUS, 0))

    def _try(self, frame: bytes) -> None:
        with contextlib.suppress(BlockingIOError):
            self._socket.send(frame)

    def _reopen(self) -> None:
        fresh = _open(self._dev)
        self.close()
        self._socket, self._awaits = fresh, None
        self._loop.add_reader(fresh.fileno(), self._receive)
        self._await()

    def _receive(self) -> None:
        for _ in range(_AT_ONCE):
            try:
                frame = self._socket.recv(_LARGEST_FRAME)
            except OSError:  # nothing more, or the bridge went down
                return
            try:
                datagram = frames.decode(frame)
                message = decode(datagram.payload)
            except Malformed:
                continue
            if message.reply:
                self._heard(message, datagram.src_mac)


def _open(dev: str) -> socket.socket:
    """A socket that hears only replies: the filter is there before it hears anything."""
    try:
        made = socket.socket(socket.AF_PACKET, socket.SOCK_RAW | socket.SOCK_NONBLOCK | socket.SOCK_CLOEXEC, 0)
    except OSError as error:
        raise _told(dev, error) from None
    code = ctypes.create_string_buffer(b"".join(struct.pack("=HBBI", *line) for line in _FILTER))
    try:
        made.setsockopt(socket.SOL_SOCKET, _SO_ATTACH_FILTER, struct.pack("HL", len(_FILTER), ctypes.addressof(code)))
        with contextlib.suppress(PermissionError):
            made.setsockopt(socket.SOL_SOCKET, _SO_RCVBUFFORCE, _ROOM)
        made.bind((dev, _ETH_P_IP))
    except OSError as error:
        made.close()
        raise _told(dev, error) from None
    return made


def _told(dev: str, error: OSError) -> BerthError:
    if error.errno in _GONE:
        return NotFound(f"no link {dev} to ask for DHCP leases through: see `ip link`")
    if isinstance(error, PermissionError):
        return Denied(f"may not send DHCP messages on {dev}: CAP_NET_RAW is needed, run as root")
    return Refused(f"{dev} sends no DHCP messages: {os.strerror(error.errno or 0)}; is it up?")
