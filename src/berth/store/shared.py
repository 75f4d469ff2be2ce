"""A host among many: its lease, its return, and what the others do when it is gone."""

from __future__ import annotations

import contextlib
import os
import secrets
import threading
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from berth import durable
from berth.model import Endpoint, HostRecord
from berth.seams import Heard
from berth.store.etcd import SharedTransaction, SharedTx, held
from berth.store.gateway import Gateway, Members
from berth.store.keyspace import Keyspace, View
from berth.store.sqlite import SqliteStore
from berth.store.watch import Watcher

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
        self._where = where
        self._prefix = prefix
        self._space = Keyspace(Gateway(where), prefix, host, terms.ttl)
        # Of its own, so that the lease is renewed while a transaction waits.
        self._beat = Keyspace(Gateway(where), prefix, host, terms.ttl)
        self._beating = threading.Lock()
        self._watchers: list[Watcher] = []

    def write(self, *, durable: bool = False) -> SharedTransaction:
        """A serialisable transaction on both; nothing of it stays after an error."""
        self._sync(durable)
        return SharedTransaction(self._db, "BEGIN IMMEDIATE", View(self._space, writing=True))

    def read(self) -> SharedTransaction:
        """A consistent view of each."""
        return SharedTransaction(self._db, "BEGIN", View(self._space, writing=False))

    def close(self) -> None:
        """Hang up and close the file; the lease is left to run out, for a daemon that starts again at once."""
        for watcher in self._watchers:
            watcher.stop()
        self._space.gateway.close()
        self._beat.gateway.close()
        super().close()

    def keep(self) -> bool:
        """Renew the lease, from any thread; False: there is none any more. Raises what `Gateway.call` raises."""
        with self._beating:
            key = f"seen/host/{self.host}"
            host = self._beat.values(self._beat.gateway.call("/v3/kv/range", self._beat.one(key))).get(key)
            if host is None:
                return False
            answer = self._beat.gateway.call("/v3/lease/keepalive", {"ID": str(host.lease)})
            return int(answer.get("result", {}).get("TTL", 0)) > 0

    def register(self, host: HostRecord) -> tuple[str, ...]:
        """Be seen by the others, with all endpoints of this host. Needed at the start, and when `keep` says False.

        Gives the ids of endpoints whose address was given to another in the meantime: they are not registered.
        Raises what a transaction raises.
        """
        self.keep()
        with self.write() as tx:
            tx.save_host(host)
        with self.read() as tx:
            mine = [ep for ep in tx.endpoints() if ep.host]
        lost: list[str] = []
        for start in range(0, len(mine), _AT_ONCE):
            with self.write() as tx:
                lost += [ep.id for ep in mine[start : start + _AT_ONCE] if self._is_lost(tx, ep)]
        self._free(self._left_behind)
        return tuple(lost)

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
            tx.etcd.put(f"grace/{host}", b"", self._space.grant(self.terms.grace))

    def _over(self, tx: SharedTx) -> set[str]:
        """Silent hosts whose grace time has begun and is over."""
        gone = {key.partition("/")[2] for key in tx.etcd.range("gone/")}
        grace = {key.partition("/")[2] for key in tx.etcd.range("grace/")}
        return (gone - grace) & self._silent(tx)

    def _left_behind(self, tx: SharedTx) -> list[str]:
        """What etcd holds for endpoints that this host does not have (any more)."""
        mine = {ep.id for ep in tx.endpoints()}
        found = tx.etcd.range("held/").items()
        return [key for key, of in ((k, held(v)) for k, v in found) if of.host == self.host and of.endpoint not in mine]

    def _free(self, which: Callable[[SharedTx], list[str]]) -> tuple[str, ...]:
        """Free addresses by their keys, some at a time: asked for anew each time, since others go on meanwhile."""
        freed: dict[str, None] = {}
        while True:
            with self.write() as tx:
                keys = which(tx)
                freed |= {tx.free(key): None for key in keys[:_AT_ONCE]}
            if len(keys) <= _AT_ONCE:
                return tuple(filter(None, freed))

    def watch(self, changed: Callable[[Heard], None]) -> Callable[[], None]:
        """Tell what changes, from a thread, in order and without a gap. Gives how to stop it."""
        watcher = Watcher(Gateway(self._where), self._prefix, changed)
        self._watchers.append(watcher)
        return watcher.stop


def _holders(tx: SharedTx) -> dict[str, str]:
    return {key: held(value).host for key, value in tx.etcd.range("held/").items()}


def host_id(path: Path) -> str:
    """This host's id: 16 hexadecimal digits in a file, made up when it is not there. Raises `Denied`, `Refused`."""
    found = durable.read(path)
    if found is None:
        text = secrets.token_hex(8)
        draft = path.with_name(f".{path.name}.{text}")
        durable.write(draft, f"{text}\n", 0o600)
        with contextlib.suppress(FileExistsError):  # another process was faster: its id stays
            os.link(draft, path)
        durable.remove(draft)
        found = durable.read(path)
    return found[0].strip() if found is not None else ""
