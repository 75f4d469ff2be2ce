"""What the daemon does for networks over several hosts: follow what the others do, and say where this host is.

Everything goes by the ordinary comparison of store and kernel, so a notice that was lost, or came twice or late, does
no harm: the audit finds the rest. Without the store nothing is touched, and frames go on as they went.
"""

from __future__ import annotations

import asyncio
import logging
import socket
from collections.abc import Callable
from contextlib import suppress

from berth.daemon.attempt import attempt
from berth.daemon.worker import Worker
from berth.engine.engine import Engine

_AUDIT = 60  # seconds between two looks at everything
_LOOK = 1  # seconds between two looks at who encrypts
_AGAIN = 2  # seconds after which what failed is tried again
log = logging.getLogger("berth")


class Overlay:
    """Follows the other hosts, in the background. `repaired`: operations that audits found necessary so far."""

    def __init__(self, engine: Engine, worker: Worker) -> None:
        self._engine = engine
        self._worker = worker
        self._loop = asyncio.get_running_loop()
        self._changed = asyncio.Event()
        self._due: set[str] | None = None  # ids of networks; None: any of them
        self._known: frozenset[str] = frozenset()  # networks over several hosts, by id
        self._seals: frozenset[str] = frozenset()  # the links that encrypted networks lead through
        self.repaired = 0

    async def run(self) -> None:
        """Until it is cancelled; at once where no other host sees the store."""
        shared = self._engine.shared
        if shared is None:
            return
        self._changed.set()
        stop = shared.watch(self._hear)
        chores = [asyncio.create_task(chore) for chore in (self._follow(), self._audit(), self._watch_seals())]
        try:
            await asyncio.gather(*chores)
        finally:
            for chore in chores:
                chore.cancel()
            await asyncio.to_thread(stop)

    def _readdress(self) -> bool:
        """Tell the others where this host is reached, where that is not what they know; whether it was."""
        if moved := self._engine.moved():
            self._engine.register(socket.gethostname())
            self._engine.readdress()
        return moved

    def _hear(self, networks: frozenset[str]) -> None:
        """From the watch's thread."""
        with suppress(RuntimeError):  # the loop has ended
            self._loop.call_soon_threadsafe(self._note, networks)

    def _note(self, networks: frozenset[str]) -> None:
        if not networks:
            self._due = None
        elif self._due is not None:
            self._due |= networks
        self._changed.set()

    async def _follow(self) -> None:
        """What changes while a change is carried out is one more change, however much it is."""
        while True:
            await self._changed.wait()
            self._changed.clear()
            due, self._due = self._due, set()
            if await attempt(self._worker.run(self._settler(due))) is None:
                self._due = None
                self._changed.set()
                await asyncio.sleep(_AGAIN)

    def _settler(self, due: set[str] | None) -> Callable[[], int]:
        return lambda: self._settle(None if due is None else frozenset(due))

    def _settle(self, networks: frozenset[str] | None) -> int:
        """Bring the kernel in line; what was done, in operations."""
        done = len(self._engine.settle(networks).ops)
        every = self._engine.networks()
        known = frozenset(net.id for net in every if net.scope == "global")
        self._seals = self._engine.seals() if any(net.encrypt for net in every) else frozenset()
        if self._known - known:  # what another host has removed is known by its mark alone
            done += len(self._engine.reconcile().plan.ops)
        self._known = known
        return done

    async def _watch_seals(self) -> None:
        """Where wireguard-go encrypts and has ended, nothing gets through until there is another."""
        known = True
        while True:
            await asyncio.sleep(_LOOK)
            running = all(map(self._engine.running, self._seals))
            if not running and known:
                log.warning("nobody encrypts for this host any more: wireguard-go is started again")
                self._note(frozenset())
            known = running  # what fails is tried again by who follows

    async def _audit(self) -> None:
        while True:
            await attempt(self._worker.run(self._readdress))
            await asyncio.sleep(_AUDIT)
            found = await attempt(self._worker.run(self._settler(None)))
            if found:
                self.repaired += found
                log.warning("the audit of overlays put right %d entries, %d so far", found, self.repaired)
