"""rtnetlink for overlays: tunnels, their forwarding entries and neighbours, written and read.

Sources: rtnetlink(7); include/uapi/linux/{if_link,neighbour}.h; drivers/net/vxlan/vxlan_core.c.
"""

from __future__ import annotations

import errno
import socket
import struct
from collections.abc import Iterator

from berth.kernel import rtnl
from berth.kernel.netlink import CREATE, EXCL, REPLACE, Message, Netlink, Refusal, attr, attrs, nest, number
from berth.kernel.netlink import text as text_attr
from berth.kernel.netlink import u32 as u32_attr
from berth.overlaid import Fdb, Neigh, Vxlan
from berth.plan import Add, Change, Del, Op

_IFLA_ADDRESS, _IFLA_IFNAME, _IFLA_MTU, _IFLA_MASTER, _IFLA_LINKINFO, _IFLA_IFALIAS = 1, 3, 4, 10, 18, 20
_INFO_KIND, _INFO_DATA, _INFO_SLAVE_KIND, _INFO_SLAVE_DATA = 1, 2, 4, 5
_ID, _LINK, _LOCAL, _LEARNING, _PROXY, _PORT, _LOCAL6 = 1, 3, 4, 7, 11, 15, 17
_BRPORT_LEARNING, _BRPORT_UNICAST_FLOOD = 8, 9
_NO_ADDRESS = 1  # IN6_ADDR_GEN_MODE_NONE: a tunnel speaks for nobody, and keeps IPv6 for its neighbours' sake
_NDA_IFINDEX, _NDA_MASTER = 8, 9
_PERMANENT, _NOARP, _SELF, _MASTER = 0x80, 0x40, 0x02, 0x04
_STATIC = _NOARP  # the state of an entry that a bridge neither learnt nor ages
_BE16 = struct.Struct(">H")
_IFINFO = rtnl.IFINFO


# --- tunnels --------------------------------------------------------------------------------------------


def encode_vxlan(nl: Netlink, op: Op) -> Iterator[Message]:
    """The messages of an operation on a tunnel."""
    match op:
        case Add(new=Vxlan() as new):
            yield from _add(nl, new)
        case Change(old=old, new=Vxlan() as new):
            if new.remakes(old):
                yield rtnl.delete_link(new.name)
                yield from _add(nl, new)
            else:
                more = attr(_IFLA_ADDRESS, rtnl.mac_bytes(new.mac)) + u32_attr(_IFLA_MTU, new.mtu)
                master = u32_attr(_IFLA_MASTER, rtnl.index(nl, new.master))
                yield rtnl.set_link(new.name, attributes=master + more)
                yield from _finish(new)
        case Del(old=Vxlan() as old):
            yield rtnl.delete_link(old.name)


def _add(nl: Netlink, new: Vxlan) -> Iterator[Message]:
    """Made down: it has its carrier at once, and would give itself a link-local address."""
    data = u32_attr(_ID, new.vni) + attr(_PORT, _BE16.pack(new.port))
    data += attr(_LEARNING, b"\0") + attr(_PROXY, b"\1")
    data += attr(_LOCAL6 if ":" in new.local else _LOCAL, rtnl.packed(new.local))
    if new.link:
        data += u32_attr(_LINK, rtnl.index(nl, new.link))
    body = (
        _IFINFO.pack(0, 0, 0, 0, 0)
        + text_attr(_IFLA_IFNAME, new.name)
        + attr(_IFLA_ADDRESS, rtnl.mac_bytes(new.mac))
        + u32_attr(_IFLA_MTU, new.mtu)
        + u32_attr(_IFLA_MASTER, rtnl.index(nl, new.master))
        + nest(_IFLA_LINKINFO, attr(_INFO_KIND, b"vxlan") + nest(_INFO_DATA, data))
    )
    yield Message(rtnl.NEWLINK, CREATE | EXCL, body)
    yield from _finish(new)


def _finish(new: Vxlan) -> Iterator[Message]:
    """What a link takes only once it is there, and a port once it is one."""
    port = attr(_BRPORT_LEARNING, b"\0") + attr(_BRPORT_UNICAST_FLOOD, b"\0")
    info = nest(_IFLA_LINKINFO, attr(_INFO_SLAVE_KIND, b"bridge") + nest(_INFO_SLAVE_DATA, port))
    alias = attr(_IFLA_IFALIAS, new.alias.encode())
    yield rtnl.set_link(new.name, attributes=alias + rtnl.address_mode(_NO_ADDRESS) + info)
    yield rtnl.set_link(new.name, up=True)


def read_vxlan(nl: Netlink, link: rtnl.Link, master: str) -> Vxlan:
    """A link of that kind as a noun. One that is down, learns or floods has an MTU of 0, which differs from any."""
    found = attrs(nl.ask(rtnl.GETLINK, _IFINFO.pack(0, 0, link.index, 0, 0)), _IFINFO.size)
    info = attrs(found.get(_IFLA_LINKINFO, b""))
    data, port = attrs(info.get(_INFO_DATA, b"")), attrs(info.get(_INFO_SLAVE_DATA, b""))
    quiet = not any(part[:1] == b"\1" for part in (data.get(_LEARNING, b""), *map(port.get, _FLOODS, (b"", b""))))
    local = data.get(_LOCAL) or data.get(_LOCAL6) or bytes(4)
    return Vxlan(
        name=link.name,
        master=master,
        vni=number(data.get(_ID, b"")),
        local=socket.inet_ntop(socket.AF_INET if len(local) == 4 else socket.AF_INET6, local),
        port=_BE16.unpack(data.get(_PORT, b"\0\0"))[0],
        mac=link.mac,
        mtu=link.mtu if link.up and quiet and data.get(_PROXY, b"\0") == b"\1" else 0,
        alias=link.alias,
        link=rtnl.name_of(number(data[_LINK])) if _LINK in data else "",
    )


_FLOODS = (_BRPORT_LEARNING, _BRPORT_UNICAST_FLOOD)


# --- what a tunnel knows --------------------------------------------------------------------------------


def encode_entry(nl: Netlink, op: Op) -> Iterator[Message]:
    """The message of an operation on an entry. One that is there under the key is replaced, whoever made it."""
    match op:
        case Add(new=Fdb() | Neigh() as new) | Change(new=Fdb() | Neigh() as new):
            yield Message(rtnl.NEWNEIGH, CREATE | REPLACE, _entry(nl, new))
        case Del(old=Fdb() | Neigh() as old):
            yield Message(rtnl.DELNEIGH, 0, _entry(nl, old))


def _entry(nl: Netlink, entry: Fdb | Neigh) -> bytes:
    index = rtnl.index(nl, entry.dev)
    if isinstance(entry, Neigh):
        return rtnl.neighbour(index, entry.ip, _PERMANENT, mac=rtnl.mac_bytes(entry.mac))
    mac = attr(rtnl.NDA_LLADDR, rtnl.mac_bytes(entry.mac))
    if not entry.own:
        return rtnl.NDMSG.pack(socket.AF_BRIDGE, index, _STATIC, _MASTER, 0) + mac
    head = rtnl.NDMSG.pack(socket.AF_BRIDGE, index, _PERMANENT, _SELF, 0)
    via = u32_attr(_NDA_IFINDEX, rtnl.index(nl, entry.via)) if entry.via else b""
    return head + mac + attr(rtnl.NDA_DST, rtnl.packed(entry.dst)) + via


def read_entries(nl: Netlink, devs: set[str]) -> Iterator[Fdb | Neigh]:
    """All entries of the tunnels of those names that somebody has put there; one that is gone has none."""
    index = {number_of: dev for dev in devs if (number_of := nl.index(dev)) is not None}
    for number_of, dev in index.items():
        yield from _forwarding(nl, number_of, dev)
    if index:
        for family in (socket.AF_INET, socket.AF_INET6):
            yield from _neighbours(nl, family, index)


def _forwarding(nl: Netlink, index: int, dev: str) -> Iterator[Fdb]:
    """A kernel that does not know the filter tells of all links."""
    try:
        told = nl.dump(rtnl.GETNEIGH, rtnl.NDMSG.pack(socket.AF_BRIDGE, index, 0, 0, 0))
    except Refusal as refusal:
        if refusal.errno in (errno.ENODEV, errno.ENOENT):
            return  # it went while it was read
        raise
    for data in told:
        _, link, state, flags, _ = rtnl.NDMSG.unpack_from(data)
        found = attrs(data, rtnl.NDMSG.size)
        mac = found.get(rtnl.NDA_LLADDR, b"").hex(":")
        if link != index or not mac:
            continue
        if flags & _SELF:
            if state & _PERMANENT and (dst := found.get(rtnl.NDA_DST)):
                via = number(found.get(_NDA_IFINDEX, b""))
                yield Fdb(dev, mac, _address(dst), via=rtnl.name_of(via) if via else "")
        elif _NDA_MASTER in found and state & _STATIC:
            yield Fdb.of_bridge(dev, mac)


def _neighbours(nl: Netlink, family: int, index: dict[int, str]) -> Iterator[Neigh]:
    for data in nl.dump(rtnl.GETNEIGH, rtnl.NDMSG.pack(family, 0, 0, 0, 0)):
        _, link, state, _, _ = rtnl.NDMSG.unpack_from(data)
        found = attrs(data, rtnl.NDMSG.size)
        dst, mac = found.get(rtnl.NDA_DST), found.get(rtnl.NDA_LLADDR)
        if link in index and state & _PERMANENT and dst and mac:
            yield Neigh(index[link], _address(dst), mac.hex(":"))


def _address(packed: bytes) -> str:
    return socket.inet_ntop(socket.AF_INET if len(packed) == 4 else socket.AF_INET6, packed)
