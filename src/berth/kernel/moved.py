"""rtnetlink for a move: addresses, routes, rules and neighbours of a link in full, read and written.

Sources: rtnetlink(7); include/uapi/linux/{if_addr,rtnetlink,fib_rules,neighbour}.h.
"""

from __future__ import annotations

import socket
import struct
import time
from collections.abc import Callable, Iterator
from ipaddress import ip_address, ip_network
from typing import TypeAlias

from msgspec.structs import replace

from berth.errors import Refused
from berth.kernel import rtnl
from berth.kernel.netlink import CREATE, EXCL, REPLACE, Attrs, Message, Netlink, attr, attrs, items, number, string
from berth.kernel.netlink import text as text_attr
from berth.kernel.netlink import u32 as u32_attr
from berth.moved import FOREVER, KERNEL, Hop, Moved, MovedAddr, MovedNeigh, MovedRoute, MovedRule, Port, Raw
from berth.ovs import DATAPATH
from berth.plan import Add, Change, Del, Op

_NEWRULE, _DELRULE, _GETRULE = 32, 33, 34

_RTNEXTHOP = struct.Struct("=HBBi")
_CACHEINFO, _ROUTE_CACHEINFO = struct.Struct("=IIII"), struct.Struct("=IIiIIIII")

_IFA_ADDRESS, _IFA_LOCAL, _IFA_LABEL, _IFA_BROADCAST, _IFA_CACHEINFO = 1, 2, 3, 4, 6
_IFA_FLAGS, _IFA_METRIC, _IFA_PROTO = 8, 9, 11
_SETTABLE = 0x02 | 0x10 | 0x100 | 0x200 | 0x400  # NODAD HOMEADDRESS MANAGETEMPADDR NOPREFIXROUTE MCAUTOJOIN
_NO_PREFIX_ROUTE = 0x200
_LOOKS = 200
_TENTATIVE = 0x40
_TEMPORARY = 0x01  # IPv6 privacy addresses; the same bit is IFA_F_SECONDARY in IPv4

_RTA_DST, _RTA_SRC, _RTA_OIF, _RTA_GATEWAY, _RTA_PRIORITY, _RTA_PREFSRC = 1, 2, 4, 5, 6, 7
_RTA_MULTIPATH, _RTA_CACHEINFO, _RTA_TABLE, _RTA_VIA, _RTA_PREF, _RTA_EXPIRES, _RTA_NH_ID = 9, 12, 15, 18, 20, 23, 30
_CARRIED = frozenset({8, 11, 19, 21, 22, 26})  # METRICS FLOW NEWDST ENCAP_TYPE ENCAP TTL_PROPAGATE
_ONLINK, _UNICAST, _LOCAL_TABLE = 4, 1, 255
_HZ = 100  # USER_HZ

_PERMANENT, _PROXY, _ROUTER = 0x80, 0x08, 0x80
_RULE_HEADER = 12
_FRA_IIF, _FRA_PRIORITY, _FRA_OIF, _FRA_PAD = 3, 6, 17, 18

Implied: TypeAlias = tuple[str, str, int]  # a link, a subnet, a metric


def read(nl: Netlink) -> Iterator[Moved]:
    """All that the host's links carry, but for what the kernel makes by itself for an address."""
    index = {link.index: link.name for link in rtnl.links(nl)}
    addresses = list(_addresses(nl, index))
    implied = {made for address in addresses for made in _implied(address)}
    yield from addresses
    yield from _routes(nl, index, implied)
    yield from _rules(nl)
    yield from _neighbours(nl, index)


def port(nl: Netlink, dev: str) -> Port | None:
    """Of which bridge of the kernel's a link is a port; None where there is no such link."""
    found = rtnl.link(nl, dev)
    if found is None:
        return None
    master = rtnl.name_of(found.master) if found.master else ""
    return Port(dev, "" if master == DATAPATH else master, found.address_mode)


def _set_port(nl: Netlink, wanted: Port) -> Message:
    """Plug a link in or out. In the same message, so that it never makes an address of its own as a port."""
    attributes = rtnl.address_mode(wanted.address_mode)
    now = port(nl, wanted.dev)
    if now is None or now.master != wanted.master:  # the kernel cannot free a link of Open vSwitch
        attributes = u32_attr(10, rtnl.index(nl, wanted.master) if wanted.master else 0) + attributes
    return rtnl.set_link(wanted.dev, attributes=attributes)


def await_bridge(nl: Netlink, port: Port) -> None:
    """Wait a moment until the bridge of a port that has a carrier takes packets.

    What is sent before is lost, and if it is the question for a neighbour, that is asked again only a second later.
    """
    link = rtnl.link(nl, port.dev)
    if link is not None and link.carrier:
        _await(lambda: rtnl.is_operational(nl, port.master))


def _await(true: Callable[[], bool]) -> None:
    """Wait, a moment at most, for what the kernel sees to in another thread."""
    for _ in range(_LOOKS):
        if true():
            return
        time.sleep(0.001)


# --- addresses ------------------------------------------------------------------------------------------


def _addresses(nl: Netlink, index: dict[int, str]) -> Iterator[MovedAddr]:
    for place, data in enumerate(nl.dump(rtnl.GETADDR, rtnl.IFADDR.pack(0, 0, 0, 0, 0))):
        if len(data) < rtnl.IFADDR.size:
            continue
        family, length, flags, scope, link = rtnl.IFADDR.unpack_from(data)
        dev = index.get(link)
        if dev is not None:
            found = attrs(data, rtnl.IFADDR.size)
            flags = number(found.get(_IFA_FLAGS, b""), flags)
            if not (family == socket.AF_INET6 and flags & _TEMPORARY):  # the kernel makes others from its parent
                yield _address(found, length, flags, scope, dev, place)


def await_addresses(nl: Netlink, devices: set[str]) -> None:
    """Wait a moment until the IPv6 addresses of the links may be used."""
    _await(lambda: not _tentative(nl, devices))


def _tentative(nl: Netlink, devices: set[str]) -> bool:
    """Whether an address of the links may not be used yet, since the kernel still asks whether it is unique."""
    index = {nl.index(name) for name in devices}
    for data in nl.dump(rtnl.GETADDR, rtnl.IFADDR.pack(socket.AF_INET6, 0, 0, 0, 0)):
        if rtnl.IFADDR.unpack_from(data)[4] in index and rtnl.IFADDR.unpack_from(data)[2] & _TENTATIVE:
            return True
    return False


def _address(found: Attrs, length: int, flags: int, scope: int, dev: str, place: int) -> MovedAddr:
    far = found[_IFA_ADDRESS]
    near = found.get(_IFA_LOCAL, far)
    info = found.get(_IFA_CACHEINFO, b"")
    preferred, valid, _, _ = _CACHEINFO.unpack(info) if len(info) == _CACHEINFO.size else (FOREVER, FOREVER, 0, 0)
    return MovedAddr(
        dev=dev,
        ip=f"{ip_address(near)}/{length}",
        peer="" if far == near else str(ip_address(far)),
        broadcast=str(ip_address(found[_IFA_BROADCAST])) if _IFA_BROADCAST in found else "",
        label=string(found.get(_IFA_LABEL, b"")),
        scope=scope,
        flags=flags & _SETTABLE,
        metric=number(found.get(_IFA_METRIC, b"")),
        protocol=found.get(_IFA_PROTO, b"\0")[0],
        valid=valid,
        preferred=preferred,
        place=place,
    )


def _addr_body(nl: Netlink, addr: MovedAddr) -> bytes:
    near, _, length = addr.ip.partition("/")
    family = rtnl.family_of(near)
    local = rtnl.packed(near)
    flags = u32_attr(_IFA_FLAGS, addr.flags)
    body = rtnl.IFADDR.pack(family, int(length), addr.flags & 0xFF, addr.scope, rtnl.index(nl, addr.dev))
    body += attr(_IFA_LOCAL, local) + attr(_IFA_ADDRESS, rtnl.packed(addr.peer) if addr.peer else local) + flags
    if addr.broadcast:
        body += attr(_IFA_BROADCAST, rtnl.packed(addr.broadcast))
    if addr.label:
        body += text_attr(_IFA_LABEL, addr.label)
    if addr.metric:
        body += u32_attr(_IFA_METRIC, addr.metric)
    if addr.protocol:
        body += attr(_IFA_PROTO, bytes([addr.protocol]))
    if addr.valid != FOREVER:
        body += attr(_IFA_CACHEINFO, _CACHEINFO.pack(addr.preferred, addr.valid, 0, 0))
    return body


# --- routes ---------------------------------------------------------------------------------------------


def _implied(address: MovedAddr) -> Iterator[Implied]:
    """The routes to its subnet and to its peer that the kernel makes for an address, unless it is told not to."""
    if address.flags & _NO_PREFIX_ROUTE:
        return
    near, _, length = address.ip.partition("/")
    for ip in (near, address.peer or near):
        subnet = ip_network(f"{ip}/{length}", strict=False)
        yield address.dev, str(subnet), address.metric or (256 if subnet.version == 6 else 0)


def _routes(nl: Netlink, index: dict[int, str], implied: set[Implied]) -> Iterator[MovedRoute]:
    for data in nl.dump(rtnl.GETROUTE, rtnl.RTMSG.pack(0, 0, 0, 0, 0, 0, 0, 0, 0)):
        if len(data) < rtnl.RTMSG.size:
            continue
        _, _, _, _, table, protocol, _, kind, _ = rtnl.RTMSG.unpack_from(data)
        found = attrs(data, rtnl.RTMSG.size)
        table = number(found.get(_RTA_TABLE, b""), table)
        if kind != _UNICAST or table == _LOCAL_TABLE:
            continue
        hops = tuple(_hops(found.get(_RTA_MULTIPATH, b""), index))
        dev = hops[0].dev if hops else index.get(number(found.get(_RTA_OIF, b"")), "")
        if not dev or _RTA_NH_ID in found:
            continue
        route = _route(data, found, table, dev, hops)
        made = protocol == KERNEL and (dev, route.dst, route.metric) in implied
        if made and not (route.family == socket.AF_INET6 and route.expires):
            continue  # it goes with its address; but one that expires outlives it
        yield from _apart(route) if route.family == socket.AF_INET6 else (route,)


def _apart(route: MovedRoute) -> Iterator[MovedRoute]:
    """IPv6 routes of one metric to one destination are told as one, but are added and deleted one by one."""
    if not route.hops:
        yield route
    for hop in route.hops:
        alone = (hop,) if hop.weight else ()
        yield replace(route, dev=hop.dev, via=hop.via, flags=hop.flags, hops=alone)


def _route(data: bytes, found: Attrs, table: int, dev: str, hops: tuple[Hop, ...]) -> MovedRoute:
    family, dst_length, src_length, tos, _, protocol, scope, _, flags = rtnl.RTMSG.unpack_from(data)
    size = 4 if family == socket.AF_INET else 16
    via = found.get(_RTA_GATEWAY) or found.get(_RTA_VIA, b"")[2:]
    info = found.get(_RTA_CACHEINFO, b"")
    ticks = _ROUTE_CACHEINFO.unpack(info)[2] if len(info) == _ROUTE_CACHEINFO.size else 0
    return MovedRoute(
        family=family,
        dst=str(ip_network((found.get(_RTA_DST, bytes(size)), dst_length), strict=False)),
        dev=dev,
        via=str(ip_address(via)) if via and not hops else "",
        table=table,
        metric=number(found.get(_RTA_PRIORITY, b"")),
        source=str(ip_address(found[_RTA_PREFSRC])) if _RTA_PREFSRC in found else "",
        src=str(ip_network((found[_RTA_SRC], src_length), strict=False)) if _RTA_SRC in found else "",
        protocol=protocol,
        scope=scope,
        tos=tos,
        flags=flags & _ONLINK if not hops else 0,
        preference=found.get(_RTA_PREF, b"\0")[0],
        expires=max(ticks // _HZ, 1) if ticks > 0 else 0,
        hops=hops,
        attributes=_raw(found, _CARRIED),
    )


def _hops(data: bytes, index: dict[int, str]) -> Iterator[Hop]:
    """The next hops of a route."""
    offset = 0
    while offset + _RTNEXTHOP.size <= len(data):
        length, flags, weight, link = _RTNEXTHOP.unpack_from(data, offset)
        if length < _RTNEXTHOP.size or offset + length > len(data):
            return
        found = dict(items(data[offset + _RTNEXTHOP.size : offset + length]))
        via = found.pop(_RTA_GATEWAY, None) or found.pop(_RTA_VIA, b"")[2:]
        raw = tuple((kind, value.hex()) for kind, value in sorted(found.items()))
        yield Hop(index.get(link, ""), flags & _ONLINK, weight, str(ip_address(via)) if via else "", raw)
        offset += length + 3 & ~3


def _route_body(nl: Netlink, route: MovedRoute, *, whole: bool) -> bytes:
    dst, _, dst_length = route.dst.partition("/")
    src, _, src_length = route.src.partition("/")
    head = (route.family, int(dst_length), int(src_length or 0), route.tos, 0, route.protocol, route.scope, _UNICAST)
    body = rtnl.RTMSG.pack(*head, route.flags) + u32_attr(_RTA_TABLE, route.table)
    if int(dst_length):
        body += attr(_RTA_DST, rtnl.packed(dst))
    if src:
        body += attr(_RTA_SRC, rtnl.packed(src))
    if route.metric:
        body += u32_attr(_RTA_PRIORITY, route.metric)
    if route.hops:
        body += attr(_RTA_MULTIPATH, b"".join(_hop(nl, hop, route.family) for hop in route.hops))
    else:
        body += u32_attr(_RTA_OIF, rtnl.index(nl, route.dev)) + _gateway(route.via, route.family)
    if whole:
        body += attr(_RTA_PREFSRC, rtnl.packed(route.source)) if route.source else b""
        body += attr(_RTA_PREF, bytes([route.preference])) if route.preference else b""
        body += u32_attr(_RTA_EXPIRES, route.expires) if route.expires else b""
        body += b"".join(attr(kind, bytes.fromhex(value)) for kind, value in route.attributes)
    return body


def _gateway(via: str, family: int) -> bytes:
    if not via:
        return b""
    if rtnl.family_of(via) != family:  # RFC 8950
        return attr(_RTA_VIA, struct.pack("=H", rtnl.family_of(via)) + rtnl.packed(via))
    return attr(_RTA_GATEWAY, rtnl.packed(via))


def _hop(nl: Netlink, hop: Hop, family: int) -> bytes:
    inside = _gateway(hop.via, family) + b"".join(attr(kind, bytes.fromhex(value)) for kind, value in hop.attributes)
    return _RTNEXTHOP.pack(_RTNEXTHOP.size + len(inside), hop.flags, hop.weight, rtnl.index(nl, hop.dev)) + inside


# --- rules and neighbours -------------------------------------------------------------------------------


def _rules(nl: Netlink) -> Iterator[MovedRule]:
    for family in (socket.AF_INET, socket.AF_INET6):
        for data in nl.dump(_GETRULE, bytes([family]) + bytes(_RULE_HEADER - 1)):
            found = attrs(data, _RULE_HEADER)
            iif, oif = string(found.pop(_FRA_IIF, b"")), string(found.pop(_FRA_OIF, b""))
            if not (iif or oif):
                continue
            priority = number(found.pop(_FRA_PRIORITY, b""))
            header = data[: _RULE_HEADER - 4] + bytes(4)  # its flags say whether the links are there
            yield MovedRule(family, header.hex(), priority, iif, oif, _raw(found, frozenset(found) - {_FRA_PAD}))


def _rule_body(rule: MovedRule) -> bytes:
    body = bytes.fromhex(rule.header) + u32_attr(_FRA_PRIORITY, rule.priority)
    body += text_attr(_FRA_IIF, rule.iif) if rule.iif else b""
    body += text_attr(_FRA_OIF, rule.oif) if rule.oif else b""
    return body + b"".join(attr(kind, bytes.fromhex(value)) for kind, value in rule.attributes)


def _neighbours(nl: Netlink, index: dict[int, str]) -> Iterator[MovedNeigh]:
    for proxy in (0, _PROXY):
        for data in nl.dump(rtnl.GETNEIGH, rtnl.NDMSG.pack(0, 0, 0, proxy, 0)):
            family, link, state, flags, _ = rtnl.NDMSG.unpack_from(data)
            found = attrs(data, rtnl.NDMSG.size)
            if link not in index or family not in (socket.AF_INET, socket.AF_INET6) or rtnl.NDA_DST not in found:
                continue
            if proxy or state & _PERMANENT:
                ip = str(ip_address(found[rtnl.NDA_DST]))
                mac = "" if proxy else found.get(rtnl.NDA_LLADDR, b"").hex(":")
                yield MovedNeigh(index[link], ip, mac, bool(flags & _ROUTER))


def _neigh_body(nl: Netlink, neigh: MovedNeigh) -> bytes:
    flags = (_ROUTER if neigh.router else 0) | (0 if neigh.mac else _PROXY)
    state = _PERMANENT if neigh.mac else 0
    return rtnl.neighbour(rtnl.index(nl, neigh.dev), neigh.ip, state, flags, rtnl.mac_bytes(neigh.mac))


# --- messages -------------------------------------------------------------------------------------------


def encode(nl: Netlink, op: Op) -> Iterator[Message]:
    """The messages by which an operation on what is carried, or on a port, is carried out."""
    match op:
        case Add(new=Port() as port) | Change(new=Port() as port):
            yield _set_port(nl, port)
        case Change(old=MovedRoute(family=socket.AF_INET6) as old, new=MovedRoute() as new):
            yield from (_delete(nl, old), _add(nl, new))
        case Add(new=noun) | Change(new=noun) if isinstance(noun, Moved):
            yield _add(nl, noun, replace=isinstance(op, Change))
        case Del(old=noun) if isinstance(noun, Moved):
            yield _delete(nl, noun)
        case _:
            raise Refused(f"Berth cannot do this: {op}")


def _add(nl: Netlink, noun: Moved, *, replace: bool = False) -> Message:
    """The message that makes what is carried, or with `replace` gives it other attributes."""
    fresh = CREATE | (REPLACE if replace else EXCL)
    match noun:
        case MovedAddr():
            # Not EXCL: the kernel may have made the link-local one by itself a moment ago.
            return Message(rtnl.NEWADDR, CREATE | REPLACE, _addr_body(nl, noun))
        case MovedRoute():
            # IPv6: EXCL would refuse a second next hop of the same metric, although the first one is about to go, and
            # REPLACE would replace any of that metric, be it through another link.
            flags = CREATE if noun.family == socket.AF_INET6 else fresh
            return Message(rtnl.NEWROUTE, flags, _route_body(nl, noun, whole=True))
        case MovedRule():
            return Message(_NEWRULE, CREATE | EXCL, _rule_body(noun))
        case MovedNeigh():
            return Message(rtnl.NEWNEIGH, CREATE | REPLACE, _neigh_body(nl, noun))


def _delete(nl: Netlink, noun: Moved) -> Message:
    """The message that removes what is carried."""
    match noun:
        case MovedAddr():
            return Message(rtnl.DELADDR, 0, _addr_body(nl, noun))
        case MovedRoute():
            return Message(rtnl.DELROUTE, 0, _route_body(nl, noun, whole=False))
        case MovedRule():
            return Message(_DELRULE, 0, _rule_body(noun))
        case MovedNeigh():
            return Message(rtnl.DELNEIGH, 0, _neigh_body(nl, noun))


def _raw(found: Attrs, kinds: frozenset[int]) -> Raw:
    return tuple((kind, value.hex()) for kind, value in sorted(found.items()) if kind in kinds)
