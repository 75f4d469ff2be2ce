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
    both.sh("ip netns delete inner")
    both.forget("inner")
    finding = only(both, "orphans")
    assert "inner" in finding["message"]
    both.sh(finding["fix"])
    assert examined(both) == []
