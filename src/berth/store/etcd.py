"""The store of many hosts: what they share is in etcd, what is this host's alone in SQLite beside it.

Shared are hosts, global networks, their taken addresses and their endpoints. Everything else (bridges, LANs,
published ports, changes under way) needs no etcd and goes on without it. Of what is shared, SQLite keeps this host's
endpoints and their networks: what the data plane is put right from while etcd is away, and what is registered anew
when it is back.

Below the prefix:
    seen/network/ID                     a global network
    seen/host/ID, seen/endpoint/NETWORK/ID, name/NETWORK/NAME    on the host's lease: gone with it
    pool/NETWORK/SUBNET/cursor, run/N   the taken addresses of a network, as runs
    held/NETWORK/ADDRESS                for which host and endpoint one was taken; for no endpoint yet: Docker has it
    rest/NETWORK/ADDRESS                the MAC that an address had until a moment ago
    joined/NETWORK/HOST/ID              what a host's Docker calls a network
    born                                made with the first key: another one, and etcd was made anew
    gone/HOST, grace/HOST               a host whose lease ran out; until its addresses are freed
    node/HOST, drained/HOST, dead/HOST  see `nodes`
    lock, last/HOST                     see `keyspace`
"""

from __future__ import annotations

import contextlib
import sqlite3
from collections.abc import Mapping, Sequence
from dataclasses import replace
from ipaddress import ip_address

import msgspec

from berth import ipam, schema
from berth.errors import NotFound, Refused, Taken
from berth.model import Address, Endpoint, HostRecord, Network, Node, Placement, Pool, Sandbox
from berth.seams import Ledger
from berth.store import nodes
from berth.store.gateway import Away
from berth.store.keyspace import Value, View
from berth.store.rpc import REVOKE
from berth.store.sqlite import SqliteTx, Transaction

_ID = 64  # digits of an id


class Held(msgspec.Struct, frozen=True):
    """For whom an address was taken."""

    host: str
    endpoint: str


def held(value: Value) -> Held:
    """What is at a key below held/."""
    return msgspec.json.decode(value.data, type=Held)


class SharedTransaction(Transaction):
    """The frame of a transaction: etcd's part is carried out first, since it can fail, then SQLite's."""

    __slots__ = ("_view",)

    def __init__(self, db: sqlite3.Connection, begin: str, view: View) -> None:
        super().__init__(db, begin)
        self._view = view

    def __enter__(self) -> SharedTx:
        super().__enter__()
        return SharedTx(self._db, self._view)

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: object) -> None:
        if kind is not None:
            self._view.abort()
        else:
            try:
                self._view.commit()
            except BaseException as failure:
                super().__exit__(type(failure), failure, trace)
                raise
        super().__exit__(kind, error, trace)


class SharedTx(SqliteTx):
    """One transaction on both."""

    __slots__ = ("_host", "etcd")

    def __init__(self, db: sqlite3.Connection, view: View) -> None:
        super().__init__(db)
        self.etcd = view
        self._host = view.space.host

    @property
    def revision(self) -> int:
        return self.etcd.revision

    # Networks

    def network(self, name_or_id: str) -> Network | None:
        """A network of this host's by name or id; else a global one; while etcd is away, one that is used here."""
        if (local := self.local_network(name_or_id)) is not None:
            return local
        nets = self._global()
        by_name = next((net for net in nets.values() if net.name == name_or_id), None)
        return by_name or nets.get(name_or_id) or self._joined(nets, name_or_id)

    def _joined(self, nets: Mapping[str, Network], ident: str) -> Network | None:
        """The network that this host's Docker means by an id of its own. Raises `Away`."""
        if len(ident) != _ID:
            return None
        found = (key.split("/") for key in self.etcd.range("joined/"))
        return next((nets.get(net) for _, net, host, known in found if (host, known) == (self._host, ident)), None)

    def join(self, network: str, ident: str) -> None:
        """Note what this host's Docker calls a network. Raises `Away`."""
        self.etcd.put(f"joined/{network}/{self._host}/{ident}", b"")

    def leave(self, network: str, ident: str) -> bool:
        """Forget that; whether some Docker still uses the network. Raises `Away`."""
        self.etcd.delete(f"joined/{network}/{self._host}/{ident}")
        return bool(self.etcd.range(f"joined/{network}/"))

    def joined(self) -> Sequence[str]:
        """What this host's Docker calls networks. Raises `Away`."""
        found = (key.split("/") for key in self.etcd.range("joined/"))
        return [ident for _, _, host, ident in found if host == self._host]

    def networks(self) -> Sequence[Network]:
        local = [net for net in super().networks() if net.scope == "local"]
        return sorted([*local, *self._global(used=True).values()], key=lambda net: net.name)

    def _global(self, *, used: bool = False) -> dict[str, Network]:
        """Global networks by id. `used`: those too that are gone but still have endpoints here."""
        copies = {net.id: net for net in super().networks() if net.scope == "global"}
        try:
            found = self.etcd.range("seen/network/").values()
        except Away:
            self.etcd.space.missed += 1
            return copies
        nets = {net.id: net for net in (schema.load_network(value.data) for value in found)}
        if used:
            here = {ep.network for ep in super().endpoints()}
            nets = {key: net for key, net in copies.items() if key in here} | nets
        return nets

    def save_network(self, net: Network) -> None:
        """Save a network. Raises `Taken` for a global one that another host was faster with."""
        if net.scope == "local":
            super().save_network(net)
            return
        nodes.check_format(self.etcd)
        for value in self.etcd.range("seen/network/").values():
            other = schema.load_network(value.data)
            if other.id == net.id:
                continue
            if other.name == net.name:
                raise Taken(f"another host has made a network {net.name}: choose another name, or use that one")
            if any(_overlap(one, two) for one in net.pools for two in other.pools):
                raise Taken(f"network {other.name} has addresses of {net.name}'s: give another --subnet, or none")
        self.etcd.put(f"seen/network/{net.id}", schema.dump(net))
        self._copy(net)

    def _copy(self, net: Network) -> None:
        """Keep it for when etcd is away; under its id, since its name may be a local one's too."""
        row = (net.id, net.id, schema.dump(net))
        self._db.execute("INSERT OR REPLACE INTO network VALUES (?, ?, ?)", row)

    def drop_network(self, identity: str) -> None:
        """Drop a network. Raises `Taken` for a global one that has endpoints, here or elsewhere."""
        local = super().network(identity)
        shared = local is None or local.scope == "global"
        if shared and self.etcd.get(f"seen/network/{identity}") is not None:
            if count := len(self.endpoints(network=identity)):
                raise Taken(f"the network has {count} endpoints, here or on other hosts: detach them first")
            self.etcd.delete(f"seen/network/{identity}")
            for kind in ("pool", "held", "joined", "rest"):
                self.etcd.drop(f"{kind}/{identity}/")
        super().drop_network(identity)

    # Endpoints

    def endpoints(self, *, network: str | None = None, sandbox: Sandbox | None = None) -> Sequence[Endpoint]:
        """This host's endpoints; of a global network that is named, those of all hosts (etcd away: this host's)."""
        mine = super().endpoints(network=network, sandbox=sandbox)
        if network is None or sandbox is not None or not self._is_global(network):
            return mine
        try:
            found = self.etcd.range(f"seen/endpoint/{network}/").values()
        except Away:
            return mine
        others = (schema.load_endpoint(value.data) for value in found)
        return [*mine, *(ep for ep in others if ep.host != self._host)]

    def named(self, network: str, name: str) -> bool:
        if super().named(network, name):
            return True
        return self._is_global(network) and self.etcd.get(f"name/{network}/{name}") is not None

    def foresee(self, network: str, name: str, addresses: Sequence[Address]) -> None:
        """Read at once what an attach to a global network asks for. Raises what `View.ask` raises."""
        held_now = [f"held/{network}/{address}" for address in addresses]
        self.etcd.ask(f"name/{network}/{name}", *held_now, below=(f"rest/{network}/", f"pool/{network}/"))

    def _is_global(self, network: str) -> bool:
        local = super().network(network)
        return (local.scope == "global") if local is not None else network in self._global()

    def save_endpoint(self, ep: Endpoint) -> None:
        """Save an endpoint; one of a global network becomes this host's.

        Raises `NotFound` when the network is gone, `Taken` when an address is another's by now, and `Refused` when
        this host is not registered or etcd is away.
        """
        if not self._is_global(ep.network):
            super().save_endpoint(ep)
            return
        if ep.host not in ("", self._host):
            raise Refused(f"endpoint {ep.name} is on host {ep.host}: change it there")
        self.etcd.ask(_name(ep), *(_held(ep, interface.ip) for interface in ep.addresses))
        net = self.etcd.get(f"seen/network/{ep.network}")
        if net is None:
            raise NotFound("the network was removed by another host just now")
        ep = replace(ep, host=self._host)
        before = super().endpoint(ep.id)
        if before is None and self.etcd.get(nodes.drained(self._host)) is not None:
            raise Refused("this node is drained: attach on another one, or `berth node undrain` it")
        if before is not None and before.name != ep.name:
            self._drop_name(before)
        self._copy(schema.load_network(net.data))
        super().save_endpoint(ep)
        for interface in ep.addresses:
            if not self.holds(ep, interface.ip, free=True):
                raise Taken(f"{interface.ip} was given to another host while this one was away")
            self.etcd.put(_held(ep, interface.ip), msgspec.json.encode(Held(self._host, ep.id)))
        self.publish(ep)

    def publish(self, ep: Endpoint) -> None:
        """Let the others see an endpoint, for as long as this host's lease lasts."""
        lease = self.host_lease()
        self.etcd.put(f"seen/endpoint/{ep.network}/{ep.id}", schema.dump(ep), lease)
        name = self.etcd.get(_name(ep))
        if name is None or name.data.decode() == ep.id:
            self.etcd.put(_name(ep), ep.id.encode(), lease)

    def host_lease(self) -> int:
        """This host's. Raises `Refused` when it has none."""
        host = self.etcd.get(f"seen/host/{self._host}")
        if host is None:
            raise Refused("this host is not registered with the others (any more): start `berth daemon` on this store")
        return host.lease

    def holds(self, ep: Endpoint, address: Address, *, free: bool = False) -> bool:
        """Whether an address is still the endpoint's. `free`: or nobody's. etcd away: no, it is found out later."""
        if not self._is_global(ep.network):
            return True
        try:
            value = self.etcd.get(_held(ep, address))
        except Away:
            return False
        return free if value is None else held(value) in (Held(self._host, ep.id), Held(self._host, ""))

    def claim(self, network: str, address: Address) -> None:
        """Hold an address for this host's Docker, before it has an endpoint for it."""
        self.etcd.put(f"held/{network}/{address}", msgspec.json.encode(Held(self._host, "")))

    def disclaim(self, network: str, address: Address) -> bool:
        """Hold it no longer; whether it was this host's still. Raises `Away`."""
        value = self.etcd.get(f"held/{network}/{address}")
        if value is not None and held(value).host != self._host:
            return False
        self.etcd.delete(f"held/{network}/{address}")
        return True

    def drop_endpoint(self, identity: str) -> None:
        """Drop one of this host's endpoints. While etcd is away the others hear of it later (`register`, `expire`)."""
        ep = super().endpoint(identity)
        if ep is not None and self._is_global(ep.network):
            with contextlib.suppress(Away):
                self.withdraw(ep)
        super().drop_endpoint(identity)

    def withdraw(self, ep: Endpoint) -> None:
        """Take an endpoint and its claims on addresses from what the others see."""
        self.etcd.ask(_name(ep), *(_held(ep, interface.ip) for interface in ep.addresses))
        self.etcd.delete(f"seen/endpoint/{ep.network}/{ep.id}")
        self._drop_name(ep)
        for interface in ep.addresses:
            if not self.holds(ep, interface.ip):
                continue
            rest = self.etcd.space.rest_lease()
            self.etcd.put(f"rest/{ep.network}/{interface.ip}", ep.mac.encode(), rest)
            if ep.placement is Placement.HANDOVER:  # Docker has the address until it gives it back
                self.claim(ep.network, interface.ip)
            else:
                self.etcd.delete(_held(ep, interface.ip))

    def resting(self, network: str) -> Mapping[Address, str]:
        """The MACs that addresses of a global network had until a moment ago: neighbours still remember them."""
        if not self._is_global(network):
            return {}
        found = self.etcd.range(f"rest/{network}/").items()
        return {ip_address(key.rpartition("/")[2]): value.data.decode() for key, value in found}

    def reclaim(self, ep: Endpoint) -> bool:
        """Let the others see an endpoint again; False, and nothing done, when an address is another's by now."""
        value = self.etcd.get(f"seen/network/{ep.network}")
        if value is None:
            return False
        net = schema.load_network(value.data)
        freed = []
        for interface in ep.addresses:
            pool = net.pool_of(interface.ip)
            if self.holds(ep, interface.ip):
                continue
            if pool is None or not self.holds(ep, interface.ip, free=True):
                return False
            if self.ledger(net.id, pool).covering(int(interface.ip)) is not None:
                return False
            freed.append((pool, interface.ip))
        for pool, address in freed:
            ipam.take(pool, self.ledger(net.id, pool), address)
            self.etcd.put(_held(ep, address), msgspec.json.encode(Held(self._host, ep.id)))
        self.publish(ep)
        return True

    def free(self, key: str) -> str:
        """Free the address that a key below held/ is about; gives the id of the endpoint that had it."""
        _, network, text = key.split("/")
        value, net = self.etcd.get(key), self.etcd.get(f"seen/network/{network}")
        address = ip_address(text)
        pool = schema.load_network(net.data).pool_of(address) if net is not None else None
        if pool is not None:
            ipam.give_back(pool, self.ledger(network, pool), address)
        self.etcd.delete(key)
        if value is None:
            return ""
        seen = f"seen/endpoint/{network}/{held(value).endpoint}"
        if (endpoint := self.etcd.get(seen)) is not None:  # its host lives, and detached it while etcd was away
            self._drop_name(schema.load_endpoint(endpoint.data))
            self.etcd.delete(seen)
        return held(value).endpoint

    def _drop_name(self, ep: Endpoint) -> None:
        name = self.etcd.get(_name(ep))
        if name is not None and name.data.decode() == ep.id:
            self.etcd.delete(_name(ep))

    def ledger(self, network: str, pool: Pool) -> Ledger:
        if not network or not self._is_global(network):
            return super().ledger(network, pool)
        return SharedLedger(self.etcd, network, pool)

    # Hosts

    def hosts(self) -> Sequence[HostRecord]:
        """The hosts whose lease lasts. Raises `Away`."""
        return [schema.load_host(value.data) for value in self.etcd.range("seen/host/").values()]

    def own_record(self) -> HostRecord | None:
        """What the others know of this host; None: nothing. Raises `Away`."""
        value = self.etcd.get(f"seen/host/{self._host}")
        return None if value is None else schema.load_host(value.data)

    def save_host(self, host: HostRecord) -> None:
        """Change what the others know of this host, or begin to be seen by them. Raises `Refused`, `Away`."""
        if host.id != self._host:
            raise Refused(f"host {host.id} is not this one ({self._host}): each host says itself what it is")
        nodes.check_format(self.etcd)
        there = self.etcd.get(f"seen/host/{host.id}")
        space = self.etcd.space
        self.etcd.put(f"seen/host/{host.id}", schema.dump(host), there.lease if there else space.grant(space.ttl))
        nodes.save(self.etcd, host)
        for mark in ("gone", "grace", "dead"):
            if self.etcd.get(f"{mark}/{host.id}") is not None:
                self.etcd.delete(f"{mark}/{host.id}")

    def drop_host(self, identity: str) -> None:
        """End a host's lease, at once: it and its endpoints go as if it had run out. Raises `Away`.

        A host that lives after all registers again.
        """
        host = self.etcd.get(f"seen/host/{identity}")
        if host is not None:
            self.etcd.space.gateway.call(REVOKE, {"ID": host.lease})
            self.etcd.delete(f"seen/host/{identity}")

    def nodes(self) -> Sequence[Node]:
        """All hosts that were ever registered and not removed since, by name. Raises `Away`."""
        holders = ((of.host, of.endpoint) for of in map(held, self.etcd.range("held/").values()))
        return nodes.every(self.etcd, holders)

    def drain(self, host: str, *, on: bool) -> None:
        """Let a host take no new endpoints, or again. Raises `Away`."""
        if on:
            self.etcd.put(nodes.drained(host), b"")
        else:
            self.etcd.delete(nodes.drained(host))


class SharedLedger:
    """The taken addresses of one pool of a global network; all runs are read at once, with the first question."""

    __slots__ = ("_etcd", "_prefix", "_width")

    def __init__(self, view: View, network: str, pool: Pool) -> None:
        self._etcd = view
        self._prefix = f"pool/{network}/{str(pool.subnet).replace('/', '_')}/"
        self._width = pool.subnet.max_prefixlen // 4  # of a number, in digits

    def _key(self, number: int) -> str:
        return f"{self._prefix}run/{number:0{self._width}x}"

    @property
    def last(self) -> int | None:
        value = self._etcd.range(self._prefix).get(f"{self._prefix}cursor")
        return None if value is None else int(value.data, 16)

    @last.setter
    def last(self, number: int | None) -> None:
        if number is None:
            self._etcd.delete(f"{self._prefix}cursor")
        else:
            self._etcd.put(f"{self._prefix}cursor", f"{number:x}".encode())

    def covering(self, number: int) -> tuple[int, int] | None:
        """The run that holds the number."""
        before, found = self._key(number), None
        for key, value in self._etcd.range(self._prefix).items():
            if key.startswith(f"{self._prefix}run/") and key <= before:
                found = (int(key.rpartition("/")[2], 16), int(value.data, 16))
        return found if found is not None and number <= found[1] else None

    def add(self, first: int, last: int) -> None:
        """Record a run."""
        self._etcd.put(self._key(first), f"{last:x}".encode())

    def remove(self, first: int) -> None:
        """Forget the run that starts here."""
        self._etcd.delete(self._key(first))


def _name(ep: Endpoint) -> str:
    return f"name/{ep.network}/{ep.name}"


def _held(ep: Endpoint, address: Address) -> str:
    return f"held/{ep.network}/{address}"


def _overlap(one: Pool, two: Pool) -> bool:
    return one.subnet.version == two.subnet.version and one.subnet.overlaps(two.subnet)
