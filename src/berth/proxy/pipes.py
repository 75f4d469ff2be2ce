"""Pipes for splice(2).

A pipe is lent to a connection only while bytes are under way, so that a few serve thousands of connections. Those of
connections whose receiver does not read are held; hence the bound, beyond which bytes are copied (`tcp.py`).
"""

from __future__ import annotations

import fcntl
import os
from collections import deque
from contextlib import suppress
from threading import Lock

SIZE = 1 << 20  # bytes; a quarter of it costs a third more CPU time, as a pipe of the usual size costs half more
MOST = 128  # pipes at a time
# Of these so many are large: all slots together are half of what one user without rights may have
# (/proc/sys/fs/pipe-user-pages-soft).
_LARGE = 32


class Pipe:
    """Both ends of a pipe, empty whenever it is in the pool."""

    __slots__ = ("into", "large", "out")

    def __init__(self, large: bool) -> None:
        """Raises `OSError` when there are no descriptors left."""
        self.out, self.into = os.pipe2(os.O_CLOEXEC | os.O_NONBLOCK)
        self.large = large
        if large:
            with suppress(OSError):  # the user has too many slots already: the usual size will do
                fcntl.fcntl(self.into, fcntl.F_SETPIPE_SZ, SIZE)

    def close(self) -> None:
        """Close both ends, with what is in it."""
        os.close(self.out)
        os.close(self.into)


class Pipes:
    """The pool. For any thread."""

    def __init__(self, most: int) -> None:
        """`most`: pipes at the same time."""
        self._left = most
        self._large = min(_LARGE, most)
        self._free: deque[Pipe] = deque()  # the large ones last
        self._lock = Lock()

    def take(self) -> Pipe | None:
        """An empty pipe, a large one if there is one; None when all are in use."""
        with self._lock:
            return self._take()

    def _take(self) -> Pipe | None:
        if self._free and (self._free[-1].large or not self._large):
            return self._free.pop()
        if not self._left:
            return self._free.pop() if self._free else None
        try:
            pipe = Pipe(self._large > 0)
        except OSError:
            return None
        self._left -= 1
        self._large -= pipe.large
        return pipe

    def give(self, pipe: Pipe) -> None:
        """Bring back an empty pipe."""
        with self._lock:
            if pipe.large:
                self._free.append(pipe)
            else:
                self._free.appendleft(pipe)

    def drop(self, pipe: Pipe) -> None:
        """Bring back one that has something in it."""
        pipe.close()
        with self._lock:
            self._left += 1
            self._large += pipe.large
