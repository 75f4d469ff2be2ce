"""What the parts of the bench hand to each other: ways to attach, and what they took."""

from __future__ import annotations

import resource
import time
from collections import defaultdict
from collections.abc import Callable

_PAUSE = 0.003  # seconds: what the kernel does behind one change (carrier, bridge port) must not delay the next

Samples = dict[str, list[tuple[float, float]]]  # "way.verb" -> milliseconds that the caller waits, and of CPU time
Thunk = Callable[[], object]
Way = Callable[[str], tuple[Thunk, Thunk]]  # a sandbox's name -> what attaches it, and what detaches it again


class Stopwatch:
    """Collects samples."""

    def __init__(self) -> None:
        self.samples: Samples = defaultdict(list)

    def time(self, name: str, work: Thunk, of: int = 1) -> None:
        """Do some work and note what it took, or what one of so many things took that it did at once."""
        used, start = _cpu(), time.perf_counter_ns()
        work()
        waited = (time.perf_counter_ns() - start) / 1e6
        self.samples[name].append((waited / of, (_cpu() - used) / of))

    def cycle(self, name: str, way: Way, sandbox: str) -> None:
        """Attach a sandbox and detach it."""
        for verb, work in zip(("attach", "detach"), way(sandbox), strict=True):
            time.sleep(_PAUSE)
            self.time(f"{name}.{verb}", work)


def _cpu() -> float:
    """Milliseconds that this process and those it has waited for have used."""
    usages = (resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))
    return 1e3 * sum(usage.ru_utime + usage.ru_stime for usage in usages)
