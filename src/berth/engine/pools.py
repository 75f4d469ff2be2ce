"""Pools and addresses for networks that Berth does not make by itself: the verbs behind the IPAM driver.

Docker asks for a pool before there is a network, and for addresses before there are endpoints. When the network
turns out to be Berth's, it works from the same record of taken addresses, so `berth attach` and Docker never clash.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import replace
from datetime import datetime
from ipaddress import ip_address, ip_interface, ip_network

from berth import ipam
from berth.engine import joined, leases, peers, vet
from berth.engine.parts import Parts
from berth.errors import Exhausted, Invalid, NotFound, Taken
from berth.model import Address, Grant, Interface, Lease, LeaseRecord, Network, Pool, PoolRequest
from berth.seams import HeldPool, Ledger, Tx

_OWNER = re.compile(r"berth/([0-9a-f.:]+/[0-9]{1,3})(?:/([0-9a-f.:]+/[0-9]{1,3}))?")  # as `ipam.pool_for` makes it
_GRACE = 60  # seconds after which an address that no endpoint has is nobody's: Docker retries a call for 15
_MEMORY = 90 * 86400  # seconds for which a name finds its address again
_RETURN = 30  # seconds within which the next to come without a name is taken for the one that just left


def request_pool(parts: Parts, asked: PoolRequest) -> Pool:
    """Hold a pool. Every call is one holder more, until `release_pool`."""
    with parts.changing(), parts.store.write(durable=True) as tx:
        return _hold(parts, tx, asked).pool


def _hold(parts: Parts, tx: Tx, asked: PoolRequest) -> HeldPool:
    """One holder more of a pool that is held, or the first."""
    shared = joined.pool(tx, asked)
    host = replace(parts.kernel.host(), networks=tuple(tx.networks()))
    pool = shared or ipam.pool_for(asked, host, [entry.pool for entry in tx.held_pools()], parts.identity())
    before = tx.held_pool(pool.owner)
    if before is None:
        if shared is None:
            ipam.reserve(pool, tx.ledger("", pool))
        before = HeldPool(pool, 0, 0)
    held = HeldPool(before.pool, before.holders + 1, _seconds(parts))
    tx.save_pool(held)
    return held


def release_pool(parts: Parts, owner: str) -> None:
    """One holder less; the last one takes the pool along. One that is not held is fine."""
    with parts.changing(), parts.store.write(durable=True) as tx:
        held = tx.held_pool(owner)
        if held is None:
            return
        if held.holders > 1:
            tx.save_pool(replace(held, holders=held.holders - 1))
            return
        tx.drop_pool(owner)
        if not _users(tx, owner):
            _forget(parts, tx, held.pool)


def forget_unheld(parts: Parts, tx: Tx, net: Network) -> None:
    """Drop a removed network's pools that nobody has any more.

    Docker lets a pool go before the network. A holder that is left is a network of another driver's, or a call of
    Docker's whose answer was lost; where no address is in use, that makes no difference (see `_held`).
    """
    for pool in net.pools:
        if not pool.owner or _users(tx, pool.owner):
            continue
        given = any(grant.released is None for grant in tx.grants(pool.owner))
        if not given or tx.held_pool(pool.owner) is None:
            tx.drop_pool(pool.owner)
            _forget(parts, tx, pool)


def adopt(tx: Tx, net: Network) -> Network:
    """Let a network work from the pools that were held for it."""
    held = {entry.pool.subnet: entry.pool for entry in tx.held_pools()}
    pools = []
    for pool in net.pools:
        mine = held.get(pool.subnet)
        if mine is None:
            raise NotFound(f"no pool {pool.subnet} is held: Docker has to ask Berth's IPAM driver for it first")
        pools.append(replace(pool, ip_range=mine.ip_range, owner=mine.owner))
    return replace(net, pools=tuple(pools))


def request_gateway(parts: Parts, owner: str, wanted: Address | None) -> Interface:
    """The gateway of a pool: the LAN's router, else the wanted address, else the first free one.

    An IPv6 LAN whose router has only a link-local address gets the address that all of a subnet's routers answer
    to (RFC 4291 section 2.6.1): Docker wants one of the subnet.
    """
    with parts.changing(), parts.store.write(durable=True) as tx:
        held = _held(parts, tx, owner)
        pool = held.pool
        if pool.gateway is not None:
            if wanted not in (None, pool.gateway):
                what = "the LAN's router is" if ipam.on_lan(pool) else "the pool's gateway is"
                raise Taken(f"gateway {wanted} contradicts {what} {pool.gateway}: leave --gateway out, or give that")
            return _interface(pool, pool.gateway)
        if wanted is None and ipam.on_lan(pool):
            if pool.subnet.version == 6:
                return _interface(pool, pool.subnet.network_address)
            raise Invalid(f"this host has no router in {pool.subnet}: name the LAN's with --gateway")
        ledger = _ledger(tx, pool)
        address = wanted if wanted is not None else _first(pool, tx)
        ipam.check(replace(pool, gateway=address))
        ipam.take(pool, ledger, address)
        tx.save_pool(replace(held, pool=replace(pool, gateway=address)))
        return _interface(pool, address)


def request_address(parts: Parts, owner: str, wanted: Address | None, holder: str) -> Interface:
    """An address of a pool: the wanted one, else the one that the holder had last, else the next free one.

    Docker up to 28 does not say who asks. There, who comes right after another has left is taken for the same one
    come back: what `docker compose up --force-recreate` does.

    No address that a machine of the LAN holds: `Taken` for a wanted one.
    """
    with parts.changing():
        held = _vet(parts, owner, wanted, holder)
        with parts.store.write() as tx:
            pool = _held(parts, tx, owner).pool
            now = _seconds(parts)
            if wanted is not None and _asked_before(tx, owner, wanted, holder, now):
                address = wanted
            elif wanted is not None and wanted in (*pool.reserved, pool.gateway) and not _users(tx, owner):
                return _interface(pool, wanted)  # as --aux-address: never given anyway
            else:
                if (net := _over_hosts(tx, pool)) is not None and wanted in {a for p in net.pools for _, a in p.aux}:
                    return _interface(pool, wanted)  # another host's Docker has asked for it with the network
                address = _take(tx, pool, wanted, holder, now, held)
                if net is not None:
                    tx.claim(net.id, address)
            tx.save_grant(Grant(owner, address, holder, now))
    return _interface(pool, address)


def _vet(parts: Parts, owner: str, wanted: Address | None, holder: str) -> frozenset[Address]:
    """Ask the LAN for what `_take` is about to give; the addresses that others hold."""
    with parts.store.read() as tx:
        net = next((net for net in _users(tx, owner) if net.vets), None)
        pool = next((pool for pool in net.pools if pool.owner == owner), None) if net is not None else None
        if net is None or pool is None:
            return frozenset()  # another driver's network, or none yet: which bridge it will be on is not known
        before = _before(tx, pool, holder, _seconds(parts)) if wanted is None else None
        first = wanted if before is None else before.address
        given = first is None or _ledger(tx, pool).covering(int(first)) is not None
    if wanted is not None:
        vet.refuse_held(parts, net, [] if given else [wanted], {vet.mine_at(net, wanted)})
        return frozenset()
    if first is not None and not given:
        mine = {vet.mine_at(net, first)}
        if parts.vetted.free(net.bridge, first) or first not in vet.ask(parts, net, [first], mine):
            return frozenset()
    return vet.choose_free(parts, net, [pool], ())


def request_lan(parts: Parts, asked: PoolRequest) -> Pool:
    """Hold the pool of a LAN, whose own server gives the addresses. Raises `Invalid` for one the host is not on."""
    pool = request_pool(parts, leases.lan_request(parts, asked))
    if ipam.on_lan(pool):
        return pool
    release_pool(parts, pool.owner)
    raise Invalid(f"this host is not on {pool.subnet}: only a LAN has a DHCP server; use --ipam-driver berth")


def held(parts: Parts, owner: str) -> Pool:
    """The pool of that id. Raises `NotFound`."""
    with parts.changing(), parts.store.write(durable=True) as tx:
        return _held(parts, tx, owner).pool


def grant_lease(parts: Parts, owner: str, lease: Lease, holder: str) -> Interface:
    """Record an address that the LAN's server has given, and its lease. Raises `Invalid`, and `Taken`."""
    leases.refuse_other(lease)
    with parts.changing(), parts.store.write() as tx:
        pool = _held(parts, tx, owner).pool
        address = leases.interface(pool, lease).ip
        now = _seconds(parts)
        ledger, before = _ledger(tx, pool), tx.lease_at(address)
        same = before is not None and before.lease.request.client_id == lease.request.client_id
        if not same or address in _in_use(tx, _users(tx, owner)) or ledger.covering(int(address)) is None:
            ipam.take(pool, ledger, address)
        if before is not None:
            tx.drop_lease(before.lease.request.key)
        keep = any(net.keep_lease for net in _users(tx, owner))
        tx.save_lease(LeaseRecord(lease, pool=owner, keep=keep))
        tx.save_grant(Grant(owner, address, holder, now))
    return leases.interface(pool, lease)


def release_address(parts: Parts, owner: str, address: Address) -> None:
    """Give an address back. One that Docker does not hold is fine."""
    with parts.changing(), parts.store.write() as tx:
        grant = tx.grant(owner, address)
        held = tx.held_pool(owner)
        if grant is not None and grant.released is None and held is not None:
            _release(tx, held.pool, grant, _seconds(parts))


def collect(parts: Parts) -> Sequence[Address]:
    """Give back the addresses and pools that Docker asked for and never used: it died in between."""
    lost = []
    with parts.store.write() as tx:
        now = _seconds(parts)
        for held in tx.held_pools():
            for grant in _unused(tx, held.pool, now):
                _release(tx, held.pool, grant, now)
                lost.append(grant.address)
            if _never_used(tx, held, now):
                tx.drop_pool(held.pool.owner)
                _forget(parts, tx, held.pool)
        tx.forget_grants(named=now - _MEMORY, nameless=now - _RETURN)
    return lost


def _never_used(tx: Tx, held: HeldPool, now: float) -> bool:
    """Whether Docker did not even ask for the gateway, which is what comes next."""
    owner = held.pool.owner
    asked = held.pool.gateway is not None and not ipam.on_lan(held.pool)
    return not asked and now - held.since > _GRACE and not _users(tx, owner) and not tx.grants(owner)


def _asked_before(tx: Tx, owner: str, wanted: Address, holder: str, now: float) -> bool:
    """Whether this very call was made a moment ago: its answer was lost, and Docker makes it once more."""
    grant = tx.grant(owner, wanted)
    return (
        grant is not None
        and grant.released is None
        and grant.holder == holder
        and now - grant.taken < _RETURN
        and wanted not in _in_use(tx, _users(tx, owner))
    )


def _take(tx: Tx, pool: Pool, wanted: Address | None, holder: str, now: float, held: frozenset[Address]) -> Address:
    ledger = _ledger(tx, pool)
    if wanted is None:
        before = _before(tx, pool, holder, now)
        at_hand = before is not None and before.released is not None and before.address not in held
        if before is not None and at_hand and ledger.covering(int(before.address)) is None:
            return ipam.take(pool, ledger, before.address)
    if (net := _over_hosts(tx, pool)) is not None:
        held |= peers.resting(tx, net, None)
    try:
        return ipam.take(pool, ledger, wanted, held)
    except (Exhausted, Taken):
        unused = _unused(tx, pool, now)
        if not unused:
            raise
        for grant in unused:
            _release(tx, pool, grant, now)
        return ipam.take(pool, ledger, wanted, held)


def _before(tx: Tx, pool: Pool, holder: str, now: float) -> Grant | None:
    """What who asks had before. Of the nameless that have just left, the first: who stops first starts first."""
    return tx.granted_to(pool.owner, holder) if holder else tx.first_released(pool.owner, now - _RETURN)


def _unused(tx: Tx, pool: Pool, now: float) -> list[Grant]:
    """Addresses that no endpoint of a network of Berth's has, though it is high time."""
    users = _users(tx, pool.owner)
    if not users:
        return []  # another driver's network: who uses what is not known here
    used = _in_use(tx, users)
    return [
        grant
        for grant in tx.grants(pool.owner)
        if grant.released is None and grant.address not in used and now - grant.taken > _GRACE
    ]


def _in_use(tx: Tx, users: Sequence[Network]) -> set[Address]:
    """The addresses that networks of Berth's have a use for."""
    endpoints = [ep for net in users for ep in tx.endpoints(network=net.id)]
    used = {interface.ip for ep in endpoints for interface in ep.addresses}
    there = {ep.id for ep in endpoints}
    for record in tx.leases():  # also one that has ended, or was replaced, while Docker knows nothing of it
        if record.endpoint in there:
            used |= {record.lease.address.ip, ip_address(record.shown or record.lease.address.ip)}
    return used | {address for net in users for p in net.pools for _, address in p.aux}


def _release(tx: Tx, pool: Pool, grant: Grant, now: float) -> None:
    net = _over_hosts(tx, pool)
    if net is None or tx.disclaim(net.id, grant.address):
        ipam.give_back(pool, _ledger(tx, pool), grant.address)
    record = tx.lease_at(grant.address) or next((r for r in tx.leases() if r.shown == str(grant.address)), None)
    if record is not None and record.pool == pool.owner:
        tx.drop_lease(record.lease.request.key)
        moved = tx.grant(pool.owner, record.lease.address.ip)
        if moved is not None and moved.address != grant.address:
            ipam.give_back(pool, tx.ledger("", pool), moved.address)
            tx.save_grant(replace(moved, released=now))
    tx.save_grant(replace(grant, released=now))


def _forget(parts: Parts, tx: Tx, pool: Pool) -> None:
    """Drop a pool's record, but not who had which address: a network that is made anew finds it again."""
    now = _seconds(parts)
    for grant in tx.grants(pool.owner):
        if grant.released is None:
            tx.save_grant(replace(grant, released=now))
    tx.drop_ledger(pool)


def _users(tx: Tx, owner: str) -> list[Network]:
    return [net for net in tx.networks() if any(pool.owner == owner for pool in net.pools)]


def _over_hosts(tx: Tx, pool: Pool) -> Network | None:
    """The network over several hosts that has the pool."""
    return next((net for net in _users(tx, pool.owner) if net.scope == "global"), None)


def _ledger(tx: Tx, pool: Pool) -> Ledger:
    """The pool's taken addresses: those of all hosts, where they share it."""
    net = _over_hosts(tx, pool)
    return tx.ledger("" if net is None else net.id, pool)


def _held(parts: Parts, tx: Tx, owner: str) -> HeldPool:
    """The pool of that id. One that Docker still has and Berth no longer is held again: the id says all of it."""
    held = tx.held_pool(owner)
    if held is not None:
        return held
    found = _OWNER.fullmatch(owner)
    try:
        asked = PoolRequest(ip_network(found[1]), ip_network(found[2]) if found[2] else None) if found else None
    except ValueError:
        asked = None
    if asked is None:
        raise NotFound(f"no pool {owner[:99]!r}: ask for one first")
    return _hold(parts, tx, asked)


def _first(pool: Pool, tx: Tx) -> Address:
    ledger = _ledger(tx, pool)
    for number in range(1, pool.subnet.num_addresses - 1):
        if ledger.covering(int(pool.subnet[number])) is None:
            return pool.subnet[number]
    raise Exhausted(f"pool {pool.subnet} is full: none is left for the gateway")


def _interface(pool: Pool, address: Address | None) -> Interface:
    return ip_interface(f"{address}/{pool.subnet.prefixlen}")


def _seconds(parts: Parts) -> float:
    return datetime.fromisoformat(parts.now()).timestamp()
