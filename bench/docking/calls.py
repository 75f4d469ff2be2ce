"""What Docker asks of Berth: the daemon's log, and what a call costs around what the log says of it."""

from __future__ import annotations

import http.client
import re
import socket
import time
from pathlib import Path

Call = tuple[str, float]  # name, milliseconds

_LINE = re.compile(r"call=((?:Network|Ipam)Driver\.\w+) ms=([\d.]+) (.*)")
_ASKED = "IpamDriver.GetCapabilities"  # answered without a look at anything


class CallError(Exception):
    """Berth refused a call."""


class Log:
    """The daemon's log, read as it grows. A call's line is written before its answer is sent."""

    def __init__(self, path: Path) -> None:
        self._file = path.open()

    def calls(self) -> list[Call]:
        """What was called since the last time. Raises `CallError`."""
        found = []
        for line in self._file.read().splitlines():
            if (call := _LINE.fullmatch(line)) is None:
                continue
            if call[3] != "ok=true":
                raise CallError(line)
            found.append((call[1], float(call[2])))
        return found

    def close(self) -> None:
        """Close it."""
        self._file.close()


def around(path: Path, log: Log, count: int) -> list[float]:
    """Milliseconds that a caller waits for an answer beyond those in the log: HTTP, and the way there and back."""
    connection = _OverSocket(path)
    waits = []
    log.calls()
    for _ in range(count):
        start = time.perf_counter_ns()
        connection.request("POST", f"/{_ASKED}", b"{}")
        connection.getresponse().read()
        waits.append((time.perf_counter_ns() - start) / 1e6)
    connection.close()
    inside = [milliseconds for name, milliseconds in log.calls() if name == _ASKED]
    return [wait - own for wait, own in zip(waits, inside, strict=True)]


class _OverSocket(http.client.HTTPConnection):
    def __init__(self, path: Path) -> None:
        super().__init__("berth", timeout=30)
        self._path = path

    def connect(self) -> None:
        """Connect to the socket in place of a host."""
        self.sock = socket.socket(socket.AF_UNIX)
        self.sock.settimeout(self.timeout)
        self.sock.connect(str(self._path))
