"""Pools that are asked for before anybody says what network they are for, as Docker asks its IPAM drivers.

Whether a pool is the LAN's can be told all the same: it is when the host has an address in it. Then the router's
address and the host's own are known, and are never given.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from ipaddress import IPv6Network

from berth.errors import Exhausted, Invalid, NotFound, Taken
from berth.ipam.checks import check, overlap
from berth.ipam.defaults import LARGEST, default_subnet, ula_subnet
from berth.model import Address, Host, HostLink, Pool, PoolRequest, Subnet
from berth.state import ours


def pool_for(asked: PoolRequest, host: Host, held: Sequence[Pool], seed: str) -> Pool:
    """The pool that a request means, with what the host knows of it. `seed` makes a chosen IPv6 subnet unique.

    Asked for the subnet and range of a pool that is held already, it is that very pool, for networks to share.

    Raises `Invalid`, `NotFound`, `Taken` for a subnet that a network of Berth's own has, and `Exhausted`.
    """
    others = [*held, *(pool for net in host.networks for pool in net.pools)]
    subnet = _subnet(asked, host, [pool.subnet for pool in others], seed)
    pool = Pool(subnet, ip_range=asked.ip_range, owner=owner(subnet, asked.ip_range))
    for other in others:
        if other.owner != pool.owner and overlap(subnet, other.subnet):
            raise Taken(f"subnet {subnet} overlaps {other.subnet} of another network: choose another --subnet")
    own = tuple(sorted({a.ip for link in _foreign(host) for a in link.addresses if a.ip in subnet}, key=int))
    pool = replace(pool, gateway=_router(subnet, host) if own else None, reserved=own)
    check(pool)
    return pool


def on_lan(pool: Pool) -> bool:
    """Whether the host itself is a member of the pool's subnet."""
    return bool(pool.reserved)


def owner(subnet: Subnet, ip_range: Subnet | None) -> str:
    """The id of a pool, which says all of it."""
    return f"berth/{subnet}" + (f"/{ip_range}" if ip_range is not None else "")


def _subnet(asked: PoolRequest, host: Host, others: Sequence[Subnet], seed: str) -> Subnet:
    if asked.subnet is None and asked.ip_range is not None:
        raise Invalid(f"ip-range {asked.ip_range} has no subnet: give --subnet too")
    if asked.subnet is None and asked.parent:
        return _lan(asked, host, others)
    if asked.subnet is None:
        return default_subnet(_in_use(host, others)) if asked.version == 4 else ula_subnet(seed)
    if asked.subnet.network_address.is_unspecified and asked.subnet.prefixlen:
        return _of_size(asked.subnet, _in_use(host, others), seed)
    return asked.subnet


def _of_size(wanted: Subnet, in_use: Sequence[Subnet], seed: str) -> Subnet:
    """Docker 29: a subnet of 0.0.0.0/24 or ::/64 asks for any of that size."""
    if isinstance(wanted, IPv6Network):
        whole = ula_subnet(seed)
        if not whole.prefixlen <= wanted.prefixlen:
            raise Invalid(f"subnet {wanted} is larger than /{whole.prefixlen}: choose the subnet itself")
        return IPv6Network((whole.network_address, wanted.prefixlen))
    if wanted.prefixlen < LARGEST:
        raise Invalid(f"subnet {wanted} is larger than /{LARGEST}: choose the subnet itself")
    return default_subnet(in_use, wanted.prefixlen)


def _lan(asked: PoolRequest, host: Host, others: Sequence[Subnet]) -> Subnet:
    link = host.link(asked.parent)
    if link is None:
        raise NotFound(f"no link {asked.parent} on this host: see `ip link`")
    for address in link.addresses:
        if address.version == asked.version and not address.is_link_local:
            if address.network in others:  # Docker asks for ever until it gets one that the host is not on
                raise Exhausted(f"Docker wants the LAN of {link.name} spelt out: add --subnet {address.network}")
            return address.network
    raise Invalid(f"{link.name} carries no IPv{asked.version} address to learn the LAN from: give --subnet")


def _foreign(host: Host) -> list[HostLink]:
    return [link for link in host.links if not ours(link.alias)]


def _router(subnet: Subnet, host: Host) -> Address | None:
    """The host's own router, if it is in the subnet."""
    routes = [r for r in host.routes if r.dst.version == subnet.version and not r.dst.prefixlen and r.via is not None]
    vias = [r.via for r in sorted(routes, key=lambda r: r.metric) if r.via is not None and r.via in subnet]
    return vias[0] if vias else None


def _in_use(host: Host, others: Sequence[Subnet]) -> list[Subnet]:
    """What no new private subnet may overlap."""
    reached = [route.dst for route in host.routes if route.dst.prefixlen]
    return [*others, *reached, *(a.network for link in host.links for a in link.addresses)]
