"""What every part of the proxy works with: its loop, pipes, and the descriptors that there are."""

from __future__ import annotations

import resource
from collections.abc import Callable
from dataclasses import dataclass, field

from berth.proxy.loop import Loop
from berth.proxy.movers import Movers
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
    """The means of all that happens in one thread. Pipes are everybody's; the room is the listeners' to count."""

    loop: Loop
    pipes: Pipes
    room: Room
    copied: memoryview = field(default_factory=lambda: memoryview(bytearray(64 * 1024)))  # for want of a pipe
    movers: Movers | None = None  # who takes over connections that are busy; a mover has none


def context(descriptors: int) -> Context:
    """The means for so many descriptors."""
    room = Room(descriptors)
    loop, pipes = Loop(), Pipes(room.pipes)
    return Context(loop, pipes, room, movers=Movers(lambda: Context(Loop(), pipes, room), loop))
