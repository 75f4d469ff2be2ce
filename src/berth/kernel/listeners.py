"""Who listens on the host's own ports: a published port would take the packets away from them."""

from __future__ import annotations

import errno
import os
import socket
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv6Address
from pathlib import Path

from berth.firewall import proxy
from berth.model import Address, PortMapping

_KINDS = {"tcp": socket.SOCK_STREAM, "udp": socket.SOCK_DGRAM}
_WAITING = {"tcp": "0A", "udp": "07"}  # TCP_LISTEN, and a UDP socket without a peer (net/tcp_states.h)
_ANY: tuple[Address, ...] = (IPv4Address(0), IPv6Address(0))
_LOCALHOST = IPv4Address("127.0.0.1")


@dataclass(frozen=True, slots=True)
class _Listener:
    address: Address
    inode: str


@dataclass(frozen=True, slots=True)
class _Owner:
    words: str
    proxy: bool


def listener(wanted: PortMapping) -> str | None:
    """Who listens where a published port's packets arrive, in words; None for nobody.

    A port of every address is one of 127.0.0.1 as well, but of no other loopback address.
    """
    if wanted.proto not in _KINDS or _can_be_bound(wanted):
        return None
    for each in _listeners(wanted):
        if not _meets(wanted.host_ip, each.address):
            continue
        owner = _process(each.inode)
        if owner is None and each not in _listeners(wanted):
            continue  # closed while its owner was looked for
        # Berth's own proxy waits where it was told to, and is late by a moment in hearing that it no longer has to.
        if owner is None or not owner.proxy:
            return "another process" if owner is None else owner.words
    return None


def listening(proto: str) -> frozenset[int]:
    """The ports that anybody at all waits on: for those who want to know of very many."""
    return frozenset(port for _, port, _ in _waiting(proto)) if proto in _KINDS else frozenset()


def _can_be_bound(wanted: PortMapping) -> bool:
    """Whether nobody has the port at all: the cheap question, which nearly always suffices."""
    for address in _ANY if wanted.host_ip is None else (wanted.host_ip,):
        family = socket.AF_INET if address.version == 4 else socket.AF_INET6
        try:
            with socket.socket(family, _KINDS[wanted.proto]) as probe:
                if address.version == 6:
                    probe.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
                if wanted.proto == "tcp":  # connections that have just ended are in nobody's way
                    probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
                probe.bind((str(address), wanted.host_port))
        except OSError as error:
            if error.errno == errno.EADDRINUSE:
                return False
    return True


def _listeners(wanted: PortMapping) -> Iterator[_Listener]:
    """The sockets that wait on a port."""
    for address, port, inode in _waiting(wanted.proto):
        if port == wanted.host_port:
            yield _Listener(_address(address), inode)


def _waiting(proto: str) -> Iterator[tuple[str, int, str]]:
    """(address as the kernel prints it, port, inode) of all sockets that wait (proc(5), /proc/net/tcp)."""
    for name in (proto, f"{proto}6"):
        with suppress(OSError):
            for line in Path("/proc/thread-self/net", name).read_text().splitlines()[1:]:
                fields = line.split()
                if fields[3] == _WAITING[proto]:
                    address, _, port = fields[1].partition(":")
                    yield address, int(port, 16), fields[9]


def _address(text: str) -> Address:
    """An address as the kernel prints it: 32 bits at a time, each in the host's byte order."""
    words = [int(text[at : at + 8], 16).to_bytes(4, "little") for at in range(0, len(text), 8)]
    if len(words) == 1:
        return IPv4Address(words[0])
    address = IPv6Address(b"".join(words))
    return address.ipv4_mapped or address


def _meets(wanted: Address | None, there: Address) -> bool:
    if there.is_loopback and there != _LOCALHOST:
        return wanted == there
    if there == _ANY[1]:  # takes IPv4 as well, unless it says otherwise, which cannot be read
        return True
    if wanted is None or wanted.is_unspecified or there.is_unspecified:
        return wanted is None or wanted.version == there.version
    return wanted == there


def _process(inode: str) -> _Owner | None:
    """The process that has a socket; None where none can be found."""
    for process in Path("/proc").glob("[0-9]*"):
        with suppress(OSError):  # it has ended, or is not ours to look into
            if f"socket:[{inode}]" in _open_files(process):
                comm = (process / "comm").read_text().strip()
                ours = comm == proxy.NAME and process.stat().st_uid == os.geteuid()
                return _Owner(f"{comm} (pid {process.name})", ours)
    return None


def _open_files(process: Path) -> Iterator[str]:
    for fd in (process / "fd").iterdir():
        with suppress(OSError):  # closed meanwhile
            yield os.readlink(fd)
