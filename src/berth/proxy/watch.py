"""Which files of a directory have changed (inotify(7))."""

from __future__ import annotations

import ctypes
import os
import struct

_EVENT = struct.Struct("=iIII")  # struct inotify_event: watch, mask, cookie, length of the name that follows
_CLOSE_WRITE, _MOVED_FROM, _MOVED_TO, _DELETE = 0x8, 0x40, 0x80, 0x200  # linux/inotify.h
_DELETE_SELF, _MOVE_SELF, _Q_OVERFLOW, _IGNORED = 0x400, 0x800, 0x4000, 0x8000
_ONLYDIR = 0x0100_0000
_ASKED = _CLOSE_WRITE | _MOVED_FROM | _MOVED_TO | _DELETE | _DELETE_SELF | _MOVE_SELF | _ONLYDIR

_libc = ctypes.CDLL(None, use_errno=True)


class Watch:
    """The files of one directory."""

    def __init__(self, directory: str) -> None:
        """Raises `OSError`."""
        self.fd = _checked(_libc.inotify_init1(os.O_CLOEXEC | os.O_NONBLOCK))
        try:
            _checked(_libc.inotify_add_watch(self.fd, os.fsencode(directory), _ASKED))
        except OSError:
            os.close(self.fd)
            raise

    def changed(self) -> tuple[set[str], bool]:
        """The names of files that changed since the last time; and whether anything else may have, or all is gone."""
        names: set[str] = set()
        lost = False
        while True:
            try:
                events = os.read(self.fd, 65536)
            except BlockingIOError:
                return names, lost
            at = 0
            while at < len(events):
                _, mask, _, length = _EVENT.unpack_from(events, at)
                at += _EVENT.size
                name = events[at : at + length].rstrip(b"\0")
                at += length
                lost = lost or bool(mask & (_DELETE_SELF | _MOVE_SELF | _Q_OVERFLOW | _IGNORED))
                if name:
                    names.add(os.fsdecode(name))

    def close(self) -> None:
        """Watch no more."""
        os.close(self.fd)


def _checked(result: int) -> int:
    if result < 0:
        code = ctypes.get_errno()
        raise OSError(code, os.strerror(code))
    return result
