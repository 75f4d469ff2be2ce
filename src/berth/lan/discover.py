"""What there is on a LAN: who leases addresses, and whether two machines have the router's."""

from __future__ import annotations

import secrets
import selectors
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from berth.errors import NotFound
from berth.lan import frames, offers
from berth.lan.packets import DHCP, NEIGHBOURS, Packets
from berth.lan.vendors import vendor
from berth.model import Address, HostLink, Interface

_ANSWER = 0.5  # seconds for a machine that is awake
_OFFER = 4.0  # seconds: many servers see first whether somebody has the address, dnsmasq for three
_OTHERS = 0.5  # seconds for a second server, after the first one's offer


@dataclass(frozen=True, slots=True)
class Router:
    """The next hop of a default route of the host's, and who answers for its address: more than one is a mistake."""

    address: Address
    macs: tuple[str, ...]
    vendors: tuple[str, ...]  # "" for one that is not known


@dataclass(frozen=True, slots=True)
class Found:
    """A LAN, as far as it answers."""

    bridge: str
    addresses: tuple[Interface, ...]  # the host's own
    routers: tuple[Router, ...]
    offers: tuple[offers.Offer, ...]  # one a DHCP server


def discover(link: HostLink, routers: Sequence[Address]) -> Found:
    """Look at the LAN behind a bridge. Takes up to 4.5 s. Raises `Denied`, and `NotFound` for a bridge that goes."""
    addresses = tuple(address for address in link.addresses if not address.is_link_local)
    try:
        answers = _answers(link.name, routers)
        offers = _offers(link.name)
    except OSError as error:
        raise NotFound(f"cannot look at the LAN of {link.name} ({error.strerror}): see that it is there") from None
    found = tuple(
        Router(address, tuple(sorted(macs)), tuple(map(vendor, sorted(macs)))) for address, macs in answers.items()
    )
    return Found(link.name, addresses, found, offers)


def _answers(dev: str, addresses: Sequence[Address]) -> dict[Address, set[str]]:
    """All machines that answer for each of the addresses."""
    macs: dict[Address, set[str]] = {address: set() for address in addresses}
    packets = Packets(dev, NEIGHBOURS)
    try:
        for address in macs:
            packets.send(frames.probe(address, packets.mac))
        for frame in _heard(packets, time.monotonic() + _ANSWER):
            said = frames.claim(frame)
            if said is not None and not said.probe and said.address in macs:
                macs[said.address].add(said.mac)
    finally:
        packets.close()
    return macs


def _offers(dev: str) -> tuple[offers.Offer, ...]:
    """What the DHCP servers offer to a client that there is not."""
    mac, transaction = (b"\x02" + secrets.token_bytes(5)).hex(":"), secrets.randbits(32)
    found: dict[str, offers.Offer] = {}
    packets = Packets(dev, DHCP)
    try:
        packets.send(offers.discover(mac, transaction))
        until = time.monotonic() + _OFFER
        for frame in _heard(packets, until):
            said = offers.offer(frame, mac, transaction)
            if said is not None:
                found.setdefault(str(said.server), said)
                until = min(until, time.monotonic() + _OTHERS)
            if time.monotonic() >= until:
                break
    finally:
        packets.close()
    return tuple(found.values())


def _heard(packets: Packets, until: float) -> Iterator[bytes]:
    """Frames as they come; an empty one now and again, for who wants to stop before."""
    with selectors.DefaultSelector() as selector:
        selector.register(packets, selectors.EVENT_READ)
        while (left := until - time.monotonic()) > 0:
            selector.select(min(left, 0.1))
            yield from packets.take() or [b""]
