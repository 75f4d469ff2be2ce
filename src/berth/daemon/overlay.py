"""What the daemon does for networks over several hosts: follow what the others do, and say where this host is.

What is heard of an endpoint is carried out as it is, so that a change costs the same however many endpoints there
are. Whenever something may have been missed, and now and again, it goes by the ordinary comparison of store and kernel.
Without the store nothing is touched, and frames go on as they went.
"""

from __future__ import annotations

import asyncio
import logging
import random
from collections.abc import Callable
from contextlib import suppress

from berth.daemon import member
from berth.daemon.attempt import attempt
from berth.daemon.worker import Worker
from berth.engine.engine import Engine
from berth.seams import Heard, Turn

_AUDIT = 60  # seconds between two looks at everything that the kernel here has
_REREAD = 10  # audits after which the store is read again: nothing that was heard should be missing
_MANY = 1000  # endpoints elsewhere: of more it is read the less often, as all hosts read them all
_LOOK = 1  # seconds between two looks at who encrypts
_AGAIN = 2  # seconds after which what failed is tried again
log = logging.getLogger("berth")


class Overlay:
    """Follows the other hosts, in the background. `repaired`: operations that audits found necessary so far."""

    def __init__(self, engine: Engine, worker: Worker, told: Callable[[], None]) -> None:
        """`told`: called when something may have changed on another host."""
        self._engine = engine
        self._told = told
        self._worker = worker
        self._loop = asyncio.get_running_loop()
        self._changed = asyncio.Event()
        self._anything = True  # may have changed: what was heard does not say it all
        self._hosts = False  # those of encrypted networks may be others, or have other keys
        self._made: set[str] = set()  # ids of networks
        self._turns: dict[str, Turn] = {}  # by endpoint: the last
        self._revision = 0
        self._known: frozenset[str] = frozenset()  # networks over several hosts, by id
        self._seals: frozenset[str] = frozenset()  # the links that encrypted networks lead through
        self.repaired = 0

    async def run(self) -> None:
        """Until it is cancelled; at once where no other host sees the store."""
        self._changed.set()
        stop = self._engine.hear(self._hear)
        if stop is None:
            return
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
            member.register(self._engine)
            self._engine.readdress()
        return moved

    def _hear(self, heard: Heard) -> None:
        """From the watch's thread."""
        with suppress(RuntimeError):  # the loop has ended
            self._loop.call_soon_threadsafe(self._note, heard)

    def _note(self, heard: Heard) -> None:
        """That a host came or went is nothing by itself, but where it has a key: its endpoints do so too."""
        self._anything |= not heard.revision
        self._hosts |= heard.hosts and bool(self._seals)
        self._made |= heard.made
        self._turns |= {turn.identity: turn for turn in heard.turns}
        self._revision = heard.revision
        if self._anything or self._hosts or self._made or self._turns:
            self._changed.set()

    async def _follow(self) -> None:
        """What changes while a change is carried out is one more change, however much it is."""
        while True:
            await self._changed.wait()
            self._changed.clear()
            change = self._settle if self._anything else self._follower()
            self._anything, self._hosts, self._made, self._turns = False, False, set(), {}
            if await attempt(self._worker.run_behind(change)) is None:
                self._anything = True
                self._changed.set()
                await asyncio.sleep(_AGAIN)
            self._told()

    def _follower(self) -> Callable[[], int]:
        heard = Heard(self._revision, self._hosts, frozenset(self._made), tuple(self._turns.values()))

        def follow() -> int:
            done = len(self._engine.follow(heard).ops)
            return done + (self._forget_removed() if heard.made else 0)

        return follow

    def _settle(self) -> int:
        """Bring the kernel in line with the store; what was done, in operations."""
        return len(self._engine.settle().ops) + self._forget_removed()

    def _forget_removed(self) -> int:
        """What another host has removed is known by its mark alone."""
        every = self._engine.networks()
        known = frozenset(net.id for net in every if net.scope == "global")
        self._seals = self._engine.seals() if any(net.encrypt for net in every) else frozenset()
        # One that was made here may have been removed again before it was known.
        gone, self._known = (self._known | self._engine.following()) - known, known
        return len(self._engine.reconcile().plan.ops) if gone else 0

    async def _watch_seals(self) -> None:
        """Where wireguard-go encrypts and has ended, nothing gets through until there is another."""
        known = True
        while True:
            await asyncio.sleep(_LOOK)
            running = all(map(self._engine.running, self._seals))
            if not running and known:
                log.warning("nobody encrypts for this host any more: wireguard-go is started again")
                self._note(Heard())
            known = running  # what fails is tried again by who follows

    async def _audit(self) -> None:
        # Not all hosts read the store at the same time, as after an outage of etcd's.
        count = random.randrange(_REREAD)
        while True:
            await attempt(self._worker.run(self._readdress))
            await asyncio.sleep(_AUDIT)
            count += 1
            again = count >= _REREAD * max(1, self._engine.followed / _MANY)
            count = 0 if again else count
            found = await attempt(self._worker.run_behind(self._look))
            if again:  # what this finds may only not have been heard yet
                await attempt(self._worker.run_behind(self._settle))
            if found:
                self.repaired += found
                log.warning("the audit of overlays put right %d entries, %d so far", found, self.repaired)

    def _look(self) -> int:
        return len(self._engine.audit().ops)
