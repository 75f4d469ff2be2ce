"""The lab is a LAN as described, commands run in it as if at home, and nothing of it stays behind."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from ipaddress import IPv4Address, ip_interface
from pathlib import Path
from typing import Any

import pytest
from lab_nobody import Nobody

from berth.errors import Invalid, NotFound, Refused, Taken
from berth.lab.life import stop, up
from berth.lab.record import Record, Records
from berth.lab.session import Lab
from berth.lab.topology import Host, Nic, Node, Switch, Topology, home

pytestmark = pytest.mark.timeout(30)

CLI = [sys.executable, "-c", "from berth.cli.lab import lab; lab()"]
TINY = Topology((Switch("switch"), Node("a", (Nic("eth0", "switch", (ip_interface("10.0.0.1/24"),)),))))
ADDRESSES = {
    "router": ("192.168.2.1", "fd00:2::1"),
    "host": ("192.168.2.2", "fd00:2::2"),
    "laptop": ("192.168.2.50", "fd00:2::50"),
    "internet": ("203.0.113.10", "2001:db8::10"),
}


class Traces:
    """What could remain of a lab, noted while it runs."""

    def __init__(self, lab: Record) -> None:
        inside = Path(f"/proc/{lab.pid}")
        self._pids = (inside / "ns/pid").readlink()
        self._nets = {f"net:[{path.stat().st_ino}]" for path in (inside / "root/run/netns").iterdir()}
        self._files = (Path(lab.work), Path(f"{lab.work}.json"))

    def processes(self) -> list[str]:
        """The processes in the lab's pid namespace, or in one of its networks."""
        found = []
        for process in Path("/proc").glob("[0-9]*"):
            try:
                spaces = (process / "ns/pid").readlink(), (process / "ns/net").readlink()
                if spaces[0] == self._pids or str(spaces[1]) in self._nets:
                    found.append((process / "cmdline").read_text())
            except OSError:  # it has just ended
                continue
        return found

    def pinned(self) -> list[str]:
        """The mounts, in any process's eyes, that keep one of the lab's networks in being."""
        found = []
        for mounts in Path("/proc").glob("[0-9]*/mountinfo"):
            try:
                found += [line for line in mounts.read_text().splitlines() if any(net in line for net in self._nets)]
            except OSError:
                continue
        return found

    def files(self) -> list[Path]:
        """The lab's files."""
        return [path for path in self._files if path.exists()]


@pytest.fixture
def elsewhere(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """A directory of labs of the test's own."""
    monkeypatch.setenv("BERTH_LAB_DIR", str(tmp_path / "labs"))
    return tmp_path / "labs"


@pytest.fixture
def detached(elsewhere: Path) -> Iterator[Record]:
    """A small lab that lives until it is taken down, and is if the test does not."""
    records = Records()
    running = up(records, "detached", TINY)
    yield running
    if records.find("detached"):
        stop(records, "detached")


def cli(*args: str, stdin: str = "") -> subprocess.CompletedProcess[str]:
    return subprocess.run([*CLI, *args], input=stdin, capture_output=True, text=True, timeout=20)


def eventually(holds: Callable[[], bool], within: float = 3) -> bool:
    deadline = time.monotonic() + within
    while not holds():
        if time.monotonic() > deadline:
            return False
        time.sleep(0.01)
    return True


# --- The LAN ---


@pytest.mark.parametrize("version", [4, 6])
@pytest.mark.parametrize("target", ADDRESSES)
@pytest.mark.parametrize("source", ["router", "host", "laptop"])
def test_the_lan_reaches_itself_and_the_internet(lab: Lab, source: str, target: str, version: int) -> None:
    address = ADDRESSES[target][version == 6]
    lab.run(source, ["ping", "-c1", "-W2", address], check=True)


@pytest.mark.parametrize("address", ["203.0.113.1", "2001:db8::1"])
def test_the_internet_reaches_the_router_only(lab: Lab, address: str) -> None:
    lab.run("internet", ["ping", "-c1", "-W2", address], check=True)
    assert lab.run("internet", ["ping", "-c1", "-W1", "192.168.2.50"]).returncode != 0


@pytest.mark.parametrize(("url", "seen"), [("203.0.113.10", "203.0.113.1"), ("[2001:db8::10]", "2001:db8::1")])
def test_the_router_masquerades(lab: Lab, url: str, seen: str) -> None:
    script = f"import urllib.request as u; print(u.urlopen('http://{url}/', timeout=5).read().decode(), end='')"
    assert lab.run("laptop", [sys.executable, "-c", script], check=True).stdout == f"{seen}\n"


@pytest.mark.parametrize("name", ADDRESSES)
def test_names_are_answered(lab: Lab, name: str) -> None:
    for asked in (f"{name}.lab", name):
        answer = lab.run("laptop", ["getent", "ahosts", asked], check=True).stdout.split()
        assert set(ADDRESSES[name]) <= set(answer)


def test_a_lease_can_be_had(lab: Lab) -> None:
    lab.sandbox("guest")
    lab.run("switch", ["ip", "link", "add", "guest", "type", "veth", "peer", "eth0", "netns", "guest"], check=True)
    lab.run("switch", ["ip", "link", "set", "guest", "up", "master", "switch"], check=True)
    lab.run("guest", ["ip", "link", "set", "eth0", "up"], check=True)
    lab.run("guest", ["busybox", "udhcpc", "-nqf", "-i", "eth0", "-s", "/bin/true"], check=True)
    leased = IPv4Address((lab.work / "router/leases").read_text().split()[2])
    assert IPv4Address("192.168.2.200") <= leased <= IPv4Address("192.168.2.250")
    lab.remove_sandbox("guest")


def test_the_host_has_its_address_on_a_bridge(lab: Lab) -> None:
    def show(*args: str) -> Any:
        (found,) = json.loads(lab.run("host", ["ip", "-j", "-d", *args], check=True).stdout)
        return found

    bridge, card = show("addr", "show", "br0"), show("addr", "show", "enp3s0")
    assert bridge["address"] == card["address"]
    assert card["master"] == "br0"
    settings = bridge["linkinfo"]["info_data"]
    assert (settings["forward_delay"], settings["stp_state"]) == (0, 0)
    addresses = {f"{each['local']}/{each['prefixlen']}" for each in bridge["addr_info"] if each["scope"] == "global"}
    assert addresses == {"192.168.2.2/24", "fd00:2::2/64"}
    assert show("-4", "route", "show", "default")["gateway"] == "192.168.2.1"
    assert show("-6", "route", "show", "default")["gateway"] == "fd00:2::1"


def test_more_hosts() -> None:
    with Lab(home(3)) as lab:
        lab.run("host2", ["ping", "-c1", "-W2", "192.168.2.4"], check=True)
        states = {lab.run(host, ["printenv", "BERTH_STATE"], check=True).stdout for host in lab.record.hosts}
        assert len(states) == 3


def test_cards_without_a_switch_are_joined_by_a_cable() -> None:
    ends = (ip_interface("10.0.0.1/30"), ip_interface("10.0.0.2/30"))
    a, b = (Node(name, (Nic("eth0", "cable", (end,)),)) for name, end in zip("ab", ends, strict=True))
    with Lab(Topology((a, b))) as lab:
        lab.run("a", ["ping", "-c1", "-W2", "10.0.0.2"], check=True)


def test_a_loose_end_is_refused() -> None:
    with pytest.raises(Invalid, match=r"wire 'nowhere' is no switch and has 1 end.*: a/eth0"):
        Lab(Topology((Node("a", (Nic("eth0", "nowhere"),)),)))


@pytest.mark.parametrize("hosts", [0, 49])
def test_too_many_hosts_are_refused(hosts: int) -> None:
    with pytest.raises(Invalid, match="1 to 48"):
        home(hosts)


def test_a_lab_that_cannot_be_made_says_why_and_leaves_nothing(elsewhere: Path) -> None:
    with pytest.raises(Refused, match=r"ip .*-batch"):
        Lab(Topology((Host("h", (Nic("much-too-long-a-name", "w"),)), Node("b", (Nic("eth0", "w"),)))))
    assert not elsewhere.exists()


# --- Commands in it ---


def test_a_host_has_directories_of_its_own_and_berth_on_its_path(lab: Lab) -> None:
    variables = dict(line.split("=", 1) for line in lab.run("host", ["env"], check=True).stdout.splitlines())
    for name in ("BERTH_STATE", "BERTH_RUN"):
        assert Path(variables[name]).is_relative_to(lab.work / "host")
        assert Path(variables[name]).is_dir()
        lab.run("host", ["touch", f"{variables[name]}/file"], check=True)  # the same directory inside
        assert Path(variables[name], "file").exists()
    assert variables["PATH"].split(":")[0] == str(Path(sys.executable).parent)


def test_a_sandbox_is_the_labs_own(lab: Lab) -> None:
    lab.sandbox("c1")
    assert "c1" in lab.run("host", ["ls", "/run/netns"]).stdout.split()
    assert not Path("/run/netns/c1").exists()
    assert lab.run("c1", ["ip", "-br", "link"], check=True).stdout.split()[0] == "lo"
    lab.remove_sandbox("c1")
    with pytest.raises(NotFound, match="c1"):
        lab.run("c1", ["true"])


def test_a_deleted_sandbox_is_gone_with_its_links(lab: Lab) -> None:
    """The lab itself keeps no namespace in being."""
    lab.sandbox("c2")
    lab.run("c2", ["true"], check=True)
    lab.run("host", ["ip", "link", "add", "v0", "type", "veth", "peer", "eth0", "netns", "c2"], check=True)
    lab.run("host", ["ip", "netns", "delete", "c2"], check=True)
    assert eventually(lambda: lab.run("host", ["ip", "link", "show", "v0"]).returncode != 0)


def test_a_command_is_given_its_input_and_its_exit_code_comes_back(lab: Lab) -> None:
    done = lab.run("host", ["sh", "-c", "cat; echo oh >&2; exit 7"], input="hello")
    assert (done.returncode, done.stdout, done.stderr) == (7, "hello", "oh\n")
    assert lab.run("host", ["sh", "-c", "kill -KILL $$"]).returncode == -signal.SIGKILL
    with pytest.raises(Refused, match="oh"):
        lab.run("host", ["sh", "-c", "echo oh >&2; exit 7"], check=True)
    with pytest.raises(FileNotFoundError):
        lab.run("host", ["no-such-program"])


def test_signals_reach_a_command(lab: Lab) -> None:
    script = "trap 'exit 5' TERM; echo ready; while :; do sleep 0.05; done"
    with lab.popen("host", ["sh", "-c", script], stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == b"ready\n"
        process.terminate()
    assert process.returncode == 5


@pytest.mark.parametrize("end", ["kill", "timeout"])
def test_a_killed_command_is_gone_at_once(lab: Lab, end: str) -> None:
    traces = Traces(lab.record)
    if end == "kill":
        with lab.popen("host", ["sleep", "1234"]) as process:
            assert any("1234" in command for command in traces.processes())
            process.kill()
        assert process.returncode == -signal.SIGKILL
    else:
        with pytest.raises(subprocess.TimeoutExpired):
            lab.run("host", ["sleep", "1234"], timeout=0.2)
    assert not any("1234" in command for command in traces.processes())


def test_a_killed_stand_in_takes_its_command_along(lab: Lab) -> None:
    traces = Traces(lab.record)
    with lab.popen("host", ["sleep", "1235"]) as process:
        os.kill(process.pid, signal.SIGKILL)
    assert eventually(lambda: not any("1235" in command for command in traces.processes()))


def test_orphans_are_reaped(lab: Lab) -> None:
    lab.run("host", ["sh", "-c", "sleep 0.05 >/dev/null 2>&1 &"], check=True)
    time.sleep(0.1)
    assert eventually(lambda: "Z" not in lab.run("host", ["ps", "-e", "-o", "stat="], check=True).stdout)


# --- Its life ---


def test_a_lab_ends_with_its_block() -> None:
    with Lab(TINY) as lab:
        lab.popen("a", ["sleep", "1236"])
        lab.run("a", ["sh", "-c", "setsid sleep 1236 >/dev/null 2>&1 &"], check=True)
        traces = Traces(lab.record)
        assert len(traces.processes()) >= 3
        assert traces.pinned()
        assert len(traces.files()) == 2
    assert traces.processes() == []
    assert traces.files() == []
    assert eventually(lambda: traces.pinned() == [])


def test_a_lab_ends_with_the_process_that_made_it(elsewhere: Path) -> None:
    make = "from berth.lab.session import Lab; lab = Lab(name='orphan'); print(flush=True)"
    script = f"{make}; lab.run('host', ['sleep', '9'])"
    owner = subprocess.Popen([sys.executable, "-c", script], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    assert owner.stdout is not None
    owner.stdout.readline()
    orphan = Records().running("orphan")
    traces = Traces(orphan)
    owner.kill()
    owner.communicate()
    assert eventually(lambda: traces.processes() == [] and not orphan.alive)
    with Lab(TINY):  # the next lab clears away the files
        assert traces.files() == []


def test_the_command_line(elsewhere: Path) -> None:
    started = json.loads(cli("up", "--json", "--hosts", "2", "mine").stdout)
    traces = Traces(Records().running("mine"))
    assert started["hosts"] == ["host", "host2"]
    inside = ("exec", "--lab", "mine", "host2")
    assert cli(*inside, "--", "sh", "-c", "cat; exit 9", stdin="typed").returncode == 9
    assert cli(*inside, "cat", stdin="typed").stdout == "typed"
    assert cli(*inside, "printenv", "BERTH_RUN").stdout == f"{started['work']}/host2/run\n"
    assert cli(*inside, "sh", "-c", "kill -TERM $$").returncode == -signal.SIGTERM
    assert cli("down", "mine").returncode == 0
    assert traces.processes() == []
    assert not elsewhere.exists()


def test_a_second_lab_of_the_same_name_is_refused(detached: Record) -> None:
    with pytest.raises(Taken, match=f"pid {detached.pid}"):
        up(Records(), detached.name, TINY)
    assert detached.alive


def test_an_absent_lab_is_told(elsewhere: Path) -> None:
    with pytest.raises(NotFound, match="no lab 'ghost'"):
        stop(Records(), "ghost")
    with pytest.raises(NotFound, match="berth lab up ghost"):
        Records().running("ghost")
    with pytest.raises(Invalid, match="lab name"):
        Records().find("../ghost")


def test_somebody_elses_directory_is_left_alone(elsewhere: Path) -> None:
    (elsewhere / "precious").mkdir(parents=True)
    (elsewhere / "notes.json").write_text('{"name": "notes"}')
    with pytest.raises(Taken, match="in the way"):
        up(Records(), "precious", TINY)
    with Lab(TINY):
        pass
    assert sorted(path.name for path in elsewhere.iterdir()) == ["notes.json", "precious"]


def test_a_killed_holder_leaves_no_process_and_its_name_is_free(detached: Record) -> None:
    traces = Traces(detached)
    os.kill(detached.pid, signal.SIGKILL)
    assert eventually(lambda: traces.processes() == [] and traces.pinned() == [] and not detached.alive)
    records = Records()
    with pytest.raises(NotFound, match="not running"):
        records.running(detached.name)
    again = up(records, detached.name, TINY)
    os.kill(again.pid, signal.SIGKILL)
    stop(records, detached.name)
    assert traces.files() == []


def test_without_root(nobody: Nobody) -> None:
    """As nobody when the tests run as root; otherwise every test here is this one."""

    def berth_lab(*args: str) -> subprocess.CompletedProcess[str]:
        return nobody.run([*CLI, *args], timeout=20)

    started = berth_lab("up", "--json")
    assert started.returncode == 0, started.stderr
    running = json.loads(started.stdout)
    assert Path(f"/proc/{running['pid']}").stat().st_uid == nobody.uid
    traces = Traces(Record(**running))
    for target in ("host.lab", "203.0.113.10", "2001:db8::10"):
        assert berth_lab("exec", "laptop", "--", "ping", "-c1", "-W2", target).returncode == 0
    assert berth_lab("exec", "host", "--", "sh", "-c", "ip netns add c1 && exit 3").returncode == 3
    assert berth_lab("exec", "c1", "ip", "link").returncode == 0
    ended = berth_lab("down")
    assert ended.returncode == 0, ended.stderr
    assert traces.processes() == []
    assert list(nobody.directory.iterdir()) == []
