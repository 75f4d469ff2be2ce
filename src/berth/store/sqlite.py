"""The embedded store: SQLite in write-ahead mode. One host needs no server.

A network must outlive a power cut (`durable`); an endpoint dies with its sandbox in one anyway, so its commit
does not wait for the disk. Either way the file stays consistent.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Mapping, Sequence
from ipaddress import ip_address
from pathlib import Path

import msgspec

from berth import schema
from berth.errors import Denied, Invalid, Refused, Unsupported
from berth.model import Address, Endpoint, Grant, HostRecord, LeaseRecord, Network, Node, Pool, PortMapping, Sandbox
from berth.seams import HeldPool, Intent, Ledger

_VERSION = 3
_FIRST = """
CREATE TABLE network (id TEXT PRIMARY KEY, name TEXT NOT NULL UNIQUE, body BLOB NOT NULL) STRICT;
CREATE TABLE endpoint (
  id TEXT PRIMARY KEY,
  network TEXT NOT NULL REFERENCES network (id),
  name TEXT NOT NULL,
  sandbox TEXT NOT NULL,
  ifname TEXT NOT NULL,
  body BLOB NOT NULL,
  UNIQUE (network, name),
  UNIQUE (sandbox, ifname)
) STRICT;
-- Taken addresses as runs of numbers: big-endian, so that bytes sort as numbers do.
CREATE TABLE run (
  pool TEXT NOT NULL, first BLOB NOT NULL, last BLOB NOT NULL, PRIMARY KEY (pool, first)
) STRICT, WITHOUT ROWID;
CREATE TABLE cursor (pool TEXT PRIMARY KEY, last BLOB NOT NULL) STRICT, WITHOUT ROWID;
CREATE TABLE port (
  proto TEXT NOT NULL, host_port INTEGER NOT NULL, host_ip TEXT NOT NULL, endpoint TEXT NOT NULL,
  PRIMARY KEY (proto, host_port, host_ip)
) STRICT, WITHOUT ROWID;
CREATE INDEX port_of ON port (endpoint);
CREATE TABLE intent (id TEXT PRIMARY KEY, body BLOB NOT NULL) STRICT;
"""

#: What each format added to the one before it.
_ADDED = {
    1: _FIRST,
    2: """
CREATE TABLE pool (owner TEXT PRIMARY KEY, holders INTEGER NOT NULL, since REAL NOT NULL, body BLOB NOT NULL) STRICT;
CREATE TABLE granted (
  pool TEXT NOT NULL, address TEXT NOT NULL, holder TEXT NOT NULL, taken REAL NOT NULL, released REAL,
  PRIMARY KEY (pool, address)
) STRICT, WITHOUT ROWID;
CREATE INDEX granted_to ON granted (pool, holder, released);
""",
    3: """
CREATE TABLE lease (
  key TEXT PRIMARY KEY, address TEXT NOT NULL, endpoint TEXT NOT NULL, pool TEXT NOT NULL, body BLOB NOT NULL
) STRICT;
CREATE INDEX lease_at ON lease (address);
CREATE INDEX lease_of ON lease (endpoint);
""",
}

_WAIT = 30  # seconds for another process's transaction
_encode_intent = msgspec.json.Encoder().encode
_decode_intent = msgspec.json.Decoder(Intent).decode


class SqliteStore:
    """What Berth remembers, in one file."""

    host = ""

    def __init__(self, path: Path) -> None:
        """Open or make the file, readable by its owner only. Raises `Denied`, `Invalid`, `Refused` or `Unsupported`."""
        try:
            path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
            path.touch(mode=0o600)
        except PermissionError:
            raise Denied(f"may not write {path.parent}: run as root, or set BERTH_STATE") from None
        except (FileExistsError, FileNotFoundError, NotADirectoryError) as error:
            raise Invalid(
                f"{path.parent} cannot be a directory ({error.strerror}): set BERTH_STATE to another"
            ) from None
        except OSError as error:
            raise Refused(
                f"cannot use {path.parent} ({error.strerror}): set BERTH_STATE to another directory"
            ) from None
        try:
            self._db = sqlite3.connect(path, timeout=_WAIT, isolation_level=None, check_same_thread=False)
            self._db.execute("PRAGMA page_size=1024")  # an attach changes a few rows in each of several trees
            self._db.execute("PRAGMA journal_mode=WAL")
            self._durable: bool | None = None  # whether a commit waits for the disk
            self._migrate(path)
        except sqlite3.Error as error:
            raise Refused(f"cannot open the store {path}: {error}") from None

    def _migrate(self, path: Path) -> None:
        self._sync(True)
        with Transaction(self._db, "BEGIN IMMEDIATE"):
            version = self._db.execute("PRAGMA user_version").fetchone()[0]
            if version > _VERSION:
                raise Unsupported(f"{path} was written by a newer Berth (format {version}): use that one")
            for number in range(version + 1, _VERSION + 1):
                for statement in _ADDED[number].split(";"):
                    self._db.execute(statement)
            self._db.execute(f"PRAGMA user_version={_VERSION}")

    def close(self) -> None:
        """Close the file."""
        self._db.close()

    def write(self, *, durable: bool = False) -> Transaction:
        """A serialisable transaction; nothing of it stays after an error. Raises `Refused` when it cannot be had."""
        self._sync(durable)
        return Transaction(self._db, "BEGIN IMMEDIATE")

    def _sync(self, durable: bool) -> None:
        if self._durable is not durable:
            self._db.execute(f"PRAGMA synchronous={'FULL' if durable else 'NORMAL'}")
            self._durable = durable

    def read(self) -> Transaction:
        """A consistent view."""
        return Transaction(self._db, "BEGIN")

    def mark(self) -> tuple[object, ...]:
        """What others wrote (`PRAGMA data_version`), and what this connection did; neither reads a row."""
        return self._db.execute("PRAGMA data_version").fetchone()[0], self._db.total_changes


class Transaction:
    """The frame of a transaction: taken back after an error, else kept."""

    __slots__ = ("_begin", "_db")

    def __init__(self, db: sqlite3.Connection, begin: str) -> None:
        self._db = db
        self._begin = begin

    def __enter__(self) -> SqliteTx:
        try:
            self._db.execute(self._begin)
        except sqlite3.OperationalError as error:
            raise _unwritable(error) from None
        return SqliteTx(self._db)

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, _: object) -> None:
        if kind is None:
            try:
                self._db.execute("COMMIT")
            except sqlite3.OperationalError as failure:
                error = failure
        if self._db.in_transaction:
            self._db.execute("ROLLBACK")
        if isinstance(error, sqlite3.OperationalError):
            raise _unwritable(error) from None


def _unwritable(error: sqlite3.OperationalError) -> Refused:
    return Refused(f"the store cannot be written: {error}")


class SqliteTx:
    """One transaction."""

    __slots__ = ("_db",)

    def __init__(self, db: sqlite3.Connection) -> None:
        self._db = db

    @property
    def revision(self) -> int:
        return 0

    def network(self, name_or_id: str) -> Network | None:
        row = self._db.execute(
            "SELECT body FROM network WHERE name = ?1 OR id = ?1 ORDER BY name = ?1 DESC", (name_or_id,)
        ).fetchone()
        return None if row is None else schema.load_network(row[0])

    def local_network(self, name_or_id: str) -> Network | None:
        net = SqliteTx.network(self, name_or_id)
        return net if net is not None and net.scope == "local" else None

    def networks(self) -> Sequence[Network]:
        return [schema.load_network(row[0]) for row in self._db.execute("SELECT body FROM network ORDER BY name")]

    def endpoint(self, identity: str) -> Endpoint | None:
        row = self._db.execute("SELECT body FROM endpoint WHERE id = ?", (identity,)).fetchone()
        return None if row is None else schema.load_endpoint(row[0])

    def endpoints(self, *, network: str | None = None, sandbox: Sandbox | None = None) -> Sequence[Endpoint]:
        where, values = [], []
        if network is not None:
            where.append("network = ?")
            values.append(network)
        if sandbox is not None:
            where.append("sandbox = ?")
            values.append(sandbox.identity)
        clause = f"WHERE {' AND '.join(where)}" if where else ""
        rows = self._db.execute(f"SELECT body FROM endpoint {clause} ORDER BY rowid", values)
        return [schema.load_endpoint(row[0]) for row in rows]

    def foresee(self, network: str, name: str, addresses: Sequence[Address]) -> None:
        """Nothing here takes long to read."""

    def named(self, network: str, name: str) -> bool:
        found = self._db.execute("SELECT 1 FROM endpoint WHERE network = ? AND name = ?", (network, name))
        return found.fetchone() is not None

    def count(self, network: str) -> int:
        return int(self._db.execute("SELECT count(*) FROM endpoint WHERE network = ?", (network,)).fetchone()[0])

    def save_network(self, net: Network) -> None:
        self._db.execute(
            "INSERT INTO network VALUES (?, ?, ?)"
            " ON CONFLICT (id) DO UPDATE SET name = excluded.name, body = excluded.body",
            (net.id, net.name, schema.dump(net)),
        )

    def drop_network(self, identity: str) -> None:
        self._db.execute("DELETE FROM network WHERE id = ?", (identity,))
        for table in ("run", "cursor"):
            self._db.execute(f"DELETE FROM {table} WHERE pool LIKE ? || ' %'", (identity,))

    def save_endpoint(self, ep: Endpoint) -> None:
        self._db.execute(
            "INSERT INTO endpoint VALUES (?, ?, ?, ?, ?, ?)"
            " ON CONFLICT (id) DO UPDATE SET name = excluded.name, body = excluded.body",
            (ep.id, ep.network, ep.name, ep.sandbox.identity, ep.ifname, schema.dump(ep)),
        )
        self._db.execute("DELETE FROM port WHERE endpoint = ?", (ep.id,))
        for port in ep.ports:
            row = (port.proto, port.host_port, str(port.host_ip or ""), ep.id)
            self._db.execute("INSERT OR REPLACE INTO port VALUES (?, ?, ?, ?)", row)

    def drop_endpoint(self, identity: str) -> None:
        self._db.execute("DELETE FROM endpoint WHERE id = ?", (identity,))
        self._db.execute("DELETE FROM port WHERE endpoint = ?", (identity,))

    def holds(self, ep: Endpoint, address: Address) -> bool:
        """Always: nobody else gives addresses from here."""
        return True

    def ledger(self, network: str, pool: Pool) -> Ledger:
        return SqliteLedger(self._db, f"{pool.owner or network} {pool.subnet}", pool.subnet.max_prefixlen // 8)

    def drop_ledger(self, pool: Pool) -> None:
        for table in ("run", "cursor"):
            self._db.execute(f"DELETE FROM {table} WHERE pool = ?", (f"{pool.owner} {pool.subnet}",))

    def held_pool(self, owner: str) -> HeldPool | None:
        row = self._db.execute("SELECT body, holders, since FROM pool WHERE owner = ?", (owner,)).fetchone()
        return None if row is None else HeldPool(schema.load_pool(row[0]), row[1], row[2])

    def held_pools(self) -> Sequence[HeldPool]:
        rows = self._db.execute("SELECT body, holders, since FROM pool ORDER BY owner")
        return [HeldPool(schema.load_pool(body), holders, since) for body, holders, since in rows]

    def save_pool(self, held: HeldPool) -> None:
        row = (held.pool.owner, held.holders, held.since, schema.dump_pool(held.pool))
        self._db.execute("INSERT OR REPLACE INTO pool VALUES (?, ?, ?, ?)", row)

    def drop_pool(self, owner: str) -> None:
        self._db.execute("DELETE FROM pool WHERE owner = ?", (owner,))

    def grant(self, pool: str, address: Address) -> Grant | None:
        return self._grant("address = ?", pool, str(address))

    def granted_to(self, pool: str, holder: str) -> Grant | None:
        """The address that a holder has, or else had last."""
        return self._grant("holder = ? ORDER BY released IS NOT NULL, released DESC LIMIT 1", pool, holder)

    def first_released(self, pool: str, since: float) -> Grant | None:
        """Of the addresses without a known holder that were released since, the first."""
        return self._grant("holder = '' AND released >= ? ORDER BY released LIMIT 1", pool, since)

    def grants(self, pool: str) -> Sequence[Grant]:
        return [_grant(row) for row in self._db.execute("SELECT * FROM granted WHERE pool = ?", (pool,))]

    def save_grant(self, grant: Grant) -> None:
        row = (grant.pool, str(grant.address), grant.holder, grant.taken, grant.released)
        self._db.execute("INSERT OR REPLACE INTO granted VALUES (?, ?, ?, ?, ?)", row)

    def forget_grants(self, *, named: float, nameless: float) -> None:
        """Drop what was released before these times."""
        self._db.execute(
            "DELETE FROM granted WHERE released < CASE holder WHEN '' THEN ? ELSE ? END", (nameless, named)
        )

    def _grant(self, where: str, pool: str, value: str | float) -> Grant | None:
        row = self._db.execute(f"SELECT * FROM granted WHERE pool = ? AND {where}", (pool, value)).fetchone()
        return None if row is None else _grant(row)

    def lease(self, key: str) -> LeaseRecord | None:
        return self._lease("key = ?", key)

    def lease_at(self, address: Address) -> LeaseRecord | None:
        """The lease of an address."""
        return self._lease("address = ?", str(address))

    def leases(self, endpoint: str | None = None) -> Sequence[LeaseRecord]:
        """All leases, or those of one endpoint."""
        where, values = ("WHERE endpoint = ?", (endpoint,)) if endpoint is not None else ("", ())
        rows = self._db.execute(f"SELECT body FROM lease {where} ORDER BY rowid", values)
        return [schema.load_lease(row[0]) for row in rows]

    def save_lease(self, record: LeaseRecord) -> None:
        lease = record.lease
        row = (lease.request.key, str(lease.address.ip), record.endpoint, record.pool, schema.dump_lease(record))
        self._db.execute("INSERT OR REPLACE INTO lease VALUES (?, ?, ?, ?, ?)", row)

    def drop_lease(self, key: str) -> None:
        self._db.execute("DELETE FROM lease WHERE key = ?", (key,))

    def drop_leases(self, endpoint: str) -> None:
        """Forget the leases of an endpoint, but for those that Docker asked for: it gives them back by itself."""
        self._db.execute("DELETE FROM lease WHERE endpoint = ? AND pool = ''", (endpoint,))

    def _lease(self, where: str, value: str) -> LeaseRecord | None:
        row = self._db.execute(f"SELECT body FROM lease WHERE {where}", (value,)).fetchone()
        return None if row is None else schema.load_lease(row[0])

    def port_owner(self, wanted: PortMapping) -> str | None:
        """The id of the endpoint whose published port the given one would clash with."""
        rows = self._db.execute(
            "SELECT host_ip, endpoint FROM port WHERE proto = ? AND host_port = ?", (wanted.proto, wanted.host_port)
        )
        for text, identity in rows.fetchall():
            host_ip = ip_address(text) if text else None
            if wanted.clashes(PortMapping(host_ip, wanted.host_port, 0, wanted.proto)):
                return str(identity)
        return None

    def open(self, intent: Intent) -> None:
        self._db.execute("INSERT INTO intent VALUES (?, ?)", (intent.id, _encode_intent(intent)))

    def close(self, identity: str) -> None:
        self._db.execute("DELETE FROM intent WHERE id = ?", (identity,))

    def intents(self) -> Sequence[Intent]:
        return [_decode_intent(row[0]) for row in self._db.execute("SELECT body FROM intent ORDER BY rowid")]

    def hosts(self) -> Sequence[HostRecord]:
        return ()

    def own_record(self) -> HostRecord | None:
        return None

    def save_host(self, host: HostRecord) -> None:
        raise Unsupported(f"no other host sees this store, so host {host.name} needs no record: use --store etcd://…")

    def drop_host(self, identity: str) -> None:
        """Nothing to drop."""

    def resting(self, network: str) -> Mapping[Address, str]:
        """None: a host's own neighbours are told at once where an address is now."""
        return {}

    def claim(self, network: str, address: Address) -> None:
        """Nothing: nobody else gives addresses from here."""

    def disclaim(self, network: str, address: Address) -> bool:
        return True

    def join(self, network: str, ident: str) -> None:
        """Nothing: a network of this host's alone has Docker's own id."""

    def leave(self, network: str, ident: str) -> bool:
        return False

    def joined(self) -> Sequence[str]:
        return ()

    def nodes(self) -> Sequence[Node]:
        return ()

    def drain(self, host: str, *, on: bool) -> None:
        raise Unsupported(f"no other host sees this store, so there is no node {host} to drain: use --store etcd://…")


def _grant(row: tuple[str, str, str, float, float | None]) -> Grant:
    pool, address, holder, taken, released = row
    return Grant(pool, ip_address(address), holder, taken, released)


class SqliteLedger:
    """The taken addresses of one pool."""

    __slots__ = ("_db", "_pool", "_size")

    def __init__(self, db: sqlite3.Connection, pool: str, size: int) -> None:
        self._db = db
        self._pool = pool
        self._size = size  # of an address, in bytes

    def _key(self, number: int) -> bytes:
        return number.to_bytes(self._size, "big")

    @property
    def last(self) -> int | None:
        row = self._db.execute("SELECT last FROM cursor WHERE pool = ?", (self._pool,)).fetchone()
        return None if row is None else int.from_bytes(row[0], "big")

    @last.setter
    def last(self, number: int | None) -> None:
        if number is None:
            self._db.execute("DELETE FROM cursor WHERE pool = ?", (self._pool,))
        else:
            self._db.execute("INSERT OR REPLACE INTO cursor VALUES (?, ?)", (self._pool, self._key(number)))

    def covering(self, number: int) -> tuple[int, int] | None:
        """The run that holds the number: one look-up in the primary key."""
        row = self._db.execute(
            "SELECT first, last FROM run WHERE pool = ? AND first <= ? ORDER BY first DESC LIMIT 1",
            (self._pool, self._key(number)),
        ).fetchone()
        if row is None:
            return None
        first, last = int.from_bytes(row[0], "big"), int.from_bytes(row[1], "big")
        return (first, last) if number <= last else None

    def add(self, first: int, last: int) -> None:
        """Record a run."""
        self._db.execute("INSERT INTO run VALUES (?, ?, ?)", (self._pool, self._key(first), self._key(last)))

    def remove(self, first: int) -> None:
        """Forget the run that starts here."""
        self._db.execute("DELETE FROM run WHERE pool = ? AND first = ?", (self._pool, self._key(first)))
