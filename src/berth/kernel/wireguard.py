"""WireGuard devices and their peers, written and read: the kernel's own, else wireguard-go's."""

from __future__ import annotations

import errno
import socket
import time
from collections.abc import Iterable, Iterator
from contextlib import suppress
from typing import Protocol

from berth import durable
from berth.errors import NotFound, Taken
from berth.kernel import rtnl, sysctl, wireguard_go, wireguard_nl
from berth.kernel.netlink import CREATE, EXCL, Message, Netlink, attr, nest
from berth.kernel.netlink import text as text_attr
from berth.kernel.netlink import u32 as u32_attr
from berth.kernel.wireguard_told import Peer, Told
from berth.plan import Add, Change, Del, Op
from berth.sealed import SEAL_MARK, SEALS, WireGuard, WireGuardPeer
from berth.state import HOST, Sysctl

_IFLA_IFNAME, _IFLA_MTU, _IFLA_LINKINFO, _IFLA_IFALIAS, _INFO_KIND = 3, 4, 18, 20, 1
_NO_ADDRESS = 1  # IN6_ADDR_GEN_MODE_NONE
_OPEN = 3.0  # seconds
_DISCARD = 9  # UDP; nobody listens, and nobody has to
_IN_KERNEL = "wireguard"


class _Work(Protocol):
    """Who carries a WireGuard out; each of its modules is one."""

    def told(self, name: str) -> Told: ...
    def set_device(self, name: str, private: str, port: int) -> None: ...
    def set_peer(self, name: str, peer: Peer) -> None: ...
    def remove_peer(self, name: str, public: str) -> None: ...


def _at_work(link: rtnl.Link) -> _Work:
    return wireguard_nl if link.kind == _IN_KERNEL else wireguard_go


def read_device(link: rtnl.Link) -> WireGuard:
    """A link of ours as a noun. One that is down or without IPv6 has an MTU of 0, which differs from any."""
    told = _at_work(link).told(link.name)
    return WireGuard(
        link.name,
        told.public,
        told.port,
        link.mtu if link.up and sysctl.read(_no_ipv6(link.name)) == "0" else 0,
        link.alias.removeprefix(SEAL_MARK),
    )


def read_peers(nl: Netlink, devs: Iterable[str]) -> Iterator[WireGuardPeer]:
    """All peers of those of the links that are ours."""
    for dev in sorted(devs):
        link = rtnl.link(nl, dev)
        if link is not None and link.kind in SEALS and link.alias.startswith(SEAL_MARK):
            for peer in _at_work(link).told(dev).peers:
                alone = peer.allowed[0].removesuffix("/128") if len(peer.allowed) == 1 else ""
                yield WireGuardPeer(dev, peer.public, peer.endpoint, alone)


def send_device(nl: Netlink, op: Op) -> None:
    """Carry out an operation on a device. Raises `BerthError`, `OSError`."""
    match op:
        case Add(new=WireGuard() as new):
            link = _made(nl, new)
            _configure(nl, link, new)
        case Change(new=WireGuard() as new):
            there = rtnl.link(nl, new.name)
            if there is None:
                raise NotFound(f"no link {new.name}: `berth reconcile` makes it")
            if there.kind != _IN_KERNEL and not wireguard_go.answers(new.name):
                wireguard_go.start(new.name)
            _configure(nl, there, new)
        case Del(old=WireGuard() as gone):
            _one(nl, rtnl.delete_link(gone.name), errno.ENODEV)


def _made(nl: Netlink, new: WireGuard) -> rtnl.Link:
    """A new device: the kernel's where it has any."""
    name = new.name
    kind = nest(_IFLA_LINKINFO, attr(_INFO_KIND, _IN_KERNEL.encode()))
    body = rtnl.IFINFO.pack(0, 0, 0, 0, 0) + text_attr(_IFLA_IFNAME, name) + kind
    refused = nl.batch([Message(rtnl.NEWLINK, CREATE | EXCL, body)])
    if refused and refused[0].errno != errno.EOPNOTSUPP:
        raise refused[0]
    if refused:
        if not _free(new.port):  # wireguard-go would not say so
            raise _port_taken(new.port)
        wireguard_go.make(name)
    link = rtnl.link(nl, name)
    if link is None:
        raise NotFound(f"no link {name}: something has removed it at once")
    # Marked before anything can fail, so that whoever recovers knows it for Berth's.
    _one(nl, rtnl.set_link(name, attributes=attr(_IFLA_IFALIAS, SEAL_MARK.encode())))
    if refused:
        wireguard_go.start(name)
    return link


def _configure(nl: Netlink, link: rtnl.Link, new: WireGuard) -> None:
    """The key first: by its answer wireguard-go is at work, and sets no MTU of its own any more."""
    found = durable.read(new.key_file)
    if found is None:
        raise NotFound(f"no key in {new.key_file}: start `berth daemon`, which makes one")
    private = found[0].strip()
    # Where it is off for new links: a tunnel asks for it.
    for _, error in sysctl.write([Sysctl(HOST, _no_ipv6(new.name), "0")]):
        raise error
    more = u32_attr(_IFLA_MTU, new.mtu) + attr(_IFLA_IFALIAS, new.alias.encode()) + rtnl.address_mode(_NO_ADDRESS)
    try:
        _at_work(link).set_device(new.name, private, new.port)
        _one(nl, rtnl.set_link(new.name, attributes=more))
        _one(nl, rtnl.set_link(new.name, up=True))
    except OSError as error:
        if error.errno != errno.EADDRINUSE:
            raise
        raise _port_taken(new.port) from None
    if link.kind != _IN_KERNEL:
        _await_open(new.port)


def _await_open(port: int) -> None:
    """Give wireguard-go time to notice that its tap is up: a hand held out before is held out again after 5 s only."""
    end = time.monotonic() + _OPEN
    while _free(port) and time.monotonic() < end:
        time.sleep(0.01)


def _no_ipv6(name: str) -> str:
    return f"net.ipv6.conf.{name}.disable_ipv6"


def _free(port: int) -> bool:
    """Whether nobody has a UDP port."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as trial:
        try:
            trial.bind(("", port))
        except OSError as error:
            if error.errno == errno.EADDRINUSE:
                return False
            raise
    return True


def _port_taken(port: int) -> Taken:
    return Taken(f"UDP port {port} is taken: stop who listens there, or set BERTH_WIREGUARD_PORT to another")


def _one(nl: Netlink, message: Message, *fine: int) -> None:
    for refusal in nl.batch([message]):
        if refusal.errno not in fine:
            raise refusal


def send_peer(nl: Netlink, op: Op) -> None:
    """Carry out an operation on a peer. A device that is gone took it along. Raises `NotFound`, `OSError`."""
    match op:
        case Add(new=WireGuardPeer() as new) | Change(new=WireGuardPeer() as new):
            link = rtnl.link(nl, new.dev)
            if link is None:
                raise NotFound(f"no link {new.dev}: `berth reconcile` makes it")
            _at_work(link).set_peer(new.dev, Peer(new.public, new.endpoint, [f"{new.address}/128"]))
            _greet(link, new.address)
        case Del(old=WireGuardPeer() as old):
            link = rtnl.link(nl, old.dev)
            with suppress(FileNotFoundError, ConnectionRefusedError):  # nobody at work knows nobody
                if link is not None:
                    _at_work(link).remove_peer(old.dev, old.public)


def _greet(link: rtnl.Link, address: str) -> None:
    """Have the two shake hands now: what was begun in vain with a key before is tried again only after 5 s."""
    with suppress(OSError), socket.socket(socket.AF_INET6, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK) as voice:
        voice.sendto(b"", (address, _DISCARD, 0, link.index))
