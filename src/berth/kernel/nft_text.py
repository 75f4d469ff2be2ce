"""What nft(8) prints of others' rules, whose expressions Berth does not read by itself."""

from __future__ import annotations

import subprocess
import time
from pathlib import Path
from threading import Thread

from berth.errors import Refused
from berth.kernel.netlink import NETFILTER

_NULL = subprocess.DEVNULL
_PATIENCE, _POLL = 5.0, 0.02  # seconds
_LISTENS_WITHIN = 2.0
_TRACES = 1 << 9 - 1  # of the groups of a socket: NFNLGRP_NFTRACE


def listed(family: str, table: str, chain: str) -> str:
    """A chain as `nft list chain` shows it; "" for one that is gone."""
    command = ["nft", "list", "chain", family, table, chain]
    return subprocess.run(command, capture_output=True, text=True, check=False).stdout


class Tracing:
    """Follows what comes in by a link, from the moment it is entered to its end.

    The rule that asks for it is in a table with an owner: the kernel removes it when that program ends, and that ends
    with its input, whatever becomes of this process. The listener is told by the kernel to die with its parent.
    """

    TABLE = "berth_trace"

    def __init__(self, link: str, condition: str) -> None:
        self._script = (
            f"add table netdev {self.TABLE} {{ flags owner; }}",
            f'add chain netdev {self.TABLE} {link} {{ type filter hook ingress device "{link}" priority -2000; }}',
            *(f"add rule netdev {self.TABLE} {link} {each} meta nftrace set 1" for each in condition.split("\n")),
        )
        self._lines: list[str] = []

    def __enter__(self) -> Tracing:
        """Begin. Raises `Refused` where nftables will not."""
        self._monitor = subprocess.Popen(
            ["setpriv", "--pdeathsig", "KILL", "nft", "monitor", "trace"],
            stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True,
        )  # fmt: skip
        self._owner = subprocess.Popen(["nft", "-i"], stdin=subprocess.PIPE, stdout=_NULL, stderr=_NULL, text=True)
        self._reader = Thread(target=self._read, daemon=True)
        self._reader.start()
        try:
            assert self._owner.stdin is not None
            for line in self._script:
                print(line, file=self._owner.stdin, flush=True)
            self._begin()
        except BaseException:
            self.__exit__()
            raise
        return self

    def _begin(self) -> None:
        until = time.monotonic() + _PATIENCE
        while "nftrace" not in listed("netdev", self.TABLE, self._script[1].split()[4]):
            if time.monotonic() >= until or self._owner.poll() is not None:
                raise Refused("nftables will not trace: is another `berth trace` at work? see `nft list tables netdev`")
            time.sleep(_POLL)
        until = time.monotonic() + _LISTENS_WITHIN
        while not self._listens() and time.monotonic() < until:
            time.sleep(_POLL)

    def _listens(self) -> bool:
        """Whether the listener hears already: on a busy machine it takes its time, and what it misses is not told.

        It is known by its process id, which the kernel gives to a program's first netlink socket (netlink(7)).
        """
        rows = (line.split() for line in Path("/proc/thread-self/net/netlink").read_text().splitlines()[1:])
        return any(
            row[1] == str(NETFILTER) and row[2] == str(self._monitor.pid) and int(row[3], 16) & _TRACES for row in rows
        )

    def lines(self, settle: float) -> list[str]:
        """What was printed so far, once nothing new has come for some seconds."""
        count = -1
        while count != len(self._lines):
            count = len(self._lines)
            time.sleep(settle)
        return list(self._lines)

    def __exit__(self, *_: object) -> None:
        self._owner.kill()
        self._owner.communicate()
        self._monitor.kill()
        self._monitor.wait()
        self._reader.join()

    def _read(self) -> None:
        for line in self._monitor.stdout or ():
            self._lines.append(line.rstrip("\n"))
