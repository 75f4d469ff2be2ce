"""One attach packed by hand: the kernel's own work with as few system calls as Python can make of it.

It shares no code with Berth. It knows beforehand what Berth has to find out (indexes, addresses, what the sandbox
holds), keeps its host sockets open, stores nothing, checks nothing, and makes the same objects: `compare` proves it.
"""

from __future__ import annotations

import os
import socket
import struct
from collections.abc import Sequence
from dataclasses import dataclass
from ipaddress import IPv4Interface

from attaching.spaces import inside, setns

_ROUTE, _NETFILTER, _SOL_NETLINK, _CAP_ACK, _EXT_ACK = 0, 12, 270, 10, 11
_NEWLINK, _DELLINK, _NEWADDR, _NEWROUTE = 16, 17, 20, 24
_NFT_BEGIN, _NFT_END, _NFT = 0x10, 0x11, 10 << 8
_NEWSETELEM, _DELSETELEM = 12, 14
_REQUEST, _ACK, _EXCL, _CREATE, _NESTED = 0x1, 0x4, 0x200, 0x400, 0x8000
_ERROR = 2
_INET = 1  # NFPROTO_INET

_HEADER = struct.Struct("=IHHII")
_ATTR = struct.Struct("=HH")
_LINK = struct.Struct("=BxHiII")
_U32 = struct.Struct("=I")

RETIRED = 77  # the link group of cables out of service


@dataclass(frozen=True, slots=True)
class Cable:
    """All that an attach has to know."""

    index: int  # of the outer end
    sandbox: str  # a namespace's path
    ifname: str
    address: IPv4Interface
    gateway: bytes = b""  # b"": no default route
    port: int = 0  # published on the host, to the endpoint's port 80; 0: none
    announced: bool = False  # the LAN is told who has the address now
    inner: int = 1000  # index of the inner end: honoured because the outer end's is given too

    @property
    def name(self) -> str:
        """The outer end's name, as long as Berth's."""
        return f"bv{self.index:012d}"

    @property
    def mac(self) -> bytes:
        """The inner end's address."""
        return b"\x02\0" + self.address.ip.packed

    @property
    def outer_mac(self) -> bytes:
        """The outer end's address."""
        return b"\x02\1" + self.address.ip.packed


def _attr(kind: int, data: bytes) -> bytes:
    return _ATTR.pack(len(data) + 4, kind) + data + b"\0" * (-len(data) & 3)


def _u32(kind: int, value: int) -> bytes:
    return _attr(kind, _U32.pack(value))


def _message(kind: int, flags: int, body: bytes) -> bytes:
    return _HEADER.pack(16 + len(body), kind, flags | _REQUEST | _ACK, 0, 0) + body


def _link(index: int, *, flags: int = 0, change: int = 0, attributes: bytes = b"") -> bytes:
    return _message(_NEWLINK, 0, _LINK.pack(0, 0, index, flags, change) + attributes)


def _socket(protocol: int) -> socket.socket:
    made = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW | socket.SOCK_CLOEXEC, protocol)
    made.setsockopt(_SOL_NETLINK, _CAP_ACK, 1)
    made.setsockopt(_SOL_NETLINK, _EXT_ACK, 1)
    return made


def _exchange(nl: socket.socket, requests: Sequence[bytes], answers: int = 0) -> None:
    """Send all in one datagram; take one acknowledgement for each. Raises the first refusal."""
    nl.send(b"".join(requests))
    left, refused = answers or len(requests), 0
    while left:
        data, offset = nl.recv(65536), 0
        while offset < len(data):
            length, kind, *_ = _HEADER.unpack_from(data, offset)
            if kind == _ERROR:
                left -= 1
                refused = refused or -struct.unpack_from("=i", data, offset + 16)[0]
            offset += length + 3 & ~3
    if refused:
        raise OSError(refused, os.strerror(refused))


def _pair(cable: Cable, master: int, mtu: int, ns_fd: int) -> list[bytes]:
    """The cable: outer end plugged in and up, inner end born in the sandbox.

    The alias, and that the outer end gets no link-local address, needs a second message.
    """
    name = _attr(3, cable.name.encode() + b"\0")
    peer = _LINK.pack(0, 0, cable.inner, 0, 0) + _attr(3, cable.ifname.encode() + b"\0") + _u32(4, mtu)
    peer += _attr(1, cable.mac) + _u32(28, ns_fd)
    info = _attr(1, b"veth") + _attr(2 | _NESTED, _attr(1 | _NESTED, peer))
    outer = name + _attr(1, cable.outer_mac) + _u32(4, mtu) + _u32(10, master)
    body = _LINK.pack(0, 0, cable.index, 1, 1) + outer + _attr(18 | _NESTED, info)
    alias = _attr(20, f"berth:{cable.index:064x}".encode())
    quiet = _attr(26 | _NESTED, _attr(10 | _NESTED, _attr(8, b"\1")))
    return [_message(_NEWLINK, _CREATE | _EXCL, body), _link(cable.index, attributes=alias + quiet)]


def _contents(cable: Cable) -> list[bytes]:
    """The sandbox's part: loopback and link up, address with broadcast, default route; on a LAN the announcement."""
    ip, length = cable.address.ip.packed, cable.address.network.prefixlen
    broadcast = cable.address.network.broadcast_address.packed
    address = struct.pack("=BBBBI", 2, length, 0, 0, cable.inner) + _attr(2, ip) + _attr(1, ip) + _attr(4, broadcast)
    requests = [
        _link(1, flags=1, change=1),
        _link(cable.inner, flags=1, change=1),
        _message(_NEWADDR, _CREATE | _EXCL, address),
    ]
    if cable.gateway:
        route = struct.pack("=BBBBBBBBI", 2, 0, 0, 0, 254, 4, 0, 1, 0) + _attr(5, cable.gateway) + _u32(4, cable.inner)
        requests.append(_message(_NEWROUTE, _CREATE | _EXCL, route))
    if cable.announced:
        requests.append(_link(cable.inner, attributes=_attr(1, cable.mac)))
    return requests


def _settings(cable: Cable) -> None:
    files = ["ipv6/conf/{}/disable_ipv6", *(["ipv4/conf/{}/arp_notify"] if cable.announced else [])]
    net = os.open("/proc/sys/net", os.O_PATH | os.O_CLOEXEC)
    for file in files:
        setting = os.open(file.format(cable.ifname), os.O_WRONLY, dir_fd=net)
        os.write(setting, b"1")
        os.close(setting)
    os.close(net)


def _port_batch(cable: Cable, kind: int, flags: int) -> list[bytes]:
    """One element of the map of published ports, in a transaction."""
    key = struct.pack(">BxxxHxx", 6, cable.port)
    data = cable.address.ip.packed + struct.pack(">Hxx", 80)
    element = _attr(1 | _NESTED, _attr(1, key)) + _attr(2 | _NESTED, _attr(1, data))
    body = struct.pack(">BBH", _INET, 0, 0) + _attr(1, b"berth\0") + _attr(2, b"anyport4\0")
    body += _attr(3 | _NESTED, _attr(1 | _NESTED, element))
    mark = struct.pack(">BBH", 0, 0, 10)
    begin = _HEADER.pack(20, _NFT_BEGIN, _REQUEST, 0, 0) + mark
    end = _HEADER.pack(20, _NFT_END, _REQUEST, 0, 0) + mark
    return [begin, _message(_NFT | kind, flags, body), end]


class HandBatch:
    """A host namespace to plug cables in by hand."""

    def __init__(self, host: int, home: int, bridge: str, mtu: int = 1500) -> None:
        """`host`: the namespace with the bridge; `home`: the one the thread is in."""
        self._home, self._mtu = home, mtu
        with inside(host, home):
            self._route, self._nft = _socket(_ROUTE), _socket(_NETFILTER)
            self._master = socket.if_nametoindex(bridge)

    def attach(self, cable: Cable) -> None:
        """One host batch, one visit of the sandbox, one nftables transaction if there is a port."""
        fd = os.open(cable.sandbox, os.O_RDONLY | os.O_CLOEXEC)
        try:
            _exchange(self._route, _pair(cable, self._master, self._mtu, fd))
            setns(fd)
            try:
                _settings(cable)
                with _socket(_ROUTE) as nl:
                    _exchange(nl, _contents(cable))
            finally:
                setns(self._home)
        finally:
            os.close(fd)
        if cable.port:
            _exchange(self._nft, _port_batch(cable, _NEWSETELEM, _CREATE | _EXCL), 1)

    def detach(self, cable: Cable) -> None:
        """Take the cable out of service: down, into the group to delete, and the inner end's name freed."""
        if cable.port:
            _exchange(self._nft, _port_batch(cable, _DELSETELEM, 0), 1)
        _exchange(self._route, [_link(cable.index, change=1, attributes=_u32(27, RETIRED))])
        fd = os.open(cable.sandbox, os.O_RDONLY | os.O_CLOEXEC)
        try:
            with inside(fd, self._home), _socket(_ROUTE) as nl:
                name = _attr(3, cable.name.encode() + b"\0")
                _exchange(nl, [_link(cable.inner, change=1), _link(cable.inner, attributes=name)])
        finally:
            os.close(fd)

    def sweep(self) -> None:
        """Delete all cables out of service by one message."""
        _exchange(self._route, [_message(_DELLINK, 0, _LINK.pack(0, 0, 0, 0, 0) + _u32(27, RETIRED))])

    def delete(self, cable: Cable) -> None:
        """Delete one cable by a message of its own."""
        _exchange(self._route, [_message(_DELLINK, 0, _LINK.pack(0, 0, cable.index, 0, 0))])
