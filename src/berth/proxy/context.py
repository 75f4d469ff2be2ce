"""What every part of the proxy works with: the loop, pipes, and the descriptors that there are."""

from __future__ import annotations

import resource
from collections.abc import Callable
from dataclasses import dataclass

from berth.proxy.loop import Loop
from berth.proxy.pipes import MOST, Pipes

_SHARE = 200  # at most one pipe for so many descriptors
_OWN = 32  # descriptors for the process itself


class Room:
    """How many more descriptors may be opened, so that none is ever refused in the middle of something."""

    def __init__(self, descriptors: int) -> None:
        """`descriptors`: of the whole process."""
        self.pipes = max(1, min(MOST, descriptors // _SHARE))
        self._left = descriptors - _OWN - 2 * self.pipes
        self.on_more: Callable[[], None] = lambda: None  # called whenever some were given back

    def take(self, descriptors: int) -> bool:
        """Whether there are so many; they are the caller's then, until `give`."""
        if self._left < descriptors:
            return False
        self._left -= descriptors
        return True

    def give(self, descriptors: int) -> None:
        """Bring back what was taken."""
        self._left += descriptors
        self.on_more()


def raise_limit() -> int:
    """Take as many descriptors as the system lets this process have, and say how many."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    return hard


@dataclass(frozen=True, slots=True)
class Context:
    """The means of all listeners."""

    loop: Loop
    pipes: Pipes
    room: Room


def context(descriptors: int) -> Context:
    """The means for so many descriptors."""
    room = Room(descriptors)
    return Context(Loop(), Pipes(room.pipes), room)
