"""How fast an endpoint may receive and send: what every driver with a bridge does the same way."""

from __future__ import annotations

from berth.model import Endpoint, Network
from berth.quantities import rate, size
from berth.rates import NftRate, Shaped
from berth.state import NOTHING, State

_HEADER = 14  # bytes of Ethernet, which an MTU leaves out
_SHAPED_BURST = 32 << 10  # bytes: some twenty packets, so that slow rates do not wait for each
_POLICED_BURST = 128 << 10  # bytes: two of the largest packets, as TCP hands them over undivided
_LARGEST_PACKET = 68 << 10  # bytes: 64 KiB with all headers


def limits(net: Network, ep: Endpoint) -> State:
    """The queue and the policer of one endpoint, where a rate was asked for.

    A rate of its own, with its burst, replaces the network's.
    """
    if not (net.rates or ep.options):
        return NOTHING
    objects: set[Shaped | NftRate] = set()
    if (ingress := _asked(net, ep, "ingress")) is not None:
        speed, burst = ingress
        # A packet larger than the bucket would never get through.
        least = (net.bridge_mtu or net.mtu) + _HEADER
        objects.add(Shaped(ep.link, speed, max(burst or max(speed // 100, _SHAPED_BURST), least)))
    if (egress := _asked(net, ep, "egress")) is not None:
        speed, burst = egress
        objects.add(NftRate(ep.link, speed, max(burst or _POLICED_BURST, _LARGEST_PACKET)))
    return frozenset(objects)


def _asked(net: Network, ep: Endpoint, way: str) -> tuple[int, int] | None:
    """Bytes a second and bytes at once (0: not said); None for no limit."""
    for said in (dict(ep.options), dict(net.rates)):
        if f"{way}_rate" in said:
            return rate(said[f"{way}_rate"]), size(said[f"{way}_burst"]) if f"{way}_burst" in said else 0
    return None
