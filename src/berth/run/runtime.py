"""Running a container through an OCI runtime: crun, else runc."""

from __future__ import annotations

import os
import re
import shutil
import socket
import subprocess
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from berth.errors import BerthError, Refused, Taken, Unsupported
from berth.run.process import NOT_EXECUTABLE, NOT_FOUND
from berth.run.syscalls import CLONE_NEWNS, make_mounts_private, mount, unshare

_RUNTIMES = ("crun", "runc")
_SYSTEM_BINARIES = "/usr/sbin:/sbin"  # where Debian has runc; not every user's PATH has them
_CGROUPS = "/sys/fs/cgroup"


class NotStarted(BerthError):
    """The runtime did not start the container; it has told why on standard error."""

    def __init__(self, message: str, code: int | None) -> None:
        super().__init__(message)
        self.code = code  # to exit with; None: the command is not to blame


def find_runtime() -> Runtime:
    """The first runtime that is installed. Raises `Unsupported`."""
    path = f"{os.environ.get('PATH', os.defpath)}:{_SYSTEM_BINARIES}"
    for name in _RUNTIMES:
        if found := shutil.which(name, path=path):
            cgroups = has_cgroups(
                name, Path("/proc/self/mountinfo").read_text(), Path("/proc/self/uid_map").read_text()
            )
            return Runtime(name, found, cgroups)
    raise Unsupported("--rootfs needs an OCI runtime and there is none: apt install crun (or runc)")


def has_cgroups(runtime: str, mountinfo: str, uid_map: str) -> bool:
    """Whether the runtime can make a control group here.

    crun refuses the hybrid layout (version 1 at /sys/fs/cgroup, version 2 below it) and a machine without any, even
    when it is told not to make groups; and in a user namespace no group can be made. runc copes with all of these.
    """
    if runtime != "crun":
        return True
    kinds = {
        mounted[4]: mounted[mounted.index("-") + 1] for line in mountinfo.splitlines() if (mounted := line.split())
    }
    hybrid = kinds.get(f"{_CGROUPS}/unified") == "cgroup2"
    initial = uid_map.split() == ["0", "0", "4294967295"]  # the user namespace that the machine started with
    return _CGROUPS in kinds and not hybrid and initial


def failure_code(words: str) -> int | None:
    """The exit code for what a runtime says when it could not start a command; None: for another reason.

    Docker tells the same two by the same words.
    """
    if re.search(r"executable.*not found|no such file or directory$", words, re.IGNORECASE | re.MULTILINE):
        return NOT_FOUND
    if re.search(r"(exec|executable).*(permission denied|not permitted|is a directory)", words, re.IGNORECASE):
        return NOT_EXECUTABLE
    return None


@dataclass(frozen=True, slots=True)
class Runtime:
    """An OCI runtime."""

    name: str
    path: str
    cgroups: bool  # whether it makes a control group for each container

    def refuse_known(self, identity: str) -> None:
        """Raises `Taken` when the runtime has a container of that name already."""
        if self._call("state", identity).returncode == 0:
            raise Taken(
                f"{self.name} has a container {identity} already, perhaps a stopped one: remove it by"
                f" `{self.name} delete {identity}`, or choose another --name"
            )

    def create(self, identity: str, bundle: Path, *, interactive: bool, terminal: bool) -> tuple[int, int | None]:
        """Make a container that waits to be started: its process, and the caller's end of its terminal.

        The process is the caller's child, if that reaps orphans. Raises `NotStarted`.
        """
        with _Console(bundle) as console:
            argv = ["create", "--bundle", str(bundle), "--pid-file", str(bundle / "pid")]
            if terminal:
                argv += ["--console-socket", console.path]
            done = subprocess.run(
                [self.path, *self._options(), "--log", str(bundle / "log"), *argv, identity],
                stdin=None if interactive and not terminal else subprocess.DEVNULL,
                # Ctrl-C is for the command, once it runs.
                start_new_session=True,
                preexec_fn=None if self.cgroups else _hide_cgroups,
                check=False,
            )
            self._refuse_failed(done.returncode, bundle)
            return int((bundle / "pid").read_text()), console.accept() if terminal else None

    def start(self, identity: str, bundle: Path) -> None:
        """Let the command run. Raises `NotStarted`."""
        argv = [self.path, *self._options(), "--log", str(bundle / "log"), "start", identity]
        self._refuse_failed(subprocess.run(argv, start_new_session=True, check=False).returncode, bundle)

    def delete(self, identity: str) -> None:
        """Forget a container; it may be gone already."""
        self._call("delete", "--force", identity)

    def _call(self, *argv: str) -> subprocess.CompletedProcess[str]:
        argv = (self.path, *self._options(), *argv)
        return subprocess.run(argv, stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False)

    def _options(self) -> list[str]:
        return [] if self.cgroups else ["--cgroup-manager=disabled"]

    def _refuse_failed(self, code: int, bundle: Path) -> None:
        if code:
            with suppress(OSError):
                words = (bundle / "log").read_text()
                raise NotStarted(f"{self.name} could not start the container", failure_code(words))
            raise Refused(f"{self.name} ended with code {code}")


def _hide_cgroups() -> None:
    """In the runtime's process: cover the control groups by an empty tmpfs, which crun takes for a layout it knows."""
    unshare(CLONE_NEWNS)
    make_mounts_private()
    mount("tmpfs", _CGROUPS, "tmpfs", data="mode=0555")


class _Console:
    """The socket that a runtime hands a container's terminal over."""

    def __init__(self, bundle: Path) -> None:
        self._directory = os.open(bundle, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
        # A socket's path has 107 bytes at most, and a bundle's may be longer.
        self.path = f"/proc/{os.getpid()}/fd/{self._directory}/console"
        self._socket = socket.socket(socket.AF_UNIX)
        self._socket.bind(self.path)
        self._socket.listen(1)

    def __enter__(self) -> _Console:
        return self

    def __exit__(self, *_: object) -> None:
        self._socket.close()
        os.unlink(self.path)
        os.close(self._directory)

    def accept(self) -> int:
        """The terminal, once the runtime has ended well."""
        connection, _ = self._socket.accept()
        with connection:
            _, fds, _, _ = socket.recv_fds(connection, 4096, 1)
        return fds[0]
