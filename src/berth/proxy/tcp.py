"""TCP connections whose bytes never come into this process.

Events are told once (EPOLLET) and remembered as `readable` and `writable` until the kernel says EAGAIN, so that a
busy connection needs no call of epoll_ctl(2). A connection that goes on being busy is handed over to another thread,
for good (`movers.py`); its end is told where it came from.
"""

from __future__ import annotations

import os
import socket
import struct
from collections.abc import Callable
from contextlib import suppress
from select import EPOLLERR, EPOLLET, EPOLLHUP, EPOLLIN, EPOLLOUT

from berth.proxy.context import Context
from berth.proxy.movers import Movers
from berth.proxy.pipes import SIZE, Pipe

_SPLICE = os.SPLICE_F_MOVE | os.SPLICE_F_NONBLOCK
_EVENTS = EPOLLIN | EPOLLOUT | EPOLLET
_BROKEN = EPOLLERR | EPOLLHUP
_ROUNDS = 2  # in which a connection moves bytes before it is another's turn
_RESET = struct.pack("ii", 1, 0)  # struct linger: closing sends RST and forgets what was not sent
_BUSY = 3  # times that a connection could not do all in one turn, after which it is handed over


class Way:
    """One direction of a connection."""

    __slots__ = ("held", "over", "pipe", "readable", "sink", "source", "writable")

    def __init__(self, source: socket.socket, sink: socket.socket) -> None:
        self.source = source
        self.sink = sink
        self.readable = False
        self.writable = False
        self.pipe: Pipe | None = None
        self.held = 0  # bytes in the pipe
        self.over = False  # nothing more will go this way


class Connection:
    """A client's connection and the one to its target."""

    __slots__ = (
        "_busy",
        "_client",
        "_connected",
        "_context",
        "_down",
        "_ended",
        "_on_end",
        "_reset",
        "_target",
        "_turning",
        "_up",
    )

    def __init__(
        self,
        context: Context,
        client: socket.socket,
        target: socket.socket,
        on_end: Callable[[Connection], None],
    ) -> None:
        """`target`: its connect(2) is under way. `on_end` is called once, when both are closed or about to be, in the
        thread that made this.
        """
        self._context = context
        self._client = client
        self._target = target
        self._on_end = on_end
        self._up = Way(client, target)
        self._down = Way(target, client)
        self._connected = False
        self._reset = False  # one side was: the other will be, once it has got what was said before
        self._ended = False
        self._turning = False  # a turn is asked for
        self._busy = 0
        self._watch()

    def _watch(self) -> None:
        self._context.loop.watch(self._target.fileno(), self, _EVENTS)
        self._context.loop.watch(self._client.fileno(), self, _EVENTS)

    def ready(self, fd: int, events: int) -> None:
        """See `Handler`."""
        from_client = fd == self._client.fileno()
        near, far = (self._up, self._down) if from_client else (self._down, self._up)
        if events & (EPOLLIN | _BROKEN):
            near.readable = True
        if events & (EPOLLOUT | _BROKEN):
            far.writable = True
        if self._connected:
            self._go()
        elif from_client:
            if events & _BROKEN:  # it does not wait for the target
                self._abort()
        elif self._target.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR):
            self._abort()
        else:
            self._connected = True
            self._go()

    def abort(self) -> None:
        """Reset both sides. For the thread that made this."""
        if self._context.movers is None:
            self._context.loop.call(self._abort)
        else:
            self._abort()

    def _abort(self) -> None:
        if self._ended:
            return
        for side in (self._client, self._target):
            side.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET)
        self._end()

    def _end(self) -> None:
        self._ended = True
        for way in (self._up, self._down):
            self._release(way)
        self._context.loop.end(self._client)
        self._context.loop.end(self._target)
        self._on_end(self)

    def _hand_over(self, movers: Movers) -> None:
        """Let another thread go on. Nothing of this is touched here any more, but by its loop's `call`."""
        for side in (self._target, self._client):
            self._context.loop.forget(side.fileno())
        self._context = movers.next()
        there, told = self._context.loop, self._on_end
        # When that thread has closed the sockets: their descriptors are counted.
        self._on_end = lambda _: there.turn(lambda: movers.home.call(lambda: told(self)))
        there.call(self._watch)  # whatever is ready is told again to the new loop

    def _go(self) -> None:
        """Move what can be moved; go on when others had their turn."""
        if self._ended:
            return  # since the turn was asked for
        # Down first: what a target said before it was reset is read before a write to it meets the reset.
        more = self._move(self._down)
        more = self._move(self._up) or more
        if self._up.over and self._down.over:
            if self._reset:
                self._abort()
            else:
                self._end()
        elif more and not self._turning:
            self._turning = True
            self._context.loop.turn(self._turn)

    def _turn(self) -> None:
        self._turning = False
        self._busy += 1
        if self._busy > _BUSY and self._context.movers is not None and not self._ended:
            self._hand_over(self._context.movers)
        else:
            self._go()

    def _move(self, way: Way) -> bool:
        """Take bytes from one side to the other. True if there may be more to do."""
        for _ in range(_ROUNDS):
            if way.over or not way.writable or not (way.held or way.readable):
                break
            if way.pipe is None:
                way.pipe = self._context.pipes.take()
            try:
                moved = self._splice(way, way.pipe) if way.pipe is not None else self._copy(way)
            except OSError:
                self._not_taken(way)
                return True
            if not moved:
                break
        else:
            return True
        if not way.held:
            self._release(way)
        return False

    def _splice(self, way: Way, pipe: Pipe) -> bool:
        """Fill the pipe if it is empty, and empty it. False when one side has to be waited for, or has ended.

        Raises `OSError` when the sink takes nothing any more.
        """
        if not way.held:
            try:
                way.held = os.splice(way.source.fileno(), pipe.into, SIZE, None, None, _SPLICE)
            except BlockingIOError:
                way.readable = False
                return False
            except OSError:
                return self._lost()
            if not way.held:
                return self._said_all(way)
        sink = way.sink.fileno()
        try:
            while way.held:
                way.held -= os.splice(pipe.out, sink, way.held, None, None, _SPLICE)
        except BlockingIOError:
            way.writable = False
            return False
        return True

    def _copy(self, way: Way) -> bool:
        """Without a pipe: copy what can be sent at once, and leave the rest where it is. See `_splice`."""
        try:
            there = way.source.recv_into(self._context.copied, 0, socket.MSG_PEEK)
        except BlockingIOError:
            way.readable = False
            return False
        except OSError:
            return self._lost()
        if not there:
            return self._said_all(way)
        try:
            sent = way.sink.send(self._context.copied[:there])
        except BlockingIOError:
            way.writable = False
            return False
        way.source.recv_into(self._context.copied, sent, socket.MSG_TRUNC)  # takes it out without another copy (tcp(7))
        return True

    def _said_all(self, way: Way) -> bool:
        way.over = True
        with suppress(OSError):  # a reset that is not read yet: the other way will meet it
            way.sink.shutdown(socket.SHUT_WR)
        return False

    def _lost(self) -> bool:
        """The side that was read was reset, and all it said is read: the other is to be reset."""
        self._up.over = self._down.over = self._reset = True
        return False

    def _not_taken(self, way: Way) -> None:
        """The side that was written to was reset. What it had said still goes the other way."""
        way.over = self._reset = True
        self._release(way)
        other = self._up if way is self._down else self._down
        other.readable = True  # the kernel tells a reset only once, and then the end

    def _release(self, way: Way) -> None:
        if way.pipe is not None:
            if way.held:
                self._context.pipes.drop(way.pipe)
            else:
                self._context.pipes.give(way.pipe)
        way.pipe, way.held = None, 0


def refuse(client: socket.socket) -> None:
    """Reset a client that has just been accepted."""
    client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET)
    client.close()
