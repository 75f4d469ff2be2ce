"""Endpoints on other hosts: what the kernel here has to know of them is a set of objects like any other."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace

from berth.engine.hosts import record
from berth.engine.parts import Parts
from berth.engine.reach import reach
from berth.errors import BerthError, NotFound, Refused
from berth.model import Endpoint, HostRecord, Network
from berth.overlaid import Fdb, Neigh, Vxlan
from berth.plan import Op, Plan
from berth.sealed import WireGuard, WireGuardPeer
from berth.seams import Scope, Tx
from berth.state import Addr, Bridge, Obj, State, keys

_ABOUT_OTHERS = (Bridge, Vxlan, Fdb, Neigh, WireGuard, WireGuardPeer)


def here(parts: Parts, net: Network, ep: Endpoint) -> bool:
    """Whether an endpoint is on this host."""
    return net.scope == "local" or ep.host == parts.store.host


def elsewhere(parts: Parts, tx: Tx, net: Network) -> tuple[Endpoint, ...]:
    """The endpoints of a network that are on other hosts."""
    if net.scope == "local":
        return ()
    return tuple(ep for ep in tx.endpoints(network=net.id) if not here(parts, net, ep))


def want(parts: Parts, net: Network, others: Iterable[Endpoint], hosts: Sequence[HostRecord]) -> State:
    """What should exist for other hosts and the endpoints there. `net`: as placed; without an address it has none."""
    if not net.local:
        return frozenset()
    themselves = parts.spanning.hosts(net, parts.store.host, hosts)
    return themselves.union(*(parts.spanning.peer(net, ep) for ep in others if ep.vtep not in ("", net.local)))


def _told(net: Network) -> frozenset[str]:
    """The links of a network, as placed, that are told of other hosts."""
    return frozenset({net.tunnel} if net.seal is None else {net.tunnel, net.seal.link})


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
        hosts = tx.hosts()  # raises where the others cannot be asked: not to know of them is not that they are gone
        found = [net for net in tx.networks() if net.scope == "global" and (networks is None or net.id in networks)]
        known = [(net, elsewhere(parts, tx, net)) for net in found]
    done: list[Op] = []
    failed: list[BerthError] = []
    for net, others in known:
        try:
            done += _settle_one(parts, net, others, hosts).ops
        except BerthError as error:  # the other networks are not to wait for this one
            failed.append(error)
    if failed:
        raise failed[0]
    return Plan(tuple(done))


def _settle_one(parts: Parts, net: Network, others: Iterable[Endpoint], hosts: Sequence[HostRecord]) -> Plan:
    net = parts.placed(net)
    whole = parts.drivers[net.driver].network(net) | want(parts, net, others, hosts)
    objects: State = frozenset(obj for obj in whole if isinstance(obj, _ABOUT_OTHERS) or _behind_seal(net, obj))
    tunnels = _told(net)
    there = parts.kernel.read(Scope(keys(objects), tunnels=tunnels))
    if any(isinstance(obj, Bridge) for obj in objects - there):
        objects = whole
    return reach(parts.kernel, objects, Scope(keys(objects), tunnels=tunnels))


def _behind_seal(net: Network, obj: Obj) -> bool:
    return net.seal is not None and isinstance(obj, Addr) and obj.dev == net.seal.link


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


def seals(parts: Parts, networks: Iterable[Network]) -> frozenset[str]:
    """The links that encrypted networks lead through on this host."""
    placed = (parts.placed(net) for net in networks if net.encrypt)
    return frozenset(net.seal.link for net in placed if net.seal is not None)


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
    with parts.store.read() as tx:
        networks = tx.networks()
        facts = parts.facts(*networks)
        told = next((host for host in tx.hosts() if host.id == parts.store.host), None)
        if told is not None and told != record(parts, told.name, networks, since=told.since):
            return True
        for net in networks:
            local = parts.spanning.placed(net, facts).local if net.scope == "global" else ""
            if local and any(ep.vtep != local for ep in tx.endpoints(network=net.id) if here(parts, net, ep)):
                return True
    return False


def all_of(parts: Parts, tx: Tx, networks: Iterable[Network]) -> set[Obj]:
    """What should exist here for all endpoints elsewhere; while nobody can be asked, what there is."""
    placed = [parts.placed(net) for net in networks if net.scope == "global"]
    try:
        hosts = tx.hosts()
    except Refused:
        tunnels = frozenset[str]().union(*map(_told, placed))
        return {*parts.kernel.read(Scope(frozenset(), tunnels=tunnels))}
    return {obj for net in placed for obj in want(parts, net, elsewhere(parts, tx, net), hosts)}
