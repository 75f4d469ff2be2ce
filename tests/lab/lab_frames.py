"""Frames, written by hand."""

from __future__ import annotations

import struct
from ipaddress import ip_address

EVERYBODY, ALL_NODES = "ff:ff:ff:ff:ff:ff", "33:33:00:00:00:01"
_ARP, _IP4, _IP6 = 0x0806, 0x0800, 0x86DD
_UDP, _ICMP6, _FRAGMENT, _OPTIONS, _HOP_BY_HOP = 17, 58, 44, 60, 0


def ether(dst: str, src: str, kind: int, payload: bytes, *tags: tuple[int, int]) -> bytes:
    """A frame; tags are (EtherType, VLAN)."""
    head = bytes.fromhex(dst.replace(":", "")) + bytes.fromhex(src.replace(":", ""))
    return head + b"".join(struct.pack(">HH", *tag) for tag in tags) + struct.pack(">H", kind) + payload


def untagged(frame: bytes) -> bytes:
    """A frame without its outer tag, as a packet socket hands it over."""
    return frame[:12] + frame[16:] if frame[12:14] in (b"\x81\x00", b"\x88\xa8") else frame


def arp(dst: str, src: str, what: int, sender: tuple[str, str], target: tuple[str, str]) -> bytes:
    """RFC 826: 1 asks, 2 answers; (MAC, IP) of both."""
    body = struct.pack(">HHBBH", 1, _IP4, 6, 4, what)
    for mac, ip in (sender, target):
        body += bytes.fromhex(mac.replace(":", "")) + _packed(ip)
    return ether(dst, src, _ARP, body)


def ip4(src: str, dst: str, proto: int, payload: bytes) -> bytes:
    """An IPv4 packet."""
    head = struct.pack(">BBHHHBBH", 0x45, 0, 20 + len(payload), 7, 0, 64, proto, 0) + _packed(src) + _packed(dst)
    return head[:10] + struct.pack(">H", _checksum(head)) + head[12:] + payload


def ip6(src: str, dst: str, proto: int, payload: bytes, hops: int = 255) -> bytes:
    """An IPv6 packet."""
    return struct.pack(">IHBB", 6 << 28, len(payload), proto, hops) + _packed(src) + _packed(dst) + payload


def udp(src: str, dst: str, sport: int, dport: int, data: bytes = b"x" * 16) -> bytes:
    """A UDP datagram in an IP packet."""
    raw = struct.pack(">HHHH", sport, dport, 8 + len(data), 0) + data
    raw = raw[:6] + struct.pack(">H", _sum_for(src, dst, _UDP, raw)) + raw[8:]
    return ip6(src, dst, _UDP, raw) if ":" in src else ip4(src, dst, _UDP, raw)


def icmp6(src: str, dst: str, kind: int, body: bytes) -> tuple[int, bytes]:
    """An ICMPv6 message, as (protocol, bytes): `body` is all behind the checksum."""
    raw = struct.pack(">BBH", kind, 0, 0) + body
    return _ICMP6, raw[:2] + struct.pack(">H", _sum_for(src, dst, _ICMP6, raw)) + raw[4:]


def behind(header: int, inner: tuple[int, bytes]) -> tuple[int, bytes]:
    """Put eight bytes of hop-by-hop (0) or destination (60) options before something."""
    proto, payload = inner
    return header, bytes([proto, 0, 1, 4, 0, 0, 0, 0]) + payload


def fragment(proto: int, payload: bytes, offset: int = 0, *, more: bool = False) -> tuple[int, bytes]:
    """A part of something; `offset` in bytes."""
    return _FRAGMENT, struct.pack(">BBHI", proto, 0, offset | more, 7) + payload


def igmp_report(group: str = "224.0.0.251") -> bytes:
    """That somebody joins a group: RFC 2236."""
    raw = b"\x16\0\0\0" + _packed(group)
    return raw[:2] + struct.pack(">H", _checksum(raw)) + raw[4:]


def advertisement(lifetime: int = 0) -> bytes:
    """What makes a router of whoever sends it, for so many seconds: RFC 4861 section 4.2, with a prefix."""
    prefix = struct.pack(">BBBBIII", 3, 4, 64, 0xC0, lifetime, lifetime, 0) + _packed("fd66::")
    return struct.pack(">BBHII", 64, 0, lifetime, 0, 0) + prefix


def about(address: str, mac: str = "", *, flags: int = 0x20) -> bytes:
    """The body of a neighbour solicitation or advertisement, with the target's MAC."""
    option = bytes([2, 1]) + bytes.fromhex(mac.replace(":", "")) if mac else b""
    return struct.pack(">BBH", flags, 0, 0) + _packed(address) + option


def _packed(address: str) -> bytes:
    return ip_address(address).packed


def _sum_for(src: str, dst: str, proto: int, raw: bytes) -> int:
    tail = struct.pack(">HH", proto, len(raw)) if ":" not in src else struct.pack(">II", len(raw), proto)
    return _checksum(_packed(src) + _packed(dst) + tail + raw)


def _checksum(raw: bytes) -> int:
    raw += b"\0" * (len(raw) % 2)
    total: int = sum(struct.unpack(f">{len(raw) // 2}H", raw))
    while total >> 16:
        total = (total & 0xFFFF) + (total >> 16)
    return ~total & 0xFFFF
