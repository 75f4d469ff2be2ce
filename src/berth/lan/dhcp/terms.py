"""What the options of an OFFER or ACK mean: a lease (RFC 2132, 3397, 3442). Pure; senseless terms raise `Malformed`."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import replace
from functools import lru_cache
from ipaddress import IPv4Address, IPv4Interface, IPv4Network

from berth.lan.dhcp.messages import Malformed, Message, Option
from berth.model import Address, Lease, LeaseRequest, StaticRoute

FOREVER = 0xFFFF_FFFF
_SMALLEST_MTU, _LARGEST_MTU = 576, 65_535  # RFC 2132 5.1 allows 68; nobody means it
_REMEMBERED = 4096  # terms
_NOBODY = LeaseRequest("", "", "", b"")
_NAME = re.compile(r"(?!-)[A-Za-z0-9_-]{1,63}(?<!-)(\.(?!-)[A-Za-z0-9_-]{1,63}(?<!-))*", re.ASCII)


def lease(request: LeaseRequest, message: Message, acquired: float, mac: str = "") -> Lease:
    """The lease that a message offers or confirms; `acquired` in seconds since 1970, `mac` the message's sender's.

    What one needs to live (address, mask, server, lifetime) must be right, and is said why not by `Malformed`. Anything
    else that makes no sense is left out: a lease without DNS is better than none.
    """
    if message.server is None or not _is_host(message.server):
        raise Malformed("it does not say which server it is from")
    given = _given(message.yiaddr, tuple(message.options.items()))
    return replace(given, request=request, acquired=acquired, server_mac=mac)


@lru_cache(_REMEMBERED)
def _given(ip: Address, said: tuple[tuple[int, bytes], ...]) -> Lease:
    """What is given, whoever asked and whenever: a server that prolongs a lease says the same again."""
    options = dict(said)
    address = _address(ip, options.get(Option.MASK, b""))
    lifetime = _seconds(options, Option.LIFETIME)
    if not lifetime:
        raise Malformed(f"it gives {address.ip} for no time")
    routes = _routes(options.get(Option.ROUTES, b""))
    t1, t2 = _timers(options, lifetime)
    return Lease(
        _NOBODY,
        address,
        options[Option.SERVER],
        None if routes else _router(address, options),
        _addresses(options, Option.DNS),
        _domain(options.get(Option.DOMAIN, b"")),
        search_list(options.get(Option.SEARCH, b"")),
        _mtu(options.get(Option.MTU, b"")),
        routes,
        _addresses(options, Option.NTP),
        lifetime=lifetime,
        t1=t1,
        t2=t2,
    )


def _address(ip: Address, mask: bytes) -> IPv4Interface:
    if not isinstance(ip, IPv4Address) or not _is_host(ip):
        raise Malformed(f"it gives {ip}, which no machine can have")
    if len(mask) != 4:
        raise Malformed(f"it gives {ip} without a subnet mask")
    bits = f"{int.from_bytes(mask, 'big'):032b}"
    if "01" in bits or bits[0] == "0":
        raise Malformed(f"it gives {ip} with the mask {IPv4Address(mask)}")
    address = IPv4Interface((ip, bits.count("1")))
    if address.network.prefixlen < 31 and ip in (address.network.network_address, address.network.broadcast_address):
        raise Malformed(f"it gives {address}, which is the subnet's own address or its broadcast address")
    return address


def _router(address: IPv4Interface, options: dict[int, bytes]) -> IPv4Address | None:
    """The first router; one outside the subnet only where the subnet is a single address, as in clouds."""
    routers = _addresses(options, Option.ROUTER)
    if not routers:
        return None
    if address.network.prefixlen < 32 and routers[0] not in address.network:
        raise Malformed(f"it gives {address} with the router {routers[0]}, which is outside of that subnet")
    return routers[0] if routers[0] != address.ip else None


def _is_host(ip: IPv4Address) -> bool:
    return not (ip.is_multicast or ip.is_loopback or ip.is_reserved or int(ip) >> 24 == 0)


def _addresses(options: dict[int, bytes], code: Option) -> tuple[IPv4Address, ...]:
    data = options.get(code, b"")
    found = (IPv4Address(data[at : at + 4]) for at in range(0, len(data) - 3, 4))
    return tuple(dict.fromkeys(address for address in found if _is_host(address)))


def _seconds(options: dict[int, bytes], code: Option) -> int:
    data = options.get(code, b"")
    return int.from_bytes(data, "big") if len(data) == 4 else 0


def _timers(options: dict[int, bytes], lifetime: int) -> tuple[int, int]:
    """T1 and T2; the defaults of RFC 2131 4.4.5 where the server's are missing or in the wrong order."""
    t1, t2 = _seconds(options, Option.T1), _seconds(options, Option.T2)
    if 0 < t1 <= t2 <= lifetime:
        return t1, t2
    return lifetime // 2, lifetime * 7 // 8


def _mtu(data: bytes) -> int | None:
    mtu = int.from_bytes(data, "big") if len(data) == 2 else 0
    return mtu if _SMALLEST_MTU <= mtu <= _LARGEST_MTU else None


def _domain(data: bytes) -> str:
    """A name as text; "" for what is no name: it ends in a resolv.conf, where a line break would be a new line."""
    name = data.rstrip(b"\0").decode("ascii", "replace").rstrip(".")
    return name if len(name) <= 253 and _NAME.fullmatch(name) else ""


def _routes(data: bytes) -> tuple[StaticRoute, ...]:
    """Classless routes (RFC 3442); as many as are whole."""
    routes = []
    at = 0
    while at < len(data):
        width = data[at]
        end = at + 1 + (width + 7) // 8
        if width > 32 or end + 4 > len(data):
            break
        subnet = IPv4Network((data[at + 1 : end].ljust(4, b"\0"), width), strict=False)
        routes.append(StaticRoute(subnet, IPv4Address(data[end : end + 4])))
        at = end + 4
    return tuple(dict.fromkeys(routes))


def search_list(data: bytes) -> tuple[str, ...]:
    """Domains in the form of DNS, with its compression (RFC 3397, RFC 1035 4.1.4); as many as are right."""
    names: list[str] = []
    at = 0
    while at < len(data) and (read := _name_at(data, at)) is not None:
        labels, at = read
        if name := _domain(b".".join(labels)):
            names.append(name)
    return tuple(dict.fromkeys(names))


def _name_at(data: bytes, at: int) -> tuple[list[bytes], int] | None:
    """The labels of the name at a place, and the place behind it; None for nonsense. Pointers only lead back."""
    labels: list[bytes] = []
    end: int | None = None
    for kind, place, after in _steps(data, at):
        if kind == "pointer":
            end = after if end is None else end
        elif kind == "end":
            return labels, after if end is None else end
        else:
            labels.append(data[place:after])
    return None


def _steps(data: bytes, at: int) -> Iterator[tuple[str, int, int]]:
    """What stands where, following pointers; it stops at nonsense. Every pointer is before the last: no circles."""
    limit = at
    while at < len(data):
        length = data[at]
        if length == 0:
            yield "end", at, at + 1
            return
        if length >= 0xC0:
            target = int.from_bytes(data[at : at + 2], "big") & 0x3FFF
            if at + 2 > len(data) or target >= limit:
                return
            yield "pointer", at, at + 2
            limit = at = target
        elif length < 0x40 and at + 1 + length <= len(data):
            yield "label", at + 1, at + 1 + length
            at += 1 + length
        else:
            return
