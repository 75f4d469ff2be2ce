"""One poll(2) for all that can happen while a command runs."""

from __future__ import annotations

import select
import signal
from collections.abc import Callable, Sequence
from typing import Protocol

from berth.run.process import Signals


class Watch(Protocol):
    """Something to wait for."""

    def wants(self) -> tuple[int, int] | None:
        """A descriptor and the poll(2) events it is waited for; None: nothing now."""
        ...

    def turn(self) -> bool:
        """What to do when it comes; whether the waiting is over."""
        ...


def serve(watches: Sequence[Watch]) -> None:
    """Wait for all of them until one says that it is over. No two may wait for the same descriptor."""
    while True:
        poll = select.poll()
        waiting = {}
        for watch in watches:
            if (wanted := watch.wants()) is not None:
                waiting[wanted[0]] = watch
                poll.register(*wanted)
        if any(waiting[fd].turn() for fd, _ in poll.poll()):
            return


class Ending:
    """Waits for a descriptor to become readable, which is the end."""

    def __init__(self, fd: int) -> None:
        self._fd = fd

    def wants(self) -> tuple[int, int] | None:
        return self._fd, select.POLLIN

    def turn(self) -> bool:
        return True


class Passing:
    """Passes signals on."""

    def __init__(self, signals: Signals, deliver: Callable[[signal.Signals], bool]) -> None:
        """`deliver` says whether the waiting is over."""
        self._signals = signals
        self._deliver = deliver

    def wants(self) -> tuple[int, int] | None:
        return self._signals.fileno(), select.POLLIN

    def turn(self) -> bool:
        return any(self._deliver(number) for number in self._signals.take())
