"""`berth run --rootfs`: containers by real OCI runtimes; and all of it without root."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from . import running
from .conftest import sh
from .running import BERTH, PATIENCE, Runs, line, until

pytestmark = pytest.mark.timeout(60)

runs, roots, runtime = running.runs, running.roots, running.runtime


def test_a_container(runs: Runs, roots: Path, runtime: str) -> None:
    script = "hostname; ls /sys/class/net; cat /etc/hosts /etc/hostname; ip -4 -o addr show eth0; ls /; exit 9"
    done = runs.run("lan", "--name", "web", "--rootfs", str(roots), "--rm", "--", "sh", "-c", script)
    assert (done.returncode, done.stderr) == (9, "")
    own, eth0, lo, *rest = done.stdout.splitlines()
    assert (own, eth0, lo) == ("web", "eth0", "lo")
    assert "10.77.0.2\tweb" in rest
    assert "10.77.0.2/24" in done.stdout
    assert not {"home", "usr"} & set(rest)
    assert sh(f"{runtime} list -q").split() == []
    assert os.listdir("/run/berth/bundles") == []
    assert runs.endpoints() == []


def test_a_container_is_kept(runs: Runs, roots: Path, runtime: str) -> None:
    argv = ("none", "--name", "kept", "--rootfs", str(roots), "--", "true")
    runs.says(*argv)
    assert json.loads(sh(f"{runtime} state kept"))["status"] == "stopped"
    again = runs.run(*argv)
    assert again.returncode == 2
    assert f"{runtime} delete kept" in again.stderr
    sh(f"{runtime} delete kept")
    runs.says(*argv)


def test_a_containers_commands_that_cannot_be_run(runs: Runs, roots: Path, runtime: str) -> None:
    for command, code in (("nosuch", 127), ("/bin", 126)):
        done = runs.run("lan", "--name", "web", "--rootfs", str(roots), "--", command)
        assert done.returncode == code
        assert done.stderr
    assert sh(f"{runtime} list -q").split() == []
    assert runs.endpoints() == []


def test_a_containers_streams_and_signals(runs: Runs, roots: Path, runtime: str) -> None:
    options = ("--rootfs", str(roots), "--rm")
    assert runs.run("none", *options, "-i", "--", "cat", stdin="hello").stdout == "hello"
    assert runs.run("none", *options, "--", "cat", stdin="hello").stdout == ""
    script = "trap 'echo USR1; exit 3' USR1; echo ready; while :; do sleep 0.05; done"
    process = runs.start("none", *options, "--", "sh", "-c", script)
    assert line(process.stdout) == "ready"
    process.send_signal(signal.SIGUSR1)
    assert line(process.stdout) == "USR1"
    assert process.wait(PATIENCE) == 3


_ESCAPES = """
grep NoNewPrivs /proc/self/status
ls /proc/1/root/ && echo sees the host\\'s files
echo 1 > /proc/sys/kernel/sysrq && echo sets the kernel up
head -c 1 /proc/kcore && echo reads the memory
mknod /disk b 254 0 && head -c 1 /disk && echo reads a disk
rm -f /disk
mount -t tmpfs x /tmp && echo mounts
"""


def test_a_container_is_confined(runs: Runs, roots: Path, runtime: str) -> None:
    done = runs.run("lan", "--rootfs", str(roots), "--rm", "--", "sh", "-c", _ESCAPES)
    assert done.stdout == "NoNewPrivs:\t1\n"


def test_no_container_outlives_a_kill(runs: Runs, roots: Path, runtime: str) -> None:
    mark = f"6{time.monotonic_ns() % 10**9:09}"

    def running() -> bool:
        return any(mark in text.read_text(errors="replace") for text in _command_lines())

    process = runs.start(
        "lan", "--name", "web", "--rootfs", str(roots), "--", "sh", "-c", f"echo ready; setsid sleep {mark} & sleep 60"
    )
    assert line(process.stdout) == "ready"
    until(running)
    assert runs.says("container:web", "--", "cat", "/etc/hosts").endswith("fd77::2\tweb\n")
    process.kill()
    process.wait()
    until(lambda: not running())
    assert json.loads(sh(f"{runtime} state web"))["status"] == "stopped"


def _command_lines() -> Iterator[Path]:
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            path.read_bytes()
        except OSError:
            continue
        yield path


def test_what_a_container_leaves_behind_ends_with_it(runs: Runs, roots: Path) -> None:
    script = "setsid sleep 60 & exit 4"
    assert runs.run("lan", "--rootfs", str(roots), "--rm", "--", "sh", "-c", script).returncode == 4
    assert runs.left() == []


def test_a_root_file_system_needs_a_runtime(runs: Runs, roots: Path) -> None:
    for name in ("crun", "runc"):
        if there := shutil.which(name):
            sh(f"mount --bind /dev/null {there}")
    done = runs.run("none", "--rootfs", str(roots), "--", "true")
    assert done.returncode == 2
    assert "apt install crun" in done.stderr


# --- without root ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("options", ["", "--rootfs {root} --rm"])
def test_in_a_user_namespace(runs: Runs, roots: Path, tmp_path: Path, options: str) -> None:
    script = f"""
    mount -t tmpfs run /run
    ip link set lo up
    export BERTH_STATE={tmp_path}/nested
    {BERTH} network create --subnet 10.80.0.0/24 lan > /dev/null
    {BERTH} run --network lan --name web {options.format(root=roots)} -- \\
        sh -c "hostname; ip -4 -o addr show eth0; exit 5"
    echo $?
    """
    seen = subprocess.run(
        ["unshare", "-rnm", "sh", "-c", script], capture_output=True, text=True, timeout=30, check=False
    )
    assert seen.stderr == ""
    hostname, address, code = seen.stdout.splitlines()
    assert (hostname, code) == ("web", "5")
    assert "10.80.0.2/24" in address


def test_where_the_kernel_refuses_a_new_proc_and_sys(runs: Runs, tmp_path: Path) -> None:
    """As in a container that hides parts of them: a new mount would show the hidden parts."""
    nested = f"BERTH_STATE={tmp_path}/nested {BERTH} run --network none -- sh -c 'hostname; exit 5'"
    hide = "for hidden in /proc/fs /sys/kernel; do mount -t tmpfs hide $hidden; done"
    script = f'{hide}; exec unshare -rnm sh -c "{nested}"'
    seen = subprocess.run(
        ["unshare", "-rnm", "sh", "-c", script], capture_output=True, text=True, timeout=30, check=False
    )
    assert seen.returncode == 5
    assert [warning.split(":")[:3] for warning in seen.stderr.splitlines()] == [
        ["berth", " warning", " the kernel refused a new /sys"],
        ["berth", " warning", " the kernel refused a new /proc"],
    ]
