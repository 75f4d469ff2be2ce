"""Which DHCP servers a LAN has, and what they give: asked as clients that there are not, who take nothing."""

from __future__ import annotations

import secrets
import time
from collections.abc import Callable, Sequence
from ipaddress import IPv4Address

from berth.lan import offers
from berth.lan.offers import Offer
from berth.lan.packets import DHCP, Packets, heard
from berth.model import Served

_OFFER = 4.0  # seconds: many servers see first whether somebody has the address, dnsmasq for three
_OTHERS = 0.3  # seconds for a second server, after the first one's offer
_PROMPT = 0.5  # seconds within which a server answers that sees nothing first: to ask it again costs it nothing
_CLIENTS = 3  # that a prompt server is asked as: more offers tell more of its range


def offered(dev: str) -> tuple[Offer, ...]:
    """All offers that come, in their order. Takes up to 4.5 s, where servers answer at once 0.6.

    A server that looks for an address's holder before it offers it serves nobody else meanwhile: it is asked once.
    Raises `Denied`, and `OSError` for a link that is not there.
    """
    packets = Packets(dev, DHCP)
    try:
        found, waited = _ask(packets, 1, _OFFER)
        if found and waited < _PROMPT:
            servers = {str(offer.server) for offer in found}
            more, _ = _ask(packets, _CLIENTS - 1, _OTHERS, lambda said: _all_said(said, servers))
            found += more
    finally:
        packets.close()
    return tuple(found)


def _ask(
    packets: Packets, clients: int, patience: float, enough: Callable[[Sequence[Offer]], bool] = lambda _: False
) -> tuple[list[Offer], float]:
    """Ask as so many clients; their offers, and how many seconds the first of them took."""
    asked = {secrets.randbits(32): (b"\x02" + secrets.token_bytes(5)).hex(":") for _ in range(clients)}
    for transaction, mac in asked.items():
        packets.send(offers.discover(mac, transaction))
    found: list[Offer] = []
    began = time.monotonic()
    until, first = began + patience, patience
    for frame in heard(packets, until):
        said = next(filter(None, (offers.offer(frame, mac, number) for number, mac in asked.items())), None)
        if said is not None:
            first = min(first, time.monotonic() - began)
            found.append(said)
            until = min(until, time.monotonic() + _OTHERS)
        if time.monotonic() >= until or enough(found):
            break
    return found, first


def _all_said(found: Sequence[Offer], servers: set[str]) -> bool:
    return all(sum(str(offer.server) == server for offer in found) == _CLIENTS - 1 for server in servers)


def served(found: Sequence[Offer]) -> tuple[Served, ...]:
    """What each server gives at least, by its offers."""
    by_server: dict[IPv4Address, list[Offer]] = {}
    for offer in found:
        by_server.setdefault(offer.server, []).append(offer)
    return tuple(_span(server, all_) for server, all_ in by_server.items())


def _span(server: IPv4Address, found: Sequence[Offer]) -> Served:
    addresses = [offer.address for offer in found]
    return Served(server, min(addresses), max(addresses), found[0].subnet, found[0].router)
