"""The engine in a thread of its own: one verb at a time, whoever asks."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any, TypeVar

from berth.errors import Refused

T = TypeVar("T")

DEADLINE = 10  # seconds: Docker gives up on some calls after 30, and on others never


class Worker:
    """Runs verbs one at a time. `free`: whether nobody else is at work on the records."""

    def __init__(self, free: Callable[[], bool]) -> None:
        self._free = free
        self._waiting = 0
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="engine")
        self._late: asyncio.Future[Any] | None = None

    async def run_short(self, verb: Callable[[], T]) -> T:
        """Run a verb of a few milliseconds, at once where nothing is in its way. Raises as `run` does.

        Into the thread and back again is a quarter of what such a verb takes.
        """
        if not self._waiting and self._free():
            return verb()
        return await self.run(verb)

    async def run_behind(self, verb: Callable[[], T]) -> T:
        """Run what nobody waits for, in its turn and for as long as it takes; the others wait. Raises what it raises.

        To give it up as late would be to begin it again: on a busy host it would never end.
        """
        work = asyncio.get_running_loop().run_in_executor(self._thread, verb)
        self._waiting += 1
        work.add_done_callback(self._done)
        return await work

    async def run(self, verb: Callable[[], T]) -> T:
        """Run a verb. Raises what it raises, and `Refused` when it takes too long; it goes on all the same then.

        While one is late, the others are refused at once: Docker asks one thing after the other as it starts.
        """
        if self._late is not None and not self._late.done():
            raise Refused("Berth is held up by something it was asked before: see its log, and try again")
        work = asyncio.get_running_loop().run_in_executor(self._thread, verb)
        self._waiting += 1
        work.add_done_callback(self._done)
        done, _ = await asyncio.wait({work}, timeout=DEADLINE)
        if not done:
            self._late = work
            work.add_done_callback(lambda late: late.cancelled() or late.exception())  # nobody is left to hear of it
            raise Refused(f"not finished within {DEADLINE} seconds: try again, and see the daemon's log")
        return work.result()

    def _done(self, _: object) -> None:
        self._waiting -= 1

    def close(self, last: Callable[[], None]) -> None:
        """Finish what is waiting, then do a last thing."""
        self._thread.submit(last).result()
        self._thread.shutdown()
