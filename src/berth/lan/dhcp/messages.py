"""DHCPv4 messages as bytes, and back (RFC 2131, 2132, 3396, 4361). Pure: nothing but `Malformed` is raised."""

from __future__ import annotations

import hashlib
import struct
from dataclasses import dataclass, field
from enum import IntEnum
from ipaddress import IPv4Address

from berth.model import Address

NOWHERE = IPv4Address(0)

_COOKIE = b"\x63\x82\x53\x63"
_HEADER = struct.Struct("!BBBBIHH4s4s4s4s16s64s128s4s")
_BROADCAST = 0x8000
_SHORTEST = 300  # bytes: RFC 1542 2.1; relays drop what is shorter


class Malformed(ValueError):
    """What came is not a message of this protocol, or makes no sense; the text says why."""


class Kind(IntEnum):
    """What a message is (option 53)."""

    DISCOVER = 1
    OFFER = 2
    REQUEST = 3
    DECLINE = 4
    ACK = 5
    NAK = 6
    RELEASE = 7


class Option(IntEnum):
    """The options that Berth says or reads (RFC 2132, 3397, 3442)."""

    MASK = 1
    ROUTER = 3
    DNS = 6
    HOSTNAME = 12
    DOMAIN = 15
    MTU = 26
    NTP = 42
    WANTED = 50
    LIFETIME = 51
    OVERLOAD = 52
    KIND = 53
    SERVER = 54
    ASKED = 55
    TEXT = 56
    SIZE = 57
    T1 = 58
    T2 = 59
    VENDOR = 60
    CLIENT = 61
    SEARCH = 119
    ROUTES = 121


@dataclass(frozen=True, slots=True)
class Message:
    """One DHCP message. Options are the bytes of each, put together where they came in parts."""

    kind: Kind
    xid: int
    mac: str  # of the client; DHCPv6 has its DUID here
    options: dict[int, bytes] = field(default_factory=dict)
    ciaddr: IPv4Address = NOWHERE  # the client's address, where it says that it has it
    yiaddr: Address = NOWHERE  # the address given
    secs: int = 0  # since the client began
    broadcast: bool = False  # whether the answer is to be a broadcast
    reply: bool = False

    @property
    def server_id(self) -> bytes | None:
        """Who sent it, as compared and said back."""
        data = self.options.get(Option.SERVER, b"")
        return data if len(data) == 4 else None

    @property
    def server_name(self) -> str:
        """Who sent it, for people."""
        return str(self.server)

    @property
    def client(self) -> bytes | None:
        """Whom it is for, where it says so (RFC 6842)."""
        return self.options.get(Option.CLIENT)

    @property
    def server(self) -> IPv4Address | None:
        """Who sent it, by its own word."""
        data = self.server_id
        return None if data is None else IPv4Address(data)

    @property
    def text(self) -> str:
        """What the server says to people, fit for a terminal and a log."""
        words = self.options.get(Option.TEXT, b"").decode("ascii", "replace")
        return "".join(letter if letter.isprintable() else " " for letter in words).strip()


def client_id(identity: str) -> bytes:
    """The client identifier of an identity that lasts, such as NETWORK/NAME/IFNAME (RFC 4361, DUID-UUID of RFC 6355).

    Both halves come from the identity alone: no host's state is in it, so a container that is made anew, even on
    another host, is the same client.
    """
    digest = hashlib.sha256(identity.encode()).digest()
    return b"\xff" + digest[16:20] + b"\x00\x04" + digest[:16]


def encode(message: Message) -> bytes:
    """A message as bytes, at least 300 of them. Options of more than 255 bytes go in parts (RFC 3396)."""
    header = _HEADER.pack(
        2 if message.reply else 1,
        1,
        6,
        0,
        message.xid,
        min(message.secs, 0xFFFF),
        _BROADCAST if message.broadcast else 0,
        message.ciaddr.packed,
        message.yiaddr.packed,
        bytes(4),
        bytes(4),
        bytes.fromhex(message.mac.replace(":", "")),
        b"",
        b"",
        _COOKIE,
    )
    options = bytearray((Option.KIND, 1, message.kind))
    for code, data in message.options.items():
        for start in range(0, len(data), 255) if data else (0,):
            part = data[start : start + 255]
            options += bytes((code, len(part))) + part
    return (header + bytes(options) + b"\xff").ljust(_SHORTEST, b"\0")


def decode(data: bytes) -> Message:
    """The message in the bytes of a datagram; raises `Malformed`."""
    if len(data) < _HEADER.size:
        raise Malformed(f"{len(data)} bytes are too few for a DHCP message")
    op, htype, hlen, _, xid, secs, flags, ciaddr, yiaddr, _, _, chaddr, sname, file, cookie = _HEADER.unpack_from(data)
    if cookie != _COOKIE:
        raise Malformed("no DHCP cookie")
    if op not in (1, 2) or htype != 1 or hlen != 6:
        raise Malformed(f"not a DHCP message for Ethernet: op {op}, type {htype}, length {hlen}")
    options = _options(data[_HEADER.size :], file, sname)
    kind = options.pop(Option.KIND, b"")
    if len(kind) != 1 or kind[0] not in Kind.__members__.values():
        raise Malformed(f"message type {kind.hex() or 'missing'}")
    return Message(
        Kind(kind[0]),
        xid,
        chaddr[:6].hex(":"),
        options,
        IPv4Address(ciaddr),
        IPv4Address(yiaddr),
        secs,
        bool(flags & _BROADCAST),
        op == 2,
    )


def _options(data: bytes, file: bytes, sname: bytes) -> dict[int, bytes]:
    """All options, from all the places that option 52 says there are some (RFC 2131 4.1, RFC 3396 5)."""
    found: dict[int, bytes] = {}
    _gather(data, found)
    overload = found.pop(Option.OVERLOAD, b"\0")
    if len(overload) != 1 or overload[0] > 3:
        raise Malformed(f"option 52 (overload) says {overload.hex()}")
    if overload[0] & 1:
        _gather(file, found)
    if overload[0] & 2:
        _gather(sname, found)
    return found


def _gather(data: bytes, found: dict[int, bytes]) -> None:
    place = 0
    while place < len(data):
        code = data[place]
        place += 1
        if code == 0:
            continue
        if code == 255:
            return
        if place == len(data) or place + 1 + data[place] > len(data):
            raise Malformed(f"option {code} is cut off")
        end = place + 1 + data[place]
        found[code] = found.get(code, b"") + data[place + 1 : end]
        place = end
