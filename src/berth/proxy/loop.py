"""The event loop: epoll, turns for those that have more to do, and a few timers."""

from __future__ import annotations

import heapq
import os
import select
import socket
import time
from collections import deque
from collections.abc import Callable
from itertools import count
from typing import Protocol

_EVENTS = 256  # at a time


class Handler(Protocol):
    """Who is told of a descriptor's events."""

    def ready(self, fd: int, events: int) -> None:
        """`events`: EPOLL*. Must not raise for what a peer does."""


class Loop:
    """Everything happens in one thread, one event after the other; other threads may only `call`."""

    def __init__(self) -> None:
        self._epoll = select.epoll()
        self._handlers: dict[int, Handler] = {}
        self._turns: deque[Callable[[], None]] = deque()
        self._timers: list[tuple[float, int, Callable[[], None]]] = []
        self._order = count()
        self._ended: list[socket.socket] = []
        self._running = True
        self._called: deque[Callable[[], None]] = deque()
        self._bell = os.eventfd(0, os.EFD_NONBLOCK | os.EFD_CLOEXEC)
        self.watch(self._bell, self, select.EPOLLIN)

    def ready(self, fd: int, events: int) -> None:
        """See `Handler`: somebody has called."""
        os.eventfd_read(self._bell)
        while self._called:
            self._called.popleft()()

    def call(self, work: Callable[[], None]) -> None:
        """Have some work done in this loop's thread. For any thread."""
        self._called.append(work)
        os.eventfd_write(self._bell, 1)

    def watch(self, fd: int, handler: Handler, events: int) -> None:
        """Tell `handler` of events, until `change` or `end`."""
        self._epoll.register(fd, events)
        self._handlers[fd] = handler

    def change(self, fd: int, events: int) -> None:
        """Other events of a descriptor that is watched."""
        self._epoll.modify(fd, events)

    def forget(self, fd: int) -> None:
        """Tell of no more events of a descriptor that stays open."""
        del self._handlers[fd]
        self._epoll.unregister(fd)

    def end(self, ended: socket.socket) -> None:
        """Close a socket.

        Not before all events that were fetched with it are told: its number could be somebody else's by then.
        """
        if self._handlers.pop(ended.fileno(), None) is not None:
            self._epoll.unregister(ended.fileno())
        self._ended.append(ended)

    def turn(self, work: Callable[[], None]) -> None:
        """Do some work when the others have had their turn."""
        self._turns.append(work)

    def after(self, seconds: float, work: Callable[[], None]) -> None:
        """Do some work later."""
        heapq.heappush(self._timers, (time.monotonic() + seconds, next(self._order), work))

    def stop(self) -> None:
        """Let `run` return."""
        self._running = False

    def run(self) -> None:
        """Tell handlers of events until `stop`."""
        handlers = self._handlers
        while self._running:
            for fd, events in self._epoll.poll(self._wait(), _EVENTS):
                handler = handlers.get(fd)
                if handler is not None:
                    handler.ready(fd, events)
            self._close()
            for _ in range(len(self._turns)):
                self._turns.popleft()()
            while self._timers and self._timers[0][0] <= time.monotonic():
                heapq.heappop(self._timers)[2]()
            self._close()

    def _close(self) -> None:
        while self._ended:
            self._ended.pop().close()

    def _wait(self) -> float:
        """Seconds until there is something to do; -1 for never."""
        if self._turns:
            return 0
        return max(0.0, self._timers[0][0] - time.monotonic()) if self._timers else -1
