"""rtnetlink: encoders and decoders for the links, addresses and routes that Berth manages.

Sources: rtnetlink(7); include/uapi/linux/{rtnetlink,if_link,if_addr}.h.
"""

from __future__ import annotations

import socket
import struct
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from ipaddress import IPv4Interface, IPv6Interface, ip_address, ip_interface, ip_network

from berth.errors import NotFound
from berth.kernel.netlink import (
    CREATE,
    EXCL,
    REPLACE,
    Attrs,
    Message,
    Netlink,
    Refusal,
    attr,
    attrs,
    items,
    nest,
    number,
    string,
)
from berth.kernel.netlink import text as text_attr
from berth.kernel.netlink import u32 as u32_attr
from berth.state import MAIN_TABLE, Addr, Bridge, Route, Veth

NEWLINK, DELLINK, GETLINK = 16, 17, 18
NEWADDR, DELADDR, GETADDR = 20, 21, 22
NEWROUTE, DELROUTE, GETROUTE = 24, 25, 26
NEWNEIGH, DELNEIGH, GETNEIGH = 28, 29, 30
GETNSID = 90

#: Cables taken out of service wait in this link group ("BERT") for one common deletion: deleting a link alone
#: waits 16 ms for the kernel's RCU, deleting a group costs half a millisecond a link.
RETIRED = 0x42455254

_UP = 0x1
_LOWER_UP = 0x10000  # IFF_LOWER_UP
_IFLA_ADDRESS, _IFLA_IFNAME, _IFLA_MTU, _IFLA_LINK, _IFLA_MASTER = 1, 3, 4, 5, 10
_IFLA_LINKINFO, _IFLA_IFALIAS, _IFLA_AF_SPEC, _IFLA_GROUP, _IFLA_NET_NS_FD, _IFLA_LINK_NETNSID = 18, 20, 26, 27, 28, 37
_IFLA_OPERSTATE, _IFLA_PROMISCUITY = 16, 30
_IF_OPER_UP = b"\x06"
_INET6_ADDR_GEN_MODE, _NO_ADDRESS = 8, 1
_INFO_KIND, _INFO_DATA, _INFO_SLAVE_KIND, _INFO_SLAVE_DATA, _VETH_PEER = 1, 2, 4, 5, 1
_BRPORT_MODE, _BRPORT_ISOLATED = 4, 33  # the first is that of a hairpin
_BR_FORWARD_DELAY, _BR_STP_STATE = 1, 5
_IFA_ADDRESS, _IFA_LOCAL, _IFA_BROADCAST, _IFA_FLAGS = 1, 2, 4, 8
_NODAD = 0x02
_RTA_DST, _RTA_OIF, _RTA_GATEWAY, _RTA_PRIORITY, _RTA_MULTIPATH, _RTA_TABLE, _RTA_VIA = 1, 4, 5, 6, 9, 15, 18
_NETNSA_NSID, _NETNSA_FD = 1, 3

_PROTO_KERNEL, _PROTO_STATIC, _PROTO_RA = 2, 4, 9
_SCOPE_UNIVERSE, _SCOPE_LINK, _SCOPE_NOWHERE = 0, 253, 255
_UNICAST = 1

IFINFO = struct.Struct("=BxHiII")
IFADDR = struct.Struct("=BBBBI")
RTMSG = struct.Struct("=BBBBBBBBI")
NDMSG = struct.Struct("=BxxxiHBB")
NDA_DST, NDA_LLADDR = 1, 2


def mac_bytes(mac: str) -> bytes:
    """Six octets of 'aa:bb:cc:dd:ee:ff'."""
    return bytes.fromhex(mac.replace(":", ""))


def family_of(ip: str) -> int:
    """The address family of an address."""
    return socket.AF_INET6 if ":" in ip else socket.AF_INET


def packed(ip: str) -> bytes:
    """An address as the kernel has it."""
    return socket.inet_pton(family_of(ip), ip)


def neighbour(index: int, ip: str, state: int, flags: int = 0, mac: bytes = b"") -> bytes:
    """The body of a message about a neighbour on a link. `state`: NUD_*; `flags`: NTF_*; `mac`: b"" for none."""
    body = NDMSG.pack(family_of(ip), index, state, flags, 0) + attr(NDA_DST, packed(ip))
    return body + attr(NDA_LLADDR, mac) if mac else body


@cache
def _packed(ip: str) -> tuple[int, bytes, int]:
    """(family, address, prefix length) of 'address/length'."""
    address, _, length = ip.partition("/")
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    return family, socket.inet_pton(family, address), int(length)


def index(nl: Netlink, name: str) -> int:
    """The index of a link. Raises `NotFound`."""
    found = nl.index(name)
    if found is None:
        raise NotFound(f"no link {name}: see `ip link`")
    return found


def name_of(number_of: int) -> str:
    """The reverse of `index`; "" where there is no such link."""
    try:
        return socket.if_indextoname(number_of)
    except OSError:
        return ""


# --- encoders -------------------------------------------------------------------------------------------


def _ifinfo(index: int = 0, flags: int = 0, change: int = 0) -> bytes:
    return IFINFO.pack(0, 0, index, flags, change)


def set_link(name: str, *, up: bool | None = None, attributes: bytes = b"") -> Message:
    """Change a link found by name."""
    flags = _UP if up else 0
    change = 0 if up is None else _UP
    return Message(NEWLINK, 0, _ifinfo(0, flags, change) + text_attr(_IFLA_IFNAME, name) + attributes)


def address_mode(mode: int) -> bytes:
    """The attribute that says how a link makes its IPv6 link-local address (IN6_ADDR_GEN_MODE_*)."""
    return nest(_IFLA_AF_SPEC, nest(socket.AF_INET6, attr(_INET6_ADDR_GEN_MODE, bytes([mode]))))


def set_mac(name: str, mac: str) -> Message:
    """Give a link a MAC, be it the one it has."""
    return set_link(name, attributes=attr(_IFLA_ADDRESS, mac_bytes(mac)))


def add_bridge(bridge: Bridge) -> list[Message]:
    """Make a bridge. The alias is not taken at creation, so it is a second message.

    A bridge follows the smallest MTU of its ports unless its own was changed once: the second message does that.
    """
    body = (
        _ifinfo(0, _UP, _UP)
        + text_attr(_IFLA_IFNAME, bridge.name)
        + attr(_IFLA_ADDRESS, mac_bytes(bridge.mac))
        + u32_attr(_IFLA_MTU, bridge.first_mtu)
        + _bridge_data(u32_attr(_BR_FORWARD_DELAY, 0) + u32_attr(_BR_STP_STATE, 0))
    )
    second = attr(_IFLA_IFALIAS, bridge.alias.encode()) + u32_attr(_IFLA_MTU, bridge.mtu)
    return [Message(NEWLINK, CREATE | EXCL, body), set_link(bridge.name, attributes=second)]


def _bridge_data(data: bytes) -> bytes:
    return nest(_IFLA_LINKINFO, attr(_INFO_KIND, b"bridge") + nest(_INFO_DATA, data))


def _alias(name: str, alias: str) -> Message:
    return set_link(name, attributes=attr(_IFLA_IFALIAS, alias.encode()))


def change_bridge(bridge: Bridge) -> list[Message]:
    """Give a bridge of ours its attributes."""
    attributes = attr(_IFLA_ADDRESS, mac_bytes(bridge.mac)) + u32_attr(_IFLA_MTU, bridge.mtu)
    return [
        set_link(bridge.name, up=True, attributes=attributes),
        # One after the other: the kernel refuses a forward delay of 0 while STP is on.
        set_link(bridge.name, attributes=_bridge_data(u32_attr(_BR_STP_STATE, 0))),
        set_link(bridge.name, attributes=_bridge_data(u32_attr(_BR_FORWARD_DELAY, 0))),
        _alias(bridge.name, bridge.alias),
    ]


def add_veth(nl: Netlink, veth: Veth, ns_fd: int | None) -> list[Message]:
    """Make a cable: the outer end plugged in and up, the inner end born in the sandbox, down.

    The inner end cannot come up in this message: veth_open() wants the pair joined first.
    """
    peer = (
        _ifinfo()
        + text_attr(_IFLA_IFNAME, veth.inner)
        + u32_attr(_IFLA_MTU, veth.inner_mtu or veth.mtu)
        + attr(_IFLA_ADDRESS, mac_bytes(veth.mac))
        + (u32_attr(_IFLA_NET_NS_FD, ns_fd) if ns_fd is not None else b"")
    )
    info = attr(_INFO_KIND, b"veth") + nest(_INFO_DATA, nest(_VETH_PEER, peer))
    body = (
        _ifinfo(0, _UP, _UP)
        + text_attr(_IFLA_IFNAME, veth.name)
        + attr(_IFLA_ADDRESS, mac_bytes(veth.outer_mac))
        + u32_attr(_IFLA_MTU, veth.mtu)
        + (u32_attr(_IFLA_MASTER, index(nl, veth.master)) if veth.master else b"")
        + nest(_IFLA_LINKINFO, info)
    )
    # No link-local address on the outer end: as a port of a bridge it speaks for nobody. Its carrier is still off,
    # so the second message is in time.
    quiet = address_mode(_NO_ADDRESS)
    more = attr(_IFLA_IFALIAS, veth.alias.encode()) + quiet
    if veth.hairpin or veth.isolated:  # a port that is made in the same message would not take it
        more += _as_port(veth)
    return [Message(NEWLINK, CREATE | EXCL, body), set_link(veth.name, attributes=more)]


def _as_port(veth: Veth) -> bytes:
    """What the link is as a port of its bridge, which has to be one already."""
    port = attr(_BRPORT_MODE, bytes([veth.hairpin])) + attr(_BRPORT_ISOLATED, bytes([veth.isolated]))
    data = nest(_INFO_SLAVE_DATA, port)
    return nest(_IFLA_LINKINFO, attr(_INFO_SLAVE_KIND, b"bridge") + data)


def set_port(veth: Veth) -> Message:
    """Say only what the outer end is as a port of its bridge."""
    return set_link(veth.name, attributes=_as_port(veth))


def change_veth_outer(nl: Netlink, veth: Veth, *, plug: bool) -> list[Message]:
    """Give the outer end of a cable its attributes; with `plug`, its place too.

    A port of Open vSwitch's has a master of which the kernel cannot free it.
    """
    attributes = u32_attr(_IFLA_MTU, veth.mtu)
    if plug:
        attributes += u32_attr(_IFLA_MASTER, index(nl, veth.master) if veth.master else 0)
    second = attr(_IFLA_IFALIAS, veth.alias.encode()) + (_as_port(veth) if veth.master else b"")
    return [set_link(veth.name, up=True, attributes=attributes), set_link(veth.name, attributes=second)]


def change_veth_inner(veth: Veth) -> list[Message]:
    """Give the inner end of a cable its attributes; sent in its namespace."""
    attributes = u32_attr(_IFLA_MTU, veth.inner_mtu or veth.mtu) + attr(_IFLA_ADDRESS, mac_bytes(veth.mac))
    return [set_link(veth.inner, attributes=attributes)]


def retire_outer(name: str) -> Message:
    """Take a cable out of service: down (its neighbours are forgotten) and into the group to delete."""
    return set_link(name, up=False, attributes=u32_attr(_IFLA_GROUP, RETIRED))


def retire_inner(number_of: int, new_name: str) -> list[Message]:
    """Free the name of an inner end; sent in its namespace. A link is renamed only while it is down."""
    return [
        Message(NEWLINK, 0, _ifinfo(number_of, 0, _UP)),
        Message(NEWLINK, 0, _ifinfo(number_of) + text_attr(_IFLA_IFNAME, new_name)),
    ]


def delete_link(name: str) -> Message:
    """Delete a link at once."""
    return Message(DELLINK, 0, _ifinfo() + text_attr(_IFLA_IFNAME, name))


def delete_retired() -> Message:
    """Delete all links taken out of service."""
    return Message(DELLINK, 0, _ifinfo() + u32_attr(_IFLA_GROUP, RETIRED))


def _addr_body(nl: Netlink, addr: Addr) -> bytes:
    family, packed, length = _packed(addr.ip)
    flags = _NODAD if family == socket.AF_INET6 else 0
    body = IFADDR.pack(family, length, flags, 0, index(nl, addr.dev)) + attr(_IFA_LOCAL, packed)
    body += attr(_IFA_ADDRESS, packed)
    if family == socket.AF_INET and length < 31:  # a broadcast address, as ifupdown and Docker set it
        mask = (1 << 32 - length) - 1
        body += attr(_IFA_BROADCAST, (int.from_bytes(packed, "big") | mask).to_bytes(4, "big"))
    return body


def add_addr(nl: Netlink, addr: Addr) -> Message:
    """Put an address on a link."""
    return Message(NEWADDR, CREATE | EXCL, _addr_body(nl, addr))


def del_addr(nl: Netlink, addr: Addr) -> Message:
    """Take an address off a link."""
    return Message(DELADDR, 0, _addr_body(nl, addr))


def _route_body(nl: Netlink, route: Route, *, protocol: int, scope: int) -> bytes:
    family, packed, length = _packed(route.dst)
    body = RTMSG.pack(family, length, 0, 0, MAIN_TABLE, protocol, scope, _UNICAST, 0)
    if length:
        body += attr(_RTA_DST, packed)
    if route.via:
        body += attr(_RTA_GATEWAY, socket.inet_pton(family, route.via))
    if route.metric:
        body += u32_attr(_RTA_PRIORITY, route.metric)
    return body + u32_attr(_RTA_OIF, index(nl, route.dev))


def add_route(nl: Netlink, route: Route, *, replace: bool = False) -> Message:
    """Add a route, or with `replace` put it in the place of the one under its key."""
    scope = _SCOPE_LINK if not route.via and ":" not in route.dst else _SCOPE_UNIVERSE
    body = _route_body(nl, route, protocol=_PROTO_STATIC, scope=scope)
    return Message(NEWROUTE, CREATE | (REPLACE if replace else EXCL), body)


def del_route(nl: Netlink, route: Route) -> Message:
    """Remove a route."""
    return Message(DELROUTE, 0, _route_body(nl, route, protocol=0, scope=_SCOPE_NOWHERE))


# --- decoders -------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Link:
    """A link as the kernel tells it."""

    index: int
    name: str
    kind: str
    up: bool
    mtu: int
    mac: str
    master: int
    alias: str
    group: int
    peer: int  # the index of the other end; 0: none
    peer_nsid: int  # the id of the namespace of the other end; -1: this one
    fresh: bool  # a bridge with STP off and no forward delay; True for every other kind
    hairpin: bool  # a port of a bridge that sends back what came in by it
    address_mode: int  # how it makes its IPv6 link-local address (IN6_ADDR_GEN_MODE_*)
    isolated: bool  # as a port of a bridge
    carrier: bool  # up, and so is the other end
    stp: bool  # a bridge whose new ports wait before they forward


def _decode_link(data: bytes) -> Link | None:
    if len(data) < IFINFO.size:
        return None
    _, _, idx, flags, _ = IFINFO.unpack_from(data)
    found = attrs(data, IFINFO.size)
    info = attrs(found.get(_IFLA_LINKINFO, b""))
    kind = string(info.get(_INFO_KIND, b""))
    detail = attrs(info.get(_INFO_DATA, b"")) if kind == "bridge" else {}
    port = attrs(info.get(_INFO_SLAVE_DATA, b"")) if string(info.get(_INFO_SLAVE_KIND, b"")) == "bridge" else {}
    nsid = found.get(_IFLA_LINK_NETNSID)
    return Link(
        index=idx,
        name=string(found.get(_IFLA_IFNAME, b"")),
        kind=kind,
        up=bool(flags & _UP),
        mtu=number(found.get(_IFLA_MTU, b"")),
        mac=found.get(_IFLA_ADDRESS, b"").hex(":"),
        master=number(found.get(_IFLA_MASTER, b"")),
        alias=string(found.get(_IFLA_IFALIAS, b"")),
        group=number(found.get(_IFLA_GROUP, b"")),
        peer=number(found.get(_IFLA_LINK, b"")),
        peer_nsid=-1 if nsid is None else number(nsid),
        hairpin=bool(port.get(_BRPORT_MODE, b"\0")[0]),
        address_mode=attrs(attrs(found.get(_IFLA_AF_SPEC, b"")).get(socket.AF_INET6, b"")).get(
            _INET6_ADDR_GEN_MODE, b"\0"
        )[0],
        isolated=port.get(_BRPORT_ISOLATED, b"\0") != b"\0",
        fresh=not (number(detail.get(_BR_STP_STATE, b"")) or number(detail.get(_BR_FORWARD_DELAY, b""))),
        carrier=bool(flags & _LOWER_UP),
        stp=bool(number(detail.get(_BR_STP_STATE, b""))),
    )


def link(nl: Netlink, name: str) -> Link | None:
    """The link of that name; None where there is none."""
    try:
        return _decode_link(told(nl, name))
    except Refusal:
        return None


def told(nl: Netlink, name: str) -> bytes:
    """What the kernel tells of a link: struct ifinfomsg, then its attributes. Raises `Refusal` where there is none."""
    return nl.ask(GETLINK, _ifinfo() + text_attr(_IFLA_IFNAME, name))


def details(nl: Netlink, name: str) -> Attrs:
    """The attributes (IFLA_*) of a link; none of one that is not there."""
    try:
        return attrs(told(nl, name), IFINFO.size)
    except Refusal:
        return {}


def is_up(nl: Netlink, name: str) -> bool | None:
    """Whether a link is up; None where there is none."""
    flags = nl.flags(name)
    return None if flags is None else bool(flags & _UP)


def is_operational(nl: Netlink, name: str) -> bool:
    """Whether packets pass, as the kernel has it (RFC 2863's operational state); False where there is no such link.

    A bridge has a carrier as soon as one of its ports has, but drops what it is to send until it is operational.
    """
    return details(nl, name).get(_IFLA_OPERSTATE) == _IF_OPER_UP


def is_promiscuous(nl: Netlink, name: str) -> bool:
    """Whether a link takes in what is for others, as any port of a switch does; False where there is none."""
    return number(details(nl, name).get(_IFLA_PROMISCUITY, b"")) > 0


def links(nl: Netlink) -> Iterator[Link]:
    """All links of the namespace."""
    for data in nl.dump(GETLINK, _ifinfo()):
        decoded = _decode_link(data)
        if decoded is not None:
            yield decoded


_IFLA_EXT_MASK, _SKIP_STATISTICS = 29, 8  # RTEXT_FILTER_SKIP_STATS
_OF_ENDS = frozenset({_IFLA_IFNAME, _IFLA_ADDRESS, _IFLA_MTU})


@dataclass(frozen=True, slots=True)
class End:
    """What of a link its far end's namespace has to know."""

    name: str
    mac: str
    mtu: int  # bytes


def ends(nl: Netlink) -> dict[int, End]:
    """The links of the namespace by index, with little told of each: for those who look into a thousand."""
    found = {}
    for data in nl.dump(GETLINK, _ifinfo() + u32_attr(_IFLA_EXT_MASK, _SKIP_STATISTICS)):
        told: dict[int, bytes] = {}
        for kind, value in items(data, IFINFO.size):
            if kind in _OF_ENDS:
                told[kind] = value
                if len(told) == len(_OF_ENDS):  # the rest is most of it
                    break
        name, mac = string(told.get(_IFLA_IFNAME, b"")), told.get(_IFLA_ADDRESS, b"").hex(":")
        found[IFINFO.unpack_from(data)[2]] = End(name, mac, number(told.get(_IFLA_MTU, b"")))
    return found


def nsid(nl: Netlink, ns_fd: int) -> int:
    """The id by which this namespace knows another; -1 where it has none."""
    try:
        answer = nl.ask(GETNSID, b"\0\0\0\0" + u32_attr(_NETNSA_FD, ns_fd))
    except Refusal:
        return -1
    value = number(attrs(answer, 4).get(_NETNSA_NSID, b""), 0xFFFFFFFF)
    return -1 if value == 0xFFFFFFFF else value


def addresses(nl: Netlink) -> Iterator[tuple[int, IPv4Interface | IPv6Interface]]:
    """(link index, address) of every address of the namespace, of both families."""
    for data in nl.dump(GETADDR, IFADDR.pack(0, 0, 0, 0, 0)):
        if len(data) < IFADDR.size:
            continue
        _, length, _, _, idx = IFADDR.unpack_from(data)
        found = attrs(data, IFADDR.size)
        packed = found.get(_IFA_LOCAL) or found.get(_IFA_ADDRESS)
        if packed is not None and len(packed) in (4, 16) and length <= 8 * len(packed):
            yield idx, ip_interface((packed, length))


@dataclass(frozen=True, slots=True)
class RouteEntry:
    """A unicast route of the main table as the kernel tells it."""

    dst: str
    via: str
    index: int  # of the link; 0 for several next hops
    metric: int
    protocol: int

    @property
    def from_kernel(self) -> bool:
        """Made by the kernel itself, for an address."""
        return self.protocol == _PROTO_KERNEL

    @property
    def from_ra(self) -> bool:
        """Learnt from a router advertisement."""
        return self.protocol == _PROTO_RA


def routes(nl: Netlink) -> Iterator[RouteEntry]:
    """The unicast routes of the main table, of both families."""
    for data in nl.dump(GETROUTE, RTMSG.pack(socket.AF_UNSPEC, 0, 0, 0, MAIN_TABLE, 0, 0, 0, 0)):
        entry = _decode_route(data)
        if entry is not None:
            yield entry


def _decode_route(data: bytes) -> RouteEntry | None:
    if len(data) < RTMSG.size:
        return None
    family, length, _, _, table, protocol, _, kind, _ = RTMSG.unpack_from(data)
    found = attrs(data, RTMSG.size)
    if number(found.get(_RTA_TABLE, b""), table) != MAIN_TABLE or kind != _UNICAST:
        return None
    size = {socket.AF_INET: 4, socket.AF_INET6: 16}.get(family, 0)
    dst = found.get(_RTA_DST, bytes(size))
    # RTA_VIA is a router of the other family (RFC 8950), behind two octets that tell which.
    via = found.get(_RTA_GATEWAY) or found.get(_RTA_VIA, b"")[2:]
    if not size or len(dst) != size or len(via) not in (0, 4, 16) or length > 8 * size:
        return None
    return RouteEntry(
        dst=str(ip_network((dst, length), strict=False)),
        via=str(ip_address(via)) if via else "",
        index=0 if _RTA_MULTIPATH in found else number(found.get(_RTA_OIF, b"")),
        metric=number(found.get(_RTA_PRIORITY, b"")),
        protocol=protocol,
    )
