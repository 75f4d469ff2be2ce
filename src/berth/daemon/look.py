"""What the page and the metrics show: read when somebody looks, and once for all who look at the same moment."""

from __future__ import annotations

import asyncio
import logging
import socket
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

from berth.daemon.metrics import Facts
from berth.daemon.worker import Worker
from berth.engine.engine import Engine
from berth.errors import BerthError
from berth.model import Host, Traffic
from berth.topology import Topology, build

_FRESH = 1.5  # seconds for which counters are as good as new
_EXAMINED = 60  # seconds between two examinations by the doctor, while somebody looks
log = logging.getLogger("berth")


class Finding(Protocol):
    """Something that is wrong, as the doctor says it."""

    @property
    def check(self) -> str: ...
    @property
    def severity(self) -> str: ...
    @property
    def message(self) -> str: ...
    @property
    def fix(self) -> str: ...


@dataclass(frozen=True, slots=True)
class Sources:
    """Where to look besides the engine. `findings`: None where there is no doctor."""

    host: Callable[[], Host]
    traffic: Callable[[], Mapping[str, Traffic]]
    findings: Callable[[], Sequence[Finding]] | None = None


class Look:
    """Looks at the host and the records."""

    def __init__(self, engine: Engine, worker: Worker, sources: Sources, changed: Callable[[], None]) -> None:
        self._engine = engine
        self._worker = worker
        self._sources = sources
        self._changed = changed  # told when the doctor says something else than before
        self._found: Sequence[Finding] | None = None
        self._examined = float("-inf")
        self._examining: asyncio.Task[None] | None = None
        self._read: tuple[float, Mapping[str, Traffic]] = (float("-inf"), {})

    async def topology(self) -> Topology:
        """The map. Raises what the engine raises."""
        return await self._worker.run(
            lambda: build(socket.gethostname(), self._sources.host(), self._engine.networks(), self._engine.endpoints())
        )

    async def facts(self, *, traffic: bool) -> Facts:
        """What the metrics are made of."""
        networks, endpoints = await self._worker.run(
            lambda: (tuple(self._engine.networks()), tuple(self._engine.endpoints()))
        )
        return Facts(networks, endpoints, await self.traffic() if traffic else None)

    async def traffic(self) -> Mapping[str, Traffic]:
        """The counters of all links, at most so many seconds old."""
        now = time.monotonic()
        if now - self._read[0] >= _FRESH:
            self._read = (now, await self._worker.run(self._sources.traffic))
        return self._read[1]

    async def findings(self) -> Sequence[Finding] | None:
        """What the doctor said last; None where there is none, or not yet: it may take seconds, and nobody waits."""
        if self._sources.findings is None:
            return None
        if self._examining is None and time.monotonic() - self._examined >= _EXAMINED:
            self._examining = asyncio.create_task(self._examine(self._sources.findings))
        return self._found

    async def _examine(self, doctor: Callable[[], Sequence[Finding]]) -> None:
        """In a thread of its own, and once for all who look."""
        found = self._found
        try:
            found = await asyncio.to_thread(doctor)
        except BerthError as error:
            log.warning("the doctor fails: %s", error)
        finally:
            self._examined, self._examining = time.monotonic(), None
        if found != self._found:
            self._found = found
            self._changed()
