"""One network on several hosts, with the real tunnels between them."""

from __future__ import annotations

import re
import socket
import subprocess
from itertools import permutations
from pathlib import Path

import pytest

from .conftest import Host, sh
from .overlay_hosts import UNDERLAY, Hosts, pings

pytestmark = pytest.mark.timeout(120)
CREATE = "network create -d overlay --subnet 10.50.0.0/24 --ipv6 --subnet fd50::/64"


@pytest.fixture
def three(host: Host, tmp_path: Path) -> Hosts:
    return Hosts(3, tmp_path / "berth.db")


def everybody(three: Hosts) -> dict[str, tuple[str, ...]]:
    """A container on each host, and all hosts told."""
    found = {f"c{name[1]}": three.attach(name, f"c{name[1]}") for name in three.names}
    for name in three.names:
        three.settle(name)
    return found


@pytest.mark.parametrize(("version", "more"), [(4, ""), (6, "-o port=14789 -o vni=77")])
def test_containers_meet_in_both_versions_and_nothing_is_flooded(three: Hosts, version: int, more: str) -> None:
    three.berth("h1", f"{CREATE} -o underlay={UNDERLAY[version]} {more} ov")
    containers = everybody(three)
    for one, two in permutations(containers, 2):
        for address in containers[two]:
            assert pings(one, address), (one, address)
    bystander, other = three.count("h3"), three.count("h2")
    for address in containers["c2"]:
        assert pings("c1", address)
    assert other() > 0
    heard = other()
    for nobody in ("10.50.0.99", "fd50::99"):
        assert not pings("c1", nobody, within=1)
    subprocess.run(["ip", "netns", "exec", "c1", "ping", "-b", "-c1", "-W1", "10.50.0.255"], capture_output=True)
    assert bystander() == 0
    assert other() - heard <= 2  # neighbour discovery of who was met may still go on, to one host


@pytest.mark.parametrize(("version", "mtu"), [(4, 1450), (6, 1430)])
def test_a_full_packet_gets_through_unfragmented(three: Hosts, version: int, mtu: int) -> None:
    three.berth("h1", f"{CREATE} -o underlay={UNDERLAY[version]} ov")
    containers = everybody(three)
    assert f"mtu {mtu} " in sh("ip -n c1 link show eth0")
    four, six = containers["c2"]
    assert pings("c1", four, "-M", "do", "-s", str(mtu - 28))
    assert pings("c1", six, "-M", "do", "-s", str(mtu - 48))
    assert not pings("c1", four, "-M", "do", "-s", str(mtu - 27), within=1)


def test_an_address_that_moves_is_found_at_once_and_nothing_is_left(three: Hosts) -> None:
    three.berth("h1", f"{CREATE} -o underlay={UNDERLAY[4]} ov")
    containers = everybody(three)
    four, six = containers["c2"]
    assert "dst 10.0.0.2 self permanent" in three.tells("h1")
    three.berth("h2", "detach ov c2")
    three.settle("h1")
    assert "10.0.0.2" not in three.tells("h1")
    assert four not in three.tells("h1")
    three.attach("h3", "c4", f"--ip {four} --ip {six}")
    three.settle("h1")
    assert pings("c1", four)
    assert pings("c1", six)
    assert len(re.findall(r"dst 10\.0\.0\.3 self permanent", three.tells("h1"))) == 2
    three.berth("h3", "detach ov c4")
    three.settle("h2")
    three.attach("h1", "c5", f"--ip {four} --ip {six}")  # from another host to one's own
    for address in (four, six):
        assert pings("c1", address)
    three.settle("h3")
    assert pings("c3", four)


def test_what_hands_have_changed_is_put_right(three: Hosts) -> None:
    three.berth("h1", f"{CREATE} -o underlay={UNDERLAY[4]} ov")
    containers = everybody(three)
    before = three.tells("h1")
    link = re.findall(r"bvx[0-9a-f]{12}", sh("ip -n h1 -o link show type vxlan"))[0]
    inside, mac = "nsenter --net=/run/netns/h1", re.findall(r"(\S+) dst 10\.0\.0\.2", before)[0]
    sh(
        f"{inside} bridge fdb replace {mac} dev {link} dst 10.0.0.3 self permanent\n"
        f"{inside} bridge fdb add 02:00:00:00:00:99 dev {link} dst 10.0.0.3 self permanent\n"
        f"{inside} ip neigh del {containers['c3'][0]} dev {link}\n"
        f"{inside} ip neigh add 10.50.0.99 lladdr {mac} dev {link} nud permanent"
    )
    assert len(three.settle("h1")) == 4
    assert sorted(three.tells("h1").splitlines()) == sorted(before.splitlines())
    assert three.settle("h1") == []
    sh(f"{inside} ip link set {link} down")  # takes the neighbours along
    assert three.settle("h1") != []
    assert pings("c1", containers["c3"][0])
    sh(f"{inside} ip link del {link}")
    three.settle("h1")
    assert sorted(three.tells("h1").splitlines()) == sorted(before.splitlines())
    assert pings("c1", containers["c2"][1])


def test_a_published_port_is_reached_from_outside_and_the_outside_from_within(three: Hosts) -> None:
    three.berth("h1", f"{CREATE} -o underlay={UNDERLAY[4]} ov")
    three.attach("h2", "c2", "-p 8080:80")
    served = subprocess.Popen(
        ["nsenter", "--net=/run/netns/c2", "python3", "-m", "http.server", "80"],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    try:
        assert _answers("10.0.0.2", 8080)
        assert pings("c2", "10.0.0.254")
    finally:
        served.kill()
        served.wait()


def _answers(address: str, port: int) -> bool:
    for _ in range(50):
        try:
            with socket.create_connection((address, port), timeout=2) as conn:
                conn.sendall(b"HEAD / HTTP/1.0\r\n\r\n")
                return conn.recv(8).startswith(b"HTTP")
        except OSError:
            subprocess.run(["sleep", "0.2"], check=True)
    return False


def test_a_network_that_another_host_removed_goes_here_too(three: Hosts) -> None:
    three.berth("h1", f"{CREATE} -o underlay={UNDERLAY[4]} ov")
    everybody(three)
    for name in three.names:
        three.berth(name, f"detach ov c{name[1]}")
    three.berth("h1", "network rm ov")
    assert "brt" not in sh("ip -n h1 -o link")
    assert "bvx" in sh("ip -n h2 -o link")
    three.berth("h2", "reconcile")
    assert not re.search("bvx|brt", sh("ip -n h2 -o link"))


def test_a_reconcile_knows_the_others_and_leaves_their_endpoints_alone(three: Hosts) -> None:
    three.berth("h1", f"{CREATE} -o underlay={UNDERLAY[4]} ov")
    containers = everybody(three)
    before = three.tells("h1")
    three.berth("h1", "reconcile")
    assert sorted(three.tells("h1").splitlines()) == sorted(before.splitlines())
    three.settle("h2")
    assert pings("c2", containers["c3"][0])
