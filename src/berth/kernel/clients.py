"""DHCP clients that somebody started for a link: finding them, and handing their lease to another link.

A client is ended without a word to the server (a released lease is somebody else's soon), and started again as it
was, with the other link's name in the place of the first one's, also in the names of its files: what it remembers
of the lease goes along, so that it asks for the same address. The MAC is the same too.
"""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import time
from collections.abc import Iterator, Sequence
from contextlib import suppress
from pathlib import Path

from berth.errors import Refused
from berth.uplink import facts
from berth.uplink.record import Client

PROGRAMS = ("dhclient", "dhcpcd", "udhcpc")
_LEASES = {"dhcpcd": ("/var/lib/dhcpcd/{}.lease", "/var/lib/dhcpcd/{}.lease6")}  # where a program keeps them unasked
_ENDS_WITHIN = 5.0  # seconds
_STARTS_WITHIN = 60.0


def running(dev: str) -> tuple[facts.Client, ...]:
    """The clients of this network namespace that serve a link."""
    here = os.stat("/proc/self/ns/net").st_ino
    return tuple(client for client in processes(here, PROGRAMS) if dev in client.argv[1:])


def processes(namespace: int, programs: Sequence[str]) -> Iterator[facts.Client]:
    """The processes of a network namespace (its inode number) that run one of the programs."""
    for entry in Path("/proc").iterdir():
        if not entry.name.isdecimal():
            continue
        with suppress(OSError):
            argv = tuple((entry / "cmdline").read_bytes().decode(errors="replace").split("\0")[:-1])
            program = os.path.basename(argv[0].split(":")[0]) if argv else ""
            if program in programs and os.stat(entry / "ns/net").st_ino == namespace and not _of_a_manager(argv):
                yield facts.Client(program, int(entry.name), argv)


def _of_a_manager(argv: Sequence[str]) -> bool:
    """Whether a manager runs it, and is told of the bridge by its own files."""
    return any("nm-dhcp-helper" in word for word in argv)


def hand_over(clients: Sequence[Client], source: str, target: str) -> None:
    """End what serves `source` and start the same for `target`. Raises `Refused`."""
    for old in (*running(source), *running(target)):
        _end(old.pid)
    for client in clients:
        argv = client.serving(source, target).argv
        for path in _LEASES.get(client.program, ()):
            _copy(path.format(source), path.format(target), source, target)
        for word, new in zip(client.argv, argv, strict=True):
            if word != new and word.startswith("/"):
                _copy(word, new, source, target)
        _start(argv)


def _copy(old: str, new: str, source: str, target: str) -> None:
    """A client's memory, under the other link's name; a process id is not copied."""
    if old.endswith(".pid") or not os.path.isfile(old):
        return
    content = Path(old).read_bytes()
    Path(new).write_bytes(content.replace(f'"{source}"'.encode(), f'"{target}"'.encode()))
    shutil.copystat(old, new)


def _end(pid: int) -> None:
    """End a process at once: asked kindly, some give the lease back."""
    with suppress(ProcessLookupError):
        os.kill(pid, signal.SIGKILL)
    until = time.monotonic() + _ENDS_WITHIN
    while os.path.exists(f"/proc/{pid}") and time.monotonic() < until:
        if Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z":
            return
        time.sleep(0.01)


def _start(argv: Sequence[str]) -> None:
    try:
        done = subprocess.run(
            argv,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            timeout=_STARTS_WITHIN,
            check=False,
            start_new_session=True,
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        raise Refused(f"cannot start {' '.join(argv)}: {error}") from None
    if done.returncode:
        last = done.stdout.decode(errors="replace").strip().rpartition("\n")[2]
        raise Refused(f"{' '.join(argv)} failed ({done.returncode}): {last}")
