"""What there is on a LAN: who leases addresses, and whether two machines have the router's."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass

from berth.errors import NotFound
from berth.lan import frames, servers
from berth.lan.doubles import Double, doubles
from berth.lan.offers import Offer
from berth.lan.packets import NEIGHBOURS, Packets, heard
from berth.lan.routers import Question, Router6
from berth.lan.vendors import vendor
from berth.model import Address, HostLink, Interface, Served

_ADVERTISE = 1.5  # seconds: a router waits for up to half a second (RFC 4861 section 6.2.6), and may be slow
_ANSWER = 0.5  # seconds for a machine that is awake


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
    offers: tuple[Offer, ...]  # the first one of each DHCP server
    served: tuple[Served, ...]  # what each of them gives
    routers6: tuple[Router6, ...]  # that advertise themselves
    doubles: tuple[Double, ...]  # addresses that several machines have


def discover(link: HostLink, routers: Sequence[Address]) -> Found:
    """Look at the LAN behind a bridge. Takes up to 6 s. Raises `Denied`, and `NotFound` for a bridge that goes."""
    addresses = tuple(address for address in link.addresses if not address.is_link_local)
    try:
        asked = Question(link.name)
        try:
            until = time.monotonic() + _ADVERTISE
            answers = _answers(link.name, routers)
            doubled = doubles(link.name, addresses)
            offers = servers.offered(link.name)
            advertised = asked.answers(until)
        finally:
            asked.close()
    except OSError as error:
        raise NotFound(f"cannot look at the LAN of {link.name} ({error.strerror}): see that it is there") from None
    found = tuple(
        Router(address, tuple(sorted(macs)), tuple(map(vendor, sorted(macs)))) for address, macs in answers.items()
    )
    firsts = tuple(reversed({offer.server: offer for offer in reversed(offers)}.values()))
    return Found(link.name, addresses, found, firsts, servers.served(offers), advertised, doubled)


def _answers(dev: str, addresses: Sequence[Address]) -> dict[Address, set[str]]:
    """All machines that answer for each of the addresses."""
    macs: dict[Address, set[str]] = {address: set() for address in addresses}
    packets = Packets(dev, NEIGHBOURS)
    try:
        for address in macs:
            packets.send(frames.probe(address, packets.mac))
        for frame in heard(packets, time.monotonic() + _ANSWER):
            said = frames.claim(frame)
            if said is not None and not said.probe and said.address in macs:
                macs[said.address].add(said.mac)
    finally:
        packets.close()
    return macs
