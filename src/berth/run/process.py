"""How a command ends, and the signals that are passed on to it."""

from __future__ import annotations

import errno
import os
import signal
from collections.abc import Callable
from types import FrameType
from typing import Self

NOT_FOUND = 127  # what a shell and Docker exit with when there is no such command
NOT_EXECUTABLE = 126

#: What the parent gets is meant for the command.
FORWARDED = frozenset({signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGQUIT, signal.SIGUSR1, signal.SIGUSR2})


def exit_code(status: int) -> int:
    """The exit code that tells of a status as wait(2) gives it: 128 and the signal for a killed process."""
    return 128 + os.WTERMSIG(status) if os.WIFSIGNALED(status) else os.WEXITSTATUS(status)


def exec_failure(error: OSError) -> int:
    """The exit code for a command that could not be started."""
    return NOT_FOUND if error.errno in (errno.ENOENT, errno.ENOTDIR) else NOT_EXECUTABLE


class Signals:
    """Catches the forwarded signals, and the change of the window's size, for the length of a `with` block.

    They arrive as bytes in a pipe, so that one poll(2) waits for them together with all else. What comes before
    the command has started waits there.
    """

    def __init__(self) -> None:
        self._before: dict[signal.Signals, Callable[[int, FrameType | None], object] | int | None] = {}
        self._wakeup = -1
        self._reader = self._writer = -1

    def __enter__(self) -> Self:
        self._reader, self._writer = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
        self._wakeup = signal.set_wakeup_fd(self._writer, warn_on_full_buffer=False)
        for number in (*FORWARDED, signal.SIGWINCH):
            # nohup(1) asks for hangups to be ignored, and that is no business of the command's either.
            if number is not signal.SIGHUP or signal.getsignal(number) is not signal.SIG_IGN:
                self._before[number] = signal.signal(number, lambda *_: None)
        return self

    def __exit__(self, *_: object) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)
        signal.set_wakeup_fd(self._wakeup)
        os.close(self._reader)
        os.close(self._writer)

    def fileno(self) -> int:
        """The descriptor that is readable when a signal has come."""
        return self._reader

    def take(self) -> list[signal.Signals]:
        """The signals that have come since the last call."""
        try:
            return [signal.Signals(number) for number in os.read(self._reader, 512)]
        except BlockingIOError:
            return []
