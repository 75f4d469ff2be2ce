"""Addresses from router advertisements (RFC 4861, 4862, 7217, 8106): ask a link, read the answer, make an address."""

from __future__ import annotations

import hashlib
import socket
import struct
from collections.abc import Iterator
from dataclasses import dataclass
from ipaddress import IPv6Address, IPv6Interface, IPv6Network

from berth.errors import Denied, NotFound, Refused
from berth.lan.dhcp.messages import Malformed
from berth.lan.dhcp.terms import search_list

_SOLICIT, _ADVERTISE = 133, 134  # ICMPv6 types
_ALL_ROUTERS = "ff02::2"
_HOPS = 255  # what has passed a router has fewer: RFC 4861 6.1.2
_ICMP6_FILTER = 1
_PREFIX, _MTU, _RDNSS, _DNSSL = 3, 5, 25, 31
_ON_LINK, _AUTONOMOUS = 0x80, 0x40
_MANAGED, _OTHER = 0x80, 0x40
_PREFERENCE = {0x08: 1, 0x18: -1}  # RFC 4191 section 2.1; the rest is medium
_SMALLEST_MTU = 1280
_LARGEST = 2048


@dataclass(frozen=True, slots=True)
class Prefix:
    """A prefix of the link; times in seconds, 0xFFFFFFFF for ever."""

    subnet: IPv6Network
    on_link: bool
    autonomous: bool  # addresses may be made from it
    preferred: int
    valid: int


@dataclass(frozen=True, slots=True)
class Advertised:
    """What one router says of its link."""

    router: IPv6Address  # link-local
    lifetime: int  # seconds that it may be a default router; 0: it is none
    managed: bool  # addresses by DHCPv6
    other: bool  # the rest by DHCPv6
    prefixes: tuple[Prefix, ...] = ()
    mtu: int | None = None
    dns: tuple[IPv6Address, ...] = ()
    search: tuple[str, ...] = ()
    preference: int = 0  # among default routers: 1 high, 0 medium, -1 low
    dns_lifetime: int = 0  # seconds that `dns` and `search` may be used


def decode(data: bytes, router: IPv6Address) -> Advertised:
    """A router advertisement, from its ICMPv6 type on; raises `Malformed`."""
    if len(data) < 16 or data[0] != _ADVERTISE or data[1] != 0 or not router.is_link_local:
        raise Malformed("no router advertisement")
    flags, lifetime = struct.unpack_from("!BH", data, 5)
    options = tuple(_options(data[16:]))
    mtu = next((int.from_bytes(body[2:6], "big") for code, body in options if code == _MTU and len(body) >= 6), 0)
    return Advertised(
        router,
        lifetime,
        bool(flags & _MANAGED),
        bool(flags & _OTHER),
        tuple(_prefix(body) for code, body in options if code == _PREFIX and len(body) >= 30 and body[0] <= 128),
        mtu if mtu >= _SMALLEST_MTU else None,
        tuple(dict.fromkeys(server for code, body in options if code == _RDNSS for server in _servers(body))),
        tuple(dict.fromkeys(name for code, body in options if code == _DNSSL for name in _names(body))),
        _PREFERENCE.get(flags & 0x18, 0),
        max((int.from_bytes(body[2:6], "big") for code, body in options if code in (_RDNSS, _DNSSL)), default=0),
    )


def slaac_address(prefix: IPv6Network, identity: str) -> IPv6Interface:
    """The address that an identity has in a prefix of 64 bits, whatever its MAC (RFC 7217).

    `Refused` for a prefix of another length (RFC 4862 5.5.3).
    """
    if prefix.prefixlen != 64:
        raise Refused(f"no address can be made from {prefix}: SLAAC needs a prefix of 64 bits")
    begin = prefix.network_address.packed[:8]
    return IPv6Interface((begin + hashlib.sha256(begin + identity.encode()).digest()[:8], 64))


def solicit(raw: socket.socket, dev: str) -> None:
    """Ask the routers of a link for their advertisements. Raises `OSError` where it has no address yet, or is gone."""
    raw.sendto(bytes((_SOLICIT,)) + bytes(7), (_ALL_ROUTERS, 0, 0, socket.if_nametoindex(dev)))


def received(raw: socket.socket) -> Advertised | None:
    """The advertisement that has come; None for anything else, however broken. Raises `OSError` for nothing more."""
    data, extra, _, sender = raw.recvmsg(_LARGEST, socket.CMSG_SPACE(4))
    hops = next((int.from_bytes(value, "little") for _, kind, value in extra if kind == socket.IPV6_HOPLIMIT), 0)
    try:
        said = decode(data, IPv6Address(sender[0].partition("%")[0]))
    except Malformed:
        return None
    return said if hops == _HOPS else None


def opened(dev: str) -> socket.socket:
    """A socket that hears the advertisements of a link and nothing else. Raises `NotFound` and `Denied`."""
    try:
        index = socket.if_nametoindex(dev)
        made = socket.socket(
            socket.AF_INET6, socket.SOCK_RAW | socket.SOCK_NONBLOCK | socket.SOCK_CLOEXEC, socket.IPPROTO_ICMPV6
        )
    except PermissionError:
        raise Denied(f"may not ask for routers on {dev}: CAP_NET_RAW is needed, run as root") from None
    except OSError:
        raise NotFound(f"no link {dev} to ask for routers on: see `ip link`") from None
    passed = bytearray(b"\xff" * 32)  # a bit a type; what is set is kept out (RFC 3542 3.2)
    struct.pack_into("=I", passed, _ADVERTISE // 32 * 4, 0xFFFFFFFF & ~(1 << _ADVERTISE % 32))
    made.setsockopt(socket.IPPROTO_ICMPV6, _ICMP6_FILTER, bytes(passed))
    made.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_MULTICAST_HOPS, _HOPS)
    made.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_MULTICAST_IF, index)
    made.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_RECVHOPLIMIT, 1)
    made.setsockopt(socket.SOL_SOCKET, socket.SO_BINDTODEVICE, dev.encode())
    return made


def _options(data: bytes) -> Iterator[tuple[int, bytes]]:
    """Codes, and what comes behind code and length; lengths are in units of 8 bytes."""
    at = 0
    while at < len(data):
        size = data[at + 1] * 8 if at + 1 < len(data) else 0
        if not size or at + size > len(data):
            raise Malformed("an option is cut off")
        yield data[at], data[at + 2 : at + size]
        at += size


def _prefix(body: bytes) -> Prefix:
    length, flags, valid, preferred = struct.unpack_from("!BBII", body)
    subnet = IPv6Network((body[14:30], length), strict=False)
    return Prefix(subnet, bool(flags & _ON_LINK), bool(flags & _AUTONOMOUS), preferred, valid)


def _servers(body: bytes) -> Iterator[IPv6Address]:
    """The servers of an RDNSS option; none where its lifetime is 0, which takes them back."""
    if len(body) >= 6 and body[2:6] != bytes(4):
        for at in range(6, len(body) - 15, 16):
            yield IPv6Address(body[at : at + 16])


def _names(body: bytes) -> tuple[str, ...]:
    return search_list(body[6:]) if len(body) >= 6 and body[2:6] != bytes(4) else ()
