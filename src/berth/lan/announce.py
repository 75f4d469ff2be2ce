"""Telling the neighbours where an address is now.

A switch and every machine that spoke to an address before remember its old MAC: without an announcement,
traffic goes nowhere for as long as they do (half an hour is common). RFC 5227 section 3, RFC 4861 section 7.2.6.
"""

from __future__ import annotations

import socket
import struct
from ipaddress import IPv6Address

from berth.errors import BerthError
from berth.kernel.netns import inside
from berth.model import Endpoint, Interface, Placement

_BROADCAST = b"\xff" * 6
_ALL_NODES = IPv6Address("ff02::1").packed
_ARP, _IPV6 = 0x0806, 0x86DD


def arp(mac: bytes, address: bytes) -> bytes:
    """A gratuitous ARP request: sender and target are the same address."""
    head = struct.pack("!6s6sHHHBBH", _BROADCAST, mac, _ARP, 1, 0x0800, 6, 4, 1)
    return head + mac + address + bytes(6) + address


def neighbour_advertisement(mac: bytes, address: bytes) -> bytes:
    """An unsolicited neighbour advertisement with the override flag, to all nodes."""
    body = struct.pack("!BBHI16sBB6s", 136, 0, 0, 0x20000000, address, 2, 1, mac)
    checksum = _checksum(address + _ALL_NODES + struct.pack("!II", len(body), 58) + body)
    body = body[:2] + struct.pack("!H", checksum) + body[4:]
    ip = struct.pack("!IHBB16s16s", 6 << 28, len(body), 58, 255, address, _ALL_NODES)
    return b"\x33\x33\0\0\0\x01" + mac + struct.pack("!H", _IPV6) + ip + body


def _checksum(data: bytes) -> int:
    total: int = sum(struct.unpack(f"!{len(data) // 2}H", data))
    while total >> 16:
        total = (total & 0xFFFF) + (total >> 16)
    return ~total & 0xFFFF


def _frame(mac: bytes, interface: Interface) -> bytes:
    make = arp if interface.version == 4 else neighbour_advertisement
    return make(mac, interface.ip.packed)


class Neighbours:
    """Speaks from the endpoint's own interface, so that every switch on the way learns where its MAC is."""

    def announce(self, ep: Endpoint) -> None:
        """Send one announcement for each address. A sandbox that vanished meanwhile needs none."""
        if ep.placement is not Placement.FULL or not ep.addresses:
            return
        mac = bytes.fromhex(ep.mac.replace(":", ""))
        try:
            with inside(ep.sandbox.path):
                packet = socket.socket(socket.AF_PACKET, socket.SOCK_RAW)
        except (BerthError, OSError):
            return
        with packet:
            try:
                packet.bind((ep.ifname, 0))
                for interface in ep.addresses:
                    packet.send(_frame(mac, interface))
            except OSError:
                return
