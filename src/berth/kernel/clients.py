"""DHCP clients that somebody started for a link: finding them, and handing their lease to another link.

A client is ended without a word to the server (a released lease is somebody else's soon), and started again as it
was, with the other link's name in the place of the first one's, also in the names of its files: what it remembers
of the lease goes along, so that it asks for the same address. The MAC is the same too.
"""

from __future__ import annotations

import os
import re
import shutil
import signal
import subprocess
import time
from collections.abc import Iterator, Sequence
from contextlib import suppress
from pathlib import Path

from berth.errors import Refused
from berth.kernel import sysctl
from berth.uplink import facts
from berth.uplink.record import Client

PROGRAMS = ("dhclient", "dhcpcd", "udhcpc")
_LEASES = {"dhcpcd": ("/var/lib/dhcpcd/{}.lease", "/var/lib/dhcpcd/{}.lease6")}  # where a program keeps them unasked
_MANAGER = re.compile(r"dhcpcd: \[(manager|master)\]")
_TITLE = re.compile(r"dhcpcd: (?P<dev>[^][\s]+)(?: \[(?P<family>ip[46])\])?")
_ENDS_WITHIN = 5.0  # seconds
_STARTS_WITHIN = 60.0


def running(dev: str) -> tuple[facts.Client, ...]:
    """The clients of this network namespace that serve a link."""
    return tuple(client for client in processes(PROGRAMS) if dev in client.argv[1:])


def manages_all() -> bool:
    """Whether a dhcpcd of this network namespace serves whatever links there are."""
    return any(client.argv == ("dhcpcd", "") for client in processes(("dhcpcd",)))


def processes(programs: Sequence[str]) -> Iterator[facts.Client]:
    """The processes of this network namespace that run one of the programs."""
    namespace = os.stat("/proc/thread-self/ns/net").st_ino
    for entry in Path("/proc").iterdir():
        if not entry.name.isdecimal():
            continue
        with suppress(OSError):
            argv = _command(entry)
            program = os.path.basename(argv[0]) if argv else ""
            if program in programs and os.stat(entry / "ns/net").st_ino == namespace and not _of_a_manager(argv):
                yield facts.Client(program, int(entry.name), argv)


def _command(entry: Path) -> tuple[str, ...]:
    """How a process was started; of dhcpcd, which writes over that, what its title tells: the link and the family."""
    text = (entry / "cmdline").read_bytes().decode(errors="replace")
    if _MANAGER.match(text):
        return ("dhcpcd", "")
    title = _TITLE.fullmatch(text.rstrip("\0"))
    if title is None:
        return tuple(text.split("\0")[:-1])
    family = {"ip4": ("-4",), "ip6": ("-6",)}.get(title["family"] or "", ())
    return ("dhcpcd", *family, title["dev"])


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
    whole = [pid, *_children(pid)]
    for each in whole:
        with suppress(ProcessLookupError):
            os.kill(each, signal.SIGKILL)
    until = time.monotonic() + _ENDS_WITHIN
    while any(map(_lives, whole)) and time.monotonic() < until:
        time.sleep(0.01)


def _children(pid: int) -> Iterator[int]:
    """The processes that a client has started for parts of its work, and theirs."""
    for task in Path(f"/proc/{pid}/task").glob("*/children"):
        with suppress(OSError):
            for child in map(int, task.read_text().split()):
                yield child
                yield from _children(child)


def _lives(pid: int) -> bool:
    """Whether a process is there, and not only waits for its parent to hear that it has ended."""
    stat = sysctl.content(f"/proc/{pid}/stat")
    return stat is not None and stat.rpartition(")")[2].split()[0] != "Z"


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
