"""`berth map` of a host with a LAN's NIC and a private network; and the sign of life of what takes long."""

from __future__ import annotations

import fcntl
import json
import os
import pty
import re
import signal
import subprocess
import xml.etree.ElementTree as ElementTree
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import pytest

from .conftest import Host, sh
from .running import BERTH, until


@pytest.fixture
def berth(host: Host, tmp_path: Path) -> Callable[..., subprocess.CompletedProcess[str]]:
    environment = {**os.environ, "BERTH_STATE": str(tmp_path / "state"), "BERTH_RUN": "/run/berth"}

    def run(*words: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run([BERTH, *words], env=environment, capture_output=True, text=True, check=False)

    return run


def test_the_map_shows_what_is_there(
    berth: Callable[..., subprocess.CompletedProcess[str]], host: Host, tmp_path: Path
) -> None:
    sh(
        "ip link add br0 type bridge; ip link add nic0 address 02:00:00:00:07:01 type veth peer name away0\n"
        "ip link set nic0 master br0; ip addr add 192.168.7.2/24 dev br0\n"
        "ip link set br0 up; ip link set nic0 up; ip link set away0 up; ip route add default via 192.168.7.1"
    )
    host.sandbox("c1")
    host.sandbox("c2")
    assert berth("network", "create", "--driver", "flat", "-o", "parent=br0", "lan").returncode == 0
    assert berth("network", "create", "--subnet", "10.9.0.0/24", "-o", "bridge=priv0", "n1").returncode == 0
    assert berth("attach", "lan", "c1", "--name", "web").returncode == 0
    assert berth("attach", "n1", "c2", "--name", "db", "-p", "8080:80").returncode == 0
    assert berth("map").stdout.splitlines()[1:] == [
        "├─ router 192.168.7.1   through br0",
        "├─ nic0 in br0   192.168.7.2/24",
        "├─ lan   flat on br0   192.168.7.0/24   through nic0",
        "│  └─ web   192.168.7.3",
        "└─ n1   bridge on priv0   10.9.0.0/24   through nic0",
        "   └─ db   10.9.0.2   8080→80/tcp",
    ]
    sh(
        "ip neigh add 192.168.7.9 lladdr 00:00:5e:00:53:09 dev br0 nud stale\n"
        "ip neigh add 192.168.7.8 dev br0 nud failed"
    )
    sh("ip neigh add 192.168.7.3 lladdr 02:00:00:00:00:09 dev br0 nud reachable")  # web, whom the map has already
    assert "├─ seen   192.168.7.9   00:00:5e:00:53:09   on br0" in "\n".join(
        re.sub(r"  +[A-Z].*   on", "   on", line) for line in berth("map").stdout.splitlines()
    ), "a machine that is known by a vendor's list, or not"
    assert berth("map").stdout.count("seen") == 1
    seen = json.loads(berth("map", "--json").stdout)
    assert [nic["mac"] for nic in seen["nics"]] == ["02:00:00:00:07:01"]
    assert [node["ports"] for net in seen["segments"] for node in net["nodes"]] == [[], ["8080→80/tcp"]]
    picture = tmp_path / "map.svg"
    assert berth("map", "--svg", str(picture)).returncode == 0
    ElementTree.fromstring(picture.read_text())
    assert "8080→80/tcp" in picture.read_text()
    refused = berth("map", "--svg", "/no/such/place.svg")
    assert refused.returncode == 1 and refused.stderr.startswith("berth: cannot write /no/such/place.svg: ")


@pytest.mark.parametrize("words", [["reconcile"], ["network", "create", "n1"]], ids=" ".join)
@pytest.mark.parametrize("terminal", [True, False])
def test_what_waits_says_so_at_a_terminal_only(host: Host, tmp_path: Path, terminal: bool, words: list[str]) -> None:
    state = tmp_path / "state"
    state.mkdir()
    environment = {**os.environ, "BERTH_STATE": str(state), "BERTH_RUN": "/run/berth"}
    ours, theirs = pty.openpty() if terminal else os.pipe()
    os.set_blocking(ours, False)
    said = b""

    def hear() -> bool:
        nonlocal said
        with suppress(OSError):  # nothing yet, or hung up
            said += os.read(ours, 4096)
        return b" \xe2\x80\xa6 1 s" in said

    with (state / "berth.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)  # somebody is at work
        process = subprocess.Popen([BERTH, *words], env=environment, stdout=subprocess.DEVNULL, stderr=theirs)
        try:
            if terminal:
                until(hear)
            else:
                with pytest.raises(subprocess.TimeoutExpired):
                    process.wait(3)
            fcntl.flock(lock, fcntl.LOCK_UN)
            assert process.wait(20) == 0
            hear()
            assert said.endswith(b"\r\x1b[K") if terminal else said == b""
        finally:
            process.kill()
            process.wait()
            os.close(ours)
            os.close(theirs)


def _interruptible() -> None:
    """A shell's background commands ignore SIGINT, and so do all that they start: these tests may be among them."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)


def test_the_map_is_drawn_again_when_something_changes_and_ends_on_ctrl_c(host: Host, tmp_path: Path) -> None:
    environment = {**os.environ, "BERTH_STATE": str(tmp_path / "state"), "BERTH_RUN": "/run/berth", "TERM": "xterm"}
    ours, theirs = pty.openpty()
    os.set_blocking(ours, False)
    watch = [str(BERTH), "map", "--watch"]
    process = subprocess.Popen(watch, env=environment, stdout=theirs, stderr=theirs, preexec_fn=_interruptible)
    said = b""

    def hear() -> bytes:
        nonlocal said
        with suppress(OSError):  # nothing yet, or hung up
            said += os.read(ours, 65536)
        return said

    try:
        until(lambda: hear().count(b"\x1b[2J") == 1)
        words = ["network", "create", "--subnet", "10.9.0.0/24", "late"]
        subprocess.run([BERTH, *words], env=environment, check=True, capture_output=True)
        until(lambda: hear().count(b"\x1b[2J") >= 2 and b"late" in said.rpartition(b"\x1b[2J")[2])
        process.send_signal(signal.SIGINT)
        assert process.wait(10) == 130
        assert b"Traceback" not in hear()
    finally:
        process.kill()
        process.wait()
        os.close(ours)
        os.close(theirs)


def test_nobody_watches_where_no_terminal_is(
    berth: Callable[..., subprocess.CompletedProcess[str]], host: Host
) -> None:
    refused = berth("map", "--watch")
    assert refused.returncode == 2 and "--watch draws on a terminal, and this is none" in refused.stderr


def test_a_picture_is_kept_up_to_date_without_a_terminal(host: Host, tmp_path: Path) -> None:
    environment = {**os.environ, "BERTH_STATE": str(tmp_path / "state"), "BERTH_RUN": "/run/berth"}
    picture = tmp_path / "map.svg"
    watch = [str(BERTH), "map", "--watch", "--svg", str(picture)]
    process = subprocess.Popen(watch, env=environment, preexec_fn=_interruptible)
    try:
        until(picture.exists)
        words = ["network", "create", "--subnet", "10.9.0.0/24", "late"]
        subprocess.run([BERTH, *words], env=environment, check=True, capture_output=True)
        until(lambda: "late" in picture.read_text())
    finally:
        process.send_signal(signal.SIGINT)
        assert process.wait(10) == 130
