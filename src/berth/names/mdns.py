"""Multicast DNS messages (RFC 6762): what is heard on a LAN, and what is said of endpoints there.

>>> from ipaddress import ip_address
>>> web = Claimed("web.local", (ip_address("192.168.2.9"),))
>>> heard = read(probe(web))
>>> heard.questions[0], heard.records[0].name
(('web.local', 255, True), 'web.local')
"""

from __future__ import annotations

import re
import struct
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from berth.model import Address
from berth.names.message import AAAA, ANY, IN, PTR, A, encoded
from berth.names.records import reverse

DOMAIN = "local"
TTL = 120  # seconds, of what has to do with a host's name (section 10)
TTL_LEGACY = 10  # seconds, for resolvers that know nothing of multicast (section 6.7)
_NSEC = 47
_TOP = 0x8000  # in a question: answer me alone; in a record: there are no others
_RESPONSE = 0x8400
_HEAD = struct.Struct("!6H")
_RECORD = struct.Struct("!HHIH")
_POINTERS = 16  # in one name


@dataclass(frozen=True, slots=True)
class Said:
    """A record in a message."""

    name: str
    kind: int
    ttl: int
    data: bytes


@dataclass(frozen=True, slots=True)
class Heard:
    """A message."""

    ident: bytes
    response: bool
    questions: tuple[tuple[str, int, bool], ...]  # name, type, and whether to answer the one who asks alone
    records: tuple[Said, ...]
    raw_questions: bytes  # as they came


@dataclass(frozen=True, slots=True)
class Claimed:
    """A name and the addresses it stands for."""

    name: str
    addresses: tuple[Address, ...]

    @property
    def data(self) -> tuple[tuple[int, bytes], ...]:
        """Its records by type and data, in the order in which two who claim one name are compared (section 8.2)."""
        return tuple(sorted((A if each.version == 4 else AAAA, each.packed) for each in self.addresses))


def label(name: str, number: int = 1) -> str:
    """A host name for an endpoint of that name; the number is for those after the first."""
    plain = re.sub("[^a-z0-9-]+", "-", name.lower()).strip("-") or "endpoint"
    tail = "" if number == 1 else f"-{number}"
    return f"{plain[: 63 - len(tail)]}{tail}.{DOMAIN}"


def read(raw: bytes) -> Heard:
    """Take a message apart. Raises `ValueError` for one that cannot be read, or is about something else."""
    try:
        _, flags, questions, *records = _HEAD.unpack_from(raw)
        if flags & 0x7800:
            raise ValueError("not a query or response")
        at, asked = _HEAD.size, []
        for _ in range(questions):
            name, at = _name(raw, at)
            kind, class_ = struct.unpack_from("!HH", raw, at)
            at += 4
            asked.append((name, kind, bool(class_ & _TOP)))
        end, said = at, []
        for _ in range(sum(records)):
            name, at = _name(raw, at)
            kind, _, ttl, length = _RECORD.unpack_from(raw, at)
            at += _RECORD.size
            if at + length > len(raw):
                raise ValueError("a record is cut off")
            said.append(Said(name, kind, ttl, raw[at : at + length]))
            at += length
    except (struct.error, IndexError):
        raise ValueError("the message is cut off") from None
    return Heard(raw[:2], bool(flags & 0x8000), tuple(asked), tuple(said), raw[_HEAD.size : end])


def _name(raw: bytes, at: int) -> tuple[str, int]:
    """A name, lower case, and the offset behind it. Raises `ValueError` or `IndexError`."""
    labels, behind, jumps, size = [], 0, 0, 0
    while length := raw[at]:
        if length >= 0xC0:
            behind = behind or at + 2
            at = (length & 0x3F) << 8 | raw[at + 1]
            jumps += 1
            if jumps > _POINTERS:
                raise ValueError("a name goes round in circles")
            continue
        size += length + 1
        if length > 63 or size > 254:
            raise ValueError("no name")
        labels.append(raw[at + 1 : at + 1 + length])
        at += 1 + length
    return b".".join(labels).lower().decode("latin-1"), behind or at + 1


def probe(claim: Claimed) -> bytes:
    """Ask whether somebody has a name already, and say what is meant to be said of it (section 8.1).

    The question for any type is the one that counts. There are responders that do not know it, hence the others.
    """
    name = encoded(claim.name)
    questions = b"".join(name + struct.pack("!HH", kind, IN | _TOP) for kind in (ANY, A, AAAA))
    records = b"".join(_record(name, kind, data, TTL) for kind, data in claim.data)
    return _HEAD.pack(0, 0, 3, 0, len(claim.data), 0) + questions + records


def announcement(claim: Claimed, ttl: int = TTL) -> bytes:
    """Say what a name stands for, both ways; with a ttl of 0, that it does no longer (section 8.3, 10.1)."""
    said = [(claim.name, kind, data) for kind, data in claim.data]
    said += [(each.reverse_pointer, PTR, encoded(claim.name)) for each in claim.addresses]
    return _response(said, ttl)


def answered(heard: Heard, claims: Sequence[Claimed], *, legacy: bool) -> bytes | None:
    """The answer to a query; None where there is nothing to say, or all of it is known to who asks (section 7.1)."""
    found = dict.fromkeys(each for asked, kind, _ in heard.questions for each in _about(asked, kind, claims))
    known = {(each.name, each.kind, each.data) for each in heard.records if each.ttl >= TTL // 2}
    said = [each for each in found if legacy or each not in known]
    if not said:
        return None
    return _response(said, TTL_LEGACY, heard) if legacy else _response(said, TTL)


def _about(name: str, kind: int, claims: Sequence[Claimed]) -> Iterator[tuple[str, int, bytes]]:
    address = reverse(name)
    for claim in claims:
        if claim.name == name:
            records = [(name, each, data) for each, data in claim.data if kind in (each, ANY)]
            yield from records or [(name, _NSEC, _nothing_else(claim))]
        elif address in claim.addresses and kind in (PTR, ANY):
            yield name, PTR, encoded(claim.name)


def _nothing_else(claim: Claimed) -> bytes:
    """Which types a name has: there is no use in waiting for others (section 6.1, RFC 4034 section 4.1.2)."""
    held = {kind for kind, _ in claim.data}
    bits = bytearray(4 if AAAA in held else 1)
    for kind in held:
        bits[kind // 8] |= 0x80 >> kind % 8
    return encoded(claim.name) + bytes([0, len(bits)]) + bytes(bits)


def _response(said: Sequence[tuple[str, int, bytes]], ttl: int, to: Heard | None = None) -> bytes:
    """A response; `to` a resolver that knows nothing of multicast, in the form that it expects."""
    records = b"".join(_record(encoded(name), kind, data, ttl, alone=to is None) for name, kind, data in said)
    if to is None:
        return _HEAD.pack(0, _RESPONSE, 0, len(said), 0, 0) + records
    head = to.ident + struct.pack("!5H", _RESPONSE, len(to.questions), len(said), 0, 0)
    return head + to.raw_questions + records


def _record(name: bytes, kind: int, data: bytes, ttl: int, *, alone: bool = False) -> bytes:
    # A reverse name is this host's alone as well: nobody else has the address.
    return name + _RECORD.pack(kind, IN | (_TOP if alone else 0), ttl, len(data)) + data
