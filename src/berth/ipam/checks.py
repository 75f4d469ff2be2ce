"""Whether a pool makes sense, before anything is stored or made."""

from __future__ import annotations

from ipaddress import ip_network

from berth.errors import Invalid
from berth.model import Address, Pool, Subnet

LONGEST = {4: 30, 6: 126}  # prefix length in bits: room for a gateway and one endpoint at least

#: Blocks whose addresses no endpoint can use as its own, and what they are for.
UNUSABLE: tuple[tuple[Subnet, str], ...] = (
    (ip_network("0.0.0.0/8"), "unspecified"),  # RFC 1122 section 3.2.1.3
    (ip_network("127.0.0.0/8"), "loopback"),  # RFC 1122 section 3.2.1.3
    (ip_network("169.254.0.0/16"), "link-local"),  # RFC 3927: hosts pick these themselves, routers never forward them
    (ip_network("224.0.0.0/4"), "multicast"),  # RFC 5771
    (ip_network("255.255.255.255/32"), "limited broadcast"),  # RFC 919 section 7
    (ip_network("::/128"), "unspecified"),  # RFC 4291 section 2.5.2
    (ip_network("::1/128"), "loopback"),  # RFC 4291 section 2.5.3
    (ip_network("fe80::/10"), "link-local"),  # RFC 4291 section 2.5.6
    (ip_network("ff00::/8"), "multicast"),  # RFC 4291 section 2.7
)


def check(pool: Pool) -> None:
    """Refuse a pool that addresses cannot be given from.

    Raises `Invalid` for a subnet that is too small or not for hosts, for an ip-range, gateway or aux-address that
    does not lie in it, for a gateway that is no host address, and for one address reserved twice.
    """
    _check_subnet(pool.subnet)
    if pool.ip_range is not None:
        _check_range(pool.ip_range, pool.subnet)
    if pool.gateway is not None:
        _check_gateway(pool.gateway, pool.subnet)
    _check_aux(pool)


def overlap(one: Subnet, other: Subnet) -> bool:
    """Whether two subnets share an address; those of two IP versions never do."""
    return one.version == other.version and one.overlaps(other)


def _check_subnet(subnet: Subnet) -> None:
    for block, purpose in UNUSABLE:
        if block.overlaps(subnet):
            raise Invalid(f"subnet {subnet} holds {purpose} addresses ({block}): choose another, as 172.20.0.0/16")
    longest = LONGEST[subnet.version]
    if subnet.prefixlen > longest:
        raise Invalid(f"subnet {subnet} is too small for a gateway and an endpoint: make it /{longest} or larger")


def _check_range(ip_range: Subnet, subnet: Subnet) -> None:
    if ip_range.version != subnet.version:
        raise Invalid(f"ip-range {ip_range} is IPv{ip_range.version} but subnet {subnet} is not: give one inside it")
    if ip_range.prefixlen < subnet.prefixlen or ip_range.network_address not in subnet:
        raise Invalid(f"ip-range {ip_range} is not inside subnet {subnet}: give a part of the subnet")


def _check_gateway(gateway: Address, subnet: Subnet) -> None:
    if gateway not in subnet:
        raise Invalid(f"gateway {gateway} is not in subnet {subnet}: give an address of the subnet")
    if gateway == subnet.network_address:
        # IPv6: every router of the subnet answers to this one (RFC 4291 section 2.6.1).
        kind = "network" if subnet.version == 4 else "subnet-router anycast"
        raise Invalid(f"gateway {gateway} is the {kind} address of {subnet}: give another, as {gateway + 1}")
    if subnet.version == 4 and gateway == subnet.broadcast_address:
        raise Invalid(f"gateway {gateway} is the broadcast address of {subnet}: give another, as {gateway - 1}")


def _check_aux(pool: Pool) -> None:
    names: dict[Address, str] = {}
    for name, address in pool.aux:
        if address not in pool.subnet:
            raise Invalid(
                f"aux-address {name!r}={address} is not in subnet {pool.subnet}: give an address of the subnet"
            )
        if address == pool.gateway:
            raise Invalid(f"aux-address {name!r}={address} is the gateway, which is never given: leave it out")
        if address in names:
            raise Invalid(f"aux-addresses {names[address]!r} and {name!r} are both {address}: leave one out")
        names[address] = name
