"""Making and removing networks."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import suppress
from dataclasses import replace
from itertools import product

from berth import ipam, spec
from berth.engine import pools, served
from berth.engine.parts import Parts
from berth.engine.reach import scope_of
from berth.errors import Invalid, NotFound, Taken
from berth.model import Ipam, Network, NetworkSpec, Placement, Subnet
from berth.plan import diff
from berth.seams import Intent, Outcome, Tx
from berth.state import within


def create(parts: Parts, asked: NetworkSpec, *, dry_run: bool) -> Outcome[Network]:
    """Decide, make and remember a network, or do nothing at all."""
    with parts.changing():
        with parts.store.read() as tx:
            if (same := tx.network(asked.name)) is not None and same.name == asked.name:
                raise Taken(f"there is a network {asked.name} already: choose another name, or `berth network rm` it")
            host = replace(parts.kernel.host(), networks=tuple(tx.networks()), held=_held_for_others(tx, asked))
        driver = parts.choose(asked, host)
        net = driver.complete(asked, host, asked.id or parts.identity(), parts.now())
        if net.scope == "global" and not parts.store.host:
            raise Invalid(
                f"driver {net.driver} joins hosts that share a store, and nobody shares this one: start `berth daemon`"
                " with BERTH_STORE=etcd://HOST:2379 on each, or leave --driver out"
            )
        if net.allow:
            parts.kernel.must_guard()
        if asked.ipam is Ipam.POOL:
            with parts.store.read() as tx:
                net = pools.adopt(tx, net)
        want = parts.want_network(net)
        before = parts.kernel.read(scope_of(want))
        plan = diff(want, before)
        warnings = tuple(served.of_network(net))
        if dry_run:
            return Outcome(net, plan, warnings)
        intent = Intent(net.id, "create", before, want)
        with parts.store.write(durable=True) as tx:
            if net.scope == "global":
                _refuse_late(tx, net)
            tx.save_network(net)
            if net.scope == "global" and asked.id:
                tx.join(net.id, asked.id)
            for pool in net.pools:
                if net.scope == "global":
                    tx.drop_ledger(pool)  # what this host's Docker took before anybody knew whose it would be
                ipam.reserve(pool, tx.ledger(net.id, pool))
            tx.open(intent)
        parts.carry_out(intent, plan)
        parts.vetted.lans = parts.vetted.lans or net.vets
        return Outcome(net, plan, warnings)


def _refuse_late(tx: Tx, net: Network) -> None:
    """Raise `Taken` for what another host has taken since this one looked: the lock keeps only its own host out."""
    for other in tx.networks():
        if other.name == net.name:
            raise Taken(f"there is a network {net.name} already: choose another name, or `berth network rm` it")
        if (other.vni, other.vxlan_port) == (net.vni, net.vxlan_port):
            raise Taken(f"vni {net.vni} belongs to network {other.name}: leave it out, or choose another")
        for mine, theirs in product(net.pools, other.pools):
            if ipam.overlap(mine.subnet, theirs.subnet):
                raise Taken(f"subnet {mine.subnet} overlaps {theirs.subnet} of network {other.name}: choose another")


def _held_for_others(tx: Tx, asked: NetworkSpec) -> tuple[Subnet, ...]:
    mine = asked.subnets if asked.ipam is Ipam.POOL else ()
    return tuple(entry.pool.subnet for entry in tx.held_pools() if entry.pool.subnet not in mine)


def remove(parts: Parts, name: str, *, dry_run: bool) -> Outcome[Network]:
    """Remove a network that nothing is attached to."""
    with parts.changing():
        with parts.store.read() as tx:
            net = find(tx, name)
            endpoints = tx.endpoints(network=net.id)
            others = [other for other in tx.networks() if other.id != net.id]
        if net.ipam is not Ipam.NETWORK and name != net.id:
            raise Taken(
                f"network {net.name} is Docker's: `docker network rm {net.name}`, or give its full id here"
                " if Docker has forgotten it"
            )
        if endpoints:
            names = ", ".join(ep.name for ep in endpoints[:3]) + (", …" if len(endpoints) > 3 else "")
            raise Taken(f"network {net.name} has {len(endpoints)} endpoints ({names}): detach them first")
        before = parts.want_network(net)
        shared = frozenset().union(*(parts.want_network(other) for other in others))
        after = within(shared, {obj.key for obj in before})  # what another network needs too
        plan = diff(after, before)
        if dry_run:
            return Outcome(net, plan)
        intent = Intent(net.id, "remove", before, after)
        with parts.store.write(durable=True) as tx:
            tx.drop_network(net.id)
            pools.forget_unheld(parts, tx, net)
            tx.open(intent)
        parts.following.forget(net.id)  # an audit before it is heard of would make it again
        parts.carry_out(intent, plan)
        return Outcome(net, plan)


def rename(parts: Parts, ident: str, name: str, endpoints: Mapping[str, str]) -> bool:
    """Call a network, and endpoints of it by their ids, by other names. One that is taken or not valid is left out.

    Whether a name was given for each endpoint that Docker has here.
    """
    with parts.changing(), parts.store.write() as tx:
        net = tx.network(ident)
        if net is None or (net.id != ident and net.scope == "local"):
            return True
        mine = net.id == ident or net.name == net.id[:12]  # nor another name than another host's Docker has for it
        with suppress(Invalid):
            if net.name != name and mine and tx.network(spec.network_name(name)) is None:
                tx.save_network(replace(net, name=name))
        for endpoint, called in endpoints.items():
            ep = tx.endpoint(endpoint)
            with suppress(Invalid):
                if ep is not None and ep.network == net.id and not tx.named(net.id, spec.endpoint_name(called)):
                    tx.save_endpoint(replace(ep, name=called))
        here = (ep for ep in tx.endpoints() if ep.network == net.id and ep.placement is Placement.HANDOVER)
        return all(ep.id in endpoints for ep in here)


def find(tx: Tx, name: str) -> Network:
    """The network of that name or id. Raises `NotFound`."""
    net = tx.network(name)
    if net is None:
        raise NotFound(f"no network {name}: see `berth network ls`")
    return net


class Removed(NotFound):
    """Another host has removed a network, and this one had not heard of it."""


def find_heard(parts: Parts, tx: Tx, name: str) -> Network:
    """The same; one that is followed is as it was heard of, and no other host is asked. See `must_be_there`."""
    return tx.local_network(name) or parts.following.called(name) or find(tx, name)


def must_be_there(parts: Parts, tx: Tx, net: Network) -> None:
    """Raise `Removed` for a network that is gone; it is followed no more then."""
    if tx.network(net.id) is None:
        parts.following.forget(net.id)
        raise Removed(f"network {net.name} was removed by another host just now: see `berth network ls`")
