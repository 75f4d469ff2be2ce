"""Asking a LAN who has an address before an endpoint gets it (RFC 5227, RFC 4862 section 5.4)."""

from __future__ import annotations

import time
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass, replace
from ipaddress import ip_interface
from itertools import islice

from berth import ipam
from berth.engine import leases
from berth.engine.parts import Parts, lent
from berth.errors import Taken
from berth.model import Address, AttachRequest, Claim, Conflict, Endpoint, Ipam, Network, Placement, Pool
from berth.seams import Tx

_AHEAD = 8  # candidates of a pool that are asked for together: it takes no longer than for one
_ROUNDS = {"fast": (_AHEAD, 32, 128, 256, 256), "full": (_AHEAD, 256)}  # candidates, where all before were held


@dataclass(frozen=True, slots=True)
class Candidates:
    """Addresses of a LAN that will be given next, and that nobody was asked for lately."""

    net: Network
    addresses: tuple[Address, ...]
    mine: frozenset[str] = frozenset()  # the MACs whose answer is not another machine's


def vet(parts: Parts, net: Network, request: AttachRequest) -> frozenset[Address]:
    """Ask for the addresses that an attach is about to give; those that somebody else holds, to give others instead.

    Raises `Taken` for one that was named and is held.
    """
    if not net.vets:
        return frozenset()
    with parts.store.read() as tx:
        named = [address for address in request.addresses if _to_ask(tx, net, address, request.placement)]
    mine = _mine(net, request, named)
    versions = {address.version for address in request.addresses} | {*leases.versions(net, request)}  # asked before
    pools = [pool for pool in net.pools if pool.subnet.version not in versions]
    if request.placement is Placement.HANDOVER:
        pools = []  # Docker names what it wants
    refuse_held(parts, net, named, mine)
    return choose_free(parts, net, pools, mine)


def ahead(parts: Parts, tx: Tx, net: Network, request: AttachRequest) -> Candidates | None:
    """What `vet` would ask the LAN for, so that it is asked while nobody holds the state lock; None: nothing."""
    if not net.vets or request.placement is Placement.HANDOVER:
        return None
    asked = [address for address in request.addresses if _to_ask(tx, net, address, request.placement)]
    versions = {address.version for address in request.addresses} | {*leases.versions(net, request)}
    held = parts.vetted.held(net.bridge)
    for pool in net.pools:
        if pool.subnet.version not in versions:
            few = _next(tx, net, pool, held, _AHEAD)
            asked += few if few and not parts.vetted.free(net.bridge, few[0]) else []
    unknown = tuple(address for address in asked if not parts.vetted.free(net.bridge, address))
    return Candidates(net, unknown, _mine(net, request, request.addresses)) if unknown else None


def refuse_held(parts: Parts, net: Network, named: Sequence[Address], mine: Collection[str]) -> None:
    """Raise `Taken` where a machine of the LAN has one of the addresses, asked now unless that is known."""
    unknown = [address for address in named if not parts.vetted.free(net.bridge, address)]
    if unknown:
        holders = ask(parts, net, unknown, mine)
        for address in unknown:
            if address in holders:
                raise Taken(_held_by(parts, address, holders[address]))
    parts.vetted.used = parts.vetted.used or bool(named)


def choose_free(parts: Parts, net: Network, pools: Iterable[Pool], mine: Collection[str]) -> frozenset[Address]:
    """See that the next address of each of the pools is nobody's; the addresses that others hold.

    Raises `Taken` where one machine after the other, or one for all, answers for them.
    """
    pools = list(pools)
    for count in (*_ROUNDS[net.conflict], 1):
        held = parts.vetted.held(net.bridge)
        with parts.store.read() as tx:
            ahead = [_next(tx, net, pool, held, count) for pool in pools]
        if all(not few or parts.vetted.free(net.bridge, few[0]) for few in ahead):
            parts.vetted.used = parts.vetted.used or bool(pools)
            return held
        unknown = [address for few in ahead for address in few if not parts.vetted.free(net.bridge, address)]
        if count > 1:
            ask(parts, net, unknown, mine)
    mac = parts.vetted.holder(net.bridge, max(held)) if held else None
    raise Taken(
        f"{len(held)} free addresses of network {net.name} are all in use on the LAN, the last by {mac}: name another"
        " with --ip, or make the network with -o conflict=off if that machine answers for every address (proxy ARP)"
    )


def _next(tx: Tx, net: Network, pool: Pool, held: Collection[Address], count: int) -> list[Address]:
    """The next that would be given, without those that are known to be held."""
    free = ipam.free(pool, tx.ledger(net.id, pool))
    return list(islice((address for address in free if address not in held), count))


def ask(parts: Parts, net: Network, addresses: Sequence[Address], mine: Collection[str]) -> dict[Address, str]:
    """Ask the LAN, and remember what it said."""
    began = time.monotonic()
    holders = dict(parts.lan.holders(net.bridge, addresses, full=net.conflict == "full", mine=mine))
    parts.vetted.asked(net.bridge, addresses, holders, began)
    return holders


def _held_by(parts: Parts, address: Address, mac: str) -> str:
    made = parts.lan.vendor(mac)
    return (
        f"{address} is in use on the LAN by the machine with MAC {mac}{f' ({made})' if made else ''}: give another"
        " address, or none to get the next free one"
    )


def _to_ask(tx: Tx, net: Network, address: Address, placement: Placement) -> bool:
    """Whether an address may be given at all: of one that may not, a better reason than the LAN's answer is known."""
    pool = net.pool_of(address)
    if pool is None:
        return False
    return lent(pool, placement) or tx.ledger(net.id, pool).covering(int(address)) is None


def mine_at(net: Network, address: Address) -> str:
    """The MAC that goes with an address on a LAN, for who has no name that lasts."""
    return net.mac_for("", (ip_interface(address),))


def candidates(parts: Parts, networks: Iterable[Network]) -> Sequence[Candidates]:
    """What is worth asking for ahead of its use. Quick: it asks nobody."""
    parts.vetted.used = False
    found = []
    nets = [net for net in networks if net.vets]
    with parts.store.read() as tx:
        for net in nets:
            held = parts.vetted.held(net.bridge)
            ahead = [address for pool in net.pools for address in _next(tx, net, pool, held, _AHEAD)]
            stale = tuple(address for address in ahead if parts.vetted.stale(net.bridge, address))
            if stale and net.ipam is not Ipam.DOCKER:
                found.append(Candidates(net, stale))
    parts.vetted.lans = bool(nets)
    return found


def contested(parts: Parts, dev: str, claims: Sequence[Claim]) -> Sequence[tuple[Endpoint, Conflict]]:
    """The endpoints of a LAN whose addresses others claim, as is recorded with them."""
    found = []
    with parts.changing(), parts.store.write() as tx:
        there = [ep for net in tx.networks() if net.vets and net.bridge == dev for ep in tx.endpoints(network=net.id)]
        for claim in claims:
            holders = [ep for ep in there if claim.address in {interface.ip for interface in ep.addresses}]
            if not holders or claim.mac in {ep.mac for ep in holders}:
                continue
            conflict = Conflict(claim.address, claim.mac, parts.lan.vendor(claim.mac), parts.now())
            before = tx.endpoint(holders[0].id) or holders[0]  # another of the claims may be about it too
            others = tuple(each for each in before.conflicts if each.address != claim.address)
            tx.save_endpoint(replace(before, conflicts=(*others, conflict)))
            found.append((before, conflict))
    return found


def _mine(net: Network, request: AttachRequest, named: Sequence[Address]) -> frozenset[str]:
    """Who may answer without being another machine: the same endpoint, from before."""
    names = ("", *([request.name] if request.name else []))
    interfaces = tuple(map(ip_interface, named))
    macs = {net.mac_for(name, interfaces) for name in names}
    return frozenset(macs | ({request.mac} if request.mac else set()))
