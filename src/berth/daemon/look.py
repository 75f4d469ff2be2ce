"""What the page and the metrics show: read when somebody looks, and once for all who look at the same moment."""

from __future__ import annotations

import asyncio
import socket
import time
from collections.abc import Callable, Mapping, Sequence

import msgspec

from berth.daemon.metrics import Facts
from berth.daemon.worker import Worker
from berth.engine.engine import Engine
from berth.model import Host, Traffic
from berth.topology import Topology, build

_FRESH = 1.5  # seconds for which counters are as good as new


class Finding(msgspec.Struct, frozen=True):
    """Something that is wrong, as the doctor says it."""

    check: str
    severity: str
    message: str
    fix: str


class Sources(msgspec.Struct, frozen=True):
    """Where to look besides the engine. `findings`: None where there is no doctor."""

    host: Callable[[], Host]
    traffic: Callable[[], Mapping[str, Traffic]]
    findings: Callable[[], Sequence[Finding]] | None = None


class Look:
    """Looks at the host and the records."""

    def __init__(self, engine: Engine, worker: Worker, sources: Sources) -> None:
        self._engine = engine
        self._worker = worker
        self._sources = sources
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
        """What the doctor says; None where there is none. In a thread of its own: it may take seconds."""
        return None if self._sources.findings is None else await asyncio.to_thread(self._sources.findings)
