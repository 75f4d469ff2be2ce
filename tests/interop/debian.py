"""A Debian on a lab's node: the tree's programs, with files, processes and mounts of their own.

    with Debian(lab, "host", files) as debian:
        debian.run(["ifup", "-a"], check=True)

Its root directory is a copy that is written to in memory: nothing of it is left.
"""

from __future__ import annotations

import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from berth.errors import Refused
from berth.hostconfig import File
from berth.lab.session import Inside, Session
from hosts import net_tree

_NULL, _PIPE = subprocess.DEVNULL, subprocess.PIPE

# $1 the tree. The root directory is pivoted to: with chroot alone its programs would find the way out.
_KEEPER = """
read pid rest </proc/self/stat
mount --make-rprivate /
mount -t tmpfs tmpfs /mnt
mkdir /mnt/upper /mnt/work /mnt/root
mount -t overlay -o "lowerdir=$1,upperdir=/mnt/upper,workdir=/mnt/work" overlay /mnt/root
cd /mnt/root
mount -t proc proc proc
mount -t sysfs sysfs sys
mount --rbind /dev dev
mount -t tmpfs tmpfs run
mount -t tmpfs tmpfs tmp
pivot_root . mnt
umount --lazy /mnt
mkdir -p /run/network /run/dbus
echo "$pid"
exec sleep infinity
"""


class Debian:
    """A tree's programs on a node, for the length of a `with` block; all that they started ends with it."""

    def __init__(self, lab: Session, node: str, files: Mapping[str, File], tree: Path | None = None) -> None:
        """`tree`: another than the one of the systems that configure a host's network."""
        self._lab, self._node, self._files, self._tree = lab, node, files, tree
        self._keeper: Inside | None = None
        self._pid = ""  # the keeper's, as the lab counts

    def __enter__(self) -> Self:
        apart = ["unshare", "--mount", "--pid", "--fork", "--kill-child", "--propagation", "unchanged"]
        argv = [*apart, "sh", "-ec", _KEEPER, "keeper", str(self._tree or net_tree())]
        self._keeper = self._lab.popen(self._node, argv, stdin=_NULL, stdout=_PIPE, text=True)
        assert self._keeper.stdout is not None
        self._pid = self._keeper.stdout.readline().strip()
        assert self._pid, "it has no root directory of its own"
        self.write(self._files)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        assert self._keeper is not None and self._keeper.stdout is not None
        self._keeper.kill()
        self._keeper.wait()
        self._keeper.stdout.close()

    @property
    def root(self) -> Path:
        """Its root directory, as other programs in the lab see it."""
        return Path(f"/proc/{self._pid}/root")

    def write(self, files: Mapping[str, File]) -> None:
        """Write files below its root directory."""
        script = 'mkdir -p "$(dirname "$1")"; cat >"$1"; chmod "$2" "$1"'
        for path, file in files.items():
            self.run(["sh", "-ec", script, "write", f"/{path}", f"{file.mode:o}"], input=file.text, check=True)

    def remove(self, *paths: str) -> None:
        """Remove files below its root directory."""
        self.run(["rm", "-f", *(f"/{path}" for path in paths)], check=True)

    def run(
        self, argv: Sequence[str], *, input: str | None = None, timeout: float = 60, check: bool = False
    ) -> subprocess.CompletedProcess[str]:
        """Run a command of it to its end; `check` raises, with all it said, if it failed."""
        done = self._lab.run(self._node, self._inside(argv), input=input, env=_VARIABLES, timeout=timeout)
        if check and done.returncode:
            raise Refused(f"`{' '.join(argv)}` ended with {done.returncode}: {done.stdout}{done.stderr}")
        return done

    def popen(self, argv: Sequence[str], **options: Any) -> Inside:
        """Start a command of it; `options` are those of `subprocess.Popen`."""
        return self._lab.popen(self._node, self._inside(argv), env=_VARIABLES, **options)

    def _inside(self, argv: Sequence[str]) -> list[str]:
        return ["nsenter", f"--target={self._pid}", "--mount", "--pid", "--wdns=/", "--", *argv]


_VARIABLES = {"PATH": "/usr/sbin:/usr/bin:/sbin:/bin", "HOME": "/root", "LC_ALL": "C.UTF-8"}
