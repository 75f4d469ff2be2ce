"""Asking which DHCP servers a LAN has, without taking a lease: a DISCOVER that no REQUEST follows (RFC 2131)."""

from __future__ import annotations

from dataclasses import dataclass
from ipaddress import IPv4Address, IPv4Network

from berth.lan.dhcp import frames, messages
from berth.lan.dhcp.frames import Datagram
from berth.lan.dhcp.messages import Kind, Malformed, Message, Option

_ASKED = bytes((Option.MASK, Option.ROUTER, Option.LIFETIME))


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
    asked = Message(Kind.DISCOVER, transaction, mac, {Option.ASKED: _ASKED}, broadcast=True)
    return frames.encode(Datagram(messages.encode(asked), mac))


def offer(frame: bytes, mac: str, transaction: int) -> Offer | None:
    """The offer in a frame that answers such a DISCOVER; None for any other frame, however broken."""
    try:
        datagram = frames.decode(frame)
        said = messages.decode(datagram.payload)
    except Malformed:
        return None
    if not said.reply or (said.kind, said.xid, said.mac) != (Kind.OFFER, transaction, mac) or said.server is None:
        return None
    mask, router, lease = (
        said.options.get(option, b"")[:4] for option in (Option.MASK, Option.ROUTER, Option.LIFETIME)
    )
    return Offer(
        server=said.server,
        mac=datagram.src_mac,
        address=IPv4Address(int(said.yiaddr)),
        subnet=_subnet(said.yiaddr.packed, mask),
        router=IPv4Address(router) if len(router) == 4 else None,
        lease=int.from_bytes(lease, "big") if len(lease) == 4 else None,
    )


def _subnet(address: bytes, mask: bytes) -> IPv4Network | None:
    if len(mask) != 4:
        return None
    bits = f"{int.from_bytes(mask, 'big'):032b}"
    if "01" in bits:
        return None  # no mask
    return IPv4Network((address, bits.count("1")), strict=False)
