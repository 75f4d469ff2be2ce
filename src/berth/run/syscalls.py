"""The system calls behind a sandbox that Python 3.11 has no functions for."""

from __future__ import annotations

import ctypes
import os
import signal
import struct
from collections.abc import Iterator
from contextlib import contextmanager

CLONE_NEWNS = 0x00020000
CLONE_NEWUTS = 0x04000000
CLONE_NEWIPC = 0x08000000
CLONE_NEWPID = 0x20000000
CLONE_NEWNET = 0x40000000

MS_NOSUID = 0x2
MS_NODEV = 0x4
MS_NOEXEC = 0x8
MS_BIND = 0x1000
MS_REC = 0x4000
MS_PRIVATE = 0x40000

_MNT_DETACH = 2
_PR_SET_PDEATHSIG = 1
_PR_SET_NAME = 15
_PR_SET_CHILD_SUBREAPER = 36
_SYS_OPENAT2 = 437  # the same on every architecture but alpha; since Linux 5.6
_RESOLVE_IN_ROOT = 0x10

_libc = ctypes.CDLL(None, use_errno=True)


def _checked(result: int) -> int:
    if result == -1:
        code = ctypes.get_errno()
        raise OSError(code, os.strerror(code))
    return result


def unshare(flags: int) -> None:
    """Leave the caller's namespaces for new ones."""
    _checked(_libc.unshare(flags))


def enter_network(fd: int) -> None:
    """Move the calling thread into an open network namespace."""
    _checked(_libc.setns(fd, CLONE_NEWNET))


def mount(source: str, target: str, kind: str = "", flags: int = 0, data: str = "") -> None:
    """mount(2)."""
    texts = [text.encode() for text in (source, target, kind)]
    _checked(_libc.mount(*texts, ctypes.c_ulong(flags), data.encode()))


def make_mounts_private() -> None:
    """Keep every mount made from now on inside this mount namespace."""
    mount("none", "/", flags=MS_REC | MS_PRIVATE)


def unmount(target: str) -> None:
    """Take a mount out of the tree, also one that is in use."""
    _checked(_libc.umount2(target.encode(), _MNT_DETACH))


def die_with_parent() -> None:
    """Have the kernel kill this process when its parent ends, however that ends."""
    _checked(_libc.prctl(_PR_SET_PDEATHSIG, ctypes.c_ulong(signal.SIGKILL), 0, 0, 0))


def adopt_orphans(on: bool) -> None:
    """Become (or cease to be) the parent of descendants whose own parent has ended."""
    _checked(_libc.prctl(_PR_SET_CHILD_SUBREAPER, ctypes.c_ulong(on), 0, 0, 0))


def set_process_name(name: str) -> None:
    """The name that `ps` shows; 15 bytes at most."""
    _checked(_libc.prctl(_PR_SET_NAME, name.encode(), 0, 0, 0))


def open_in_root(root: str, path: str) -> int:
    """Open a file for reading as a process with that root would: no symbolic link leads out of it, no FIFO blocks."""
    how = struct.pack("QQQ", os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK, 0, _RESOLVE_IN_ROOT)
    directory = os.open(root, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        return _checked(_libc.syscall(ctypes.c_long(_SYS_OPENAT2), directory, path.encode(), how, len(how)))
    finally:
        os.close(directory)


@contextmanager
def signals_held(signals: frozenset[signal.Signals]) -> Iterator[None]:
    """Keep signals waiting for the length of the block."""
    before = signal.pthread_sigmask(signal.SIG_BLOCK, signals)
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
