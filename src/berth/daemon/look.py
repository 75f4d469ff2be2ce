"""What the page and the metrics show: read when somebody looks, and once for all who look at the same moment."""

from __future__ import annotations

import asyncio
import logging
import socket
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Protocol

from berth.daemon.metrics import Facts
from berth.daemon.worker import Worker
from berth.engine.engine import Engine
from berth.engine.everywhere import everywhere
from berth.errors import BerthError
from berth.model import Host, Neighbour, Traffic
from berth.topology import Lent, Topology, build, lent

_FRESH = 1.5  # seconds for which counters are as good as new
_REST = 30  # seconds between two examinations by the doctor, while somebody looks
_SHARE = 0.005  # of a core that they may take all the same: what takes long is done the less often
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
    def why(self) -> str: ...
    @property
    def fix(self) -> str: ...
    @property
    def command(self) -> bool: ...


@dataclass(frozen=True, slots=True)
class Report:
    """What the doctor said, and when."""

    findings: Sequence[Finding] = ()
    at: float = 0  # seconds since 1970; 0: it has not said anything yet
    failed: str = ""  # why it could not look the last time


@dataclass(frozen=True, slots=True)
class Sources:
    """Where to look besides the engine. `findings`: None where there is no doctor."""

    host: Callable[[], Host]
    traffic: Callable[[], Mapping[str, Traffic]]
    neighbours: Callable[[], Sequence[Neighbour]]
    findings: Callable[[], Sequence[Finding]] | None = None


class Look:
    """Looks at the host and the records."""

    def __init__(self, engine: Engine, worker: Worker, sources: Sources, changed: Callable[[], None]) -> None:
        self._engine = engine
        self._worker = worker
        self._sources = sources
        self._changed = changed  # told when the doctor has looked
        self._report = Report()
        self._due = float("-inf")  # when the doctor looks next, if somebody asks for what it said
        self._examining: asyncio.Task[None] | None = None
        self._read: tuple[float, Mapping[str, Traffic]] = (float("-inf"), {})

    async def topology(self) -> Topology:
        """The map. Raises what the engine raises."""
        return await self._worker.run(self._map)

    def _map(self) -> Topology:
        seen = everywhere(self._engine)
        return build(
            socket.gethostname(),
            self._sources.host(),
            seen.networks,
            seen.endpoints,
            elsewhere=seen.elsewhere,
            hosts=seen.hosts,
            neighbours=self._sources.neighbours(),
        )

    async def leases(self) -> tuple[Lent, ...]:
        """The addresses that DHCP servers have given. Raises what the engine raises."""
        records = await self._worker.run(self._engine.recorded)
        return lent(records.leases, records.endpoints)

    async def facts(self, *, traffic: bool) -> Facts:
        """What the metrics are made of."""
        records = await self._worker.run(self._engine.recorded)
        shared = self._engine.shared
        contact = None if shared is None else shared.contact()
        return Facts(records, await self.traffic() if traffic else None, contact)

    async def traffic(self) -> Mapping[str, Traffic]:
        """The counters of all links, at most so many seconds old."""
        now = time.monotonic()
        if now - self._read[0] >= _FRESH:
            self._read = (now, await self._worker.run(self._sources.traffic))
        return self._read[1]

    async def report(self) -> Report | None:
        """What the doctor said last; None where there is none. It may take seconds, so nobody waits for it."""
        if self._sources.findings is None:
            return None
        if time.monotonic() >= self._due:
            self.examine()
        return self._report

    def examine(self) -> None:
        """Have the doctor look now, if it does not already."""
        if self._examining is None and self._sources.findings is not None:
            self._examining = asyncio.create_task(self._examine(self._sources.findings))

    async def _examine(self, doctor: Callable[[], Sequence[Finding]]) -> None:
        """In a thread of its own, and once for all who look."""
        used = time.process_time()
        try:
            self._report = Report(await asyncio.to_thread(doctor), time.time())
        except BerthError as error:
            log.warning("the doctor fails: %s", error)
            self._report = replace(self._report, failed=str(error))
        except Exception as error:
            log.exception("the doctor")
            what = f"{type(error).__name__}, a fault of Berth's: see the daemon's log"
            self._report = replace(self._report, failed=what)
        finally:
            rest = max(_REST, (time.process_time() - used) / _SHARE)
            self._due, self._examining = time.monotonic() + rest, None
        self._changed()
