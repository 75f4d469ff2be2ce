"""A real Open vSwitch, with its userspace datapath, wherever a test starts it.

    with OpenVSwitch(subprocess.Popen) as switch:
        switch.vsctl("add-br", "ovsbr0", "--", "set", "bridge", "ovsbr0", "datapath_type=netdev")
        os.environ["OVS_RUNDIR"] = str(switch.home)

It comes out of a Debian tree of the tests' and writes nothing but its own directory. Its links are in the network
namespace that it is started in, and go with it.
"""

from __future__ import annotations

import os
import shlex
import shutil
import subprocess
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import hosts
import trees

Spawn = Callable[..., subprocess.Popen[Any]]

_WITHIN = 20  # seconds
# $1 the tree, then a command. By chroot alone it would see its files, but be among the machine's mounts.
_ENTER = """
mount --bind "$1" "$1"
mount -o remount,bind,ro "$1"
for each in dev proc sys tmp; do
    mount --rbind "/$each" "$1/$each"
done
cd "$1"
pivot_root . mnt
mount --make-rprivate /mnt
umount --lazy /mnt
shift
exec "$@"
"""


def patience(seconds: float) -> float:
    """The time limit of a test, or of the making of the tree where there is none yet: any test may have to."""
    return seconds if (trees.cache() / "bookworm-net").exists() else 1800


class OpenVSwitch:
    """ovsdb-server and ovs-vswitchd for the length of a `with` block."""

    def __init__(self, spawn: Spawn) -> None:
        """`spawn`: like `subprocess.Popen`, in the place where it is to run."""
        self._spawn = spawn
        self.home = Path(f"/tmp/berth-ovs-{os.urandom(4).hex()}")
        self._database: subprocess.Popen[Any] | None = None
        self._switch: subprocess.Popen[Any] | None = None

    def __enter__(self) -> Self:
        self.home.mkdir(mode=0o700)
        try:
            self.run("ovsdb-tool", "create", f"{self.home}/conf.db", "/usr/share/openvswitch/vswitch.ovsschema")
            self.start_database()
            self.vsctl("--no-wait", "init")
            self.start_switch()
        except BaseException:
            self.close()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if error is not None:
            error.add_note(f"the log of Open vSwitch:\n{self.log()}")
        self.close()

    # --- the daemons ---

    def start_database(self) -> None:
        """Start ovsdb-server, and wait until it listens."""
        self._database = self._daemon("ovsdb-server", f"{self.home}/conf.db", f"--remote=punix:{self.home}/db.sock")
        _until(lambda: (self.home / "db.sock").exists())

    def start_switch(self) -> None:
        """Start ovs-vswitchd, and wait until it has done all that the database says."""
        self._switch = self._daemon("ovs-vswitchd", f"unix:{self.home}/db.sock", "--disable-system")
        self.vsctl("init")  # waits, unlike with --no-wait

    def stop_switch(self) -> None:
        """End ovs-vswitchd. The database stays."""
        _end(self._switch)
        self._switch = None

    def signal_switch(self, number: int) -> None:
        """Send ovs-vswitchd a signal."""
        assert self._switch is not None
        self._switch.send_signal(number)

    def stop_database(self) -> None:
        """End ovsdb-server."""
        _end(self._database)
        self._database = None
        (self.home / "db.sock").unlink(missing_ok=True)

    def close(self) -> None:
        """End both and remove their directory."""
        self.stop_switch()
        self.stop_database()
        shutil.rmtree(self.home, ignore_errors=True)

    # --- what to ask ---

    def vsctl(self, *args: str) -> str:
        """What `ovs-vsctl …` prints; it must succeed."""
        return self.run("ovs-vsctl", f"--timeout={_WITHIN}", *args)

    def run(self, *argv: str) -> str:
        """What one of Open vSwitch's programs prints; it must succeed."""
        pipe = subprocess.PIPE
        with self._spawn(self.command(argv), stdin=subprocess.DEVNULL, stdout=pipe, stderr=pipe, text=True) as process:
            out, err = process.communicate(timeout=_WITHIN)
        assert process.returncode == 0, f"{shlex.join(argv)}: {err}\n{self.log()}"
        return str(out)

    def ports(self, bridge: str) -> list[str]:
        """The names of a bridge's ports, without its own."""
        return self.vsctl("list-ports", bridge).split()

    def command(self, argv: Sequence[str]) -> list[str]:
        """What starts one of Open vSwitch's programs."""
        where = [f"OVS_{name}DIR={self.home}" for name in ("RUN", "LOG", "DB", "SYSCONF")]
        where.append("PATH=/usr/sbin:/usr/bin:/sbin:/bin")  # else it would find what `shim` made
        return ["unshare", "--mount", "sh", "-ec", _ENTER, "enter", str(hosts.net_tree()), "env", *where, *argv]

    def shim(self, directory: Path) -> None:
        """Write a script `ovs-vsctl`, for a shell that has the directory in its PATH."""
        script = directory / "ovs-vsctl"
        script.write_text(f'#!/bin/sh\nexec {shlex.join(self.command(["ovs-vsctl", f"--timeout={_WITHIN}"]))} "$@"\n')
        script.chmod(0o755)

    def log(self) -> str:
        """The end of what both have said."""
        path = self.home / "log"
        return "\n".join(path.read_text(errors="replace").splitlines()[-30:]) if path.exists() else ""

    def _daemon(self, *argv: str) -> subprocess.Popen[Any]:
        control = f"--unixctl={self.home}/{argv[0]}.ctl"
        with (self.home / "log").open("ab") as log:
            return self._spawn(self.command([*argv, control]), stdin=subprocess.DEVNULL, stdout=log, stderr=log)


def _end(process: subprocess.Popen[Any] | None) -> None:
    if process is None:
        return
    process.terminate()
    try:
        process.wait(_WITHIN)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()


def _until(true: Callable[[], bool]) -> None:
    give_up = time.monotonic() + _WITHIN
    while not true():
        assert time.monotonic() < give_up, f"not within {_WITHIN} s"
        time.sleep(0.01)
