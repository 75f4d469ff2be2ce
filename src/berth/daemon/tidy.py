"""What the daemon does by itself: sweep up, and drop what Docker has forgotten.

Docker does not tell a driver that it died. What it left half-done shows in the kernel: a cable that nobody comes
for, or one that went with its container. Either has to last for a while, so that nothing is taken from a call
that is under way.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable, Coroutine
from contextlib import suppress
from functools import partial
from typing import Any

from berth.daemon.attempt import attempt
from berth.daemon.pace import Pace
from berth.daemon.worker import Worker
from berth.engine.engine import Engine
from berth.errors import NotFound
from berth.plugins.docker.names import Names, ask

_ROUND = 10  # seconds, at least
_FORGOTTEN = 30  # seconds for which something has to look forgotten
_BREATH = 0.03  # seconds until a change of the firewall by somebody else is looked at: a flush is often filled again
_SOON = 0.2  # seconds: retired cables are deleted together, and the kernel takes 16 ms for any number
_LATER = 1  # second: when Docker has mostly written down what it was asked for
_ASKED = 30  # times that Docker is asked for names, a second apart: it may be busy, or starting
_PATIENCE = 15  # seconds for Docker to put an endpoint into its sandbox
log = logging.getLogger("berth")


class Tidy:
    """Keeps order in the background; the `Chores` may be asked for from any thread."""

    def __init__(self, engine: Engine, worker: Worker) -> None:
        self._engine = engine
        self._worker = worker
        self._pace = Pace(_ROUND)
        self._suspects: dict[str, float] = {}  # since when, by endpoint
        self._loop = asyncio.get_running_loop()
        self._wanted: set[str] = set()  # chores that were asked for since they last began
        self._under_way: dict[str, asyncio.Task[None]] = {}

    def sweep(self) -> None:
        """Delete retired cables a little later."""
        self._begin("sweep", self._sweep, _SOON)

    def refresh(self) -> None:
        """Look after the networks."""
        self._begin("refresh", lambda: attempt(self._worker.run(self._refresh)))

    def heal(self) -> None:
        """Look after the firewall, which somebody else has changed."""
        self._begin("heal", lambda: attempt(self._worker.run(self._mend)), _BREATH)

    def _mend(self) -> None:
        ops = self._engine.heal().ops
        if ops:
            log.info("the firewall was changed by somebody else: put back, %d operations", len(ops))

    def announce(self, identity: str, ns: str) -> None:
        """Tell an endpoint's neighbours, as soon as Docker has put it into its sandbox."""
        self._begin(f"announce {identity}", lambda: self._announce(identity, ns))

    def learn(self, network: str) -> None:
        """Find out what Docker calls a network and the containers on it."""
        self._begin(f"learn {network}", lambda: self._learn(network), _LATER)

    def _begin(self, name: str, chore: Callable[[], Coroutine[Any, Any, None]], pause: float = 0) -> None:
        """Do a chore after a pause (seconds), and once more where it is asked for while it is at work."""
        self._wanted.add(name)

        async def work() -> None:
            try:
                while name in self._wanted:
                    await asyncio.sleep(pause)
                    self._wanted.discard(name)
                    await chore()
            finally:
                del self._under_way[name]

        def begin() -> None:
            if name not in self._under_way:
                self._under_way[name] = asyncio.create_task(work())

        self._loop.call_soon_threadsafe(begin)

    async def _sweep(self) -> None:
        """In a thread of its own: the kernel waits some 16 ms, and no call of Docker's shall."""
        await attempt(asyncio.to_thread(self._engine.sweep))

    async def _announce(self, identity: str, ns: str) -> None:
        for _ in range(round(_PATIENCE / _SOON)):
            await asyncio.sleep(_SOON)
            done = await attempt(self._worker.run(lambda: self._engine.announce(identity, ns)))
            if done is not False:  # nor again where it failed: it would the next time
                return

    async def _learn(self, network: str) -> None:
        """Until Docker has told all names: it writes them down late, and one that is busy does not answer."""
        for _ in range(_ASKED):
            names = await asyncio.to_thread(ask, network)
            if names is not None and await attempt(self._worker.run(partial(self._name, network, names))):
                return
            await asyncio.sleep(_LATER)

    def _name(self, network: str, names: Names) -> bool:
        """Whether those were all; tell of a network that has another name on other hosts, or could not get it."""
        every = self._engine.rename(network, names.network, names.endpoints)
        with suppress(NotFound):  # it is gone again
            net = self._engine.network(network)
            if every and net.scope == "global" and net.name != names.network:
                log.warning("the network that Docker calls %s is %s for all hosts", names.network, net.name)
        return every

    async def run(self) -> None:
        """Once everything, then a round now and again."""
        await attempt(self._worker.run(self._start))
        while True:
            await asyncio.sleep(self._pace.pause)
            await attempt(self._worker.run(self._paced))

    def _start(self) -> None:
        outcome = self._engine.reconcile()
        for line in outcome.value:
            log.info("%s", line)
        for ident in self._engine.known_to_docker():
            self.learn(ident)
        if outcome.plan:
            log.info("put in order: %d operations", len(outcome.plan.ops))
        self.round()

    def _refresh(self) -> None:
        for op in self._engine.refresh().ops:
            log.info("%s", str(op).splitlines()[0])

    def _paced(self) -> None:
        with self._pace:
            self.round()

    def round(self) -> None:
        """Make what is missing, and drop what has been suspect for long enough."""
        self._refresh()
        now = time.monotonic()
        self._suspects = {identity: self._suspects.get(identity, now) for identity in self._engine.abandoned()}
        for identity in [known for known, since in self._suspects.items() if now - since >= _FORGOTTEN]:
            log.info("endpoint %s: Docker has forgotten it", identity[:12])
            self._engine.release(identity)
        for address in self._engine.collect():
            log.info("address %s: Docker never used it", address)
        self.sweep()
