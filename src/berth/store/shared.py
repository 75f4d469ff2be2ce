"""A host among many: its lease, its return, and what the others do when it is gone."""

from __future__ import annotations

import os
import secrets
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path

from berth import durable, ipam
from berth.errors import Taken
from berth.model import Contact, Endpoint, HostRecord, Network
from berth.seams import Heard
from berth.store import nodes
from berth.store.etcd import Held, SharedTransaction, SharedTx, held
from berth.store.gateway import Away, Gateway, Members
from berth.store.keyspace import Keyspace, View
from berth.store.rpc import KEEP_ALIVE, RANGE
from berth.store.sqlite import SqliteStore
from berth.store.watch import Watcher

_SURE = 60  # seconds between two looks whether the others see this host: that only its lease lasts is not enough
_AT_ONCE = 8  # endpoints in one transaction: some ten operations each, of the 128 that etcd takes


@dataclass(frozen=True, slots=True)
class Terms:
    """How long a host may be silent."""

    ttl: int = 30  # seconds until the others no longer see it
    grace: int = 300  # seconds from then until its addresses may be given to others


class SharedStore(SqliteStore):
    """etcd for what hosts share, and SQLite for what is this host's; see `store.etcd`."""

    def __init__(self, path: Path, where: Members, prefix: str, host: str, terms: Terms = Terms()) -> None:
        """Open the file; etcd is asked when it is needed. Raises what `SqliteStore` and `Gateway` raise."""
        super().__init__(path)
        self.host = host
        self.terms = terms
        self._born = path.with_suffix(".etcd")  # the mark of the etcd that this host was last registered with
        self._where = where
        self._prefix = prefix
        self._space = Keyspace(Gateway(where), prefix, host, terms.ttl)
        # Of its own, so that the lease is renewed while a transaction waits.
        self._beat = Keyspace(Gateway(where), prefix, host, terms.ttl)
        self._beating = threading.Lock()
        self._lease, self._sure = 0, 0.0  # this host's lease, and until when (monotonic) that is taken for sure
        self._watchers: list[Watcher] = []
        self._contact = Contact()

    def write(self, *, durable: bool = False) -> SharedTransaction:
        """A serialisable transaction on both; nothing of it stays after an error."""
        self._sync(durable)
        return SharedTransaction(self._db, "BEGIN IMMEDIATE", View(self._space, writing=True))

    def read(self) -> SharedTransaction:
        """A consistent view of each."""
        return SharedTransaction(self._db, "BEGIN", View(self._space, writing=False))

    def mark(self) -> tuple[object, ...]:
        """What has changed in either; of etcd's, the networks.

        Who watches hears of them. Else etcd is asked, which counts its revisions; while it is away, it changes nothing.
        """
        if self._watchers:
            return (*super().mark(), self._space.missed, *(watcher.networks for watcher in self._watchers))
        try:
            answer = self._space.gateway.call(RANGE, self._space.one("mark"))
        except Away:
            return (*super().mark(), None)
        return (*super().mark(), answer["header"]["revision"])

    def close(self) -> None:
        """Hang up and close the file; the lease is left to run out, for a daemon that starts again at once."""
        for watcher in self._watchers:
            watcher.stop()
        self._watchers.clear()
        self._space.gateway.close()
        self._beat.gateway.close()
        super().close()

    def keep(self) -> bool:
        """Renew the lease, from any thread; False: `register` again. Raises what `Gateway.call` raises.

        That is where there is no lease any more, or where what etcd has of this host's endpoints is, or may be,
        another thing than what this host has, as when etcd went away during a change.
        """
        if self._space.doubt:
            return False
        with self._beating:
            if time.monotonic() >= self._sure:
                self._lease, self._sure = self._hung_on(), time.monotonic() + _SURE
            lasts = bool(self._lease) and self._renew()
            if not lasts:
                self._sure = 0.0
            return lasts

    def _hung_on(self) -> int:
        """The lease that what the others see of this host hangs on; 0: they do not see it."""
        key = f"seen/host/{self.host}"
        host = self._beat.values(self._beat.gateway.call(RANGE, self._beat.one(key))).get(key)
        return host.lease if host is not None else 0

    def _renew(self) -> bool:
        """Whether there was such a lease: all that hangs on one goes with it."""
        start = time.monotonic()
        answer = self._beat.gateway.call(KEEP_ALIVE, {"ID": self._lease})
        took = time.monotonic() - start
        self._contact = Contact(time.time(), took, answer["header"]["revision"])
        return bool(answer["TTL"] > 0)

    def register(self, host: HostRecord) -> tuple[str, ...]:
        """Be seen by the others, with all endpoints of this host. Needed at the start, and when `keep` says False.

        Gives the ids of endpoints whose address was given to another in the meantime: they are not registered.
        Raises what a transaction raises.
        """
        self._space.doubt = False
        try:
            return self._register(host)
        except BaseException:
            self._space.doubt = True
            raise

    def _register(self, host: HostRecord) -> tuple[str, ...]:
        self.keep()
        with self.write() as tx:
            tx.save_host(host)
        self._sure = 0.0
        self._restore()
        with self.read() as tx:
            mine = [ep for ep in tx.endpoints() if ep.host]
        lost: list[str] = []
        for start in range(0, len(mine), _AT_ONCE):
            with self.write() as tx:
                lost += [ep.id for ep in mine[start : start + _AT_ONCE] if self._is_lost(tx, ep)]
        self._free(self._left_behind)
        return tuple(lost)

    def _restore(self) -> None:
        """Give etcd the networks in use here, where it was made anew since this host was last registered.

        It is known by a mark that the first host makes. Where the mark is the same, a network that is not there was
        removed by somebody.
        """
        found = durable.read(self._born)
        with self.write() as tx:
            there = tx.etcd.get("born")
            born = there.data.decode() if there is not None else secrets.token_hex(8)
            if there is None:
                tx.etcd.put("born", born.encode())
        known = found[0].strip() if found is not None else born
        if known != born:
            for net in self._orphans():
                with suppress(Taken), self.write() as tx:  # there may be another of that name, or with its addresses
                    tx.save_network(net)
                    for pool in net.pools:
                        ipam.reserve(pool, tx.ledger(net.id, pool))
        if found is None or known != born:
            durable.write(self._born, f"{born}\n", 0o600)

    def _orphans(self) -> list[Network]:
        """The networks of endpoints here that etcd does not know. Raises `Away`."""
        with self.read() as tx:
            there = tx.etcd.range("seen/network/")
            used = {ep.network for ep in tx.endpoints()}
            return [
                net
                for net in tx.networks()
                if net.id in used and net.scope == "global" and f"seen/network/{net.id}" not in there
            ]

    def _is_lost(self, tx: SharedTx, ep: Endpoint) -> bool:
        """Claim an endpoint again; one that was detached meanwhile is no loss."""
        return tx.endpoint(ep.id) is not None and not tx.reclaim(ep)

    def expire(self) -> tuple[str, ...]:
        """Free what hosts held whose lease ran out the grace time ago, and what this host has left behind.

        Any host may do it at any time; all time is measured by etcd, as leases, so that clocks need not agree.
        Gives the ids of the endpoints. Raises what a transaction raises.
        """
        with self.read() as tx:
            work = bool(self._silent(tx) or self._left_behind(tx))
            if self._unclaimed(tx):  # as after a detach that etcd heard of and this host's records did not
                self._space.doubt = True
        if not work:
            return ()
        with self.write() as tx:
            self._begin_grace(tx)
        freed = self._free(lambda tx: [key for key, host in _holders(tx).items() if host in self._over(tx)])
        return freed + self._free(self._left_behind)

    def _silent(self, tx: SharedTx) -> set[str]:
        """Hosts that hold addresses and are not there."""
        there = {key.rpartition("/")[2] for key in tx.etcd.range("seen/host/")}
        return set(_holders(tx).values()) - there - {self.host}

    def _begin_grace(self, tx: SharedTx) -> None:
        silent = self._silent(tx)
        gone = {key.partition("/")[2] for key in tx.etcd.range("gone/")}
        for host in gone - silent:  # all that it held is freed
            tx.etcd.delete(f"gone/{host}")
        for host in silent - gone:
            tx.etcd.put(f"gone/{host}", b"")
            nodes.missed(tx.etcd, host)
            tx.etcd.put(f"grace/{host}", b"", self._space.grant(self.terms.grace))

    def _over(self, tx: SharedTx) -> set[str]:
        """Silent hosts whose grace time has begun and is over."""
        gone = {key.partition("/")[2] for key in tx.etcd.range("gone/")}
        grace = {key.partition("/")[2] for key in tx.etcd.range("grace/")}
        return (gone - grace) & self._silent(tx)

    def _left_behind(self, tx: SharedTx) -> list[str]:
        """What etcd holds for endpoints that this host does not have (any more)."""
        mine = {ep.id for ep in tx.endpoints()}
        grants = (grant for pool in tx.held_pools() for grant in tx.grants(pool.pool.owner))
        docker = {str(grant.address) for grant in grants if grant.released is None}
        held_here = ((k, held(v)) for k, v in tx.etcd.range("held/").items())
        return [
            key
            for key, of in held_here
            if of.host == self.host
            and (of.endpoint not in mine if of.endpoint else key.rpartition("/")[2] not in docker)
        ]

    def _unclaimed(self, tx: SharedTx) -> bool:
        """Whether this host has endpoints whose addresses etcd does not hold for them, though it has their network."""
        claims = {(key.split("/")[1], key.split("/")[2]): held(v) for key, v in tx.etcd.range("held/").items()}
        nets = {key.rpartition("/")[2] for key in tx.etcd.range("seen/network/")}
        return any(
            claims.get((ep.network, str(interface.ip))) != Held(self.host, ep.id)
            for ep in tx.endpoints()
            if ep.network in nets
            for interface in ep.addresses
        )

    def _free(self, which: Callable[[SharedTx], list[str]]) -> tuple[str, ...]:
        """Free addresses by their keys, some at a time: asked for anew each time, since others go on meanwhile."""
        freed: dict[str, None] = {}
        while True:
            with self.write() as tx:
                keys = which(tx)
                freed |= {tx.free(key): None for key in keys[:_AT_ONCE]}
            if len(keys) <= _AT_ONCE:
                return tuple(filter(None, freed))

    def remove(self, host: str) -> tuple[str, ...]:
        """Forget a host and free what it holds, at once; one that lives registers again, with what is still free.

        Gives the ids of its endpoints. Raises what a transaction raises.
        """
        with self.write() as tx:
            alive = tx.etcd.get(f"seen/host/{host}") is not None
            tx.drop_host(host)
        freed = self._free(lambda tx: [key for key, holder in _holders(tx).items() if holder == host])
        with self.write() as tx:
            nodes.forget(tx.etcd, host, alive=alive)
        return freed

    def watch(self, changed: Callable[[Heard], None]) -> Callable[[], None]:
        """Tell what changes, from a thread, in order and without a gap. Gives how to stop it."""
        watcher = Watcher(Gateway(self._where), self._prefix, changed)
        self._watchers.append(watcher)

        def stop() -> None:
            watcher.stop()
            with suppress(ValueError):  # the store was closed already
                self._watchers.remove(watcher)

        return stop

    def contact(self) -> Contact:
        """As the last renewal of the lease and the watch found it."""
        heard = max((watcher.heard for watcher in self._watchers), default=(0.0, 0))
        return replace(self._contact, heard=heard[0], heard_revision=heard[1])


def _holders(tx: SharedTx) -> dict[str, str]:
    return {key: held(value).host for key, value in tx.etcd.range("held/").items()}


def host_id(path: Path) -> str:
    """This host's id: 16 hexadecimal digits in a file, made up when it is not there. Raises `Denied`, `Refused`."""
    found = durable.read(path)
    if found is None:
        text = secrets.token_hex(8)
        draft = path.with_name(f".{path.name}.{text}")
        durable.write(draft, f"{text}\n", 0o600)
        with suppress(FileExistsError):  # another process was faster: its id stays
            os.link(draft, path)
        durable.remove(draft)
        found = durable.read(path)
    return found[0].strip() if found is not None else ""
