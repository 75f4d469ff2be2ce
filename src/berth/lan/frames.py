"""ARP and neighbour discovery as frames: what Berth sends, and what it understands of what others send.

Sources: RFC 826 and RFC 5227 (IPv4), RFC 4861 sections 4.3, 4.4 and 7.2.6, RFC 4862 section 5.4 (IPv6).
"""

from __future__ import annotations

import struct
from ipaddress import IPv4Address, IPv6Address

from berth.checksum import checksum
from berth.model import Address, Claim

ARP, IPV6 = 0x0806, 0x86DD  # EtherTypes
SOLICITATION, ADVERTISEMENT = 135, 136
ROUTER_ADVERTISEMENT = 134
_ICMPV6 = 58
_REQUEST = 1
_ETHERNET_IPV4 = bytes.fromhex("000108000604")  # hardware, protocol, and the lengths of either
_SOURCE_LINK, _TARGET_LINK = 1, 2  # options of neighbour discovery
_OVERRIDE = 0x20
_NOBODY6 = bytes(16)
_ALL_NODES, _ALL_ROUTERS = IPv6Address("ff02::1").packed, IPv6Address("ff02::2").packed
_ROUTER_SOLICITATION = 133
_EVERYBODY = b"\xff" * 6


def claim(frame: bytes) -> Claim | None:
    """What an Ethernet frame says of who has an address; None for any other frame, however broken."""
    kind = frame[12:14]
    if kind == b"\x08\x06":
        return _arp(frame)
    if kind == b"\x86\xdd":
        return _neighbour(frame)
    return None


def answer(frame: bytes) -> Claim | None:
    """The same, but only of a frame that answers a question: an ARP reply, or an advertisement."""
    said = claim(frame)
    if said is None or said.probe or (frame[12:14] == b"\x08\x06" and frame[20:22] != b"\0\2"):
        return None
    return said


def _arp(frame: bytes) -> Claim | None:
    """A request claims its sender's address as well as a reply does (RFC 5227 section 2.1.1)."""
    if len(frame) < 42 or frame[14:20] != _ETHERNET_IPV4 or frame[20:22] not in (b"\0\1", b"\0\2"):
        return None
    mac, sender, target = frame[22:28], frame[28:32], frame[38:42]
    probe = sender == bytes(4) and frame[21] == _REQUEST
    address = target if probe else sender
    if address == bytes(4) or not _unicast(mac):
        return None
    return Claim(IPv4Address(address), mac.hex(":"), probe)


def _neighbour(frame: bytes) -> Claim | None:
    """Of solicitations only those from the unspecified address: who asks before taking one (RFC 4862)."""
    if len(frame) < 78 or frame[20] != _ICMPV6 or frame[21] != 255 or frame[55]:
        return None
    target, kind = IPv6Address(frame[62:78]), frame[54]
    if target.is_multicast or target.is_unspecified or not _unicast(frame[6:12]):
        return None
    if kind == SOLICITATION:
        return Claim(target, frame[6:12].hex(":"), True) if frame[22:38] == _NOBODY6 else None
    if kind != ADVERTISEMENT:
        return None
    mac = _link(frame[78:], _TARGET_LINK) or frame[6:12]
    return Claim(target, mac.hex(":")) if _unicast(mac) else None


def _link(options: bytes, wanted: int) -> bytes | None:
    """The link address among the options of neighbour discovery (RFC 4861 section 4.6.1)."""
    while len(options) >= 8:
        size = options[1] * 8
        if not size or size > len(options):
            return None
        if options[0] == wanted and size == 8:
            return options[2:8]
        options = options[size:]
    return None


def _unicast(mac: bytes) -> bool:
    return not mac[0] & 1 and any(mac)


def probe(address: Address, mac: str, source: Address | None = None) -> bytes:
    """Ask who has an address without claiming any: RFC 5227 section 2.1.1, RFC 4862 section 5.4.2.

    `mac`: of the link that the frame leaves by, and that answers come to. `source`: an address that is asked from all
    the same, as RFC 826 and RFC 4861 section 4.3 have it.
    """
    own = _bytes(mac)
    if isinstance(address, IPv4Address):
        sender = source.packed if isinstance(source, IPv4Address) else bytes(4)
        said = _ETHERNET_IPV4 + struct.pack("!H6s4s6s4s", _REQUEST, own, sender, bytes(6), address.packed)
        return _EVERYBODY + own + struct.pack("!H", ARP) + said
    group = IPv6Address("ff02::1:ff00:0").packed[:13] + address.packed[13:]
    body = struct.pack("!BBHI", SOLICITATION, 0, 0, 0) + address.packed
    if isinstance(source, IPv6Address):
        return _packet(own, source.packed, group, body + bytes([_SOURCE_LINK, 1]) + own)
    return _packet(own, _NOBODY6, group, body)


def solicit_routers(mac: str) -> bytes:
    """Ask all routers to advertise themselves, from nobody's address: RFC 4861 section 4.1. `mac`: as for `probe`."""
    return _packet(_bytes(mac), _NOBODY6, _ALL_ROUTERS, struct.pack("!BBHI", _ROUTER_SOLICITATION, 0, 0, 0))


def announcement(address: Address, mac: str) -> bytes:
    """Tell everybody which MAC an address is at: RFC 5227 section 2.3, RFC 4861 section 7.2.6."""
    own = _bytes(mac)
    if isinstance(address, IPv4Address):
        said = _ETHERNET_IPV4 + struct.pack("!H6s4s6s4s", _REQUEST, own, address.packed, bytes(6), address.packed)
        return _EVERYBODY + own + struct.pack("!H", ARP) + said
    body = struct.pack("!BBHI", ADVERTISEMENT, 0, 0, _OVERRIDE << 24) + address.packed + bytes([_TARGET_LINK, 1]) + own
    return _packet(own, address.packed, _ALL_NODES, body)


def _packet(mac: bytes, source: bytes, group: bytes, body: bytes) -> bytes:
    """An ICMPv6 message to a group, whose MAC ends as its address does (RFC 2464 section 7)."""
    pseudo = source + group + struct.pack("!II", len(body), _ICMPV6)
    body = body[:2] + struct.pack("!H", checksum(pseudo + body)) + body[4:]
    head = struct.pack("!IHBB", 6 << 28, len(body), _ICMPV6, 255) + source + group
    return b"\x33\x33" + group[12:] + mac + struct.pack("!H", IPV6) + head + body


def _bytes(mac: str) -> bytes:
    return bytes.fromhex(mac.replace(":", ""))
