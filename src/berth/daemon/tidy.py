"""What the daemon does by itself: sweep up, and drop what Docker has forgotten.

Docker does not tell a driver that it died. What it left half-done shows in the kernel: a cable that nobody comes
for, or one that went with its container. Either has to be seen in two rounds, so that nothing is taken from a
call that is under way.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable

from berth.daemon.worker import Worker
from berth.engine.engine import Engine
from berth.errors import BerthError

ROUND = 30  # seconds
_SOON = 0.2  # seconds: retired cables are deleted together, and the kernel takes 16 ms for any number
log = logging.getLogger("berth")


class Tidy:
    """Keeps order in the background."""

    def __init__(self, engine: Engine, worker: Worker) -> None:
        self._engine = engine
        self._worker = worker
        self._suspects: frozenset[str] = frozenset()
        self._sweeping: asyncio.Task[None] | None = None
        self._refreshing: asyncio.Task[None] | None = None

    def sweep_soon(self) -> None:
        """Delete retired cables a little later."""
        if self._sweeping is None or self._sweeping.done():
            self._sweeping = asyncio.create_task(self._sweep())

    async def _sweep(self) -> None:
        await asyncio.sleep(_SOON)
        await self._attempt(self._engine.sweep)

    async def run(self) -> None:
        """Once everything, then a round every half minute."""
        await self._attempt(self._start)
        while True:
            await asyncio.sleep(ROUND)
            await self._attempt(self.round)

    def _start(self) -> None:
        outcome = self._engine.reconcile()
        for line in outcome.value:
            log.info("%s", line)
        if outcome.plan:
            log.info("put in order: %d operations", len(outcome.plan.ops))
        self.round()

    def refresh_soon(self) -> None:
        """Look after the networks at once: Docker has just started, and set up its chains."""
        self._refreshing = asyncio.create_task(self._attempt(self._refresh))

    def _refresh(self) -> None:
        for op in self._engine.refresh().ops:
            log.info("%s", str(op).splitlines()[0])

    def round(self) -> None:
        """Make what is missing, and drop what was suspect before and still is."""
        self._refresh()
        suspects = self._engine.abandoned()
        for identity in sorted(suspects & self._suspects):
            log.info("endpoint %s: Docker has forgotten it", identity[:12])
            self._engine.release(identity)
        self._suspects = suspects - self._suspects
        for address in self._engine.collect():
            log.info("address %s: Docker never used it", address)
        self._engine.sweep()

    async def _attempt(self, work: Callable[[], None]) -> None:
        try:
            await self._worker.run(work)
        except BerthError as error:
            log.warning("%s", error)
        except Exception:
            log.exception("in the background")
