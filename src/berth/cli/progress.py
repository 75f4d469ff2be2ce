"""A sign of life from what takes more than a second, for who sits at a terminal."""

from __future__ import annotations

import signal
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

_AFTER = 1.0  # second


@contextmanager
def waiting(what: str) -> Iterator[None]:
    """Say what is waited for, and for how long, on standard error; nothing is left of it afterwards.

    By a timer and its signal, not by a thread: namespaces are entered thread by thread. Nothing at all happens where
    standard error is no terminal.
    """
    if not sys.stderr.isatty():
        yield
        return
    start = time.monotonic()
    shown = False

    def tell(_: int, __: FrameType | None) -> None:
        nonlocal shown
        shown = True
        print(f"\r\x1b[K{what} … {time.monotonic() - start:.0f} s", end="", file=sys.stderr, flush=True)

    before = signal.signal(signal.SIGALRM, tell)
    signal.setitimer(signal.ITIMER_REAL, _AFTER, _AFTER)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
        if shown:
            print("\r\x1b[K", end="", file=sys.stderr, flush=True)
