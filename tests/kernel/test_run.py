"""`berth run` with real processes and namespaces, and the real engine."""

from __future__ import annotations

import json
import os
import re
import signal
from collections.abc import Callable
from pathlib import Path

import pytest

from . import running
from .conftest import Host, sh
from .running import BERTH, PATIENCE, Runs, line, until

pytestmark = pytest.mark.timeout(60)

runs = running.runs


def test_a_command_on_a_network(runs: Runs, host: Host) -> None:
    links = len(host.ip("link"))
    seen = runs.says("lan", "--name", "web", "--", "sh", "-c", "ip -j addr show eth0; ip -j route")
    addresses, routes = (json.loads(document) for document in seen.splitlines())
    assert {entry["local"] for entry in addresses[0]["addr_info"]} >= {"10.77.0.2", "fd77::2"}
    assert any(route["dst"] == "default" and route["gateway"] == "10.77.0.1" for route in routes)
    assert runs.endpoints() == []
    assert len([link for link in host.ip("link") if "UP" in link["flags"]]) <= links


def test_the_host_reaches_it(runs: Runs) -> None:
    process = runs.start("lan", "--", "sh", "-c", "echo ready; sleep 60")
    assert line(process.stdout) == "ready"
    sh("ping -c 1 -W 5 10.77.0.2")


def test_exposed_ports_are_published(runs: Runs) -> None:
    """On free host ports, but for those that are published already."""
    words = "--name web -p 8080:80 -P --expose 80 --expose 443 --expose 9000-9001/udp"
    process = runs.start("lan", *words.split(), "--", "sh", "-c", "echo ready; sleep 60")
    assert line(process.stdout) == "ready"
    rows = json.loads(runs.berth("port", "ls", "--json").stdout)
    assert [(row["port"], row["proto"]) for row in rows] == [(80, "tcp"), (443, "tcp"), (9000, "udp"), (9001, "udp")]
    assert rows[0]["host_port"] == 8080
    assert all(32768 <= row["host_port"] < 61000 for row in rows[1:])


@pytest.mark.parametrize(
    ("network", "words", "complaint"),
    [
        ("lan", "-P", "name them with --expose"),
        ("lan", "--expose 80", "add -P"),
        ("lan", "-P --expose 8080:80", "names a host port"),
        ("none", "-P --expose 80", "only a network can give"),
        ("host", "--driver-opt egress_rate=1mbit", "only a network can give"),
    ],
)
def test_what_cannot_be_exposed(runs: Runs, network: str, words: str, complaint: str) -> None:
    done = runs.run(network, *words.split(), "--", "true")
    assert (done.returncode, done.stdout) == (2, "")
    assert complaint in done.stderr


def test_a_rate_of_its_own(runs: Runs, host: Host) -> None:
    options = ("--driver-opt", "ingress_rate=10mbit", "--driver-opt", "egress_rate=20mbit")
    process = runs.start("lan", *options, "--", "sh", "-c", "echo ready; sleep 60")
    assert line(process.stdout) == "ready"
    (cable,) = [link for link in host.ip("link") if link["ifname"].startswith("bv")]
    assert cable["qdisc"] == "tbf"
    assert f"table netdev berth_rate_{cable['ifname']}" in sh("nft list ruleset")
    process.terminate()
    process.wait(PATIENCE)
    assert "berth_rate_" not in sh("nft list ruleset")


def test_exit_code(runs: Runs) -> None:
    assert runs.run("none", "--", "sh", "-c", "exit 7").returncode == 7
    assert runs.run("none", "--", "sh", "-c", "kill -SEGV $$").returncode == 128 + signal.SIGSEGV


def test_commands_that_cannot_be_run(runs: Runs) -> None:
    missing, no_program = runs.run("none", "--", "nosuch"), runs.run("none", "--", "/etc/passwd")
    assert (missing.returncode, missing.stderr) == (127, "berth: cannot run nosuch: No such file or directory\n")
    assert (no_program.returncode, no_program.stderr) == (126, "berth: cannot run /etc/passwd: Permission denied\n")


KINDS = ("ipc", "mnt", "net", "pid", "uts")


def namespaces_of(text: str) -> dict[str, str]:
    return dict(found.split(":") for found in text.split())


def namespaces_outside() -> dict[str, str]:
    return namespaces_of("\n".join(os.readlink(f"/proc/thread-self/ns/{kind}") for kind in KINDS))


LOOK = ("--", "sh", "-c", "cd /proc/self/ns && readlink " + " ".join(KINDS))


def test_namespaces_are_its_own(runs: Runs) -> None:
    inside, outside = namespaces_of(runs.says("lan", *LOOK)), namespaces_outside()
    assert {kind for kind in KINDS if inside[kind] != outside[kind]} == set(KINDS)


def test_on_the_hosts_network(runs: Runs) -> None:
    inside, outside = namespaces_of(runs.says("host", *LOOK)), namespaces_outside()
    assert {kind for kind in KINDS if inside[kind] == outside[kind]} == {"net"}
    seen = runs.says("host", "--", "sh", "-c", "hostname; cat /etc/hosts")
    assert seen == f"{os.uname().nodename}\n{Path('/etc/hosts').read_text()}"
    assert (
        runs.says("host", "--hostname", "h", "--", "sh", "-c", "hostname; getent hosts h") == "h\n127.0.1.1       h\n"
    )


def test_a_network_that_is_the_hosts_own(runs: Runs) -> None:
    runs.berth("network", "create", "--driver", "host", "outside")
    inside = namespaces_of(runs.says("outside", *LOOK))
    assert inside["net"] == namespaces_outside()["net"]
    assert runs.run("outside", "-p", "80:80", "--", "true").returncode == 2


def test_without_a_network(runs: Runs) -> None:
    seen = json.loads(runs.says("none", "--", "ip", "-j", "addr"))
    assert [(link["ifname"], "UP" in link["flags"]) for link in seen] == [("lo", True)]
    assert {entry["local"] for entry in seen[0]["addr_info"]} == {"127.0.0.1", "::1"}


def test_proc_and_sys_are_of_the_sandbox(runs: Runs) -> None:
    seen = runs.says(
        "lan", "--", "sh", "-c", "echo /sys/class/net/*; echo /proc/[0-9]*; cat /proc/1/comm; ls /sys/fs/cgroup"
    )
    links, processes, init, *cgroups = seen.splitlines()
    assert links == "/sys/class/net/eth0 /sys/class/net/lo"
    assert processes == "/proc/1 /proc/2"
    assert init == "berth-init"
    assert cgroups == sorted(os.listdir("/sys/fs/cgroup"))


def test_mounts_stay_inside(runs: Runs) -> None:
    before = Path("/proc/self/mountinfo").read_text()
    runs.says("lan", "--", "mount", "-t", "tmpfs", "inside", "/mnt")
    assert Path("/proc/self/mountinfo").read_text() == before


def test_hostname(runs: Runs) -> None:
    assert runs.says("lan", "--name", "web", "--", "hostname") == "web\n"
    assert runs.says("lan", "--name", "web", "--hostname", "www.example", "--", "hostname") == "www.example\n"
    assert re.fullmatch("[0-9a-f]{12}\n", runs.says("none", "--", "hostname"))
    own, *endpoints = runs.says("lan", "--", "sh", "-c", f"hostname; {BERTH} endpoint ls").splitlines()
    assert re.fullmatch("[0-9a-f]{12}", own)
    assert own in endpoints[-1]


def test_own_name_resolves(runs: Runs) -> None:
    seen = runs.says("lan", "--name", "web", "--hostname", "www", "--", "cat", "/etc/hosts")
    assert seen.splitlines()[2:] == ["10.77.0.2\twww web", "fd77::2\twww web"]
    assert runs.says("none", "--name", "web", "--", "getent", "hosts", "web").startswith("127.0.1.1 ")


@pytest.fixture
def resolver(runs: Runs, tmp_path: Path) -> Callable[[str], None]:
    """Gives the host other resolver settings."""

    def set_to(text: str) -> None:
        file = tmp_path / "resolv.conf"
        file.write_text(text)
        sh(f"mount --bind {file} /etc/resolv.conf")

    return set_to


def test_resolver(runs: Runs, resolver: Callable[[str], None]) -> None:
    resolver("search lan\nnameserver 127.0.0.1\nnameserver 9.9.9.9\n")
    assert runs.says("lan", "--", "tail", "-n", "+2", "/etc/resolv.conf") == "search lan\nnameserver 9.9.9.9\n"
    resolver("nameserver 127.0.0.1\n")
    seen = runs.says("lan", "--", "tail", "-n", "+2", "/etc/resolv.conf")
    assert seen == "nameserver 10.77.0.1\nnameserver fd77::1\n"
    resolver("nameserver 127.0.0.53\n")
    Path("/run/systemd/resolve").mkdir(parents=True)
    Path("/run/systemd/resolve/resolv.conf").write_text("nameserver 9.9.9.10\n")
    assert runs.says("lan", "--", "tail", "-n", "+2", "/etc/resolv.conf") == "nameserver 9.9.9.10\n"
    assert Path("/etc/resolv.conf").read_text() == "nameserver 127.0.0.53\n"


# --- streams, signals, ends -----------------------------------------------------------------------------


def test_input_is_read_only_when_asked_for(runs: Runs) -> None:
    assert runs.run("none", "-i", "--", "cat", stdin="hello").stdout == "hello"
    assert runs.run("none", "--", "sh", "-c", "cat; readlink /proc/self/fd/0", stdin="hello").stdout == "/dev/null\n"


def test_output_ends_with_the_command(runs: Runs) -> None:
    """Not only when the sandbox is gone: whoever reads need not wait for that."""
    process = runs.start("none", "--", "echo", "done")
    assert process.stdout is not None
    assert process.stdout.read() == "done\n"
    assert process.wait(PATIENCE) == 0


@pytest.mark.parametrize("name", ["TERM", "INT", "HUP", "QUIT", "USR1", "USR2"])
def test_signals_are_passed_on(runs: Runs, name: str) -> None:
    script = f"trap 'echo {name}; exit 3' {name}; echo ready; while :; do sleep 0.05; done"
    process = runs.start("none", "--", "sh", "-c", script)
    assert line(process.stdout) == "ready"
    process.send_signal(getattr(signal, f"SIG{name}"))
    assert line(process.stdout) == name
    assert process.wait(PATIENCE) == 3


def test_a_signal_that_ends_the_command(runs: Runs) -> None:
    process = runs.start("lan", "--", "sh", "-c", "echo ready; exec sleep 60")
    assert line(process.stdout) == "ready"
    process.terminate()
    assert process.wait(PATIENCE) == 128 + signal.SIGTERM
    assert runs.endpoints() == []


def test_signals_are_as_a_program_expects_them(runs: Runs) -> None:
    """Python ignores SIGPIPE, and its children would."""
    status = dict(entry.split(":", 1) for entry in runs.says("none", "--", "cat", "/proc/self/status").splitlines())
    assert {int(status[mask], 16) for mask in ("SigBlk", "SigIgn", "SigCgt")} == {0}


def test_what_the_command_leaves_behind_ends_with_it(runs: Runs) -> None:
    process = runs.start("lan", "--", "sh", "-c", "setsid sleep 60 & exit 4")
    assert process.wait(PATIENCE) == 4
    assert runs.left() == []


def test_orphans_are_buried(runs: Runs) -> None:
    script = "(true & true & true &); sleep 0.3; grep -l 'State:.Z' /proc/[0-9]*/status; echo checked"
    assert runs.says("none", "--", "sh", "-c", script) == "checked\n"


def test_nothing_outlives_a_kill(runs: Runs) -> None:
    process = runs.start("lan", "--name", "web", "--", "sh", "-c", "setsid sleep 60 & echo ready; sleep 60")
    assert line(process.stdout) == "ready"
    until(lambda: len(runs.left()) >= 4)  # the last of them begins after that word
    process.kill()
    until(lambda: not runs.left())
    assert runs.endpoints() == ["web"]
    assert runs.berth("reconcile").returncode == 0
    assert runs.endpoints() == []


def test_init_killed(runs: Runs) -> None:
    process = runs.start("lan", "--", "sh", "-c", "echo ready; sleep 60")
    assert line(process.stdout) == "ready"
    children = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()
    os.kill(int(children[0]), signal.SIGKILL)
    assert process.wait(PATIENCE) == 128 + signal.SIGKILL
    assert runs.endpoints() == []


def test_nothing_is_left_when_it_cannot_be_attached(runs: Runs) -> None:
    done = runs.run("lan", "--ip", "10.99.0.1", "--", "echo", "never")
    assert (done.returncode, done.stdout) == (2, "")
    assert "10.99.0.1" in done.stderr
    assert runs.left() == []
    assert runs.endpoints() == []
    assert runs.run("nosuch", "--", "true").returncode == 2


def test_a_second_network_is_left_too(runs: Runs) -> None:
    runs.berth("network", "create", "--subnet", "10.78.0.0/24", "other")
    process = runs.start("none", "--", "sh", "-c", "echo ready; read _ < /dev/zero & sleep 60")
    assert line(process.stdout) == "ready"
    child = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()[0]
    assert runs.berth("attach", "other", f"pid:{child}").returncode == 0
    assert len(runs.endpoints()) == 1
    process.terminate()
    process.wait(PATIENCE)
    assert runs.endpoints() == []


# --- another's network ----------------------------------------------------------------------------------


def test_join_an_endpoint(runs: Runs) -> None:
    process = runs.start(
        "lan", "--name", "web", "--", "sh", "-c", "readlink /proc/self/ns/net /proc/self/ns/uts; sleep 60"
    )
    net, uts = line(process.stdout), line(process.stdout)
    seen = runs.says(
        "container:web", "--", "sh", "-c", "readlink /proc/self/ns/net /proc/self/ns/uts; hostname; cat /etc/hosts"
    )
    assert seen.splitlines()[0] == net
    assert seen.splitlines()[1] != uts
    assert seen.splitlines()[2] == "web"
    assert "10.77.0.2\tweb" in seen
    assert "eth0" in runs.says("container:web", "--", "ls", "/sys/class/net")
    process.terminate()
    process.wait(PATIENCE)
    gone = runs.run("container:web", "--", "true")
    assert gone.returncode == 2
    assert "web" in gone.stderr


def test_join_a_sandbox(runs: Runs, host: Host) -> None:
    there = host.sandbox("c1")
    inode = f"net:[{os.stat(there).st_ino}]\n"
    for text in ("c1", there):
        assert runs.says(f"container:{text}", "--", "readlink", "/proc/self/ns/net") == inode
