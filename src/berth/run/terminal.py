"""A pseudo-terminal between the caller's terminal and the command's."""

from __future__ import annotations

import fcntl
import os
import select
import termios
import tty
from collections.abc import Callable
from typing import Any, Self

from berth.run.waiting import Watch

_CHUNK = 4096  # bytes: what a pipe that poll(2) calls writable takes without blocking (PIPE_BUF)
_END_OF_FILE = b"\x04"  # Ctrl-D, which a terminal in its usual mode turns into the end of its input
_NO_SIZE = bytes(8)  # struct winsize: rows, columns, and two sizes in pixels that nobody fills in


class Flow:
    """Bytes on their way from one descriptor to another, read only when the last ones have been taken."""

    def __init__(self, source: int, sink: int, *, at_end: bytes = b"", when_refused: Callable[[], object]) -> None:
        self._source = source
        self._sink = sink
        self._at_end = at_end
        self._when_refused = when_refused
        self._pending = b""
        self._open = True
        self._last = False  # whether the waiting is over with this flow
        self._refused = False  # nobody reads the sink any more: what comes is thrown away

    def wants(self) -> tuple[int, int] | None:
        if self._pending:
            return self._sink, select.POLLOUT
        return (self._source, select.POLLIN) if self._open else None

    def turn(self) -> bool:
        if self._pending:
            self._write()
        else:
            self._read()
        return self._last and self.over

    @property
    def over(self) -> bool:
        """Whether all has arrived that will ever come."""
        return not self._open and not self._pending

    def until_over(self) -> None:
        """Make the end of this flow the end of the waiting."""
        self._last = True

    def _write(self) -> None:
        try:
            self._pending = self._pending[os.write(self._sink, self._pending[:_CHUNK]) :]
        except BlockingIOError:
            pass
        except OSError:
            self._pending = b""
            self._refused = True
            self._when_refused()

    def _read(self) -> None:
        try:
            self._pending = os.read(self._source, _CHUNK)
        except BlockingIOError:
            return
        except OSError:  # EIO: the last process with the other end of a pseudo-terminal has ended
            self._pending = b""
        if not self._pending:
            self._open = False
            self._pending = self._at_end
        if self._refused:
            self._pending = b""


class Terminal:
    """The caller's end of a pseudo-terminal, for the length of a `with` block.

    With `keys`, what is typed goes to the command, and the caller's terminal is raw so that it goes there as it
    is, Ctrl-C too. It is as it was when the block ends. `master` stays the caller's to close.
    """

    def __init__(self, master: int, *, keys: bool, hang_up: Callable[[], object]) -> None:
        self._master = master
        self._writer = os.dup(master)  # one descriptor a direction, as no two may wait for the same one
        self._keys = keys
        self._before: list[Any] | None = None
        os.set_blocking(master, False)
        self._output = Flow(master, 1, when_refused=hang_up)
        self._input = Flow(0, self._writer, at_end=_END_OF_FILE, when_refused=lambda: None)

    def __enter__(self) -> Self:
        self.resize()
        if self._keys and os.isatty(0):
            self._before = termios.tcgetattr(0)
            tty.setraw(0, termios.TCSADRAIN)
        return self

    def __exit__(self, *_: object) -> None:
        if self._before is not None:
            termios.tcsetattr(0, termios.TCSADRAIN, self._before)
        os.close(self._writer)

    def resize(self) -> None:
        """Make the command's terminal as large as the caller's."""
        for stream in (0, 1, 2):
            if os.isatty(stream):
                size = fcntl.ioctl(stream, termios.TIOCGWINSZ, _NO_SIZE)
                fcntl.ioctl(self._master, termios.TIOCSWINSZ, size)
                return

    def flows(self) -> list[Watch]:
        """What to serve while the command runs."""
        return [self._output, self._input] if self._keys else [self._output]

    def rest(self) -> list[Watch]:
        """What to serve when the command has ended, until all that it wrote has been shown."""
        if self._output.over:
            return []
        self._output.until_over()
        return [self._output]
