"""DNS messages as bytes: reading a query and writing its answer (RFC 1035 section 4, RFC 6891).

Berth's own answers are one question and the addresses for it, and what others answer is passed on as it came. So there
is no need to take a message apart any further.

>>> query = parse(bytes.fromhex("002a01000001000000000000" "02646200" "00010001"))
>>> query.name, query.kind
('db', 1)
>>> answer(query, [(A, bytes([10, 0, 0, 2]))], ttl=5).hex()[-8:]
'0a000002'
"""

from __future__ import annotations

import struct
from collections.abc import Sequence
from dataclasses import dataclass

A, PTR, OPT, AAAA, ANY = 1, 12, 41, 28, 255
IN = 1
NOERROR, FORMERR, SERVFAIL, NXDOMAIN, NOTIMP, REFUSED = range(6)
SMALLEST = 512  # bytes that every client takes in a datagram
LARGEST = 1232  # bytes of a datagram that no path cuts up (DNS flag day 2020)

_RESPONSE, _AUTHORITATIVE, _TRUNCATED, _WANTED, _AVAILABLE = 0x8000, 0x0400, 0x0200, 0x0100, 0x0080
_SIGNED = 0x8000
_ASKED = _WANTED | 0x0030  # of a query's flags, when others are asked: authentic data, checking disabled too
_KEPT = _WANTED | 0x0010  # of a query's flags, in its answer: recursion desired, checking disabled
_HEAD = struct.Struct("!6H")
_RECORD = struct.Struct("!HHIH")

Record = tuple[int, bytes]  # its type and its data


class Unreadable(Exception):
    """A message that is no query; `answer` is what to say to it, b"" for nothing."""

    def __init__(self, answer: bytes = b"") -> None:
        super().__init__("not a DNS query")
        self.answer = answer


@dataclass(frozen=True, slots=True)
class Query:
    """One question."""

    raw: bytes
    name: str  # lower case, without a dot at the end
    kind: int
    end: int  # offset behind the question
    room: int  # bytes of a datagram that the client takes
    edns: bool
    signed: bool  # DO: signatures are wanted too (RFC 3225)

    @property
    def key(self) -> bytes:
        """What makes two queries the same for who answers: all but the id and the case of the name."""
        return self.onward(b"\0\0").lower()

    def onward(self, ident: bytes) -> bytes:
        """The query as others are asked it: without the client's own cookies and the like."""
        flags = struct.unpack_from("!H", self.raw, 2)[0] & _ASKED
        head = ident + struct.pack("!5H", flags, 1, 0, 0, 1 if self.edns else 0)
        extra = _opt(_SIGNED if self.signed else 0) if self.edns else b""
        return head + self.raw[12 : self.end] + extra


def parse(raw: bytes) -> Query:
    """Read a query. Raises `Unreadable`."""
    if len(raw) < _HEAD.size:
        raise Unreadable
    ident, flags, questions, answers, authorities, more = _HEAD.unpack_from(raw)
    if flags & _RESPONSE:
        raise Unreadable
    if flags & 0x7800:
        raise Unreadable(_bare(ident, flags, NOTIMP))
    try:
        if (questions, answers, authorities) != (1, 0, 0):
            raise ValueError
        name, at = _name(raw, 12)
        kind, _ = struct.unpack_from("!HH", raw, at)
        room, flagged = _extras(raw, at + 4, more)
    except (ValueError, struct.error, IndexError):
        raise Unreadable(_bare(ident, flags, FORMERR)) from None
    return Query(raw, name, kind, at + 4, max(SMALLEST, min(room, LARGEST)), room > 0, flagged)


def _bare(ident: int, flags: int, code: int) -> bytes:
    return _HEAD.pack(ident, _RESPONSE | flags & (0x7800 | _KEPT) | code, 0, 0, 0, 0)


def _name(raw: bytes, at: int) -> tuple[str, int]:
    """A name that is written out, and the offset behind it. Raises `ValueError` or `IndexError`."""
    start, labels = at, []
    while length := raw[at]:
        if length > 63 or at + 1 + length - start > 254:
            raise ValueError("no label of a question")
        labels.append(raw[at + 1 : at + 1 + length])
        at += 1 + length
    return b".".join(labels).lower().decode("latin-1"), at + 1


def _extras(raw: bytes, at: int, count: int) -> tuple[int, bool]:
    """The size that an OPT record tells (RFC 6891 section 6.2.3), 0 where there is none; and whether DO is set."""
    room, flagged = 0, False
    for _ in range(count):
        at = skip_name(raw, at)
        kind, size, flags, length = _RECORD.unpack_from(raw, at)
        if kind == OPT:
            room, flagged = max(size, SMALLEST), bool(flags & _SIGNED)
        at += _RECORD.size + length
    if at > len(raw):
        raise ValueError("a record is cut off")
    return room, flagged


def _opt(flags: int) -> bytes:
    return b"\0" + _RECORD.pack(OPT, LARGEST, flags, 0)


def skip_name(raw: bytes, at: int) -> int:
    """The offset behind a name, which may end in a pointer. Raises `IndexError` where the message ends."""
    while length := raw[at]:
        if length >= 0xC0:
            return at + 2
        at += 1 + length
    return at + 1


def answer(query: Query, records: Sequence[Record], *, code: int = NOERROR, ttl: int, room: int = 65535) -> bytes:
    """The answer to a query, of at most `room` bytes: what does not fit is left out, and the client told so.

    `ttl` is in seconds. No SOA goes with a "no": clients then do not remember it (RFC 2308 section 5), and a container
    that waits for another's name finds it as soon as it is there.
    """
    extra = _opt(0) if query.edns else b""
    body = b""
    count = 0
    for kind, data in records:
        record = b"\xc0\x0c" + _RECORD.pack(kind, IN, ttl, len(data)) + data
        if query.end + len(body) + len(record) + len(extra) > room:
            break
        body += record
        count += 1
    ident, flags = struct.unpack_from("!HH", query.raw)
    told = _RESPONSE | _AUTHORITATIVE | _AVAILABLE | flags & _KEPT | code
    told |= _TRUNCATED if count < len(records) else 0
    head = _HEAD.pack(ident, told, 1, count, 0, 1 if query.edns else 0)
    return head + query.raw[12 : query.end] + body + extra


def fitted(query: Query, reply: bytes, room: int) -> bytes:
    """Somebody else's answer under a query's own id and spelling; without its records where it is too large."""
    own = query.raw[:2] + reply[2:12] + query.raw[12 : query.end]
    if len(reply) <= room:
        return own + reply[query.end :]
    flags = struct.unpack_from("!H", reply, 2)[0] | _TRUNCATED
    return query.raw[:2] + struct.pack("!5H", flags, 1, 0, 0, 0) + query.raw[12 : query.end]


def outcome(reply: bytes) -> int:
    """The code of an answer."""
    return reply[3] & 15


def truncated(reply: bytes) -> bool:
    """Whether an answer was cut off."""
    return bool(struct.unpack_from("!H", reply, 2)[0] & _TRUNCATED)


def answers(query: Query, ident: bytes, reply: bytes) -> bool:
    """Whether a message is an answer to a query that was sent under another id."""
    asked = query.raw[12 : query.end].lower()
    return (
        len(reply) >= query.end
        and reply[:2] == ident
        and bool(reply[2] & 0x80)
        and reply[4:6] == b"\0\1"
        and reply[12 : query.end].lower() == asked
    )


def lives(query: Query, reply: bytes) -> tuple[int, ...]:
    """The offsets of the lifetimes in an answer. Raises `ValueError` where it cannot be read."""
    _, _, _, *counts = _HEAD.unpack_from(reply)
    at, found = query.end, []
    try:
        for _ in range(sum(counts)):
            at = skip_name(reply, at)
            kind, _, _, length = _RECORD.unpack_from(reply, at)
            if kind != OPT:
                found.append(at + 4)
            at += _RECORD.size + length
    except (IndexError, struct.error):
        raise ValueError("an answer is cut off") from None
    if at > len(reply):
        raise ValueError("an answer is cut off")
    return tuple(found)


def encoded(name: str) -> bytes:
    """A name as in a record. Raises `ValueError` for one that no message can carry."""
    labels = name.encode("latin-1").split(b".")
    if not all(1 <= len(label) <= 63 for label in labels) or len(name) > 253:
        raise ValueError(f"{name} cannot be a name in DNS")
    return b"".join(bytes([len(label)]) + label for label in labels) + b"\0"
