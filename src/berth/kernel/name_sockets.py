"""The sockets that names are asked for at, in whatever namespace."""

from __future__ import annotations

import os
import socket
import struct
from collections.abc import Mapping
from contextlib import suppress

from berth.errors import BerthError, NotFound, Refused
from berth.kernel import netns
from berth.state import HOST

_PORT = 53
_IP_FREEBIND, _IPV6_FREEBIND = 15, 78  # linux/in.h, linux/in6.h


def bound(ns: str, identity: str, address: str) -> tuple[socket.socket, socket.socket]:
    """A UDP and a TCP socket at port 53 of an address, made in a sandbox, or in the host.

    A socket stays in the namespace that it was made in, so the thread is there for a moment only. Raises what
    `netns.inside` raises, `NotFound` where another sandbox is at that path by now, and `Refused` for what the kernel
    does, as where somebody else listens there.
    """
    made: list[socket.socket] = []
    try:
        with netns.inside(ns):
            if ns != HOST and netns.who() != identity:
                raise NotFound(f"the sandbox at {ns} is another one by now: `berth reconcile` removes its endpoint")
            made += (_socket(kind, address) for kind in (socket.SOCK_DGRAM, socket.SOCK_STREAM))
        made[1].listen(64)
    except BaseException as error:
        for each in made:
            each.close()
        if isinstance(error, OSError) and not isinstance(error, BerthError):
            where = ns or "the host"
            raise Refused(f"cannot answer for names at {address} in {where}: {error.strerror}") from None
        raise
    return made[0], made[1]


def _socket(kind: socket.SocketKind, address: str) -> socket.socket:
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    made = socket.socket(family, kind | socket.SOCK_NONBLOCK | socket.SOCK_CLOEXEC)
    try:
        made.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1 if kind == socket.SOCK_STREAM else 0)
        if family == socket.AF_INET6:
            made.setsockopt(socket.IPPROTO_IPV6, _IPV6_FREEBIND, 1)
        else:
            made.setsockopt(socket.IPPROTO_IP, _IP_FREEBIND, 1)
        made.bind((address, _PORT))
    except BaseException:
        made.close()
        raise
    return made


def there(ns: str) -> tuple[int, int] | None:
    """What is at a sandbox's path: device and inode; None for nothing. The sockets keep their sandbox alive, not it."""
    with suppress(OSError):
        found = os.stat(ns)
        return found.st_dev, found.st_ino
    return None


def multicast(link: str, groups: Mapping[socket.AddressFamily, str], port: int) -> list[socket.socket]:
    """UDP sockets at a port of a link, members of a group there: one for each family that the host has.

    Others on the host may have that port too, such as avahi-daemon. Raises `Refused` where there is no such link.
    """
    made = []
    try:
        index = socket.if_nametoindex(link)
        for family, group in groups.items():
            each = socket.socket(family, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK | socket.SOCK_CLOEXEC)
            made.append(each)
            each.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            each.setsockopt(socket.SOL_SOCKET, socket.SO_BINDTODEVICE, link.encode())
            _join(each, group, index)
            each.bind(("", port))
    except OSError as error:
        for each in made:
            each.close()
        raise Refused(f"cannot answer for names on {link}: {error.strerror}") from None
    return made


def _join(each: socket.socket, group: str, index: int) -> None:
    """RFC 6762 section 11: a TTL of 255."""
    raw = socket.inet_pton(each.family, group)
    if each.family == socket.AF_INET:
        request = struct.pack("=4s4si", raw, bytes(4), index)
        each.setsockopt(socket.IPPROTO_IP, socket.IP_ADD_MEMBERSHIP, request)
        each.setsockopt(socket.IPPROTO_IP, socket.IP_MULTICAST_IF, request)
        each.setsockopt(socket.IPPROTO_IP, socket.IP_MULTICAST_TTL, 255)
        each.setsockopt(socket.IPPROTO_IP, socket.IP_TTL, 255)
    else:
        each.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        each.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_JOIN_GROUP, struct.pack("=16si", raw, index))
        each.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_MULTICAST_IF, index)
        each.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_MULTICAST_HOPS, 255)
        each.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_UNICAST_HOPS, 255)
