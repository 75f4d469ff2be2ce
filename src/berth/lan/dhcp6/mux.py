"""One UDP socket on a LAN bridge for all the DHCPv6 clients behind it.

A client of DHCPv6 is its DUID, not its address: the bridge itself asks, from its link-local address, and is answered.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import socket
from collections.abc import Callable
from pathlib import Path

from berth.errors import BerthError, Denied, NotFound, Refused, Taken
from berth.lan.dhcp.frames import Datagram
from berth.lan.dhcp.messages import Malformed, Message
from berth.lan.dhcp6.messages import decode

_CLIENT, _SERVER = 546, 547
_SERVERS = "ff02::1:2"  # All_DHCP_Relay_Agents_and_Servers
_AT_ONCE = 64
_LARGEST = 2048
_TENTATIVE = 0x40


class Mux6:
    """The way in and out of one LAN; `heard` gets every reply. Raises `NotFound`, `Refused`, `Taken` and `Denied`."""

    def __init__(self, dev: str, heard: Callable[[Message, str], None]) -> None:
        self._dev = dev
        self._heard = heard
        self._loop = asyncio.get_running_loop()
        self._socket = _open(dev)
        self._index = socket.if_nametoindex(dev)
        self._loop.add_reader(self._socket.fileno(), self._receive)

    def send(self, datagram: Datagram) -> None:
        """Send to all servers. What there is no room for is lost like any other packet. Raises `Refused`."""
        try:
            with contextlib.suppress(BlockingIOError):
                self._socket.sendto(datagram.payload, (_SERVERS, _SERVER, 0, self._index))
        except OSError as error:
            raise Refused(f"{self._dev} sends no DHCPv6 messages: {os.strerror(error.errno or 0)}; is it up?") from None

    def close(self) -> None:
        """Hear and say no more."""
        self._loop.remove_reader(self._socket.fileno())
        self._socket.close()

    def _receive(self) -> None:
        for _ in range(_AT_ONCE):
            try:
                data, _ = self._socket.recvfrom(_LARGEST)
            except OSError:  # nothing more
                return
            with contextlib.suppress(Malformed):
                self._heard(decode(data), "")


def _open(dev: str) -> socket.socket:
    try:
        index = socket.if_nametoindex(dev)
    except OSError:
        raise NotFound(f"no link {dev} to ask for DHCPv6 leases through: see `ip link`") from None
    address = link_local(dev)
    made = socket.socket(socket.AF_INET6, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK | socket.SOCK_CLOEXEC)
    try:
        made.bind((address, _CLIENT, 0, index))
    except OSError as error:
        made.close()
        raise _told(dev, error) from None
    return made


def link_local(dev: str) -> str:
    """A link's own link-local address. Raises `Refused` where it has none that is in use."""
    for line in Path("/proc/thread-self/net/if_inet6").read_text().splitlines():
        digits, _, _, scope, flags, name = line.split()
        if name == dev and scope == "20" and not int(flags, 16) & _TENTATIVE:
            return socket.inet_ntop(socket.AF_INET6, bytes.fromhex(digits))
    raise Refused(f"{dev} has no IPv6 link-local address: is IPv6 off there (net.ipv6.conf.{dev}.disable_ipv6)?")


def _told(dev: str, error: OSError) -> BerthError:
    if isinstance(error, PermissionError):
        return Denied(f"may not use the DHCPv6 client's port {_CLIENT} on {dev}: run as root")
    return Taken(f"another DHCPv6 client has port {_CLIENT} on {dev} ({os.strerror(error.errno or 0)}): see `ss -lunp`")
