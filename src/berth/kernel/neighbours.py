"""Asking the LAN through the kernel: does a neighbour answer, and is there a router.

Sources: rtnetlink(7), linux/neighbour.h; RFC 4861 section 4.1 for the solicitation.
"""

from __future__ import annotations

import errno
import socket
import struct
import time
from collections.abc import Iterator
from contextlib import suppress
from ipaddress import ip_address

from berth.errors import Denied, Refused
from berth.kernel import rtnl
from berth.kernel.netlink import CREATE, EXCL, REPLACE, ROUTE, Message, Netlink, Refusal, attrs
from berth.model import Neighbour

_REACHABLE, _STALE, _PROBE, _FAILED, _PERMANENT = 0x02, 0x04, 0x10, 0x20, 0x80
_KNOWN = _REACHABLE | _STALE | 0x08 | _PROBE | _PERMANENT  # with those that have been silent for a while
_ROUTER = 0x80  # NTF_ROUTER
_USE = 0x01  # NTF_USE: resolve it, as if there were a packet to send
_POLL = 0.01  # seconds
_ROUTERS = "ff02::2"
_SOLICITATION = 133


def answers(dev: str, ip: str, within: float) -> bool:
    """Whether a neighbour answers ARP or neighbour discovery on a link, asked now.

    `within`: seconds. Raises `Denied`.
    """
    until = time.monotonic() + within
    with Netlink(ROUTE) as nl:
        index = nl.index(dev)
        if index is None:
            return False
        _ask(nl, index, ip)
        while True:
            state, _ = _entry(nl, index, ip)
            if state & (_REACHABLE | _PERMANENT):
                return True
            if time.monotonic() >= until:
                return False
            if state & _FAILED or not state:
                _ask(nl, index, ip)
            time.sleep(_POLL)


def _ask(nl: Netlink, index: int, ip: str) -> None:
    """Have the kernel ask: one whose MAC is known is probed at it, another looked for."""
    _, mac = _entry(nl, index, ip)
    state, flags = (_PROBE, 0) if mac else (0, _USE)
    body = rtnl.neighbour(index, ip, state, flags, mac)
    for refusal in nl.batch([Message(rtnl.NEWNEIGH, CREATE | REPLACE, body)]):
        if refusal.errno == errno.EPERM:
            raise Denied(f"may not ask for {ip}: run as root (CAP_NET_ADMIN)")


def _entry(nl: Netlink, index: int, ip: str) -> tuple[int, bytes]:
    """(NUD_* state, MAC) of a neighbour; (0, b"") of one the kernel does not know."""
    try:
        answer = nl.ask(rtnl.GETNEIGH, rtnl.neighbour(index, ip, 0))
    except Refusal:
        return 0, b""
    state = rtnl.NDMSG.unpack_from(answer)[2]
    return state, attrs(answer, rtnl.NDMSG.size).get(rtnl.NDA_LLADDR, b"") if not state & _FAILED else b""


def known() -> tuple[Neighbour, ...]:
    """The machines that the kernel knows a MAC of, without asking anybody. Raises `Refused`."""
    with Netlink(ROUTE) as nl:
        try:
            return tuple(_entries(nl))
        except Refusal as refusal:
            raise Refused(f"cannot read the host's neighbours: {refusal.strerror}") from None


def _entries(nl: Netlink) -> Iterator[Neighbour]:
    names = {link.index: link.name for link in rtnl.links(nl)}
    for data in nl.dump(rtnl.GETNEIGH, rtnl.NDMSG.pack(0, 0, 0, 0, 0)):
        family, link, state, flags, _ = rtnl.NDMSG.unpack_from(data)
        found = attrs(data, rtnl.NDMSG.size)
        mac = found.get(rtnl.NDA_LLADDR, b"")
        if family in (socket.AF_INET, socket.AF_INET6) and state & _KNOWN and len(mac) == 6 and link in names:
            address = ip_address(found[rtnl.NDA_DST])
            yield Neighbour(address, mac.hex(":"), names[link], router=bool(flags & _ROUTER))


def acquaint(source: str, target: str) -> None:
    """Let a link know the neighbours of another, as not heard of for a while: it uses them and asks later.

    Whom it knows already it knows better. A link that is not there has no neighbours, and learns of none. Whom it is
    not told of, the kernel asks for.
    """
    with suppress(Refusal), Netlink(ROUTE) as nl:
        index = nl.index(target)
        if index is None:
            return
        entries = [_known_to(index, entry) for entry in _entries(nl) if entry.dev == source]
        nl.batch([Message(rtnl.NEWNEIGH, CREATE | EXCL, body) for body in entries])


def _known_to(index: int, entry: Neighbour) -> bytes:
    flags = _ROUTER if entry.router else 0
    return rtnl.neighbour(index, str(entry.address), _STALE, flags, rtnl.mac_bytes(entry.mac))


def solicit(dev: str) -> None:
    """Ask the routers of a link to advertise themselves now; the kernel hears the answer."""
    try:
        with socket.socket(socket.AF_INET6, socket.SOCK_RAW, socket.IPPROTO_ICMPV6) as raw:
            index = socket.if_nametoindex(dev)
            raw.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_MULTICAST_IF, index)
            raw.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_MULTICAST_HOPS, 255)
            raw.sendto(struct.pack("!BBHI", _SOLICITATION, 0, 0, 0), (_ROUTERS, 0, 0, index))
    except OSError as error:
        if error.errno not in (errno.EADDRNOTAVAIL, errno.ENODEV, errno.ENETUNREACH, errno.EAFNOSUPPORT):
            raise
