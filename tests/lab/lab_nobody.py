"""Commands by user nobody, from tests that run as root.

python lab_nobody.py DIRECTORY CMD...      in a lab's node, where only a command can be started
"""

from __future__ import annotations

import os
import pwd
import stat
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import berth
from berth.lab import syscalls


class Nobody:
    """Runs commands as user nobody, who has a directory of his own.

    He has to find the interpreter and Berth where root has them, and that is often below /root, which is closed to
    him. So his commands see a mount namespace in which the way there is open and leads to nothing else; on the
    machine no permission changes.
    """

    def __init__(self, directory: Path) -> None:
        self._user = pwd.getpwnam("nobody")
        self.uid = self._user.pw_uid
        self.directory = directory
        os.chown(directory, self.uid, self._user.pw_gid)

    def run(self, argv: Sequence[str], timeout: float) -> subprocess.CompletedProcess[str]:
        """Run a command to its end, within so many seconds; labs are kept in `directory`/labs."""
        environment = {"PATH": "/usr/bin:/bin", "BERTH_LAB_DIR": str(self.directory / "labs"), "LC_ALL": "C.UTF-8"}
        return subprocess.run(
            argv, capture_output=True, text=True, timeout=timeout, env=environment, cwd="/", preexec_fn=self.step_down
        )

    def step_down(self) -> None:
        """Become him, with his view of the files."""
        syscalls.unshare(syscalls.CLONE_NEWNS)
        syscalls.mount("", "/", flags=syscalls.MS_REC | syscalls.MS_PRIVATE)
        os.umask(0o022)
        needed = {path: os.open(path, os.O_PATH) for path in sorted(self._needed())}
        for closed in sorted({parent for path in needed for parent in path.parents}):
            # One inside another is gone by now, and made anew below, open.
            if closed.exists() and not closed.stat().st_mode & stat.S_IXOTH:
                syscalls.mount("tmpfs", str(closed), "tmpfs", data="mode=755")
        for path, there in needed.items():
            if not path.exists():
                path.mkdir(parents=True)
                syscalls.mount(f"/proc/self/fd/{there}", str(path), flags=syscalls.MS_BIND | syscalls.MS_REC)
            os.close(there)
        os.setgroups([])
        os.setgid(self._user.pw_gid)
        os.setuid(self.uid)

    def _needed(self) -> set[Path]:
        """The interpreter, its libraries, Berth and the directory: as they are called, and where links lead."""
        named = {Path(sys.prefix), Path(sys.base_prefix), Path(berth.__file__).parents[1], self.directory}
        return named | {path.resolve() for path in named}


if __name__ == "__main__":
    Nobody(Path(sys.argv[1])).step_down()
    os.execvp(sys.argv[2], sys.argv[2:])
