"""`berth trace`: who ends a connection is named, in every way that one can end."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import pytest
from lab_ground import INTERNET, LAPTOP, LAPTOP6, NULL, Ground

from berth.lab.session import Lab

pytestmark = pytest.mark.timeout(120)

_THEIRS = "add table inet theirs; add chain inet theirs forward { type filter hook forward priority 0; policy drop; }"


@pytest.fixture(scope="module")
def host(lab: Lab) -> Iterator[Ground]:
    """A host with two NAT networks, an internal one and a LAN, a container on each; every test leaves it so."""
    here = Ground(lab)
    here.berth("network create --ipv6 back")
    here.berth("network create other")
    here.berth("network create --internal closed")
    here.berth("network create --driver flat --ipv6 --ip-range 192.168.2.128/26 -o parent=br0 lan")
    for network, name in (("back", "inner"), ("other", "stranger"), ("closed", "shut"), ("lan", "outer")):
        here.container(network, name)
    yield here
    here.clear()


def traced(ground: Ground, line: str) -> dict[str, Any]:
    """What `berth trace` says."""
    done = ground.tried(f"trace {line} --json")
    assert done.stderr == "", done
    said: dict[str, Any] = json.loads(done.stdout)
    assert done.returncode == (0 if said["culprit"] == "none" else 1)
    assert "berth_trace" not in ground.sh("nft list tables")
    return said


def address(ground: Ground, name: str) -> str:
    """A container's IPv4 address."""
    (found,) = [ep["addresses"][0] for ep in ground.told("endpoint ls") if ep["name"] == name]
    return str(found).partition("/")[0]


@pytest.mark.parametrize(
    "line", [f"inner {INTERNET}:80", f"outer {INTERNET}:80", f"outer {LAPTOP6}", f"inner {LAPTOP}"]
)
def test_what_arrives_is_nobodys_fault(host: Ground, line: str) -> None:
    assert traced(host, line)["culprit"] == "none"


@dataclass(frozen=True)
class Fault:
    """Something that ends a connection."""

    culprit: str
    line: str  # SRC DST
    make: str
    undo: str
    said: str  # in the message
    node: str = "host"


FAULTS = {
    "foreign-forward-drop": Fault(
        "foreign-firewall", f"inner {INTERNET}:80", f"nft '{_THEIRS}'", "nft delete table inet theirs", "theirs forward"
    ),
    "no-route": Fault(
        "route",
        f"inner {INTERNET}:80",
        "ip netns exec inner ip route del default",
        "berth reconcile",
        "no route",
    ),
    "rp-filter": Fault(
        "rp-filter",
        f"inner {INTERNET}:80",
        "sysctl -qw net.ipv4.conf.BRIDGE.rp_filter=1; ip route add INNER/32 dev br0",
        "ip route del INNER/32 dev br0; sysctl -qw net.ipv4.conf.BRIDGE.rp_filter=0",
        "reverse path filter",
    ),
    "wrong-bridge": Fault(
        "bridge",
        f"outer {LAPTOP}",
        "ip link set CABLE master BRIDGE",
        "ip link set CABLE master br0",
        "instead of br0",
    ),
    "wrong-vlan": Fault(
        "neighbour",
        f"outer {LAPTOP}",
        "ip link set host-enp3s0 nomaster",
        "ip link set host-enp3s0 master switch",
        "nobody on network lan",
        "switch",
    ),
    "anti-spoof": Fault(
        "anti-spoof",
        f"outer {LAPTOP}",
        "ip netns exec outer ip address add 192.168.2.99/32 dev eth0;"
        f"ip netns exec outer ip route add {LAPTOP}/32 dev eth0 src 192.168.2.99",
        f"ip netns exec outer ip route del {LAPTOP}/32; ip netns exec outer ip address del 192.168.2.99/32 dev eth0",
        "192.168.2.99",
    ),
    "mtu": Fault(
        "mtu",
        f"outer {LAPTOP}",
        "ip link set enp3s0 mtu 1300",
        "ip link set enp3s0 mtu 1500; ip link set br0 mtu 1500",
        "1500",
    ),
    "dead-listener": Fault("listener", f"outer {LAPTOP}:81", "true", "true", "81/tcp"),
    "isolation": Fault("isolation", "inner STRANGER", "true", "true", "back"),
    "internal": Fault("internal", f"shut {INTERNET}", "true", "true", "closed"),
}


@pytest.mark.parametrize("name", FAULTS)
def test_the_culprit_is_named(host: Ground, name: str) -> None:
    fault = FAULTS[name]
    cables = {ep["name"]: ep["link"] for ep in host.told("endpoint ls")}
    bridge = next(link["master"] for link in host.ip("host", "link") if link["ifname"] == cables["inner"])
    known = {
        "BRIDGE": bridge,
        "CABLE": cables["outer"],
        "INNER": address(host, "inner"),
        "STRANGER": address(host, "stranger"),
    }

    def filled(text: str) -> str:
        for word, value in known.items():
            text = text.replace(word, value)
        return text

    try:
        host.sh(filled(fault.make), fault.node)
        said = traced(host, filled(fault.line))
    finally:
        host.sh(f"set +e; {filled(fault.undo)}; true", fault.node)
    assert (said["culprit"], fault.said in said["message"]) == (fault.culprit, True), said
    if fault.line.startswith("outer") and name != "dead-listener":
        until(lambda: traced(host, filled(fault.line))["culprit"] == "none")  # bridge and neighbours take a moment


def test_bad_input_is_refused(host: Ground) -> None:
    assert "endpoint ls" in host.refused(f"trace nobody {LAPTOP}")
    assert "ADDRESS" in host.refused("trace inner nowhere:http")


def test_nothing_is_left_when_it_is_killed(host: Ground) -> None:
    """The probe to an address that nobody has takes seconds; meanwhile its end comes."""
    with host.lab.popen("host", ["berth", "trace", "outer", "192.168.2.60"], stdin=NULL, stdout=NULL) as running:
        until(lambda: "berth_trace" in host.sh("nft list tables"))
        running.kill()
        running.wait(timeout=10)
    until(lambda: "berth_trace" not in host.sh("nft list tables"))


def until(done: Callable[[], bool]) -> None:
    """Wait for something to be so."""
    for _ in range(200):
        if done():
            return
        time.sleep(0.05)
    pytest.fail("it never came to be")
