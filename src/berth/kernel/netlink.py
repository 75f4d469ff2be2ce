"""The netlink wire format and one socket of it: what rtnetlink and nfnetlink share.

Hand-packed because a library costs three times the kernel's own work per attach (see bench/).
Sources: RFC 3549; Documentation/userspace-api/netlink/intro.rst of the kernel.
"""

from __future__ import annotations

import errno
import fcntl
import os
import socket
import struct
import threading
from collections.abc import Iterator, Sequence
from typing import ClassVar, NamedTuple, TypeAlias

ROUTE, NETFILTER = 0, 12

REQUEST, ACK, DUMP, REPLACE, EXCL, CREATE, APPEND = 0x1, 0x4, 0x300, 0x100, 0x200, 0x400, 0x800
_INTERRUPTED = 0x10  # in the flags of a dump's answers: what it lists changed meanwhile
_TRIES = 10  # of a dump, on a host where links come and go all the time
NESTED = 0x8000
_TYPE_MASK = 0x3FFF

_ERROR, _DONE = 2, 3
_CAPPED, _ACK_TLVS = 0x100, 0x200  # in the flags of an error message
_SOL_NETLINK, _CAP_ACK, _EXT_ACK, _STRICT = 270, 10, 11, 12
_EXT_MESSAGE = 1  # NLMSGERR_ATTR_MSG

_HEADER = struct.Struct("=IHHII")
_ATTR = struct.Struct("=HH")
_INT = struct.Struct("=i")
_U32 = struct.Struct("=I")
_FLAGS = struct.Struct("=H")

_SIOCGIFFLAGS, _SIOCGIFINDEX = 0x8913, 0x8933
_IFNAMSIZ, _IFREQ = 16, 40  # bytes: of a name with its end, and of struct ifreq

# An acknowledgement is small, but its buffer is charged at several hundred bytes: more of them than this in
# flight can overflow the default receive buffer.
_IN_FLIGHT = 64

Attrs: TypeAlias = dict[int, bytes]

_kept = threading.local()


class Message(NamedTuple):
    """One request, without its sequence number."""

    type: int
    flags: int
    body: bytes


class Refusal(OSError):
    """The kernel's answer to a message it did not like."""

    def __init__(self, errno: int, reason: str, index: int) -> None:
        super().__init__(errno, f"{os.strerror(errno)}{': ' + reason if reason else ''}")
        self.reason = reason  # the kernel's own words (extended acknowledgement); "" if it had none
        self.index = index  # which message of the batch


def attr(kind: int, data: bytes) -> bytes:
    """One attribute, padded to four bytes."""
    return _ATTR.pack(len(data) + 4, kind) + data + b"\0" * (-len(data) & 3)


def text(kind: int, value: str) -> bytes:
    """A NUL-terminated string attribute."""
    return attr(kind, value.encode() + b"\0")


def u32(kind: int, value: int) -> bytes:
    """A number in the host's byte order."""
    return attr(kind, _U32.pack(value))


def nest(kind: int, data: bytes) -> bytes:
    """An attribute made of attributes."""
    return attr(kind | NESTED, data)


def attrs(data: bytes, offset: int = 0) -> Attrs:
    """Attributes by type; the last of a kind wins. A malformed tail is dropped, never an error.

    The kernel is trusted, but a fuzzed or cut buffer must not raise anything either.
    """
    return dict(items(data, offset))


def items(data: bytes, offset: int = 0) -> Iterator[tuple[int, bytes]]:
    """Attributes in order, for lists in which one type repeats."""
    end = len(data)
    while offset + 4 <= end:
        length, kind = _ATTR.unpack_from(data, offset)
        if length < 4 or offset + length > end:
            return
        yield kind & _TYPE_MASK, data[offset + 4 : offset + length]
        offset += length + 3 & ~3


def string(data: bytes) -> str:
    """The text of a string attribute."""
    return data.split(b"\0", 1)[0].decode(errors="replace")


def number(data: bytes, default: int = 0) -> int:
    """A 32-bit number in the host's byte order; `default` for an attribute of another size."""
    return int(_U32.unpack(data)[0]) if len(data) == 4 else default


def messages(data: bytes) -> Iterator[tuple[int, int, int, bytes]]:
    """(type, flags, sequence, body) of each message in a datagram; stops at a malformed one."""
    offset, end = 0, len(data)
    while offset + 16 <= end:
        length, kind, flags, sequence, _ = _HEADER.unpack_from(data, offset)
        if length < 16 or offset + length > end:
            return
        yield kind, flags, sequence, data[offset + 16 : offset + length]
        offset += length + 3 & ~3


def _refusal(flags: int, body: bytes) -> tuple[int, str]:
    """(errno, the kernel's words) of an error message; errno 0 is an acknowledgement."""
    if len(body) < 20:
        return 0, ""
    code = -_INT.unpack_from(body)[0]
    if not code or not flags & _ACK_TLVS:
        return code, ""
    start = 20 if flags & _CAPPED else 4 + number(body[4:8])
    return code, string(attrs(body, start).get(_EXT_MESSAGE, b""))


class Netlink:
    """A netlink socket of the namespace the thread is in when it is made."""

    __slots__ = ("_seq", "_socket")
    #: How the kernel names the kept sockets of nfnetlink of this process: whose changes are Berth's own.
    ports: ClassVar[set[int]] = set()

    def __init__(self, protocol: int) -> None:
        self._socket = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW | socket.SOCK_CLOEXEC, protocol)
        self._socket.setsockopt(_SOL_NETLINK, _CAP_ACK, 1)
        self._socket.setsockopt(_SOL_NETLINK, _EXT_ACK, 1)
        if protocol == ROUTE:
            self._socket.setsockopt(_SOL_NETLINK, _STRICT, 1)
        self._seq = 0

    def __enter__(self) -> Netlink:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Close the socket."""
        self._socket.close()

    @classmethod
    def kept(cls, protocol: int) -> Netlink:
        """A socket that stays open for the next who asks in the same thread and namespace.

        Closing a socket of nfnetlink waits 15 ms when something was deleted a moment ago, whoever did it.
        """
        # The socket keeps its namespace alive, so no other one can get the number.
        where = (os.getpid(), os.stat("/proc/thread-self/ns/net").st_ino)
        if getattr(_kept, "where", None) != where:
            _kept.where, _kept.sockets = where, {}
        if protocol not in _kept.sockets:
            _kept.sockets[protocol] = kept = cls(protocol)
            if protocol == NETFILTER:
                kept._socket.bind((0, 0))
                cls.ports.add(kept._socket.getsockname()[0])
        sockets: dict[int, Netlink] = _kept.sockets
        return sockets[protocol]

    def index(self, name: str) -> int | None:
        """The index of a link of the socket's namespace; None where there is none (netdevice(7)).

        Quicker than if_nametoindex(3), which opens a socket for every name.
        """
        return self._about(name, _SIOCGIFINDEX, _INT)

    def flags(self, name: str) -> int | None:
        """The flags of a link of the socket's namespace; None where there is none (netdevice(7))."""
        return self._about(name, _SIOCGIFFLAGS, _FLAGS)

    def _about(self, name: str, request: int, layout: struct.Struct) -> int | None:
        encoded = name.encode()
        if not 0 < len(encoded) < _IFNAMSIZ:
            return None
        try:
            answer = fcntl.ioctl(self._socket, request, encoded.ljust(_IFREQ, b"\0"))
        except OSError:
            return None
        return int(layout.unpack_from(answer, _IFNAMSIZ)[0])

    def room(self, size: int) -> None:
        """Let one datagram be this many bytes."""
        self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 2 * size + 4096)

    def batch(self, requests: Sequence[Message]) -> list[Refusal]:
        """Send all requests, each of which the kernel answers; what it refused.

        The kernel goes on after a message that it refuses: those behind it have been tried.
        """
        refused: list[Refusal] = []
        for start in range(0, len(requests), _IN_FLIGHT):
            refused += self._exchange(requests[start : start + _IN_FLIGHT], start)
        return refused

    def _exchange(self, requests: Sequence[Message], start: int) -> list[Refusal]:
        base = self._seq + 1
        self._seq += len(requests)
        parts = []
        for sequence, (kind, flags, body) in enumerate(requests, base):
            parts.append(_HEADER.pack(16 + len(body), kind, flags | REQUEST | ACK, sequence, 0))
            parts.append(body)
        self._socket.send(b"".join(parts))
        left, refused = len(requests), []
        while left > 0:
            for kind, flags, sequence, body in messages(self._socket.recv(65536)):
                if kind != _ERROR or sequence < base:
                    continue
                left -= 1
                code, words = _refusal(flags, body)
                if code:
                    refused.append(Refusal(code, words, start + sequence - base))
        return refused

    def transaction(self, begin: Message, requests: Sequence[Message], end: Message) -> list[Refusal]:
        """Send requests between two marks, all or none of which take effect (nfnetlink's batch); what it refused.

        The kernel goes on after a request that it refuses, so that it names all that it can. Raises `OSError` with
        EMSGSIZE when the requests are more than the socket takes at once.
        """
        base = self._seq + 1
        every = (begin, *requests, end)
        self._seq += len(every)
        parts = []
        for sequence, (kind, flags, body) in enumerate(every, base):
            ack = ACK if sequence == base + len(requests) else 0  # the last request's
            parts.append(_HEADER.pack(16 + len(body), kind, flags | REQUEST | ack, sequence, 0) + body)
        datagram = b"".join(parts)
        self.room(len(datagram))
        self._socket.send(datagram)
        refused: list[Refusal] = []
        done = False
        for kind, flags, sequence, body in self._queued():
            if kind != _ERROR or sequence < base:
                continue
            code, words = _refusal(flags, body)
            if code:
                refused.append(Refusal(code, words, max(sequence - base - 1, 0)))
            done |= sequence == base + len(requests)
        if not (done or refused):
            raise OSError(errno.EIO, "the kernel did not answer")
        return refused

    def _queued(self) -> Iterator[tuple[int, int, int, bytes]]:
        """The messages that are there: the kernel queues its answers to a transaction before send() returns."""
        while True:
            try:
                yield from messages(self._socket.recv(65536, socket.MSG_DONTWAIT))
            except BlockingIOError:
                return
            except OSError as error:
                if error.errno != errno.ENOBUFS:  # more refusals than the buffer holds: those that fit are enough
                    raise

    def ask(self, kind: int, body: bytes) -> bytes:
        """The body of the answer to one request. Raises `Refusal`."""
        self._seq += 1
        self._socket.send(_HEADER.pack(16 + len(body), kind, REQUEST, self._seq, 0) + body)
        while True:
            for answer, flags, sequence, data in messages(self._socket.recv(1 << 18)):
                if sequence != self._seq:
                    continue
                if answer == _ERROR:
                    code, words = _refusal(flags, data)
                    raise Refusal(code, words, 0)
                return data

    def dump(self, kind: int, body: bytes) -> list[bytes]:
        """The bodies of all answers to a dump request. Raises `Refusal`."""
        for _ in range(_TRIES):
            answers = self._dump(kind, body)
            if answers is not None:
                return answers
        raise Refusal(errno.EINTR, "the list changes faster than it can be read", 0)

    def _dump(self, kind: int, body: bytes) -> list[bytes] | None:
        """None when the list changed while it was read: entries may be missing or told twice."""
        whole = True
        found: list[bytes] = []
        self._seq += 1
        self._socket.send(_HEADER.pack(16 + len(body), kind, REQUEST | DUMP, self._seq, 0) + body)
        while True:
            for answer, flags, sequence, data in messages(self._socket.recv(1 << 18)):
                if sequence != self._seq:
                    continue
                whole = whole and not flags & _INTERRUPTED
                if answer == _DONE:
                    code = -_INT.unpack_from(data)[0] if len(data) >= 4 else 0
                    if code > 0:
                        raise Refusal(code, "", 0)
                    return found if whole else None
                if answer == _ERROR:
                    code, words = _refusal(flags, data)
                    raise Refusal(code, words, 0)
                found.append(data)
