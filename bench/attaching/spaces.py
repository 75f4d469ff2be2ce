"""Network namespaces for the bench: made in bulk, entered by descriptor."""

from __future__ import annotations

import ctypes
import os
import subprocess
from collections.abc import Iterable, Iterator
from contextlib import contextmanager

NAMES = "/run/netns"
_NEWNS, _NEWNET = 0x20000, 0x40000000
_DETACH = 2

_libc = ctypes.CDLL(None, use_errno=True)


def setns(fd: int) -> None:
    """Move the calling thread into a network namespace."""
    _checked(_libc.setns(fd, _NEWNET))


def opened(name: str) -> int:
    """A descriptor of a named namespace."""
    return os.open(f"{NAMES}/{name}", os.O_RDONLY | os.O_CLOEXEC)


@contextmanager
def inside(fd: int, home: int) -> Iterator[None]:
    """Run the block in a namespace, then go home."""
    setns(fd)
    try:
        yield
    finally:
        setns(home)


@contextmanager
def visit(name: str, home: int) -> Iterator[None]:
    """Run the block in a named namespace, then go home."""
    fd = opened(name)
    try:
        with inside(fd, home):
            yield
    finally:
        os.close(fd)


def own_mounts() -> None:
    """Give this process mounts of its own: what it mounts from now on, no other process sees."""
    _checked(_libc.unshare(_NEWNS))


def new_proc() -> None:
    """Replace /proc by a new instance, which remembers no namespace.

    The kernel keeps the settings' directories of all namespaces that were looked at through one instance in one
    chain, and searches it: a sandbox of another rig, or one that is done with, would slow this one down.
    """
    _checked(_libc.umount2(b"/proc", _DETACH))
    _checked(_libc.mount(b"proc", b"/proc", b"proc", 0, None))


def _checked(result: int) -> None:
    if result:
        code = ctypes.get_errno()
        raise OSError(code, os.strerror(code))


def current() -> str:
    """Which network namespace this process is in."""
    return os.readlink("/proc/self/ns/net")


def make(names: Iterable[str]) -> None:
    """Make named namespaces, all by one process."""
    script = "".join(f"netns add {name}\n" for name in names)
    subprocess.run(["ip", "-batch", "-"], input=script, text=True, check=True)
