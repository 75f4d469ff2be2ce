"""Ethernet frames with a UDP datagram over IPv4 in them (RFC 791, 768). Pure."""

from __future__ import annotations

import struct
from dataclasses import dataclass
from ipaddress import IPv4Address

from berth.checksum import checksum
from berth.lan.dhcp.messages import NOWHERE, Malformed

EVERYBODY = IPv4Address("255.255.255.255")
EVERY_MAC = "ff:ff:ff:ff:ff:ff"
CLIENT, SERVER = 68, 67  # UDP ports

_IP = struct.Struct("!BBHHHBBH4s4s")
_UDP = struct.Struct("!HHHH")
_ETHERNET = 14
_PROTOCOL = 17
_DONT_FRAGMENT = 0x4000


@dataclass(frozen=True, slots=True)
class Datagram:
    """What a frame carries, from whom, to whom."""

    payload: bytes
    src_mac: str
    dst_mac: str = EVERY_MAC
    src: IPv4Address = NOWHERE
    dst: IPv4Address = EVERYBODY
    sport: int = CLIENT
    dport: int = SERVER


def encode(datagram: Datagram) -> bytes:
    """The frame."""
    length = len(datagram.payload) + _UDP.size
    src, dst = datagram.src.packed, datagram.dst.packed
    header = _IP.pack(0x45, 0, length + _IP.size, 0, _DONT_FRAGMENT, 64, _PROTOCOL, 0, src, dst)
    header = header[:10] + struct.pack("!H", checksum(header)) + header[12:]
    udp = _UDP.pack(datagram.sport, datagram.dport, length, 0)
    pseudo = src + dst + struct.pack("!BBH", 0, _PROTOCOL, length)
    udp = udp[:6] + struct.pack("!H", checksum(pseudo + udp + datagram.payload) or 0xFFFF)
    macs = bytes.fromhex((datagram.dst_mac + datagram.src_mac).replace(":", ""))
    return macs + b"\x08\x00" + header + udp + datagram.payload


def decode(frame: bytes) -> Datagram:
    """What is in a frame that the socket's filter let through; raises `Malformed`.

    The UDP checksum is not looked at: from a server on this very host it is not filled in yet.
    """
    if len(frame) < _ETHERNET + _IP.size + _UDP.size or frame[_ETHERNET] >> 4 != 4:
        raise Malformed("no IPv4 packet")
    start = _ETHERNET + (frame[_ETHERNET] & 15) * 4
    if len(frame) < start + _UDP.size or start < _ETHERNET + _IP.size:
        raise Malformed("the IPv4 packet is cut off")
    sport, dport, length, _ = _UDP.unpack_from(frame, start)
    if length < _UDP.size or start + length > len(frame):
        raise Malformed("the datagram is cut off")
    src, dst = frame[_ETHERNET + 12 : _ETHERNET + 16], frame[_ETHERNET + 16 : _ETHERNET + 20]
    payload = frame[start + _UDP.size : start + length]
    return Datagram(payload, frame[6:12].hex(":"), frame[:6].hex(":"), IPv4Address(src), IPv4Address(dst), sport, dport)
