"""Subnets for networks that were asked for without one."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator
from ipaddress import IPv4Network, IPv6Network

from berth.errors import Exhausted
from berth.model import Subnet

#: Docker's default address pools, in its order; all private (RFC 1918).
DEFAULTS: tuple[IPv4Network, ...] = (
    *(IPv4Network(f"172.{second}.0.0/16") for second in range(17, 32)),
    *IPv4Network("192.168.0.0/16").subnets(new_prefix=20),
)

LARGEST = min(pool.prefixlen for pool in DEFAULTS)  # bits


def default_subnet(occupied: Iterable[Subnet], length: int | None = None) -> IPv4Network:
    """The first of Docker's default pools, or of their parts of that length in bits, that overlaps nothing in use.

    Default routes are no obstacle, nor are their halves 0.0.0.0/1 and 128.0.0.0/1, which VPN clients add to outdo
    the default route: they say where everything else goes, not that an address is in use.

    Raises `Exhausted` when each overlaps something.
    """
    obstacles = [net for net in occupied if isinstance(net, IPv4Network) and net.prefixlen > 1]
    for candidate in _candidates(length):
        if not any(candidate.overlaps(net) for net in obstacles):
            return candidate
    raise Exhausted(
        f"each of the {len(DEFAULTS)} default pools, {DEFAULTS[0]} to {DEFAULTS[-1]}, overlaps a network or route of"
        " this host: choose a subnet with --subnet"
    )


def _candidates(length: int | None) -> Iterator[IPv4Network]:
    for pool in DEFAULTS:
        if length is None:
            yield pool
        elif pool.prefixlen <= length:
            yield from pool.subnets(new_prefix=length)


def ula_subnet(seed: str) -> IPv6Network:
    """A unique local /64 (RFC 4193) that is always the same for the same seed.

    The global ID is 40 bits of a hash as in section 3.2.2, but of the seed rather than of the time: nothing here
    reads a clock, and who asks passes what makes the network unique. The subnet ID is 0.
    """
    global_id = hashlib.sha256(seed.encode()).digest()[:5]
    return IPv6Network((bytes([0xFD]) + global_id + bytes(10), 64))
