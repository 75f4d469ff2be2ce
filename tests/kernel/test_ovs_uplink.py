"""A NIC moves onto a bridge of Open vSwitch's and back: its two states, reached from anywhere in between."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import pytest

import vswitch
from berth.engine.reach import reach
from berth.kernel import ovs
from berth.kernel.linux import LinuxKernel
from berth.kernel.uplink import LinuxUplink
from berth.moved import Moved
from berth.plan import Plan, diff
from berth.seams import Scope
from berth.state import State, keys
from berth.uplink.decide import on_nic
from berth.uplink.onto_ovs import on_ovs
from vswitch import OpenVSwitch

from .conftest import Host, ip, sh
from .test_ovs import SwitchedHost, debian, switch  # noqa: F401

pytestmark = pytest.mark.timeout(vswitch.patience(120))

_NIC = """
ip netns add far
ip link add enp3s0 address 02:00:00:00:00:02 up type veth peer name wall netns far
ip -n far link set wall up
ip -n far addr add 192.168.2.1/24 dev wall; ip -n far addr add fd00:2::1/64 dev wall nodad
ip addr add 192.168.2.2/24 dev enp3s0 brd +; ip addr add fd00:2::2/64 dev enp3s0 nodad
ip route add default via 192.168.2.1; ip route add 10.5.0.0/16 via 192.168.2.1 metric 7
ip -6 route add default via fd00:2::1
while ip -6 address | grep -q tentative; do sleep 0.05; done
"""


@dataclass
class Uplink:
    """A host with a NIC, and the two states."""

    host: SwitchedHost
    before: State
    after: State

    def reach(self, state: State) -> None:
        every = keys(self.before) | keys(self.after)
        reach(LinuxKernel(), state, Scope(every, devices=frozenset({"enp3s0", "br0"})))

    def look(self) -> list[str]:
        return sorted({*self.host.everything(), *(f"addr {line}" for line in addresses())})


def addresses() -> Iterable[str]:
    for link in ip("-d", "addr"):
        yield from (f"{link['ifname']} {each['local']} {each['scope']}" for each in link["addr_info"])


@pytest.fixture
def uplink(host: Host, switch: OpenVSwitch) -> Iterator[Uplink]:  # noqa: F811
    sh(_NIC)
    facts = LinuxUplink(None).facts("enp3s0", "br0")
    assert ovs.datapath() == "netdev"
    yield Uplink(
        SwitchedHost(switch),
        on_nic(facts.nic, facts.carried, facts.settings),
        on_ovs(facts.nic, "br0", ovs.datapath(), facts.carried, facts.settings),
    )


def pings() -> str:
    """Both ways, in both families."""
    there = "ping -n -c3 -i0.1 -W2 192.168.2.1; ping -n -c3 -i0.1 -W2 fd00:2::1"
    back = "ip netns exec far ping -n -c3 -i0.1 -W2 192.168.2.2; ip netns exec far ping -n -c3 -i0.1 -W2 fd00:2::2"
    return sh(f"{there}; {back}")


def test_the_host_is_on_the_lan_by_its_switch_and_hears_everything_once(uplink: Uplink) -> None:
    pings()
    uplink.reach(uplink.after)
    said = pings()
    assert "DUP" not in said and said.count(" 0% packet loss") == 4
    assert uplink.host.switch.ports("br0") == ["enp3s0"]
    held = [*addresses()]
    assert "br0 192.168.2.2 global" in held and "br0 fd00:2::2 global" in held
    assert not [line for line in held if line.startswith("enp3s0")]
    assert {link["ifname"]: link["address"] for link in ip("link")}["br0"] == "02:00:00:00:00:02"
    assert re.search("default via 192.168.2.1 dev br0", sh("ip route"))


def test_the_way_back_leaves_nothing(uplink: Uplink) -> None:
    before = uplink.look()
    uplink.reach(uplink.after)
    assert uplink.look() != before
    uplink.reach(uplink.before)
    assert uplink.look() == before
    assert pings().count(" 0% packet loss") == 4


def test_from_anywhere_in_between_there_is_a_way_back(uplink: Uplink) -> None:
    before = uplink.look()
    operations = diff(uplink.after, uplink.before).ops
    assert len(operations) > 10
    for stop in range(1, len(operations)):
        uplink.host.send(*operations[:stop])
        uplink.reach(uplink.before)
        assert uplink.look() == before, f"after {stop} operations"


def test_a_sweep_leaves_the_hosts_own_bridge_alone(uplink: Uplink) -> None:
    uplink.reach(uplink.after)
    assert not diff((), uplink.host.read(marked=True))
    assert not [obj for obj in uplink.host.read(marked=True) if isinstance(obj, Moved)]
    assert not Plan(diff(uplink.after, uplink.host.read(*uplink.after)).ops)
