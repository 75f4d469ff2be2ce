"""Leases: asking for them, keeping them, giving them up.

A lease is got before its endpoint is attached, with no lock held, so any number are asked for at once. The records say
which leases there are: whose record is gone, however it went, is given up in the next round.
"""

from __future__ import annotations

import asyncio
import logging
import secrets
import time
from collections import deque
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import replace
from math import inf

from berth.daemon.attempt import attempt
from berth.daemon.worker import Worker
from berth.engine import leases as decide
from berth.engine.engine import Engine
from berth.errors import BerthError, Invalid
from berth.model import (
    Address,
    AttachRequest,
    Endpoint,
    Interface,
    Lease,
    LeaseRecord,
    LeaseRequest,
    Placement,
    Pool,
    PoolRequest,
)
from berth.seams import LeaseClients, MakeClients, Outcome

_ROUND = 2  # seconds
_RECORD = 10  # seconds that leases which only go on may wait to be recorded; of short ones
_PART = 1 / 6  # of their time
_PATIENCE = 8  # seconds for a server to give a lease: Docker's own patience is 30, and it asks for several in a row
_THOROUGH = 8  # more, where the LAN is asked as thoroughly as RFC 5227 has it
log = logging.getLogger("berth")


class Leases:
    """All leases of this host."""

    def __init__(self, engine: Engine, worker: Worker, make: MakeClients) -> None:
        self._engine = engine
        self._worker = worker
        self._clients: LeaseClients = make(self._changed, self._lost)
        self._wished: set[str] = set()  # keys that are asked for and not on record yet
        self._held: set[str] = set()  # keys of what the clients keep or, after a loss, ask for again
        self._kept: set[str] = set()  # those of them that the server is to keep afterwards
        self._left: deque[tuple[float, str, str, Address]] = deque(maxlen=1000)  # when, pool, who and address
        self._saves: dict[str, asyncio.Task[None]] = {}
        self._recorded: dict[str, Lease] = {}  # by key, as the engine was told last
        self._prolonged: dict[str, Lease] = {}  # since then, and nothing else
        self._due = inf  # when they are to be recorded: seconds of the monotonic clock

    async def run(self) -> None:
        """Go on with what is on record, then see now and again which leases have become nobody's."""
        while (records := await attempt(self._worker.run(self._engine.leases))) is None:
            await asyncio.sleep(_ROUND)
        for record in records:
            self._remember(record)
            self._held.add(record.lease.request.key)
            try:
                self._clients.resume(record.lease)
            except BerthError as error:
                log.warning("lease of %s: %s", record.lease.address.ip, error)
        while True:
            await attempt(self.settle())
            await asyncio.sleep(_ROUND)

    def close(self) -> None:
        """Stop; the leases go on at their servers."""
        self._clients.close()

    # --- endpoints ---

    async def attach(self, asked: AttachRequest, *, dry_run: bool) -> Outcome[Endpoint]:
        """Plug a sandbox into a network, with leases where they are wanted. Raises as `Engine.attach` does."""
        request, wanted, ahead = await self._worker.run(lambda: self._engine.wanted(asked))
        if not wanted:
            if not dry_run and ahead is not None:
                await asyncio.to_thread(self._engine.vet, ahead)  # it waits for answers, and no verb shall
            return await self._worker.run(lambda: self._engine.attach(asked, dry_run=dry_run))
        if dry_run:
            raise Invalid("which address a DHCP server would give cannot be told before: leave --dry-run out")
        leases = await self._acquire(wanted)
        try:
            outcome, records = await self._worker.run(lambda: self._complete(request, leases))
        except BaseException:
            await self._give_up(leases)
            raise
        for record in records:
            self._remember(record)
        self._forget_wishes(wanted)
        for lease in leases:
            self._recheck(lease)
        return outcome

    def _recheck(self, lease: Lease) -> None:
        """Have the engine hear of what became of a lease while it was not on record yet."""
        current = self._clients.leases().get(lease.request.key)
        if current is None:
            self._lost(lease, "another machine turned out to have the address")
        elif current.address != lease.address:
            self._lost(lease, f"the server gave {current.address.ip} in its place")
            self._changed(current)

    def _complete(
        self, request: AttachRequest, leases: Sequence[Lease]
    ) -> tuple[Outcome[Endpoint], tuple[LeaseRecord, ...]]:
        records = decide.recorded(self._engine.network(request.network), leases)
        complete = replace(request, addresses=_without(request, leases), leases=records)
        return self._engine.attach(complete), records

    async def _acquire(self, wanted: Sequence[LeaseRequest]) -> list[Lease]:
        """All of these, or none."""
        keys = {request.key for request in wanted}
        self._wished |= keys
        self._held |= keys
        asking = [
            self._clients.acquire(request, _PATIENCE + _THOROUGH * (request.conflict == "full")) for request in wanted
        ]
        answers = await asyncio.gather(*asking, return_exceptions=True)
        leases = [answer for answer in answers if isinstance(answer, Lease)]
        failures = [answer for answer in answers if isinstance(answer, BaseException)]
        if failures:
            self._forget_wishes(wanted)
            await self._give_up(leases)
            raise failures[0]
        return leases

    async def _give_up(self, leases: Sequence[Lease]) -> None:
        for lease in leases:
            self._wished.discard(lease.request.key)
            with suppress(BerthError):
                await self._clients.release(lease.request.key)

    def _forget_wishes(self, wanted: Sequence[LeaseRequest]) -> None:
        self._wished -= {request.key for request in wanted}

    def _remember(self, record: LeaseRecord) -> None:
        if record.keep:
            self._kept.add(record.lease.request.key)

    # --- in the background ---

    async def settle(self) -> None:
        """Give up the leases that are on record no more, and tell servers names that became known."""
        await self._record_prolonged()
        before = self._held - self._wished
        recorded = await self._worker.run(self._engine.recorded)
        known = {record.lease.request.key: record for record in recorded.leases}
        for key in before - known.keys() - self._wished:
            await self._clients.release(key, tell=key not in self._kept)
            self._held.discard(key)
            self._kept.discard(key)
            self._recorded.pop(key, None)
        if not known:
            return
        docker = [ep for ep in recorded.endpoints if ep.placement is Placement.HANDOVER]
        names = {ep.id: ep.name for ep in docker if ep.name != ep.id[:12]}
        current = self._clients.leases()
        for key, record in known.items():
            name = names.get(record.endpoint, "")
            if name and key in current and current[key].request.hostname != name:
                self._clients.update(replace(current[key].request, hostname=name))

    async def _record_prolonged(self) -> None:
        """All at once: a thousand leases of a minute are prolonged 33 times a second, and who reads reads all again.

        Who is killed before asks the server a little earlier than needed.
        """
        if time.monotonic() < self._due:
            return
        prolonged, self._prolonged, self._due = self._prolonged, {}, inf
        if prolonged:
            await self._worker.run(lambda: self._engine.prolong(tuple(prolonged.values())))

    def _changed(self, lease: Lease) -> None:
        key = lease.request.key
        before = self._recorded.get(key)
        if before is not None and key not in self._saves and replace(lease, acquired=before.acquired) == before:
            self._prolonged[key] = lease
            self._due = min(self._due, time.monotonic() + min(_RECORD, lease.lifetime * _PART))
            return
        self._recorded[key] = lease
        self._prolonged.pop(key, None)
        self._later(key, lambda: self._engine.renew(lease))

    def _lost(self, lease: Lease, why: str) -> None:
        self._recorded.pop(lease.request.key, None)
        self._prolonged.pop(lease.request.key, None)
        self._later(lease.request.key, lambda: self._engine.lose(lease, why))

    def _later(self, key: str, verb: Callable[[], str]) -> None:
        """Have the engine hear of a lease, one thing after the other."""
        before = self._saves.get(key)

        async def tell() -> None:
            if before is not None:
                await before
            said = await attempt(self._worker.run(verb))
            if said:
                log.warning("%s", said)

        self._saves[key] = task = asyncio.get_running_loop().create_task(tell())
        task.add_done_callback(lambda done: self._saves.pop(key) if self._saves.get(key) is done else None)

    # --- Docker's IPAM driver ---

    async def request_pool(self, asked: PoolRequest) -> Pool:
        """Hold the LAN's pool."""
        return await self._worker.run(lambda: self._engine.request_lan_pool(asked))

    async def release_pool(self, owner: str) -> None:
        """Let go of a pool."""
        await self._worker.run(lambda: self._engine.release_pool(owner))

    async def request_gateway(self, owner: str, wanted: Address | None) -> Interface:
        """The LAN's router."""
        return await self._worker.run(lambda: self._engine.request_gateway(owner, wanted))

    async def request_address(self, owner: str, wanted: Address | None, holder: str, mac: str) -> Interface:
        """A lease for a container: the address that it had before, where the server agrees.

        Who has no name (Docker up to 28) and comes right after another has left is taken for the same one come back.
        """
        identity, before = (f"name {holder}", None) if holder else self._returning(owner)
        request, last = await self._worker.run(
            lambda: self._engine.wanted_for_docker(owner, wanted, holder, identity, mac)
        )
        hint = wanted or before or last
        (lease,) = await self._acquire([replace(request, wanted=hint)])
        lease = replace(lease, request=replace(lease.request, wanted=wanted))
        try:
            given = await self._worker.run(lambda: self._engine.grant_lease(owner, lease, holder))
        except BaseException:
            await self._give_up([lease])
            raise
        self._forget_wishes([request])
        return given

    async def release_address(self, owner: str, address: Address) -> None:
        """Give a container's lease up."""
        records = await self._worker.run(self._engine.leases)
        for record in records:
            key = record.lease.request.key
            if record.pool == owner and (record.shown or str(record.lease.address.ip)) == str(address):
                self._remember(record)
                if identity := decide.nameless(key):
                    self._left.append((time.monotonic(), owner, identity, address))
        await self._worker.run(lambda: self._engine.release_address(owner, address))
        await self.settle()

    def _returning(self, owner: str) -> tuple[str, Address | None]:
        """Who has just left a pool, and its address; else somebody new."""
        while self._left and time.monotonic() - self._left[0][0] > decide.RETURN:
            self._left.popleft()
        for entry in self._left:
            if entry[1] == owner:
                self._left.remove(entry)
                return entry[2], entry[3]
        return secrets.token_hex(8), None


def _without(request: AttachRequest, leases: Sequence[Lease]) -> tuple[Address, ...]:
    """The wanted addresses, without those that the leases stand for."""
    leased = {lease.address.version for lease in leases}
    return tuple(address for address in request.addresses if address.version not in leased)
