"""Threads for the connections that move much.

One thread gets too small a share of a full machine: eight busy connections were moved at 0.81 to 0.93 of the rate of
Docker's proxy, and at its rate by several, since splice(2) lets go of Python's lock (`./run bench proxy`). What is
short stays where it was accepted: to hand it over takes longer than to carry it.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from itertools import cycle
from threading import Thread
from typing import TYPE_CHECKING

from berth.proxy.loop import Loop

if TYPE_CHECKING:
    from berth.proxy.context import Context

_EACH, _MOST = 4, 8  # threads for each processor, and at all: some wait for Python's lock while others move


class Movers:
    """The threads, each with a loop of its own. They begin with the first that is asked for."""

    def __init__(self, make: Callable[[], Context], home: Loop) -> None:
        """`make`: the means of another thread. `home`: where connections come from, and are counted."""
        self.home = home
        self._make = make
        self._contexts: list[Context] = []
        self._threads: list[Thread] = []
        self._turn = cycle(self._contexts)

    def next(self) -> Context:
        """The means of one of them, in turn. Only now do they begin: rights are given up for each thread by itself."""
        if not self._contexts:
            self._contexts += [self._make() for _ in range(min(_MOST, _EACH * (os.cpu_count() or 1)))]
            self._threads += [Thread(target=each.loop.run, daemon=True) for each in self._contexts]
            for thread in self._threads:
                thread.start()
        return next(self._turn)

    def stop(self) -> None:
        """End them, when they have done what they were called for."""
        for each in self._contexts:
            each.loop.call(each.loop.stop)
        for thread in self._threads:
            thread.join()
