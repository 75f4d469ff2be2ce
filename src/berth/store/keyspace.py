"""Transactions on etcd, as a block of code sees them: it reads, decides and writes, and all of it is one instant.

Who writes holds a lock: a key under a lease of seconds, so that a dead process holds up nobody for long. What was
written waits until the block ends and is then one transaction of etcd's, which compares the lock first: who was
held up for longer than its lease changes nothing. Reads are of one revision.
"""

from __future__ import annotations

import random
import secrets
import time
from collections.abc import Sequence
from dataclasses import dataclass

from berth.errors import Refused
from berth.store.gateway import Away, Gateway, after
from berth.store.protobuf import Said
from berth.store.rpc import CREATED, EQUAL, GRANT, RANGE, TXN, Method

_LOCK = 8  # seconds after which a dead process's lock is gone
_REUSE = 2.0  # seconds for which a lease serves further transactions; what is left is for the block
_WAIT = 30.0  # seconds for another's transaction
_PAUSES = (0.002, 0.05)  # seconds between two tries, at first and at last
REST = 60  # seconds: neighbours ask again for an address that they have not heard of for so long (arp(7))
_MOST = 120  # operations of one transaction; etcd takes 128 (--max-txn-ops)


@dataclass(frozen=True, slots=True)
class Value:
    """What is stored at a key."""

    data: bytes
    lease: int = 0  # on which it hangs; 0: none


class Keyspace:
    """What Berth has in etcd: everything below one prefix."""

    def __init__(self, gateway: Gateway, prefix: str, host: str, ttl: int) -> None:
        self.ttl = ttl  # of the host's lease, in seconds
        self.gateway = gateway
        self.prefix = prefix
        self.host = host
        self.missed = 0  # how often etcd was away when networks were asked for: this host's own copies were told then
        self.doubt = False  # whether etcd may have another thing of this host's than the host itself
        self._lease, self._until = 0, 0.0
        self._rest, self._rest_until = 0, 0.0

    def full(self, key: str) -> bytes:
        """A key as etcd has it."""
        return (self.prefix + key).encode()

    def one(self, key: str) -> Said:
        """The request for one key."""
        return {"key": self.full(key)}

    def below(self, prefix: str) -> Said:
        """The request for all keys that begin so."""
        return {"key": self.full(prefix), "range_end": after(self.full(prefix))}

    def values(self, answer: Said) -> dict[str, Value]:
        """The answer to either."""
        start = len(self.prefix)
        return {kv["key"].decode()[start:]: Value(kv["value"], kv["lease"]) for kv in answer["kvs"]}

    def grant(self, seconds: int) -> int:
        """A new lease's number."""
        return int(self.gateway.call(GRANT, {"TTL": seconds})["ID"])

    def lock_lease(self) -> int:
        """A lease for a lock that is taken now."""
        if time.monotonic() >= self._until:
            self._until = time.monotonic() + _REUSE
            self._lease = self.grant(_LOCK)
        return self._lease

    def rest_lease(self) -> int:
        """A lease for what others remember for a while, of some `REST` seconds; many share it."""
        if time.monotonic() >= self._rest_until:
            self._rest_until = time.monotonic() + REST / 2
            self._rest = self.grant(REST + REST // 2)
        return self._rest

    def forget_lease(self) -> None:
        """The leases are known to be gone, as after all of etcd was lost."""
        self._until = self._rest_until = 0.0


class View:
    """What one transaction sees: etcd at one revision, and over it what the transaction itself has written."""

    def __init__(self, space: Keyspace, *, writing: bool) -> None:
        self.space = space
        self.writing = writing
        self._token = f"{space.host} {secrets.token_hex(8)}"
        self._lock = 0  # the revision that made it
        self.revision = 0  # that it sees; 0: nothing was read yet
        self._away: Away | None = None  # known by now, and not to be found out again
        self._read: dict[str, dict[str, Value]] = {}  # by prefix
        self._singles: dict[str, Value | None] = {}
        self._writes: dict[str, Value | None] = {}
        self._dropped: set[str] = set()
        # Read with the lock: what every transaction needs, and what is foreseen of this one.
        self._keys: tuple[str, ...] = (f"seen/host/{space.host}", f"drained/{space.host}")
        self._prefixes: tuple[str, ...] = ("seen/network/",)

    def range(self, prefix: str) -> dict[str, Value]:
        """All below a prefix, in the order of the keys. Raises what `Gateway.call` raises."""
        wider = next((known for known in self._read if prefix.startswith(known)), None)
        if wider is None:
            self._read[wider := prefix] = self._fetch(self.space.below(prefix))
        found: dict[str, Value | None] = {}
        if not self._is_dropped(prefix):
            found |= {key: value for key, value in self._read[wider].items() if key.startswith(prefix)}
        found |= {key: value for key, value in self._writes.items() if key.startswith(prefix)}
        return {key: value for key, value in sorted(found.items()) if value and not self._is_dropped(key)}

    def get(self, key: str) -> Value | None:
        """What is at a key. Raises what `Gateway.call` raises."""
        if key in self._writes:
            return self._writes[key]
        if self._is_dropped(key):
            return None
        for prefix, found in self._read.items():
            if key.startswith(prefix):
                return found.get(key)
        if key not in self._singles:
            self._singles[key] = self._fetch(self.space.one(key)).get(key)
        return self._singles[key]

    def ask(self, *keys: str, below: Sequence[str] = ()) -> None:
        """Read at once what `get` and `range` will be asked for; with the lock, if that is still to be taken.

        Raises what `Gateway.call` raises.
        """
        if self.writing and not self._lock:
            self._keys += keys
            self._prefixes += tuple(below)
            self.begin()
            return
        keys = tuple(key for key in keys if key not in self._singles)
        if keys or below:
            at = {"revision": self.revision} if self.revision else {}
            reads = [read | at for read in self._reads(keys, below)]
            answer = self._call(TXN, {"success": [{"request_range": read} for read in reads]})
            self.revision = self.revision or answer["header"]["revision"]
            self._learn(keys, below, answer["responses"])

    def _reads(self, keys: Sequence[str], below: Sequence[str]) -> list[Said]:
        return [*map(self.space.one, keys), *map(self.space.below, below)]

    def _learn(self, keys: Sequence[str], below: Sequence[str], responses: Sequence[Said]) -> None:
        found = [self.space.values(response["response_range"]) for response in responses]
        self._singles |= {key: values.get(key) for key, values in zip(keys, found, strict=False)}
        self._read |= dict(zip(below, found[len(keys) :], strict=True))

    def put(self, key: str, data: bytes, lease: int = 0) -> None:
        """Write a key."""
        self.begin()
        self._writes[key] = Value(data, lease)

    def delete(self, key: str) -> None:
        """Remove a key; one that is not there is fine."""
        self.begin()
        self._writes[key] = None

    def drop(self, prefix: str) -> None:
        """Remove all below a prefix, for good: nothing is written there later in this transaction."""
        self.begin()
        self._dropped.add(prefix)
        for key in [key for key in self._writes if key.startswith(prefix)]:
            del self._writes[key]

    def _is_dropped(self, key: str) -> bool:
        return any(key.startswith(prefix) for prefix in self._dropped)

    def _fetch(self, request: Said) -> dict[str, Value]:
        self.begin()
        if self.revision:
            request = request | {"revision": self.revision}
        answer = self._call(RANGE, request)
        self.revision = self.revision or answer["header"]["revision"]
        return self.space.values(answer)

    def _call(self, method: Method, message: Said) -> Said:
        if self._away is not None:
            raise self._away
        try:
            return self.space.gateway.call(method, message)
        except Away as error:
            self._away = error
            raise

    def begin(self) -> None:
        """Have the lock, where this is to write. Raises `Refused` when it cannot be had, and what `call` raises."""
        if not self.writing or self._lock:
            return
        until, pause = time.monotonic() + _WAIT, _PAUSES[0]
        while not self._try():
            if time.monotonic() > until:
                raise Refused(f"another host has been writing to {self.space.gateway.where.url} for {_WAIT:.0f} s")
            time.sleep(pause * random.uniform(0.5, 1.5))
            pause = min(pause * 1.5, _PAUSES[1])

    def _try(self) -> bool:
        """Take the lock, and read at once what is needed anyway."""
        space = self.space
        try:
            lease = space.lock_lease()
            put = {"key": space.full("lock"), "value": self._token.encode(), "lease": lease}
            reads = [{"request_range": read} for read in self._reads(self._keys, self._prefixes)]
            answer = self._call(
                TXN,
                {
                    "compare": [self._lock_is(0)],
                    "success": [{"request_put": put}, *reads],
                    "failure": [{"request_range": space.one("lock")}, *reads],
                },
            )
        except Refused as error:
            if "lease not found" not in str(error):
                raise
            space.forget_lease()
            return False
        first, *found = answer["responses"]
        if not answer["succeeded"]:
            # Ours after all, where the answer to the first asking was lost.
            there = space.values(first["response_range"]).get("lock")
            if there is None or there.data != self._token.encode():
                if there is not None and there.data.startswith(f"{space.host} ".encode()):
                    self._break(first["response_range"]["kvs"][0]["create_revision"])
                return False
            self._lock = first["response_range"]["kvs"][0]["create_revision"]
        else:
            self._lock = answer["header"]["revision"]
        self.revision = answer["header"]["revision"]
        self._learn(self._keys, self._prefixes, found)
        return True

    def _break(self, revision: int) -> None:
        """End a lock of this host's: this one's, or a dead process's, since SQLite lets no two write at once here."""
        release = {"request_delete_range": self.space.one("lock")}
        self.space.gateway.call(TXN, {"compare": [self._lock_is(revision)], "success": [release]})

    def _lock_is(self, revision: int) -> Said:
        """Compare: nobody else has had the lock since."""
        return {"key": self.space.full("lock"), "target": CREATED, "result": EQUAL, "create_revision": revision}

    def commit(self) -> None:
        """Make what was written so, and let go of the lock. Raises `Refused` when the lock was lost, and nothing is.

        Raises `Away` when etcd went away and nobody knows; `SharedStore.register` then finds out.
        """
        if not self._lock:
            return
        if self._away is not None:
            self._refuse(self._away)
            return
        space, last = self.space, f"last/{self.space.host}"
        ops: list[Said] = [{"request_delete_range": space.below(prefix)} for prefix in self._dropped]
        for key, value in self._writes.items():
            ops.append(self._put(key, value) if value else {"request_delete_range": space.one(key)})
        if len(ops) > _MOST:
            self.abort()
            raise Refused(f"{len(ops)} changes at once are more than etcd takes")
        if ops:
            ops.append(self._put(last, Value(self._token.encode())))
        release = {"request_delete_range": space.one("lock")}
        asked = {
            "compare": [self._lock_is(self._lock)],
            "success": [*ops, release],
            "failure": [{"request_range": space.one(last)}],
        }
        try:
            answer = space.gateway.call(TXN, asked)
        except Away:
            space.doubt = True
            raise
        except Refused as error:
            self.abort()
            if "lease not found" in str(error):
                space.forget_lease()
                raise Refused("this host's lease ran out just now, as it does when etcd was away: try again") from None
            raise
        if not answer["succeeded"] and ops:
            done = space.values(answer["responses"][0]["response_range"]).get(last)
            if done is None or done.data != self._token.encode():  # nor was it the answer to the first asking
                raise Refused("it took so long that other hosts went on without it: try again")
        self._lock = 0

    def _refuse(self, away: Away) -> None:
        """Who was not answered has decided without having seen all: nothing of it is written."""
        self.abort()
        if self._writes or self._dropped:
            raise away

    def _put(self, key: str, value: Value) -> Said:
        return {"request_put": {"key": self.space.full(key), "value": value.data, "lease": value.lease}}

    def abort(self) -> None:
        """Let go of the lock; nothing was written."""
        if self._lock:
            try:
                self._break(self._lock)
            except Refused:  # the lease ends it
                self.space.forget_lease()
            self._lock = 0
