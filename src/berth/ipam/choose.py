"""Taking and giving back addresses.

A ledger holds the taken addresses as whole runs of numbers (`int(address)`), never touching each other. So the
first free number at or after any other is that number itself or the one behind the run that covers it: one
look-up, however large the pool is and however full.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator
from ipaddress import IPv4Address, IPv6Address

from berth.errors import Exhausted, Invalid, Taken
from berth.model import Address, Pool
from berth.seams import Ledger


def reserve(pool: Pool, ledger: Ledger) -> None:
    """Record as taken what no endpoint may ever get; what is recorded already stays so.

    That is the gateway, the aux-addresses, the host's own addresses, for IPv4 the network and the broadcast
    address (RFC 1122 section 3.2.1.3) and for IPv6 the subnet-router anycast address (RFC 4291 section 2.6.1).
    """
    for address in _never_given(pool):
        # An IPv6 router is often known by its link-local address only, which no pool holds.
        if address in pool.subnet and ledger.covering(int(address)) is None:
            _mark(ledger, int(address))


def take(pool: Pool, ledger: Ledger, wanted: Address | None, held: Collection[Address] = ()) -> Address:
    """Give an address: the wanted one, or the next free one of the pool's range that is not `held` by somebody else.

    The next free one is the first after the one given last, from the start again behind the end, as Docker does:
    an address that was given back rests as long as it can, because neighbours still remember its old MAC. A wanted
    address may lie outside the ip-range, and does not move the place where the search goes on.

    Raises `Invalid` for a wanted address outside the subnet, `Taken` for one that is reserved or given, and
    `Exhausted` when the range has no free address.
    """
    if wanted is None:
        address = next((address for address in free(pool, ledger) if address not in held), None)
        if address is None:
            raise _exhausted(pool, held)
        ledger.last = int(address)
        _mark(ledger, int(address))
        return address
    if wanted not in pool.subnet:
        raise Invalid(f"{wanted} is not in subnet {pool.subnet}: give an address of the subnet")
    what = _never_given(pool).get(wanted)
    if what is None and ledger.covering(int(wanted)) is not None:
        what = "already given to another endpoint"
    if what is not None:
        raise Taken(f"{wanted} is {what}: give another address, or none to get the next free one")
    _mark(ledger, int(wanted))
    return wanted


def give_back(pool: Pool, ledger: Ledger, address: Address) -> None:
    """Free an address. Nothing happens to one that is free, reserved or not of the pool."""
    if address not in pool.subnet or address in _never_given(pool):
        return
    number = int(address)
    run = ledger.covering(number)
    if run is None:
        return
    first, last = run
    ledger.remove(first)
    if first < number:
        ledger.add(first, number - 1)
    if number < last:
        ledger.add(number + 1, last)


def _never_given(pool: Pool) -> dict[Address, str]:
    """The reserved addresses, and what each is."""
    subnet = pool.subnet
    reserved: dict[Address, str] = {}
    if pool.gateway is not None:
        reserved[pool.gateway] = f"the gateway of {subnet}"
    if subnet.version == 4:
        reserved.setdefault(subnet.network_address, f"the network address of {subnet}")
        reserved.setdefault(subnet.broadcast_address, f"the broadcast address of {subnet}")
    else:
        reserved.setdefault(subnet.network_address, f"the subnet-router anycast address of {subnet}")
    for name, address in pool.aux:
        reserved.setdefault(address, f"reserved as aux-address {name!r}")
    for address in pool.reserved:
        reserved.setdefault(address, "the host's own address")
    return reserved


def free(pool: Pool, ledger: Ledger) -> Iterator[Address]:
    """The free addresses of the pool's range, in the order in which `take` gives them."""
    span = pool.span
    low, high = int(span.network_address), int(span.broadcast_address)
    last = ledger.last
    start = low if last is None or not low <= last < high else last + 1
    make = IPv4Address if pool.subnet.version == 4 else IPv6Address
    for first, end in ((start, high), (low, start - 1)):
        number = first
        while number <= end:
            run = ledger.covering(number)
            number = number if run is None else run[1] + 1  # runs never touch each other: it is free
            if number <= end:
                yield make(number)
            number += 1


def _exhausted(pool: Pool, held: Collection[Address]) -> Exhausted:
    others = sum(address in pool.span for address in held)
    but = f", or held by {others} other machines of the LAN" if others else ""
    return Exhausted(
        f"pool {pool.subnet} is full: all {pool.span.num_addresses} addresses of its range {pool.span} are given or"
        f" reserved{but}: detach an endpoint, or make a network with a larger range"
    )


def _mark(ledger: Ledger, number: int) -> None:
    """Record one free number as taken, joined to the runs on either side of it.

    Both neighbours are numbers of addresses: `check` refuses subnets that hold the very first or the very last.
    """
    left, right = ledger.covering(number - 1), ledger.covering(number + 1)
    first = last = number
    if left is not None:
        first = left[0]
        ledger.remove(first)
    if right is not None:
        last = right[1]
        ledger.remove(right[0])
    ledger.add(first, last)
