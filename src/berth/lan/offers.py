"""Asking which DHCP servers a LAN has, without taking a lease: a DISCOVER that no REQUEST follows.

Sources: RFC 2131 (messages), RFC 2132 (options), RFC 768 and RFC 791 (headers).
"""

from __future__ import annotations

import struct
from collections.abc import Mapping
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv4Network

_MAGIC = b"\x63\x82\x53\x63"
_HEAD = struct.Struct("!BBBBIHH4s4s4s4s16s64s128s4s")  # RFC 2131 section 2, and the magic cookie
_BROADCAST = 0x8000
_MASK, _ROUTER, _LEASE, _TYPE, _SERVER, _WANTED, _END = 1, 3, 51, 53, 54, 55, 255
_DISCOVER, _OFFER = 1, 2
_ETHERNET_IP_UDP = 14 + 20 + 8  # bytes, without options of IP


@dataclass(frozen=True, slots=True)
class Offer:
    """What a DHCP server would give."""

    server: IPv4Address
    mac: str  # of who has sent it: the server, or a relay
    address: IPv4Address
    subnet: IPv4Network | None
    router: IPv4Address | None
    lease: int | None  # seconds


def discover(mac: str, transaction: int) -> bytes:
    """A DISCOVER as an Ethernet frame, whose answers are to come by broadcast. `transaction`: 32 bits."""
    own = bytes.fromhex(mac.replace(":", ""))
    none = bytes(4)
    head = _HEAD.pack(1, 1, 6, 0, transaction, 0, _BROADCAST, none, none, none, none, own, b"", b"", _MAGIC)
    options = bytes([_TYPE, 1, _DISCOVER, _WANTED, 3, _MASK, _ROUTER, _LEASE, _END])
    said = (head + options).ljust(300, b"\0")  # as short as BOOTP has it at least (RFC 1542 section 2.1)
    udp = struct.pack("!HHHH", 68, 67, 8 + len(said), 0) + said
    ip = struct.pack("!BBHHHBBH4s4s", 0x45, 0, 20 + len(udp), 0, 0, 64, 17, 0, none, b"\xff" * 4)
    total = sum(struct.unpack("!10H", ip))
    total = (total & 0xFFFF) + (total >> 16)
    ip = ip[:10] + struct.pack("!H", ~total & 0xFFFF) + ip[12:]
    return b"\xff" * 6 + own + b"\x08\x00" + ip + udp


def offer(frame: bytes, mac: str, transaction: int) -> Offer | None:
    """The offer in a frame that answers such a DISCOVER; None for any other frame, however broken."""
    if len(frame) < _ETHERNET_IP_UDP + _HEAD.size or frame[12:14] != b"\x08\x00":
        return None
    said = frame[14 + (frame[14] & 15) * 4 + 8 :]
    if len(said) < _HEAD.size:
        return None
    op, _, _, _, told, _, _, _, yours, _, _, client, _, _, magic = _HEAD.unpack_from(said)
    if (op, told, magic, client[:6].hex(":")) != (2, transaction, _MAGIC, mac):
        return None
    options = _options(said[_HEAD.size :])
    if options.get(_TYPE) != bytes([_OFFER]) or len(options.get(_SERVER, b"")) != 4:
        return None
    mask, router, lease = (options.get(key, b"")[:4] for key in (_MASK, _ROUTER, _LEASE))
    return Offer(
        server=IPv4Address(options[_SERVER]),
        mac=frame[6:12].hex(":"),
        address=IPv4Address(yours),
        subnet=_subnet(yours, mask),
        router=IPv4Address(router) if len(router) == 4 else None,
        lease=int.from_bytes(lease, "big") if len(lease) == 4 else None,
    )


def _options(data: bytes) -> Mapping[int, bytes]:
    found: dict[int, bytes] = {}
    while len(data) >= 2 and data[0] != _END:
        if not data[0]:  # a pad
            data = data[1:]
            continue
        found[data[0]] = data[2 : 2 + data[1]]
        data = data[2 + data[1] :]
    return found


def _subnet(address: bytes, mask: bytes) -> IPv4Network | None:
    if len(mask) != 4:
        return None
    bits = f"{int.from_bytes(mask, 'big'):032b}"
    if "01" in bits:
        return None  # no mask
    return IPv4Network((address, bits.count("1")), strict=False)
