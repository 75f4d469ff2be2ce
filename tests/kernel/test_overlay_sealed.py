"""An encrypted network on two hosts, with a daemon each, real etcd and real tunnels; and who listens on the wire."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from .conftest import Host, sh
from .overlay_hosts import UNDERLAY, pings
from .test_overlay_etcd import Daemons, until

pytestmark = pytest.mark.timeout(240)
CREATE = "network create -d overlay --subnet 10.50.0.0/24 --ipv6 --subnet fd50::/64 -o encrypted"
PAYLOAD = "c0ffee5ea1edfeed"  # of pings, over and over


@pytest.fixture
def two(host: Host, tmp_path: Path) -> Iterator[Daemons]:
    running = Daemons(2, tmp_path)
    try:
        running.start_etcd()
        for name in running.names:
            running.start(name)
        until(lambda: running.tried("h1", "host ls").stdout.count("\n") == 3, "not both hosts are registered")
        yield running
    finally:
        running.close()


def met(two: Daemons, version: int = 4) -> dict[str, tuple[str, ...]]:
    """A network, and a container on each host; each can reach the other."""
    two.berth("h1", f"{CREATE} -o underlay={UNDERLAY[version]} ov")
    containers = {f"c{name[1]}": two.attach(name, f"c{name[1]}") for name in two.names}
    for name in two.names:
        until(lambda name=name: two.says(name, "self permanent", 1), f"{name} does not know the other: {two.log(name)}")  # type: ignore[misc]
    for one, other in (("c1", "c2"), ("c2", "c1")):
        for address in containers[other]:
            assert pings(one, address, within=20), (one, address, wg("h1"), wg("h2"), two.log("h1"))
    return containers


def wg(name: str) -> str:
    return sh(f"nsenter --net=/run/netns/{name} wg show")


def seal(name: str) -> str:
    """What a host's WireGuard is called."""
    return re.findall(r"bwg[0-9a-f]{10}", sh(f"ip -n {name} -o link"))[0]


def process(name: str) -> int:
    """Who encrypts for a host."""
    return int(sh(f"pgrep -f 'wireguard-go {seal(name)}$'"))


@contextmanager
def overheard(file: Path) -> Iterator[None]:
    """All that crosses the wire between the hosts meanwhile, in a file."""
    argv = ["tcpdump", "-i", "p1", "-s", "0", "-U", "-w", str(file), "udp or icmp or icmp6"]
    ear = subprocess.Popen(argv, stderr=subprocess.PIPE)
    assert ear.stderr is not None
    while b"listening on" not in (line := ear.stderr.readline()):
        assert line, "tcpdump does not listen"
    try:
        yield
    finally:
        time.sleep(0.2)  # what is under way
        ear.send_signal(signal.SIGINT)
        ear.communicate(timeout=10)


def ports_in(file: Path) -> set[str]:
    """The UDP ports and the protocols of what was overheard, but for neighbour discovery between the hosts."""
    lines = sh(f"tcpdump -nr {file} 'not icmp6' 2>/dev/null").splitlines()
    return {(re.findall(r"\.(\d+): UDP", line) or ["other"])[0] for line in lines}


@pytest.mark.parametrize(("version", "mtu"), [(4, 1370), (6, 1338)])
def test_full_packets_get_through_and_the_wire_tells_nothing(
    two: Daemons, tmp_path: Path, version: int, mtu: int
) -> None:
    containers = met(two, version)
    assert f"mtu {mtu} " in sh("ip -n c1 link show eth0")
    four, six = containers["c2"]
    with overheard(tmp_path / "wire"):
        for address, header in ((four, 28), (six, 48)):
            assert pings("c1", address, "-M", "do", "-s", str(mtu - header), "-p", PAYLOAD)
        assert not pings("c1", four, "-M", "do", "-s", str(mtu - 27), within=1)
    assert ports_in(tmp_path / "wire") == {"51820"}
    assert bytes.fromhex(PAYLOAD) not in (tmp_path / "wire").read_bytes()
    assert "51820" in sh(f"tcpdump -nr {tmp_path / 'wire'} 'greater 1400' 2>/dev/null")
    assert "flags [+" not in sh(f"tcpdump -vnr {tmp_path / 'wire'} 2>/dev/null"), "a packet was cut in two"


def test_nobody_outside_gets_a_frame_in(two: Daemons) -> None:
    met(two)
    found = sh("ip -n h1 -d link show type vxlan")
    vni = int(re.findall(r"vxlan id (\d+)", found)[0])
    link = re.findall(r"bvx\w+", found)[0]
    count = f'ip -n h1 -s -j link show {link} | python3 -c \'import json,sys; print(json.load(sys.stdin)[0]["stats64"]["rx"]["packets"])\''
    before = sh(count)
    frame = "ff" * 6 + "020000000002" + "88b5" + "00" * 60
    forge = "import socket; s = socket.socket(socket.AF_INET6, socket.SOCK_DGRAM); " + "".join(
        f"s.sendto(bytes.fromhex('08000000{vni:06x}00{frame}'), ('{to}', 4789, 0, {number}));"
        for to, number in (
            ("fd0a::1", 0),
            (sh("ip -n h1 -6 -br addr show dev eth0 | grep -o 'fe80[0-9a-f:]*'").strip(), 2),
        )
    )
    sh(f'nsenter --net=/run/netns/h2 python3 -c "{forge}"')
    sh("ip -n h2 -6 neigh show | grep -q fd0a::1")  # it was sent
    assert sh(count) == before


def test_a_host_with_another_key_than_it_told_is_heard_by_nobody(two: Daemons) -> None:
    containers = met(two)
    two.kill("h2")
    other = sh("wg genkey")
    sh(f"echo '{other.strip()}' >/run/other; nsenter --net=/run/netns/h2 wg set {seal('h2')} private-key /run/other")
    for address in containers["c2"]:
        assert not pings("c1", address, within=3)
    two.start("h2")  # which puts it right
    for address in containers["c2"]:
        assert pings("c1", address, within=30)


def test_a_host_without_a_key_gets_nothing_rather_than_something_in_the_clear(two: Daemons, tmp_path: Path) -> None:
    containers = met(two)
    for name in two.names:
        two.kill(name)
    with overheard(tmp_path / "wire"):
        sh(
            f"nsenter --net=/run/netns/h1 wg set {seal('h1')} peer $(nsenter --net=/run/netns/h2 wg show {seal('h2')} public-key) remove"
        )
        for address in containers["c2"]:
            assert not pings("c1", address, "-p", PAYLOAD, within=1)
        sh(f"ip -n h1 link set {seal('h1')} down; ip -n h1 -6 route add default via fd0a::2")
        for address in containers["c2"]:
            assert not pings("c1", address, "-p", PAYLOAD, within=1)
        sh(f"ip -n h1 link del {seal('h1')}")
        for address in containers["c2"]:
            assert not pings("c1", address, "-p", PAYLOAD, within=1)
    assert ports_in(tmp_path / "wire") <= {"51820"}
    assert bytes.fromhex(PAYLOAD) not in (tmp_path / "wire").read_bytes()
    for name in two.names:
        two.start(name)
    for address in containers["c2"]:
        assert pings("c1", address, within=30), (two.log("h1"), wg("h1"))


def test_who_encrypts_is_killed_and_back_and_outlives_the_daemon(two: Daemons) -> None:
    containers = met(two)
    first = process("h1")
    two.kill("h1")
    for address in containers["c2"]:
        assert pings("c1", address)
    two.start("h1")
    until((two._directory / "h1.run" / "berth.sock").exists, "no daemon")
    os.kill(first, signal.SIGKILL)
    killed = time.monotonic()
    for address in containers["c2"]:
        assert pings("c1", address, within=30), two.log("h1")
    print("back after", time.monotonic() - killed)
    assert process("h1") != first
    for name, sandbox in (("h1", "c1"), ("h2", "c2")):
        two.berth(name, f"detach ov {sandbox}")
    two.berth("h1", "network rm ov")
    for name in two.names:
        until(lambda name=name: two.bare(name) and "bwg" not in sh(f"ip -n {name} -o link"), f"{name} keeps something")  # type: ignore[misc]
    until(
        lambda: subprocess.run(["pgrep", "-f", "wireguard-go bwg"], stdout=subprocess.DEVNULL).returncode, "it goes on"
    )


def test_a_key_is_renewed_while_packets_flow(two: Daemons) -> None:
    containers = met(two)
    four, _ = containers["c2"]
    before = wg("h2")
    argv = ["nsenter", "--net=/run/netns/c1", "ping", "-n", "-D", "-i", "0.01", four]
    flow = subprocess.Popen(argv, stdout=subprocess.PIPE, text=True)
    assert flow.stdout is not None
    answered = [flow.stdout.readline() for _ in range(10)]
    new = two.berth("h1", "host rotate-key").strip()
    until(lambda: new in wg("h2"), "the other host does not hear of it")
    for _ in range(100):
        answered.append(flow.stdout.readline())
    flow.send_signal(signal.SIGINT)
    said, _ = flow.communicate(timeout=10)
    times = [float(stamp) for stamp in re.findall(r"^\[([\d.]+)\].*time=", "".join(answered) + said, re.MULTILINE)]
    gap = max(later - sooner for sooner, later in zip(times, times[1:], strict=False))
    print("longest silence", gap)
    assert gap < 4, "the hands were not shaken at once, but when WireGuard tried again"
    old = re.findall(r"peer: (\S+)", before)
    assert re.findall(r"peer: (\S+)", wg("h2")) == [new] != old
    key = two._directory / "h1" / "berth.wireguard"
    assert key.stat().st_mode & 0o777 == 0o600
    dump = sh("etcdctl --endpoints 10.0.0.254:2379 get --prefix / ")
    assert new in dump and key.read_text().strip() not in dump
