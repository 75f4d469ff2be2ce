"""Addresses and MACs that two have, and pools that have none left."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator

from berth.doctor.facts import Facts
from berth.doctor.report import Finding, Severity
from berth.model import Address, HostLink, Network, Pool
from berth.state import ours

_NEARLY = 20  # a pool is nearly exhausted when less than one part in so many is free


def gateway_address_on_bridge(facts: Facts) -> Iterator[Finding]:
    """This host has the address of its own router: what `docker network create` does to a LAN's bridge."""
    routers: set[Address] = {route.via for route in facts.host.routes if route.via is not None}
    routers |= {pool.gateway for net in facts.records.flat for pool in net.pools if pool.gateway is not None}
    for link in facts.host.links:
        for held in link.addresses:
            leads_out = _leads_out(facts, link, held.version)
            others = [] if leads_out else sorted(facts.answers.get((link.name, held.ip), ()))
            if ours(link.alias) or not (held.ip in routers or others):
                continue
            whose = "which is the router's address" if held.ip in routers else f"for which {others[0]} answers as well"
            yield Finding(
                "gateway-address-on-bridge",
                Severity.ERROR,
                f"{link.name} has {held.ip}, {whose}",
                "this host answers in the router's place: it and the LAN lose the internet. Docker's own bridge driver"
                " does that, and takes the host's own address and default route away: put those back afterwards",
                f"ip address delete {held} dev {link.name}",
            )


def _leads_out(facts: Facts, link: HostLink, version: int) -> bool:
    """Whether a default route leads through a link: then its addresses are the host's own."""
    defaults = (route for route in facts.host.routes if not route.dst.prefixlen and route.dst.version == version)
    return any(route.dev == link.name for route in defaults)


def duplicate_gateway(facts: Facts) -> Iterator[Finding]:
    """Two machines answer for the router's address."""
    for net in facts.records.flat:
        for pool in net.pools:
            if pool.gateway is None:
                continue
            macs = sorted(facts.answers.get((net.bridge, pool.gateway), frozenset()))
            if len(macs) > 1:
                yield Finding(
                    "duplicate-gateway",
                    Severity.ERROR,
                    f"gateway {pool.gateway} of network {net.name} is answered for by {' and '.join(macs)}",
                    "whoever believes the wrong one has no way out, now and then",
                    f"take {pool.gateway} away from the machine that is not the router",
                    command=False,
                )


def duplicate_address(facts: Facts) -> Iterator[Finding]:
    """Another machine answers for a container's address."""
    for net in facts.records.flat:
        for ep in facts.records.of(net):
            for address in ep.addresses:
                others = facts.answers.get((net.bridge, address.ip), frozenset()) - {ep.mac}
                if others:
                    yield Finding(
                        "duplicate-address",
                        Severity.ERROR,
                        f"{address.ip} of {ep.name} is answered for by {' and '.join(sorted(others))} as well",
                        "connections to it reach the one or the other",
                        f"berth detach {net.name} {ep.sandbox.path} &&"
                        f" berth attach {net.name} {ep.sandbox.path} --name {ep.name}",
                    )


def duplicate_mac(facts: Facts) -> Iterator[Finding]:
    """Two on one bridge have the same MAC."""
    for bridge in sorted({net.bridge for net in facts.records.networks if net.bridge}):
        nets = [net for net in facts.records.networks if net.bridge == bridge]
        holders: dict[str, list[str]] = defaultdict(list)
        for net in nets:
            for ep in facts.records.of(net):
                holders[ep.mac].append(f"endpoint {ep.name}")
        for (on, address), macs in facts.answers.items():
            for mac in macs if on == bridge and _stranger(facts, nets, address) else ():
                if mac in holders:
                    holders[mac].append(f"the machine at {address}")
        for mac, names in sorted(holders.items()):
            if len(names) > 1:
                yield Finding(
                    "duplicate-mac",
                    Severity.ERROR,
                    f"{' and '.join(names)} on {bridge} have the same MAC {mac}",
                    "a switch delivers to whichever of them has spoken last",
                    "give one of them another MAC: detach it, and attach it with --mac",
                    command=False,
                )


def _stranger(facts: Facts, nets: list[Network], address: Address) -> bool:
    """Whether an address is no container's."""
    return all(address != held.ip for net in nets for ep in facts.records.of(net) for held in ep.addresses)


def pool_exhausted(facts: Facts) -> Iterator[Finding]:
    """A pool has no address left, or hardly any."""
    for net in facts.records.networks:
        for pool in net.pools:
            size = _usable(pool)
            free = size - _taken(facts, net, pool)
            if free <= 0 or free * _NEARLY < size:
                yield Finding(
                    "pool-exhausted",
                    Severity.WARNING if free > 0 else Severity.ERROR,
                    f"network {net.name} has {max(free, 0)} of {size} addresses left in {pool.span}",
                    "the next container gets none",
                    f"detach who needs no address any more: see `berth endpoint ls --network {net.name}`",
                    command=False,
                )


def _usable(pool: Pool) -> int:
    """How many addresses can be given."""
    kept = {pool.gateway, *(address for _, address in pool.aux), *pool.reserved}
    if pool.subnet.version == 4 and pool.subnet.prefixlen < 31:
        kept |= {pool.subnet.network_address, pool.subnet.broadcast_address}
    if pool.subnet.version == 6:
        kept.add(pool.subnet.network_address)
    return pool.span.num_addresses - sum(1 for each in kept if each is not None and each in pool.span)


def _taken(facts: Facts, net: Network, pool: Pool) -> int:
    endpoints = (ep for ep in facts.records.endpoints if ep.network == net.id)
    return sum(
        1 for ep in endpoints for held in ep.addresses if held.version == pool.subnet.version and held.ip in pool.span
    )
