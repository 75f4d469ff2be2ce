"""Endpoints on other hosts: what the kernel here has to know of them is a set of objects like any other."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace

from berth.engine.hosts import underlay
from berth.engine.parts import Parts
from berth.engine.reach import reach
from berth.errors import NotFound, Refused
from berth.model import Endpoint, Network
from berth.overlaid import Fdb, Neigh, Vxlan
from berth.plan import Plan
from berth.seams import Scope, Tx
from berth.state import Bridge, Obj, State, keys

_ABOUT_OTHERS = (Bridge, Vxlan, Fdb, Neigh)


def here(parts: Parts, net: Network, ep: Endpoint) -> bool:
    """Whether an endpoint is on this host."""
    return net.scope == "local" or ep.host == parts.store.host


def elsewhere(parts: Parts, tx: Tx, net: Network) -> tuple[Endpoint, ...]:
    """The endpoints of a network that are on other hosts."""
    if net.scope == "local":
        return ()
    return tuple(ep for ep in tx.endpoints(network=net.id) if not here(parts, net, ep))


def want(parts: Parts, net: Network, others: Iterable[Endpoint]) -> State:
    """What should exist for endpoints on other hosts. `net`: as placed; without an address of its own it has none."""
    if not net.local:
        return frozenset()
    return frozenset().union(*(parts.spanning.peer(net, ep) for ep in others if ep.vtep not in ("", net.local)))


def settle(parts: Parts, networks: frozenset[str] | None = None) -> Plan:
    """Bring what the kernel knows of other hosts' endpoints in line with the store: nothing stays that is gone there.

    `networks`: ids; None: all. A network that this host does not know yet is made as a whole. Raises what the store
    raises when it cannot be asked; all stays as it is then.
    """
    with parts.changing():
        return settle_held(parts, networks)


def settle_held(parts: Parts, networks: frozenset[str] | None) -> Plan:
    """`settle`, by who has the lock."""
    with parts.store.read() as tx:
        found = [net for net in tx.networks() if net.scope == "global" and (networks is None or net.id in networks)]
        known = [(net, elsewhere(parts, tx, net)) for net in found]
        tx.hosts()  # raises where the others could not be asked: not to know of them is not that they are gone
    return Plan(tuple(op for net, others in known for op in _settle_one(parts, net, others).ops))


def _settle_one(parts: Parts, net: Network, others: Iterable[Endpoint]) -> Plan:
    net = parts.placed(net)
    whole = parts.drivers[net.driver].network(net) | want(parts, net, others)
    objects: State = frozenset(obj for obj in whole if isinstance(obj, _ABOUT_OTHERS))
    tunnels = frozenset({net.tunnel})
    there = parts.kernel.read(Scope(keys(objects), tunnels=tunnels))
    if any(isinstance(obj, Bridge) for obj in objects - there):
        objects = whole
    return reach(parts.kernel, objects, Scope(keys(objects), tunnels=tunnels))


def made(parts: Parts, net: Network, *, dry_run: bool) -> Network:
    """A network as placed, and made here if another host has made it; by who has the lock, before an attach.

    Raises `NotFound` where this host has no address on the underlay: nobody could answer the endpoint.
    """
    if net.scope == "local":
        return net
    placed = parts.placed(net)
    if not placed.local:
        where = f"underlay {net.underlay}" if net.underlay else "way out"
        raise NotFound(
            f"network {net.name}: this host has no IPv{net.underlay_version} address on its {where}: add one"
        )
    if not dry_run:
        settle_held(parts, frozenset({net.id}))
    return placed


def readdress(parts: Parts) -> None:
    """Record where this host is reached now, with each of its endpoints. The others follow."""
    with parts.changing():
        _readdress(parts)


def _readdress(parts: Parts) -> None:
    with parts.store.read() as tx:
        spanning = [parts.placed(net) for net in tx.networks() if net.scope == "global"]
        mine = [(net, ep) for net in spanning if net.local for ep in tx.endpoints(network=net.id)]
    stale = [replace(ep, vtep=net.local) for net, ep in mine if here(parts, net, ep) and ep.vtep != net.local]
    for ep in stale:  # one at a time: a store that hosts share takes no large transactions
        with parts.store.write() as tx:
            tx.save_endpoint(ep)


def moved(parts: Parts) -> bool:
    """Whether this host is reached elsewhere than the others have been told, so that it has to register again."""
    facts = parts.kernel.host()
    with parts.store.read() as tx:
        told = next((host.underlay for host in tx.hosts() if host.id == parts.store.host), None)
        if told is not None and told != underlay(facts):
            return True
        for net in tx.networks():
            local = parts.spanning.placed(net, facts).local if net.scope == "global" else ""
            if local and any(ep.vtep != local for ep in tx.endpoints(network=net.id) if here(parts, net, ep)):
                return True
    return False


def all_of(parts: Parts, tx: Tx, networks: Iterable[Network]) -> set[Obj]:
    """What should exist here for all endpoints elsewhere; while nobody can be asked, what there is."""
    placed = [parts.placed(net) for net in networks if net.scope == "global"]
    found = {obj for net in placed for obj in want(parts, net, elsewhere(parts, tx, net))}
    try:
        tx.hosts()  # afterwards, since the store may have gone away in between
    except Refused:
        tunnels = frozenset(net.tunnel for net in placed)
        return {*parts.kernel.read(Scope(frozenset(), tunnels=tunnels))}
    return found
