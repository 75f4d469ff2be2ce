"""Endpoints on other hosts: what the kernel here has to know of them is a set of objects like any other."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace
from ipaddress import ip_interface

from berth.engine.followed import Followed
from berth.engine.hosts import record
from berth.engine.parts import Parts
from berth.engine.reach import reach
from berth.errors import BerthError, NotFound, Refused, Taken
from berth.model import Address, Endpoint, HostRecord, Interface, Network
from berth.overlaid import Fdb, Neigh, Vxlan
from berth.plan import Op, Plan, diff
from berth.sealed import WireGuard, WireGuardPeer
from berth.seams import Heard, Scope, Turn, Tx
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


def want(parts: Parts, net: Network, others: Iterable[Endpoint]) -> State:
    """What should exist for endpoints on other hosts. `net`: as placed; without an address of its own it has none."""
    if not net.local:
        return frozenset()
    return frozenset().union(*(parts.spanning.peer(net, ep) for ep in others if ep.vtep not in ("", net.local)))


def _themselves(parts: Parts, net: Network, hosts: Sequence[HostRecord]) -> State:
    """What should exist for the other hosts themselves: those of an encrypted network have keys."""
    return parts.spanning.hosts(net, parts.store.host, hosts) if net.local else frozenset()


def _hosts(tx: Tx, networks: Iterable[Network]) -> Sequence[HostRecord]:
    """The other hosts, where a network has to know them."""
    return tx.hosts() if any(net.encrypt for net in networks) else ()


def _told(net: Network) -> frozenset[str]:
    """The links of a network, as placed, that are told of other hosts."""
    return frozenset({net.tunnel} if net.seal is None else {net.tunnel, net.seal.link})


def _placed(parts: Parts, networks: Sequence[Network]) -> dict[str, Network]:
    """Networks over several hosts as they are here, by id, without those that cannot be; the host is looked at once."""
    if not networks:
        return {}
    host = parts.facts(*networks)
    return {net.id: parts.spanning.placed(net, host) for net in networks if not parts.spanning.misfit(net, host)}


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
        hosts = _hosts(tx, found)
        _be_sure(tx)
        revision = tx.revision
    ops: list[Op] = []
    for gone in parts.following.networks.keys() - {net.id for net in found} if networks is None else networks:
        parts.following.forget(gone)
    placed = _placed(parts, found)
    failed: list[BerthError] = []
    for asked, others in known:
        parts.following.forget(asked.id)
        if (net := placed.get(asked.id)) is None:
            continue
        try:
            ops += _settle_one(parts, net, others, hosts).ops
        except BerthError as error:  # the other networks are not to wait for this one
            failed.append(error)
        else:
            parts.following.note(net, revision, others, hosts)
    if failed:
        raise failed[0]
    return Plan(tuple(ops))


def _be_sure(tx: Tx) -> None:
    """Raise `Refused` where not all that was read came from the store: not to know of others is not that they are gone.

    Afterwards, since the store may go while it is read; a transaction that has found it gone asks no more.
    """
    tx.own_record()


def follow(parts: Parts, heard: Heard) -> Plan:
    """Carry what other hosts changed to the kernel. It costs what was changed: nothing else is read or compared.

    A network that is not followed yet is settled. Raises what `settle` raises; what failed is then followed no more.
    """
    turns: dict[str, list[Turn]] = {}
    for turn in heard.turns:
        turns.setdefault(turn.network, []).append(turn)
    with parts.changing():
        ops: list[Op] = []
        strange = heard.made | (turns.keys() - parts.following.networks.keys())
        if heard.hosts:  # there may be other keys
            strange |= {each.net.id for each in parts.following.networks.values() if each.net.encrypt}
        if strange:
            ops += settle_held(parts, strange).ops
        for network, of in turns.items():
            followed = parts.following.networks.get(network)
            if followed is not None and heard.revision > followed.revision:
                ops += _follow_one(parts, followed, of, heard.revision).ops
        return Plan(tuple(ops))


def _follow_one(parts: Parts, followed: Followed, turns: Iterable[Turn], revision: int) -> Plan:
    """Whose address went from one to the other has the same keys: it is one change, or came in this order."""
    theirs = [turn for turn in turns if turn.endpoint is None or not here(parts, followed.net, turn.endpoint)]
    before, after = followed.turn(theirs)
    followed.revision = revision
    plan = diff(want(parts, followed.net, after), want(parts, followed.net, before))
    try:
        parts.kernel.send(plan)
    except BaseException:
        parts.following.forget(followed.net.id)
        raise
    return plan


def _settle_one(parts: Parts, net: Network, others: Iterable[Endpoint], hosts: Sequence[HostRecord]) -> Plan:
    about = want(parts, net, others) | _themselves(parts, net, hosts)
    whole = parts.drivers[net.driver].network(net) | about
    objects: State = frozenset(obj for obj in whole if isinstance(obj, _ABOUT_OTHERS) or _behind_seal(net, obj))
    tunnels = _told(net)
    there = parts.kernel.read(Scope(keys(objects), tunnels=tunnels))
    if any(isinstance(obj, Bridge) for obj in objects - there):
        objects = whole
    return reach(parts.kernel, objects, Scope(keys(objects), tunnels=tunnels))


def _behind_seal(net: Network, obj: Obj) -> bool:
    return net.seal is not None and isinstance(obj, Addr) and obj.dev == net.seal.link


def audit(parts: Parts) -> Plan:
    """Compare the kernel with what was heard of the networks that are followed; what had to be put right."""
    with parts.changing():
        ops: list[Op] = []
        every = list(parts.following.networks.values())
        placed = _placed(parts, [followed.net for followed in every])
        for followed in every:
            if followed.net.id not in placed:
                parts.following.forget(followed.net.id)
                continue
            followed.net = placed[followed.net.id]
            ops += _settle_one(parts, followed.net, followed.others.values(), followed.hosts).ops
        return Plan(tuple(ops))


def made(parts: Parts, net: Network, *, dry_run: bool) -> Network:
    """A network as placed, and made here if another host has made it; by who has the lock, before an attach.

    Raises `NotFound` where this host has no address on the underlay: nobody could answer the endpoint; and `Taken`
    where the network's subnet is something else here.
    """
    if net.scope == "local":
        return net
    if (followed := parts.following.networks.get(net.id)) is not None and _stands(parts, followed.net):
        return followed.net
    host = parts.facts(net)
    if why := parts.spanning.misfit(net, host):
        raise Taken(f"{why}: make a network with another --subnet, or renumber what is there")
    placed = parts.spanning.placed(net, host)
    if not placed.local:
        where = f"underlay {net.underlay}" if net.underlay else "way out"
        raise NotFound(
            f"network {net.name}: this host has no IPv{net.underlay_version} address on its {where}: add one"
        )
    if not dry_run:
        settle_held(parts, frozenset({net.id}))
    return placed


def resting(tx: Tx, net: Network, mac: str | None) -> frozenset[Address]:
    """The addresses that neighbours still know under another MAC than who gets them now will have."""
    known = tx.resting(net.id).items() if net.scope == "global" else ()
    return frozenset(ip for ip, old in known if old != (mac or net.mac_for("", (ip_interface(ip),))))


def refuse_resting(tx: Tx, net: Network, addresses: Iterable[Interface], mac: str) -> None:
    """Raise `Taken` for an address that neighbours still know under another MAC: nothing tells them over a tunnel."""
    known = tx.resting(net.id) if net.scope == "global" else {}
    for address in addresses:
        if (old := known.get(address.ip, mac)) != mac:
            raise Taken(
                f"{address.ip} was at {old} until a moment ago, and other containers remember that: wait a minute, or"
                f" give --mac {old} or another --ip"
            )


def _stands(parts: Parts, net: Network) -> bool:
    """Whether bridge and tunnel of a network are as they should be."""
    links: State = frozenset(
        obj for obj in parts.drivers[net.driver].network(net) if isinstance(obj, Bridge | Vxlan | WireGuard)
    )
    return bool(net.local) and not diff(links, parts.kernel.read(Scope(keys(links))))


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
        told = tx.own_record()
        if told is not None and told != record(parts, told.name, networks, since=told.since):
            return True
        for net in networks:
            local = parts.spanning.placed(net, facts).local if net.scope == "global" else ""
            if local and any(ep.vtep != local for ep in tx.endpoints(network=net.id) if here(parts, net, ep)):
                return True
    return False


def all_of(parts: Parts, tx: Tx, networks: Iterable[Network]) -> set[Obj]:
    """What should exist here for all endpoints elsewhere; while nobody can be asked, what there is.

    Of a network that is followed nobody is asked: every host would read about all endpoints now and again.
    """
    spanning = [net for net in networks if net.scope == "global"]
    followed = [each for net in spanning if (each := parts.following.networks.get(net.id)) is not None]
    known = {obj for each in followed for obj in want(parts, each.net, each.others.values())}
    known |= {obj for each in followed for obj in _themselves(parts, each.net, each.hosts)}
    rest = [net for net in spanning if net.id not in parts.following.networks]
    placed = _placed(parts, rest).values()
    return known | _asked_for(parts, tx, placed) if placed else known


def _asked_for(parts: Parts, tx: Tx, placed: Iterable[Network]) -> set[Obj]:
    found = {obj for net in placed for obj in want(parts, net, elsewhere(parts, tx, net))}
    try:
        hosts = _hosts(tx, placed)
        found |= {obj for net in placed for obj in _themselves(parts, net, hosts)}
        _be_sure(tx)
    except Refused:
        tunnels = frozenset[str]().union(*map(_told, placed))
        return {*parts.kernel.read(Scope(frozenset(), tunnels=tunnels))}
    return found
