"""DHCPv6 messages as bytes, and back (RFC 8415). Pure: nothing but `Malformed` is raised."""

from __future__ import annotations

import struct
from collections.abc import Iterator
from dataclasses import dataclass
from enum import IntEnum
from ipaddress import IPv6Address

from berth.lan.dhcp.messages import Kind, Malformed, Message


class Kind6(IntEnum):
    """What a message is (RFC 8415 7.3)."""

    SOLICIT = 1
    ADVERTISE = 2
    REQUEST = 3
    RENEW = 5
    REBIND = 6
    REPLY = 7
    RELEASE = 8
    DECLINE = 9
    INFORMATION = 11


class Option6(IntEnum):
    """The options that Berth says or reads (RFC 8415, 3646, 4704, 5908)."""

    CLIENT = 1
    SERVER = 2
    IA = 3
    ADDRESS = 5
    ASKED = 6
    ELAPSED = 8
    STATUS = 13
    DNS = 23
    SEARCH = 24
    FQDN = 39
    NTP = 56


Options = tuple[tuple[int, bytes], ...]

_IA = struct.Struct("!4sII")
_ADDRESS = struct.Struct("!16sII")


@dataclass(frozen=True, slots=True)
class Given:
    """An address that a server gives; times in seconds."""

    iaid: bytes
    address: IPv6Address
    preferred: int
    valid: int
    t1: int
    t2: int


@dataclass(frozen=True, slots=True)
class Message6(Message):
    """A server's message in the words of DHCPv4, so that one state machine knows both."""

    given: Given | None = None
    said: str = ""  # the server's status, for people

    @property
    def server_id(self) -> bytes | None:
        """The server's DUID."""
        return self.options.get(Option6.SERVER)

    @property
    def server_name(self) -> str:
        """The server's DUID, for people."""
        return (self.server_id or b"").hex(":")

    @property
    def client(self) -> bytes | None:
        """Identifier and DUID, as in RFC 4361."""
        return None if self.given is None else b"\xff" + self.given.iaid + self.options[Option6.CLIENT]

    @property
    def text(self) -> str:
        """What the server says to people."""
        return self.said


def encode(kind: Kind6, xid: int, options: Options) -> bytes:
    """A message as bytes."""
    return bytes((kind,)) + xid.to_bytes(3, "big") + b"".join(option(code, data) for code, data in options)


def option(code: int, data: bytes) -> bytes:
    """An option as bytes."""
    return struct.pack("!HH", code, len(data)) + data


def association(iaid: bytes, address: IPv6Address | None) -> bytes:
    """The data of an IA_NA; the times are the server's to say."""
    inner = b"" if address is None else option(Option6.ADDRESS, _ADDRESS.pack(address.packed, 0, 0))
    return _IA.pack(iaid, 0, 0) + inner


def decode(data: bytes) -> Message6:
    """A server's message; raises `Malformed`. A REPLY without an address that lasts is a refusal."""
    if len(data) < 4 or data[0] not in (Kind6.ADVERTISE, Kind6.REPLY):
        raise Malformed("no DHCPv6 message from a server")
    options = dict(_options(data[4:]))
    if Option6.CLIENT not in options or Option6.SERVER not in options:
        raise Malformed("it does not say who it is from and for")
    given = _given(options.get(Option6.IA, b""))
    kind = Kind.NAK if given is None or not given.valid else Kind.ACK
    if data[0] == Kind6.ADVERTISE:
        kind = Kind.OFFER
    said = _status(options.get(Option6.STATUS, b"")) or _status(_inner(options.get(Option6.IA, b"")))
    address = IPv6Address(0) if given is None else given.address
    xid = int.from_bytes(data[1:4], "big")
    name = options[Option6.CLIENT].hex()
    return Message6(kind, xid, name, options, yiaddr=address, reply=True, given=given, said=said)


def _options(data: bytes) -> Iterator[tuple[int, bytes]]:
    at = 0
    while at < len(data):
        if at + 4 > len(data):
            raise Malformed("an option is cut off")
        code, length = struct.unpack_from("!HH", data, at)
        if at + 4 + length > len(data):
            raise Malformed(f"option {code} is cut off")
        yield code, data[at + 4 : at + 4 + length]
        at += 4 + length


def _given(data: bytes) -> Given | None:
    """The first address of an IA_NA that lasts, else the first one."""
    if len(data) < _IA.size:
        return None
    iaid, t1, t2 = _IA.unpack_from(data)
    found = []
    for code, inner in _options(data[_IA.size :]):
        if code == Option6.ADDRESS and len(inner) >= _ADDRESS.size:
            address, preferred, valid = _ADDRESS.unpack_from(inner)
            found.append(Given(iaid, IPv6Address(address), preferred, valid, t1, t2))
    return max(found, key=lambda given: given.valid > 0, default=None)


def _inner(data: bytes) -> bytes:
    return dict(_options(data[_IA.size :])).get(Option6.STATUS, b"")


def _status(data: bytes) -> str:
    """A status other than success, fit for a terminal."""
    if len(data) < 2 or data[:2] == b"\0\0":
        return ""
    words = data[2:].decode("utf-8", "replace")
    return (
        "".join(letter if letter.isprintable() else " " for letter in words)
        or f"status {int.from_bytes(data[:2], 'big')}"
    )
