"""How long a machine is not to be reached: pings from another one, all the time."""

from __future__ import annotations

import re
import signal
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import pairwise

from berth.lab.session import Session

_EVERY = 0.02  # seconds
_REPLY = re.compile(r"^\[(\d+\.\d+)\] \d+ bytes from", re.MULTILINE)


@dataclass
class Pings:
    """What came back; set when it is over."""

    gap: float = 0.0  # seconds: the longest time without an answer


@contextmanager
def pinged(lab: Session, node: str, address: str) -> Iterator[Pings]:
    """Ping an address from a node as long as the block lasts."""
    heard = Pings()
    argv = ["ping", "-n", "-D", f"-i{_EVERY}", address]
    with lab.popen(node, argv, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        try:
            while not _REPLY.match(said := process.stdout.readline()):  # before anything is changed
                assert said, f"ping {address} ended"
            yield heard
        finally:
            process.send_signal(signal.SIGINT)
            rest, _ = process.communicate(timeout=10)
    times = [float(time) for time in _REPLY.findall(said + rest)]
    heard.gap = max(later - sooner for sooner, later in pairwise(times))
