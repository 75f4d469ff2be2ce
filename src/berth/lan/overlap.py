"""Whether a DHCP server of a LAN's would give an address of a range that is not its own.

One DISCOVER with a wish inside the range, which no REQUEST follows. Many servers ping an address before they offer it,
dnsmasq for three seconds; but they ask by ARP who has it at once. So there is only something to wait for where an
address of the range is asked for, and a healthy LAN costs no more than the first look.
"""

from __future__ import annotations

import secrets
import selectors
import time
from collections.abc import Collection
from ipaddress import IPv4Address, IPv4Network

from berth.lan import offers
from berth.lan.dhcp import frames, messages
from berth.lan.dhcp.frames import Datagram
from berth.lan.dhcp.messages import Kind, Message, Option
from berth.lan.offers import Offer
from berth.lan.packets import DHCP, NEIGHBOURS, Packets

_FIRST = 1.0  # seconds: for a server that does not look first, and for one that does to ask
_OFFER = 3.8  # seconds, when one does
_TRIED = 1024  # addresses of a range that are looked through for a free one


def offered(dev: str, span: IPv4Network, taken: Collection[IPv4Address]) -> tuple[IPv4Address, IPv4Address] | None:
    """An address of a range that some server offers, and the server; None for none. Takes 1 s, or 3.8 s.

    `taken`: addresses of the range that the server cannot give. None also for a bridge that is down or gone.
    Raises `Denied`.
    """
    wish = _free(span, taken)
    if wish is None:
        return None
    try:
        hearing = Packets(dev, DHCP), Packets(dev, NEIGHBOURS)
    except OSError:
        return None
    try:
        said = _ask(*hearing, span, wish, taken)
    finally:
        for packets in hearing:
            packets.close()
    return None if said is None else (said.address, said.server)


def _free(span: IPv4Network, taken: Collection[IPv4Address]) -> IPv4Address | None:
    """The middle of a range, or the next free one: a server whose range overlaps has it more likely than an end."""
    middle = span.num_addresses // 2
    for number in range(middle, min(middle + _TRIED, span.num_addresses)):
        if span[number] not in taken:
            return span[number]
    return None


def _ask(
    dhcp: Packets, arp: Packets, span: IPv4Network, wish: IPv4Address, taken: Collection[IPv4Address]
) -> Offer | None:
    mac, transaction = (b"\x02" + secrets.token_bytes(5)).hex(":"), secrets.randbits(32)
    options: dict[int, bytes] = {Option.ASKED: bytes((Option.MASK, Option.ROUTER)), Option.WANTED: wish.packed}
    question = Message(Kind.DISCOVER, transaction, mac, options, broadcast=True)
    dhcp.send(frames.encode(Datagram(messages.encode(question), mac)))
    began = time.monotonic()
    until = began + _FIRST
    with selectors.DefaultSelector() as selector:
        selector.register(dhcp, selectors.EVENT_READ)
        selector.register(arp, selectors.EVENT_READ)
        while (left := until - time.monotonic()) > 0:
            selector.select(left)
            for frame in dhcp.take():
                said = offers.offer(frame, mac, transaction)
                if said is not None and said.address in span:
                    return said
            if any(_looked_for(frame, span, taken) for frame in arp.take()):
                until = began + _OFFER
    return None


def _looked_for(frame: bytes, span: IPv4Network, taken: Collection[IPv4Address]) -> bool:
    """Whether somebody asks by ARP for an address of the range that nobody is known to have (RFC 826)."""
    if len(frame) < 42 or frame[12:14] != b"\x08\x06" or frame[20:22] != b"\0\1":
        return False
    target = IPv4Address(frame[38:42])
    return target in span and target not in taken
