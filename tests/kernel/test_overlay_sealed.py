"""An encrypted network on two hosts, with a daemon each, real etcd and real tunnels; and who listens on the wire."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

from .conftest import Host, ip, sh
from .overlay_hosts import UNDERLAY, pings
from .test_overlay_etcd import Daemons, until

pytestmark = pytest.mark.timeout(240)
CREATE = "network create -d overlay --subnet 10.50.0.0/24 --ipv6 --subnet fd50::/64 -o encrypted"
PAYLOAD = "c0ffee5ea1edfeed"  # of pings, over and over
_FORGE = """import socket, sys
voice = socket.socket(socket.AF_INET6, socket.SOCK_DGRAM)
for to in sys.argv[2:]:
    voice.sendto(bytes.fromhex(sys.argv[1]), socket.getaddrinfo(to, 4789)[0][4])
"""
_HOLD = """import socket, sys
here = socket.socket(type=socket.SOCK_DGRAM)
here.bind(("", 51820))
print("held", flush=True)
sys.stdin.read()
"""


@pytest.fixture
def two(host: Host, tmp_path: Path) -> Iterator[Daemons]:
    running = Daemons(2, tmp_path)
    try:
        running.start_etcd()
        for name in running.names:
            running.start(name)
        until(lambda: running.tried("h1", "node ls").stdout.count("\n") == 3, "not both hosts are registered")
        yield running
    finally:
        running.close()


def met(two: Daemons, version: int = 4, create: str = CREATE) -> tuple[str, ...]:
    """A network, and a container on each host; the addresses of c2, which c1 reaches."""
    two.berth("h1", f"{create} -o underlay={UNDERLAY[version]} ov")
    two.attach("h1", "c1")
    there = two.attach("h2", "c2")
    for name in two.names:
        until(partial(two.says, name, "self permanent", 1), f"{name} does not know the other: {two.log(name)}")
    reached(two, there)
    return there


def reached(two: Daemons, addresses: tuple[str, ...]) -> None:
    for address in addresses:
        assert pings("c1", address, within=30), (address, wg("h1"), wg("h2"), two.log("h1"), two.log("h2"))


def wg(name: str, what: str = "") -> str:
    """What a host's WireGuard tells; wg(8) by itself would tell of all of the machine."""
    return sh(f"nsenter --net=/run/netns/{name} wg show {seal(name)} {what}").strip()


def seal(name: str) -> str:
    """What a host's WireGuard is called."""
    found: list[str] = re.findall(r"bwg[0-9a-f]{10}", sh(f"ip -n {name} -o link"))
    return found[0]


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


def nothing_in_the_clear(file: Path) -> None:
    """Whether nothing was overheard but WireGuard's packets, and neighbour discovery between the hosts."""
    lines = sh(f"tcpdump -nr {file} 'not icmp6' 2>/dev/null").splitlines()
    assert not [line for line in lines if not re.search(r"\.51820 > \S+\.51820: UDP", line)]
    assert bytes.fromhex(PAYLOAD) not in file.read_bytes()


class Flow:
    """Pings from c1, a hundred a second, and when they were answered."""

    def __init__(self, address: str) -> None:
        argv = ["nsenter", "--net=/run/netns/c1", "ping", "-n", "-D", "-i", "0.01", address]
        self._ping = subprocess.Popen(argv, stdout=subprocess.PIPE, text=True)
        self._times: list[float] = []
        self.answers(20)

    def answers(self, number: int) -> None:
        """Wait for so many more."""
        assert self._ping.stdout is not None
        while number:
            line = self._ping.stdout.readline()
            assert line, "ping has ended"
            if found := re.match(r"\[([\d.]+)\].*time=", line):
                self._times.append(float(found[1]))
                number -= 1

    def longest_silence(self) -> float:
        """In seconds; nothing is sent any more."""
        self._ping.kill()
        self._ping.wait()
        return max(later - sooner for sooner, later in pairwise(self._times))


@pytest.mark.parametrize(("version", "mtu"), [(4, 1370), (6, 1338)])
def test_full_packets_get_through_and_the_wire_tells_nothing(
    two: Daemons, tmp_path: Path, version: int, mtu: int
) -> None:
    four, six = met(two, version)
    wire = tmp_path / "wire"
    assert f"mtu {mtu} " in sh("ip -n c1 link show eth0")
    with overheard(wire):
        for address, header in ((four, 28), (six, 48)):
            assert pings("c1", address, "-M", "do", "-s", str(mtu - header), "-p", PAYLOAD)
        assert not pings("c1", four, "-M", "do", "-s", str(mtu - 27), within=1)
    nothing_in_the_clear(wire)
    assert ".51820" in sh(f"tcpdump -nr {wire} 'greater 1400' 2>/dev/null")
    assert not re.search(r"flags \[\+|frag \(", sh(f"tcpdump -vnr {wire} 2>/dev/null")), "a packet was cut in two"
    _nobody_outside_gets_a_frame_in(two)


def _nobody_outside_gets_a_frame_in(two: Daemons) -> None:
    """Frames that nobody has encrypted, to the host's own addresses: what the tunnel received stays the same."""
    link = next(link for link in ip("-d", "-s", "link", ns="h1") if link["ifname"].startswith("bvx"))
    own = next(link for link in ip("addr", ns="h1") if link["ifname"] == "eth0")["addr_info"]
    local: str = next(address["local"] for address in own if address["local"].startswith("fe80"))
    frame = "ffffffffffff" + "020000000002" + "88b5" + "00" * 60
    packet = f"08000000{link['linkinfo']['info_data']['id']:06x}00{frame}"
    argv = ["nsenter", "--net=/run/netns/h2", "python3", "-c", _FORGE, packet, "fd0a::1", f"{local}%eth0"]
    arrived = two.count("h1")
    subprocess.run(argv, check=True)
    until(lambda: arrived() == 2, "the forged packets do not arrive", within=10)
    after = next(each for each in ip("-s", "link", ns="h1") if each["ifname"] == link["ifname"])
    assert after["stats64"]["rx"]["packets"] == link["stats64"]["rx"]["packets"]


def test_a_port_that_somebody_has_is_named_and_nothing_is_left(two: Daemons) -> None:
    argv = ["nsenter", "--net=/run/netns/h1", "python3", "-c", _HOLD]
    pipes: dict[str, Any] = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE}
    with subprocess.Popen(argv, **pipes) as holder:
        assert holder.stdout is not None and holder.stdin is not None
        assert holder.stdout.readline() == b"held\n"
        refused = two.tried("h1", f"{CREATE} ov")
        holder.stdin.close()
    assert "UDP port 51820 is taken" in refused.stderr
    assert "BERTH_WIREGUARD_PORT" in refused.stderr
    assert two.bare("h1")
    for name in two.names:
        sh(f"nsenter --net=/run/netns/{name} sysctl -qw net.ipv6.conf.default.disable_ipv6=1")
    met(two, create=CREATE.replace("--ipv6 --subnet fd50::/64", ""))  # with IPv6 off for new links


def test_another_key_than_was_told_is_heard_by_nobody_and_a_new_one_at_once(two: Daemons) -> None:
    there = met(two)
    old, flow = wg("h1", "public-key"), Flow(there[0])
    new = two.berth("h1", "node rotate-key").strip()
    until(lambda: wg("h2", "peers") == new != old, "the other host does not hear of it")
    flow.answers(100)
    silence = flow.longest_silence()
    print(f"a new key: {silence * 1000:.0f} ms of silence")
    assert silence < 4, "the hands were not shaken at once, but when WireGuard tried again"
    key = two.directory / "h1" / "berth.wireguard"
    assert key.stat().st_mode & 0o777 == 0o600
    stored = sh("etcdctl --endpoints 10.0.0.254:2379 get --prefix /")
    assert new in stored
    assert key.read_text().strip() not in stored

    two.kill("h2")
    sh(f"wg genkey >/run/other; nsenter --net=/run/netns/h2 wg set {seal('h2')} private-key /run/other")
    assert not pings("c1", there[0], within=3)
    two.start("h2")  # which puts it right
    reached(two, there)


def test_without_a_key_there_is_nothing_rather_than_something_in_the_clear(two: Daemons, tmp_path: Path) -> None:
    there = met(two)
    for name in two.names:
        two.kill(name)
    with overheard(tmp_path / "wire"):
        for line in (
            f"nsenter --net=/run/netns/h1 wg set {seal('h1')} peer {wg('h2', 'public-key')} remove",
            f"ip -n h1 -6 route add default via fd0a::2; ip -n h1 link set {seal('h1')} down",
            f"ip -n h1 link del {seal('h1')}",
        ):
            sh(line)
            assert not pings("c1", there[0], "-p", PAYLOAD, within=1)
    nothing_in_the_clear(tmp_path / "wire")
    for name in two.names:
        two.start(name)
    reached(two, there)


def test_who_encrypts_outlives_the_daemon_and_killed_is_back(two: Daemons) -> None:
    there = met(two)
    first = process("h1")
    two.kill("h1")
    reached(two, there)
    two.start("h1")
    until((two.directory / "h1.run" / "berth.sock").exists, "no daemon")
    assert process("h1") == first
    flow = Flow(there[0])
    os.kill(first, signal.SIGKILL)
    flow.answers(100)
    print(f"killed: {flow.longest_silence() * 1000:.0f} ms of silence")
    reached(two, there)
    assert process("h1") != first
    two.berth("h1", "network create -d overlay --subnet 10.51.0.0/24 -o encrypt=true too")
    two.berth("h1", "network rm too")  # which shares the WireGuard
    reached(two, there)
    for name, sandbox in (("h1", "c1"), ("h2", "c2")):
        two.berth(name, f"detach ov {sandbox}")
    seals = [seal(name) for name in two.names]
    two.berth("h1", "network rm ov")
    for name in two.names:
        until(partial(two.bare, name), f"{name} keeps something: {sh(f'ip -n {name} -o link')}")
    for link in seals:
        until(lambda link=link: not _runs(link), "wireguard-go goes on")  # type: ignore[misc]


def _runs(link: str) -> bool:
    argv = ["pgrep", "-f", f"wireguard-go {link}$"]
    return subprocess.run(argv, stdout=subprocess.DEVNULL, check=False).returncode == 0
