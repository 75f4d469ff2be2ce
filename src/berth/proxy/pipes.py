"""Pipes for splice(2).

A pipe is lent to a connection only while bytes are under way, so that a few serve thousands of connections. Those of
connections whose receiver does not read are held; hence the bound, beyond which bytes are copied (`tcp.py`).
"""

from __future__ import annotations

import fcntl
import os
from contextlib import suppress

SIZE = 256 * 1024  # bytes: 64 slots, one for each piece of a packet; more did not make it faster
# Of pipes at a time: half the slots that a user without rights may have (/proc/sys/fs/pipe-user-pages-soft).
MOST = 128


class Pipe:
    """Both ends of a pipe, empty whenever it is in the pool."""

    __slots__ = ("into", "out")

    def __init__(self) -> None:
        """Raises `OSError` when there are no descriptors left."""
        self.out, self.into = os.pipe2(os.O_CLOEXEC | os.O_NONBLOCK)
        with suppress(OSError):  # the user has too many slots already: a small one will do
            fcntl.fcntl(self.into, fcntl.F_SETPIPE_SZ, SIZE)

    def close(self) -> None:
        """Close both ends, with what is in it."""
        os.close(self.out)
        os.close(self.into)


class Pipes:
    """The pool."""

    def __init__(self, most: int) -> None:
        """`most`: pipes at the same time."""
        self._most = most
        self._made = 0
        self._free: list[Pipe] = []

    def take(self) -> Pipe | None:
        """An empty pipe; None when all are in use."""
        if self._free:
            return self._free.pop()
        if self._made >= self._most:
            return None
        try:
            pipe = Pipe()
        except OSError:
            return None
        self._made += 1
        return pipe

    def give(self, pipe: Pipe) -> None:
        """Bring back an empty pipe."""
        self._free.append(pipe)

    def drop(self, pipe: Pipe) -> None:
        """Bring back one that has something in it."""
        pipe.close()
        self._made -= 1
