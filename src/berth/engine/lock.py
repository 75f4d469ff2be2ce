"""One writer at a time: a lock that the kernel releases when its holder dies."""

from __future__ import annotations

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from berth.errors import Denied, Refused


class StateLock:
    """An exclusive lock on the state directory, between processes and between threads of one."""

    def __init__(self, path: Path) -> None:
        """Open the lock file. Raises `Denied` or `Refused`."""
        try:
            self._fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        except PermissionError:
            raise Denied(f"may not write {path}: run as root, or set BERTH_STATE") from None
        except OSError as error:
            raise Refused(f"cannot use {path}: {error.strerror}") from None

    @contextmanager
    def held(self) -> Iterator[None]:
        """Hold the lock for the block; waits for whoever has it."""
        fcntl.flock(self._fd, fcntl.LOCK_EX)
        try:
            yield
        finally:
            fcntl.flock(self._fd, fcntl.LOCK_UN)

    def free(self) -> bool:
        """Whether nobody holds the lock just now."""
        try:
            fcntl.flock(self._fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
        fcntl.flock(self._fd, fcntl.LOCK_UN)
        return True

    def close(self) -> None:
        """Close the lock file."""
        os.close(self._fd)
