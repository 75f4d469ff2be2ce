"""Brings a process into a running lab: its user, pid and mount namespaces, and one node's network.

A process cannot change its own pid namespace, only that of its children. So whoever enters becomes two: the inner
one goes on, inside; the outer one stands in for it outside, takes on signals in its name, and ends as it ends. That
is all there is between the caller and the command: no helper program is started.
"""

from __future__ import annotations

import os
import resource
import signal
import sys
from collections.abc import Sequence
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import NoReturn, Self

from berth.errors import Denied, NotFound
from berth.lab import syscalls
from berth.lab.record import Record

# Asks a stand-in to kill what it stands for. SIGKILL would end the stand-in alone: the inner process dies of that
# too, but as an orphan, whose remains keep the lab in being until the machine's process 1 gets round to them.
KILL = signal.SIGRTMIN

# What the stand-in hands on, and as what. Other signals (stop and continue, a resized window) are for the terminal's
# whole process group, in which the inner process is as well.
_HANDED_ON = {
    KILL: signal.SIGKILL,
    signal.SIGTERM: signal.SIGTERM,
    signal.SIGINT: signal.SIGINT,
    signal.SIGHUP: signal.SIGHUP,
    signal.SIGQUIT: signal.SIGQUIT,
    signal.SIGUSR1: signal.SIGUSR1,
    signal.SIGUSR2: signal.SIGUSR2,
}
_SYSTEM_BINARIES = ("/usr/sbin", "/sbin")  # where nft and dnsmasq are; not every user's PATH has them


class Door:
    """Open handles to a lab's namespaces and one node's network: what a fresh child needs to step in.

    Kept no longer than it takes to start one command: an open handle keeps a namespace in being.
    """

    def __init__(self, lab: Record, netns: str) -> None:
        with ExitStack() as opened:
            self._user, self._pid, self._mount, self._network = _handles(opened, lab, netns)
            self._opened = opened.pop_all()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._opened.close()

    def step_in(self, cwd: Path) -> None:
        """Return inside. To be called by a process of one thread that has no further use for itself outside."""
        if self._user is not None:
            syscalls.setns(self._user, syscalls.CLONE_NEWUSER)
        syscalls.setns(self._pid, syscalls.CLONE_NEWPID)
        mask = signal.pthread_sigmask(signal.SIG_BLOCK, (*_HANDED_ON, signal.SIGCHLD))
        inner = os.fork()
        if inner:
            _stand_in(inner)
        syscalls.die_with_parent(signal.SIGKILL)
        # The stand-in does not enter these two: it must not keep them in being a moment longer than the lab.
        syscalls.setns(self._mount, syscalls.CLONE_NEWNS)
        syscalls.setns(self._network, syscalls.CLONE_NEWNET)
        with suppress(OSError):  # a new mount namespace starts at /, and stays there if it has no such directory
            os.chdir(cwd)
        signal.pthread_sigmask(signal.SIG_SETMASK, mask)


def _handles(opened: ExitStack, lab: Record, netns: str) -> tuple[int | None, int, int, int]:
    """The user namespace, if it is not the caller's own, then pid, mount and network namespace."""

    def handle(path: str) -> int:
        fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        opened.callback(os.close, fd)
        return fd

    spaces = f"/proc/{lab.pid}/ns"
    try:
        # To enter the user namespace that one is in already is an error; a lab of root's shares its starter's.
        shared = Path(spaces, "user").samefile("/proc/self/ns/user")
        user = None if shared else handle(f"{spaces}/user")
        handles = (
            user,
            handle(f"{spaces}/pid"),
            handle(f"{spaces}/mnt"),
            handle(f"/proc/{lab.pid}/root/run/netns/{netns}"),
        )
    except PermissionError as error:
        raise Denied(f"lab {lab.name!r} is another user's: enter it as who started it") from error
    except FileNotFoundError as error:
        if not lab.alive:
            raise NotFound(f"lab {lab.name!r} has ended") from error
        raise NotFound(f"no node or namespace {netns!r} in lab {lab.name!r}") from error
    if not lab.alive:  # asked last: what was opened is then the lab's, and not of a later owner of its pid
        raise NotFound(f"lab {lab.name!r} has ended")
    return handles


def become(lab: Record, node: str, argv: Sequence[str]) -> NoReturn:
    """Become a command in a node: for a process that has nothing else left to do."""
    with Door(lab, node) as door:
        door.step_in(Path.cwd())
    try:
        os.execvpe(argv[0], list(argv), environment(lab, node))
    except OSError as error:
        raise NotFound(f"{argv[0]!r} cannot be run in {node}: {error.strerror}") from error


def environment(lab: Record, node: str) -> dict[str, str]:
    """What a command in a node finds in its environment: tools and `berth` on the PATH, a host's directories."""
    variables = os.environ | {"PATH": search_path()}
    if node in lab.hosts:
        variables |= {"BERTH_STATE": f"{lab.work}/{node}/state", "BERTH_RUN": f"{lab.work}/{node}/run"}
    return variables


def search_path() -> str:
    """A PATH that leads to this `berth` and to the system's tools."""
    path = os.environ.get("PATH", os.defpath).split(os.pathsep)
    # Not resolved: in a virtual environment it is the link, not the interpreter, that has `berth` beside it.
    ours = str(Path(sys.executable).parent)
    return os.pathsep.join((ours, *path, *(each for each in _SYSTEM_BINARIES if each not in path)))


def _stand_in(inner: int) -> NoReturn:
    """Wait for the inner process in its parent's eyes, and end exactly as it does."""
    os.closerange(0, os.sysconf("SC_OPEN_MAX"))  # the inner process alone decides when a pipe ends
    status = 0
    while True:
        heard = signal.sigwaitinfo((*_HANDED_ON, signal.SIGCHLD))
        if heard.si_signo == signal.SIGCHLD:
            pid, status = os.waitpid(inner, os.WNOHANG)
            if pid:
                break
        elif heard.si_code <= 0:  # by a process; what a terminal sends (^C) has reached the inner one as well
            with suppress(ProcessLookupError):
                os.kill(inner, _HANDED_ON[signal.Signals(heard.si_signo)])
    if os.WIFSIGNALED(status):
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
        cause = os.WTERMSIG(status)
        signal.pthread_sigmask(signal.SIG_UNBLOCK, {cause})
        with suppress(OSError):  # SIGKILL has no handler to reset
            signal.signal(cause, signal.SIG_DFL)
        os.kill(os.getpid(), cause)
    os._exit(os.waitstatus_to_exitcode(status))
