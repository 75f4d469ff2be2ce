"""Whether somebody hears what is sent to an address and port, asked of the kernel's socket diagnosis.

/proc/net/tcp walks the tables of all namespaces at each look, some milliseconds: with a thousand sandboxes that was
nine seconds. Sources: sock_diag(7), linux/inet_diag.h.
"""

from __future__ import annotations

import errno
import socket
import struct
from functools import cache
from ipaddress import IPv4Address

from berth.kernel.netlink import Netlink, Refusal
from berth.model import Address

_SOCK_DIAG = 4  # the protocol of the netlink socket
_BY_FAMILY = 20
_PROTOCOLS = {"tcp": (socket.IPPROTO_TCP, socket.SOCK_STREAM), "udp": (socket.IPPROTO_UDP, socket.SOCK_DGRAM)}
_FAMILIES = {4: socket.AF_INET, 6: socket.AF_INET6}
_QUESTION = struct.Struct("=BBHI2s2s16s16sI8s")
_NO_COOKIE = b"\xff" * 8
_ANY_STATE = 0xFFFFFFFF
_UNKNOWN = (errno.ENOENT, errno.EOPNOTSUPP, errno.EPROTONOSUPPORT)


def hears(proto: str, addresses: tuple[Address, ...], port: int) -> bool | None:
    """Whether a socket of this namespace hears what comes for a port of any of its addresses; None: cannot be asked.

    Who listens at another address only, as at 127.0.0.1, does not. `proto`: tcp or udp; of others nobody can say.
    """
    if proto not in _PROTOCOLS or not _can_be_asked(proto):
        return None
    with Netlink(_SOCK_DIAG) as nl:
        return any(_found(nl, proto, address, port) for address in addresses)


def _found(nl: Netlink, proto: str, address: Address, port: int) -> bool:
    here, there = (struct.pack(">H", port), address.packed.ljust(16, b"\0")), (bytes(2), bytes(16))
    # For UDP the kernel takes the ends the other way round (udp_dump_one: "for historical reasons").
    (port_a, ip_a), (port_b, ip_b) = (here, there) if proto == "tcp" else (there, here)
    number, _ = _PROTOCOLS[proto]
    family = _FAMILIES[address.version]
    question = _QUESTION.pack(family, number, 0, _ANY_STATE, port_a, port_b, ip_a, ip_b, 0, _NO_COOKIE)
    try:
        nl.ask(_BY_FAMILY, question)
    except Refusal as refusal:
        if refusal.errno not in _UNKNOWN:
            raise
        return False
    return True


@cache
def _can_be_asked(proto: str) -> bool:
    """Whether the kernel has the module: it says of a socket of our own what it says of none where it has not."""
    _, kind = _PROTOCOLS[proto]
    try:
        with socket.socket(socket.AF_INET, kind) as own, Netlink(_SOCK_DIAG) as nl:
            own.bind(("", 0))
            if proto == "tcp":
                own.listen(1)
            return _found(nl, proto, IPv4Address("127.0.0.1"), own.getsockname()[1])
    except OSError:
        return False
