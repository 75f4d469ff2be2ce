"""What the kernel tells of others' changes to the firewall.

Sources: include/uapi/linux/netfilter/nfnetlink.h (NFNLGRP_NFTABLES) and nf_tables.h; netlink(7).
"""

from __future__ import annotations

import errno
import socket
import struct
from collections.abc import Iterator
from contextlib import suppress

from berth.kernel import firewalld, passes
from berth.kernel.netlink import NETFILTER, Netlink, attrs, string
from berth.kernel.nft import FAMILY_NAMES, SUBSYSTEM, marked
from berth.kernel.steady import Steady

_GROUP = 7  # NFNLGRP_NFTABLES
_ROOM = 4 << 20  # bytes: a ruleset of some ten thousand rules may go at once
_HEADER = struct.Struct("=IHHII")
_DELTABLE = 2
_TABLE = 1  # the table's name, in every kind of message
_CHAIN = {3: 3, 5: 3, 6: 2, 8: 2}  # by kind (NEWCHAIN, DELCHAIN, NEWRULE, DELRULE): where the chain's name is


class Notices:
    """A socket that the kernel tells of every change of nftables in the namespace it was made in.

    Raises `OSError` where that may not be heard (CAP_NET_ADMIN).
    """

    def __init__(self, *, steady: bool) -> None:
        """`steady`: keep open connections translated through a flush, as long as this is open."""
        self._socket = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW | socket.SOCK_CLOEXEC, NETFILTER)
        self._socket.setblocking(False)
        with suppress(OSError):
            self._socket.setsockopt(socket.SOL_SOCKET, 33, _ROOM)  # SO_RCVBUFFORCE
        try:
            # To be a member alone is not enough: one that has no address is told nothing.
            self._socket.bind((0, 1 << _GROUP - 1))
        except OSError:
            self._socket.close()
            raise
        self._steady = Steady() if steady else None
        self._hold()

    def fileno(self) -> int:
        """For a selector."""
        return self._socket.fileno()

    def close(self) -> None:
        """Hear no more."""
        self._socket.close()
        if self._steady is not None:
            self._steady.close()

    def pending(self) -> bool:
        """Take all that was told; whether somebody else may have changed what Berth relies on."""
        changed = removed = False
        for data in self._told():
            changed = changed or not data or concerns(data, Netlink.ports)
            removed = removed or any(kind == _DELTABLE for kind, _, _ in _messages(data))
        if changed:
            self._hold()
        elif removed and self._steady is not None:  # by ourselves
            self._steady.let_go()
        return changed

    def _hold(self) -> None:
        if self._steady is not None:
            with suppress(OSError):  # it is for comfort
                self._steady.hold()

    def _told(self) -> Iterator[bytes]:
        """The datagrams that wait; an empty one where more was told than there was room for."""
        while True:
            try:
                yield self._socket.recv(1 << 18)
            except BlockingIOError:
                return
            except OSError as error:
                if error.errno != errno.ENOBUFS:
                    raise
                yield b""


def concerns(data: bytes, ours: set[int]) -> bool:
    """Whether a datagram tells of a change to what Berth relies on, by a socket that is not one of ours."""
    return any(port not in ours and _relied_on(kind, body) for kind, port, body in _messages(data))


def _messages(data: bytes) -> Iterator[tuple[int, int, bytes]]:
    """(kind, port of who did it, body) of the messages about nftables; stops at a malformed one."""
    offset = 0
    while offset + 20 <= len(data):
        length, kind, _, _, port = _HEADER.unpack_from(data, offset)
        if length < 20 or offset + length > len(data):
            return
        if kind >> 8 == SUBSYSTEM:
            yield kind & 0xFF, port, data[offset + 16 : offset + length]
        offset += length + 3 & ~3


def _relied_on(kind: int, body: bytes) -> bool:
    """Whether a message is about a table of ours, or what our packets have to get through."""
    family, fields = FAMILY_NAMES.get(body[0], ""), attrs(body, 4)
    table = string(fields.get(_TABLE, b""))
    if marked(family, table) or (family, table) == firewalld.TABLE:
        return True
    chain = string(fields.get(_CHAIN[kind], b"")) if kind in _CHAIN else ""
    return (family, table, chain) in passes.PLACES
