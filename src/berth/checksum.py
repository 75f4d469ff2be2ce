"""The Internet checksum."""

from __future__ import annotations

import struct


def checksum(data: bytes) -> int:
    """Of any number of bytes, as IPv4, UDP and ICMP have it (RFC 1071)."""
    if len(data) & 1:
        data += b"\0"
    total: int = sum(struct.unpack(f"!{len(data) // 2}H", data))
    while total >> 16:
        total = (total & 0xFFFF) + (total >> 16)
    return ~total & 0xFFFF
