"""Choosing and checking a network's pools: what the drivers that give addresses share."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from berth import ipam
from berth.errors import Invalid, Taken
from berth.model import Address, Host, NetworkSpec, Pool, StaticRoute, Subnet
from berth.spec import static_routes


def refuse_overlap_with_networks(pools: Iterable[Pool], host: Host) -> None:
    """Raise `Taken` when a pool overlaps one of another network, or one that Docker holds for something else."""
    for pool in pools:
        for held in host.held:
            if ipam.overlap(pool.subnet, held):
                raise Taken(
                    f"subnet {pool.subnet} overlaps {held}, which a Docker network has: choose another --subnet"
                )
        for other in host.networks:
            for theirs in other.pools:
                if ipam.overlap(pool.subnet, theirs.subnet):
                    raise Taken(
                        f"subnet {pool.subnet} overlaps {theirs.subnet} of network {other.name}:"
                        f" choose another --subnet, or remove it with `berth network rm {other.name}`"
                    )


def refuse_overlap_with_host(pools: Iterable[Pool], host: Host) -> None:
    """Raise `Taken` when a pool overlaps a network that the host itself reaches."""
    for pool in pools:
        for subnet, dev in routed(host):
            if ipam.overlap(pool.subnet, subnet):
                raise Taken(
                    f"subnet {pool.subnet} overlaps the host's route to {subnet} on {dev}: choose another --subnet,"
                    f" or a flat network (`--driver flat -o parent={dev}`) if the containers belong on that LAN"
                )


def routed(host: Host) -> Iterator[tuple[Subnet, str]]:
    """What the host reaches: its routes other than default ones, and its addresses' networks."""
    ours = {net.bridge for net in host.networks if net.nat}
    for route in host.routes:
        if route.dst.prefixlen and route.dev not in ours and not route.dst.is_link_local:
            yield route.dst, route.dev
    for link in host.links:
        for address in link.addresses:
            if link.name not in ours and not address.is_link_local and not address.is_loopback:
                yield address.network, link.name


def first_free(pool: Pool) -> Address:
    """The lowest host address of a subnet that the operator has not reserved: the gateway's by custom."""
    aux = {address for _, address in pool.aux}
    for number in range(1, pool.subnet.num_addresses - 1):
        if (address := pool.subnet[number]) not in aux:
            return address
    raise Invalid(f"every address of {pool.subnet} is an aux-address: none is left for the gateway")


def routes(asked: NetworkSpec, pools: Iterable[Pool]) -> tuple[StaticRoute, ...]:
    """The network's static routes. Raises `Invalid` for a router that is not in one of its subnets."""
    text = asked.setting("routes")
    wanted = () if text is None else static_routes(text)
    subnets = [pool.subnet for pool in pools]
    for route in wanted:
        if not any(route.via in subnet for subnet in subnets):
            known = ", ".join(map(str, subnets))
            raise Invalid(f"the router of route {route.subnet}={route.via} is in none of the subnets ({known})")
        if any(ipam.overlap(route.subnet, subnet) for subnet in subnets):
            raise Invalid(f"route {route.subnet}={route.via} overlaps a subnet of the network: leave it out")
    return wanted


def mtu(asked: NetworkSpec, default: int, limit: int | None = None) -> int:
    """The network's MTU in bytes. Raises `Invalid` for one that its uplink cannot carry."""
    text = asked.setting("mtu")
    if text is None:
        return default
    value = int(text)
    if limit is not None and value > limit:
        raise Invalid(f"mtu {value} is more than the LAN's {limit}: leave it out, or use {limit} or less")
    return value
