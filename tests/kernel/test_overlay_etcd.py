"""The same with real parts throughout: three hosts with a daemon each, and one etcd on a machine of its own."""

from __future__ import annotations

import http.client
import os
import re
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path

import pytest

from .conftest import Host, sh
from .overlay_hosts import UNDERLAY, Hosts, pings

pytestmark = pytest.mark.timeout(240)
CREATE = f"network create -d overlay --subnet 10.50.0.0/24 --ipv6 --subnet fd50::/64 -o underlay={UNDERLAY[4]} ov"
ETCD = "10.0.0.254:2379"


def until(true: Callable[[], object], what: str, within: float = 60) -> None:
    """Wait for something, which is told of when it does not come."""
    end = time.monotonic() + within
    while not true():
        assert time.monotonic() < end, what
        time.sleep(0.1)


class Daemons(Hosts):
    """Hosts that follow each other."""

    def __init__(self, number: int, directory: Path) -> None:
        super().__init__(number, directory / "unused.db")
        self.directory = directory
        self._running: dict[str, subprocess.Popen[bytes]] = {}

    def start_etcd(self) -> None:
        """With what it had, if it ran before."""
        where = f"http://{ETCD}"
        options = ("--listen-client-urls", where, "--advertise-client-urls", where)
        self._start("etcd", ["etcd", "--data-dir", str(self.directory / "etcd"), *options], {})
        until(_healthy, "etcd does not answer")

    def start(self, name: str, berth: Sequence[str] = (sys.executable, "-m", "berth")) -> None:
        """A host's daemon. `berth`: how Berth is started."""
        argv = ["nsenter", f"--net=/run/netns/{name}", *berth, "daemon"]
        # A host that is silent for ten seconds is gone for the others.
        self._start(name, argv, {**self.places(name), "BERTH_STORE": f"etcd://{ETCD}?ttl=10"})

    def _start(self, name: str, argv: list[str], env: dict[str, str]) -> None:
        with open(self.directory / f"{name}.log", "ab") as log:
            self._running[name] = subprocess.Popen(argv, stdout=log, stderr=log, env={**os.environ, **env})

    def places(self, name: str) -> dict[str, str]:
        """Where a host's state and socket are, as variables."""
        return {"BERTH_STATE": str(self.directory / name), "BERTH_RUN": str(self.directory / f"{name}.run")}

    def kill(self, name: str) -> None:
        """At once, without a word."""
        process = self._running.pop(name)
        process.kill()
        process.wait()

    def close(self) -> None:
        """End all that runs."""
        for name in list(self._running):
            self.kill(name)

    def berth(self, name: str, line: str) -> str:
        done = self.tried(name, line)
        assert done.returncode == 0, f"{name}: {line}: {done.stderr}\n{self.log(name)}"
        return done.stdout

    def tried(self, name: str, line: str) -> subprocess.CompletedProcess[str]:
        """A command by way of the host's daemon."""
        argv = ["nsenter", f"--net=/run/netns/{name}", sys.executable, "-m", "berth", *line.split()]
        env = {**os.environ, **self.places(name)}
        return subprocess.run(argv, capture_output=True, text=True, check=False, env=env, timeout=60)

    def says(self, name: str, text: str, times: int) -> bool:
        """Whether a host's tunnel knows of something so many times."""
        return self.tells(name).count(text) == times

    def bare(self, name: str) -> bool:
        """Whether nothing of a network is left on a host."""
        return not re.search("bvx|brt|bwg", sh(f"ip -n {name} -o link"))

    def log(self, name: str) -> str:
        """What a daemon has said."""
        return (self.directory / f"{name}.log").read_text()


def _healthy() -> bool:
    """Whether etcd answers, and takes writes."""
    host, _, port = ETCD.partition(":")
    asked = http.client.HTTPConnection(host, int(port), timeout=2)
    try:
        asked.request("GET", "/health")
        return b"true" in asked.getresponse().read()
    except OSError:
        return False
    finally:
        asked.close()


@pytest.fixture
def hosts(host: Host, tmp_path: Path) -> Iterator[Daemons]:
    running = Daemons(3, tmp_path)
    try:
        running.start_etcd()
        for name in running.names:
            running.start(name)
        for name in running.names:
            until((tmp_path / f"{name}.run" / "berth.sock").exists, f"no daemon on {name}")
        until(
            lambda: len(running.tried("h1", "node ls").stdout.splitlines()) == 4,
            "not all hosts are registered",
        )
        yield running
    finally:
        running.close()


def met(hosts: Daemons) -> dict[str, tuple[str, ...]]:
    """A network, and a container on each host; all hosts know them all."""
    hosts.berth("h1", CREATE)
    containers = {f"c{name[1]}": hosts.attach(name, f"c{name[1]}") for name in hosts.names}
    for name in hosts.names:
        until(partial(hosts.says, name, "self permanent", 2), f"{name} does not know the others")
    return containers


def test_hosts_meet_through_etcd_and_go_on_without_it(hosts: Daemons) -> None:
    containers = met(hosts)
    assert len({address for addresses in containers.values() for address in addresses}) == 6
    for one, two in (("c1", "c2"), ("c2", "c3"), ("c3", "c1")):
        assert all(pings(one, address) for address in containers[two])
    known = {name: sorted(hosts.tells(name).splitlines()) for name in hosts.names}

    hosts.kill("etcd")  # nobody can be asked any more: nobody is gone for that
    hosts.kill("h1")
    assert all(pings("c1", address) for address in containers["c2"])
    hosts.start("h1")
    until(lambda: "put in order" in hosts.log("h1") or "etcd" in hosts.log("h1"), "the daemon is silent")
    refused = hosts.tried("h2", "attach ov c1")
    assert refused.returncode != 0
    assert ETCD in refused.stderr and len(refused.stderr.strip().splitlines()) == 1
    assert all(pings("c1", address) for address in containers["c2"])
    for name in hosts.names:
        assert sorted(re.findall(r".*(?:self|PERMANENT).*", hosts.tells(name))) == sorted(
            line for line in known[name] if re.search("self|PERMANENT", line)
        )

    hosts.start_etcd()
    sh("ip netns add c4")
    until(lambda: hosts.tried("h2", "attach ov c4").returncode == 0, "etcd is back, but nothing is attached")
    until(lambda: hosts.tells("h1").count("self permanent") == 3, f"h1 does not follow: {hosts.log('h1')}")
    assert all(pings("c4", address) for address in containers["c1"])


def test_a_dead_hosts_endpoints_go_and_come_back_with_it(hosts: Daemons) -> None:
    containers = met(hosts)
    hosts.kill("h3")
    for name in ("h1", "h2"):
        until(partial(hosts.says, name, "dst 10.0.0.3", 0), f"{name}: the dead host is still known")
        assert containers["c3"][0] not in hosts.tells(name)
    assert all(pings("c1", address) for address in containers["c2"])
    sh("ip -n h3 addr add 10.0.0.33/24 dev eth0; ip -n h3 addr del 10.0.0.3/24 dev eth0")
    sh("ip -n h3 addr show dev eth0 | grep -q 10.0.0.33 || ip -n h3 addr add 10.0.0.33/24 dev eth0")
    hosts.start("h3")  # it has moved in the meantime
    for name in ("h1", "h2"):
        until(partial(hosts.says, name, "dst 10.0.0.33", 1), f"{name} does not know who is back")
    assert all(pings("c1", address) for address in containers["c3"])


def resolved(sandbox: str, server: str, name: str) -> set[str]:
    """The addresses that a name server says, asked from a sandbox."""
    argv = ["nsenter", f"--net=/run/netns/{sandbox}", "dig", "+short", "+time=1", "+tries=1", f"@{server}", name]
    asked = [subprocess.run([*argv, kind], capture_output=True, text=True, check=False) for kind in ("A", "AAAA")]
    return {line for done in asked for line in done.stdout.splitlines() if not line.startswith(";")}


def test_endpoints_on_other_hosts_have_names(hosts: Daemons) -> None:
    containers = met(hosts)
    for server in ("127.0.0.11", "10.50.0.1"):
        for name in ("c2", "c3.ov"):
            known = set(containers[name[:2]])
            until(lambda s=server, n=name, k=known: resolved("c1", s, n) == k, f"{name} at {server}")  # type: ignore[misc]
    sh("ip netns add c4")
    hosts.berth("h2", "attach --name db --alias store ov c4")
    until(lambda: len(resolved("c1", "127.0.0.11", "store")) == 2, "a new name is not known")
    hosts.kill("etcd")
    assert len(resolved("c1", "127.0.0.11", "db")) == 2  # not to know is not to be gone
    hosts.start_etcd()
    until(lambda: hosts.tried("h2", "detach ov c4").returncode == 0, "etcd is back")
    until(lambda: not resolved("c1", "127.0.0.11", "db"), "who is gone still has a name")


def test_nodes_are_drained_and_removed(hosts: Daemons) -> None:
    containers = met(hosts)
    line = hosts.berth("h1", "node drain 10.0.0.3")
    assert "1 endpoints are left" in line
    states = [row.split()[-3] for row in hosts.berth("h2", "node ls").splitlines()[1:]]
    assert sorted(states) == ["drained", "up", "up"]
    sh("ip netns add c4")
    refused = hosts.tried("h3", "attach ov c4")
    assert refused.returncode == 1
    assert "drained" in refused.stderr
    assert all(pings("c1", address) for address in containers["c3"])
    refused = hosts.tried("h1", "node rm 10.0.0.3")
    assert refused.returncode == 1
    assert "1 endpoints there still use their addresses" in refused.stderr
    hosts.berth("h3", "detach ov c3")
    hosts.berth("h1", "node drain --wait 10.0.0.3")
    hosts.berth("h1", "node undrain 10.0.0.3")
    hosts.berth("h3", "attach ov c4")
    hosts.kill("h3")
    assert hosts.tried("h1", "node rm 10.0.0.3").returncode == 1  # its lease has not run out: only a person knows
    assert "1 endpoints freed" in hosts.berth("h1", "node rm -f 10.0.0.3")
    assert "10.0.0.3" not in hosts.berth("h2", "node ls")
    for name in ("h1", "h2"):
        until(partial(hosts.says, name, "dst 10.0.0.3", 0), f"{name}: the removed node's endpoint is still known")
    address = sh("ip -n c4 -4 -o addr show dev eth0").split()[3].partition("/")[0]
    sh("ip netns add c5")
    hosts.berth("h2", f"attach --ip {address} ov c5")  # at once
    hosts.start("h3")
    until(lambda: "went to another host" in hosts.log("h3"), "who is back too late is not told")
    until(lambda: hosts.berth("h1", "node ls").count(" up ") == 3, "the node does not come back")


def test_an_address_rests_where_its_mac_would_change(hosts: Daemons) -> None:
    containers = met(hosts)
    four, six = containers["c2"]
    hosts.berth("h2", "detach ov c2")
    sh("ip netns add c4; ip netns add c5")
    for asked in (f"--mac 02:00:00:00:00:44 --ip {four}", f"--ip {six}"):
        refused = hosts.tried("h3", f"attach {asked} ov c4")
        assert refused.returncode == 2
        assert "until a moment ago" in refused.stderr
    # That address with its own MAC is nobody's surprise; and none that rests is given unasked.
    hosts.berth("h3", f"attach --ip {four} --ip {six} ov c4")
    hosts.berth("h3", "attach --mac 02:00:00:00:00:55 ov c5")
    assert all(pings("c1", address) for address in (four, six))


def test_a_host_with_the_subnet_elsewhere_is_left_alone(hosts: Daemons) -> None:
    sh("ip -n h3 link add lan3 type bridge; ip -n h3 addr add 10.50.0.77/25 dev lan3; ip -n h3 link set lan3 up")
    before = sh("ip -n h3 -4 route")
    hosts.berth("h1", CREATE)
    hosts.attach("h1", "c1")
    until(lambda: "bvx" in sh("ip -n h2 -o link"), "h2 does not follow")
    hosts.berth("h3", "reconcile")
    assert sh("ip -n h3 -4 route") == before
    assert hosts.bare("h3")
    sh("ip netns add c3")
    refused = hosts.tried("h3", "attach ov c3")
    assert refused.returncode == 2
    assert "network ov has 10.50.0.0/24, and this host reaches 10.50.0.0/25 by lan3" in refused.stderr
    sh("ip -n h3 link del lan3")
    hosts.berth("h3", "attach ov c3")


def test_an_address_that_moves_is_followed(hosts: Daemons) -> None:
    containers = met(hosts)
    four, six = containers["c2"]
    hosts.berth("h2", "detach ov c2")
    hosts.attach("h3", "c4", f"--ip {four} --ip {six}")
    until(lambda: hosts.tells("h1").count("dst 10.0.0.3 self permanent") == 2, "h1 does not follow")
    assert "10.0.0.2" not in hosts.tells("h1")
    assert pings("c1", four)
    assert pings("c1", six)
    for name, sandbox in (("h1", "c1"), ("h3", "c3"), ("h3", "c4")):
        hosts.berth(name, f"detach ov {sandbox}")
    hosts.berth("h2", "network rm ov")
    for name in hosts.names:
        until(partial(hosts.bare, name), f"{name} keeps the network")
