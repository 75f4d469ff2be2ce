"""`berth doctor`: each fault is found, and nothing else; the command that it names mends it."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import pytest
from lab_ground import Ground

from berth.lab.session import Lab

pytestmark = pytest.mark.timeout(120)

NAT = "network create --ipv6 back"
LAN = "network create --driver flat --ipv6 --ip-range 192.168.2.128/26 -o parent=br0 lan"


def examined(ground: Ground) -> list[dict[str, Any]]:
    """What the doctor finds on the host."""
    done = ground.tried("doctor --json")
    assert done.stderr == "", done
    found: list[dict[str, Any]] = json.loads(done.stdout)
    assert done.returncode == (1 if found else 0)
    return found


def only(ground: Ground, check: str) -> dict[str, Any]:
    """The one finding, which must be of that check."""
    found = examined(ground)
    assert [each["check"] for each in found] == [check], found
    return found[0]


@pytest.fixture(scope="module")
def both(lab: Lab) -> Iterator[Ground]:
    """A healthy host with a NAT network, a LAN, and a container on each: every test leaves it so."""
    here = Ground(lab)
    here.berth(NAT)
    here.berth(LAN)
    here.container("back", "inner")
    here.container("lan", "outer")
    yield here
    here.clear()


def test_a_healthy_host_yields_nothing(both: Ground) -> None:
    assert examined(both) == []
    assert both.berth("doctor") == "nothing wrong was found\n"


@dataclass(frozen=True)
class Fault:
    """Something to break, and a way to put back whatever the mend does not."""

    make: str
    undo: str = "true"


FAULTS = {
    "drift": Fault("ip netns exec inner ip address flush dev eth0"),
    "orphans": Fault("ip link add bvfeedfeedfeed type veth peer bvp1; ip link set bvfeedfeedfeed alias berth:nobody"),
    "ip-forward-off": Fault("sysctl -qw net.ipv4.ip_forward=0"),
    "gateway-address-on-bridge": Fault(
        "ip address add 192.168.2.1/24 dev br0", "ip address del 192.168.2.1/24 dev br0"
    ),
    "bridge-no-uplink": Fault("ip link set enp3s0 nomaster", "ip link set enp3s0 master br0"),
    "no-carrier": Fault("ip link set enp3s0 down", "ip link set enp3s0 up"),
    "nic-addressed": Fault("ip address add 192.168.2.7/24 dev enp3s0", "ip address flush dev enp3s0 scope global"),
    "stp-delay": Fault("ip link set br0 type bridge stp_state 1", "ip link set br0 type bridge stp_state 0"),
    "foreign-forward-drop": Fault(
        "nft 'add table inet theirs;"
        " add chain inet theirs forward { type filter hook forward priority 0; policy drop; }'",
        "nft delete table inet theirs",
    ),
    "rp-filter": Fault(
        "ip link add second type veth peer second1; ip link set second up; ip link set second1 up;"
        "ip address add 198.51.100.2/24 dev second; ip route add default via 198.51.100.1 dev second metric 500;"
        "sysctl -qw net.ipv4.conf.second.rp_filter=1",
        "ip link del second",
    ),
}


@pytest.mark.parametrize("check", FAULTS)
def test_a_fault_is_found_and_its_command_mends_it(both: Ground, check: str) -> None:
    fault = FAULTS[check]
    try:
        both.sh(fault.make)
        found = examined(both)
        assert {each["check"] for each in found} == {check}, found
        for finding in found:
            assert finding["message"] and finding["why"] and finding["command"]
            both.sh(finding["fix"])
        assert examined(both) == []
    finally:
        both.sh(f"{fault.undo} || true")


def test_fix_mends_what_is_berths(both: Ground) -> None:
    both.sh("ip netns exec inner ip route flush default")
    assert both.tried("doctor --fix").returncode == 2
    only(both, "drift")
    done = both.tried("doctor --fix --yes")
    assert (done.returncode, done.stderr) == (0, "")
    assert "route" in done.stdout
    assert examined(both) == []


def test_a_sandbox_that_is_gone_is_an_orphan(both: Ground) -> None:
    both.container("back", "brief")
    both.sh("ip netns delete brief")
    both.forget("brief")
    finding = only(both, "orphans")
    assert "brief" in finding["message"]
    both.sh(finding["fix"])
    assert examined(both) == []


def on_the_lan(ground: Ground, name: str) -> str:
    """A container's IPv4 address."""
    (found,) = [ep["addresses"][0] for ep in ground.told("endpoint ls") if ep["name"] == name]
    return str(found).partition("/")[0]


def test_two_routers_are_told_apart(both: Ground) -> None:
    both.sh("ip address add 192.168.2.1/32 dev eth0; ip address add fd00:2::1/128 dev eth0 nodad", "laptop")
    try:
        found = examined(both)
    finally:
        both.sh("ip address del 192.168.2.1/32 dev eth0; ip address del fd00:2::1/128 dev eth0", "laptop")
    assert [each["check"] for each in found] == ["duplicate-gateway"] * 2, found
    assert all("02:00:00:00:02:50" in each["message"] for each in found)
    assert examined(both) == []


def test_an_address_that_somebody_else_has_too(both: Ground) -> None:
    taken = on_the_lan(both, "outer")
    both.sh(f"ip address add {taken}/32 dev eth0", "laptop")
    try:
        finding = only(both, "duplicate-address")
        assert "02:00:00:00:02:50" in finding["message"]
        both.sh(finding["fix"])
        assert on_the_lan(both, "outer") != taken
        assert examined(both) == []
    finally:
        both.sh(f"ip address del {taken}/32 dev eth0", "laptop")


def test_a_mac_that_a_machine_of_the_lan_has_too(both: Ground) -> None:
    both.sandbox("double")
    both.attach("lan", "double", "--mac 02:00:00:00:02:01")
    try:
        assert "duplicate-mac" in {each["check"] for each in examined(both)}
    finally:
        both.berth("detach lan double")
    assert examined(both) == []


def test_a_nic_that_carries_less_than_is_sent(both: Ground) -> None:
    both.sh("ip link set enp3s0 mtu 1300; ip link set br0 mtu 1300")
    try:
        assert "mtu-mismatch" in {each["check"] for each in examined(both)}
        (finding,) = json.loads(both.tried("doctor --only mtu-mismatch --json").stdout)
        both.sh(finding["fix"])
        assert json.loads(both.tried("doctor --only mtu-mismatch --json").stdout) == []
    finally:
        both.sh("ip link set enp3s0 mtu 1500; ip link set br0 mtu 1500")


def test_a_published_port_that_nobody_hears(both: Ground) -> None:
    both.sh("berth port publish inner -p 8080:80 -p 8053:53/udp")
    with both.serving("inner"):
        finding = only(both, "port-nobody-listens")
        assert "8053/udp" in finding["message"]
        both.sh(finding["fix"])
        assert examined(both) == []
    both.sh(only(both, "port-nobody-listens")["fix"])
    assert examined(both) == []


def test_a_pool_without_room(both: Ground) -> None:
    both.berth("network create --subnet 10.77.0.0/30 tiny")
    both.container("tiny", "last")
    finding = only(both, "pool-exhausted")
    assert (finding["severity"], "0 of 1" in finding["message"]) == ("error", True), finding
    both.berth("detach tiny last")
    assert examined(both) == []
