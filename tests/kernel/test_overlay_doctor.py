"""`berth doctor` on hosts that share a network: each fault is found where it shows, and gone when it is mended."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from .conftest import Host, sh
from .overlay_hosts import UNDERLAY, pings
from .test_overlay_etcd import ETCD, Daemons, until

pytestmark = pytest.mark.timeout(240)
WAYS = {4: "10.0.0", 6: "fd0a:"}


@pytest.fixture
def version() -> int:
    return 4


@pytest.fixture
def hosts(host: Host, tmp_path: Path, version: int) -> Iterator[Daemons]:
    """Two hosts with a container each, on an underlay of that version."""
    running = Daemons(2, tmp_path)
    try:
        running.start_etcd()
        for name in running.names:
            running.start(name)
        for name in running.names:
            until((tmp_path / f"{name}.run" / "berth.sock").exists, f"no daemon on {name}")
        until(lambda: len(running.tried("h1", "node ls").stdout.splitlines()) == 3, "not all are registered")
        running.berth("h1", f"network create -d overlay --subnet 10.50.0.0/24 -o underlay={UNDERLAY[version]} ov")
        for name in running.names:
            running.attach(name, f"c{name[1]}")
        for name in running.names:
            until(lambda n=name: running.says(n, "self permanent", 1), f"{name} does not know the other")  # type: ignore[misc]
        yield running
    finally:
        running.close()


def examined(hosts: Daemons, name: str) -> list[dict[str, Any]]:
    """What the doctor finds on a host."""
    argv = ["nsenter", f"--net=/run/netns/{name}", sys.executable, "-m", "berth", "doctor", "--json"]
    env = {**os.environ, **hosts.places(name), "BERTH_STORE": f"etcd://{ETCD}?ttl=10"}
    done = subprocess.run(argv, capture_output=True, text=True, check=False, env=env, timeout=60)
    assert done.stderr == "", done
    found: list[dict[str, Any]] = json.loads(done.stdout)
    return found


def only(hosts: Daemons, name: str, check: str) -> dict[str, Any]:
    found = examined(hosts, name)
    assert [each["check"] for each in found] == [check], found
    return found[0]


def inside(name: str, line: str) -> str:
    return sh(f"nsenter --net=/run/netns/{name} {line}")


def stream(sandbox: str, address: str, size: int) -> bool:
    """Whether so many bytes get from one container to another over TCP."""
    served = subprocess.Popen(
        ["nsenter", "--net=/run/netns/c2", "busybox", "nc", "-l", "-p", "9", "-e", "wc", "-c"],
        stdout=subprocess.PIPE,
    )
    try:
        sent = f"head -c {size} /dev/zero | nsenter --net=/run/netns/{sandbox} timeout 5 busybox nc -w 4 {address} 9"
        until(lambda: ":0009 " in sh("cat /proc/$(ip netns pids c2 | head -1)/net/tcp*"), "nobody listens", 10)
        done = subprocess.run(["sh", "-c", sent], capture_output=True, text=True, check=False)
        return done.stdout.strip() == str(size)
    finally:
        served.kill()
        served.wait()


@pytest.mark.parametrize("version", [4, 6])
def test_each_fault_is_found_and_gone_when_mended(hosts: Daemons, version: int) -> None:
    peer = f"{WAYS[version]}{'.' if version == 4 else ':'}2"
    assert examined(hosts, "h1") == examined(hosts, "h2") == []

    # What another host's firewall drops; its own doctor cannot know.
    inside("h2", "nft 'table inet theirs { chain in { type filter hook input priority 0; udp dport 4789 drop; }; }'")
    found = only(hosts, "h1", "overlay-port-blocked")
    assert peer in found["message"]
    assert not pings("c1", "10.50.0.3", within=1)
    inside("h2", "nft delete table inet theirs")
    assert examined(hosts, "h1") == []
    # What this host's own drops.
    inside("h1", "nft 'table inet theirs { chain out { type filter hook output priority 0; udp dport 4789 drop; }; }'")
    assert only(hosts, "h1", "overlay-port-blocked")
    inside("h1", "nft delete table inet theirs")

    # A way that carries less than both ends believe, and does not say so.
    sh("ip link set p1 mtu 1400; ip link set p2 mtu 1400")
    found = only(hosts, "h1", "overlay-mtu")
    assert "those of 1400 bytes arrive and those of 1500 do not" in found["message"]
    assert not stream("c1", "10.50.0.3", 300_000)
    assert found["command"]
    for name in hosts.names:
        (finding,) = examined(hosts, name)
        inside(name, finding["fix"])
    assert examined(hosts, "h1") == examined(hosts, "h2") == []
    assert stream("c1", "10.50.0.3", 300_000)
    assert re.search("mtu lock 1400", inside("h1", f"ip -{version} route show {peer}"))


def test_entries_that_are_not_so_and_a_subnet_that_is_elsewhere(hosts: Daemons, version: int) -> None:
    link = re.findall(r"bvx[0-9a-f]{12}", sh("ip -n h1 -o link show type vxlan"))[0]
    other = f"{WAYS[version]}{'.' if version == 4 else ':'}99"
    inside("h1", f"bridge fdb add 02:00:00:00:00:99 dev {link} dst {other} self permanent")
    found = only(hosts, "h1", "overlay-entries")
    assert "stale" in found["message"]
    assert found["ours"]
    hosts.berth("h1", found["fix"].removeprefix("berth "))
    assert examined(hosts, "h1") == []
    inside("h1", f"ip neigh del 10.50.0.3 dev {link}")
    found = only(hosts, "h1", "overlay-entries")
    assert "missing or wrong" in found["message"]
    hosts.berth("h1", found["fix"].removeprefix("berth "))
    assert examined(hosts, "h1") == []

    unnamed = hosts.tried("h1", "doctor")
    assert unnamed.returncode == 1
    assert "--store etcd" in unnamed.stderr
    # A subnet that is something else on one of them.
    hosts.berth("h1", f"network create -d overlay --subnet 10.60.0.0/24 -o underlay={UNDERLAY[version]} more")
    until(lambda: sh("ip -n h2 -o link show type vxlan").count("\n") == 2, "h2 does not follow")
    hosts.kill("h2")
    bridge = [line.split(":")[1].strip() for line in sh("ip -n h2 -o link show type bridge").splitlines()]
    mine = next(name for name in bridge if "10.60.0.1" in sh(f"ip -n h2 addr show dev {name}"))
    sh(f"ip -n h2 link del {mine}; ip -n h2 link add lan2 type bridge; ip -n h2 addr add 10.60.0.77/25 dev lan2")
    sh("ip -n h2 link set lan2 up")
    assert "overlay-subnet-taken" in [each["check"] for each in examined(hosts, "h2")]
    sh("ip -n h2 link del lan2")
    hosts.start("h2")
    until(lambda: examined(hosts, "h2") == [], "the network is not made")


_OTHER = "import sys, berth; berth.__version__ = '9.9.9'; from berth.cli.main import main; sys.exit(main())"


def test_a_node_of_another_version(hosts: Daemons) -> None:
    hosts.kill("h2")
    hosts.start("h2", [sys.executable, "-c", _OTHER])
    until(lambda: "9.9.9" in hosts.tried("h1", "node ls").stdout, "h2 does not register")
    found = only(hosts, "h1", "node-version")
    assert "9.9.9 on " in found["message"]
    hosts.kill("h2")
    hosts.start("h2")
    until(lambda: "9.9.9" not in hosts.tried("h1", "node ls").stdout, "h2 does not register")
    until(lambda: examined(hosts, "h1") == [], "the finding stays")
