"""The nouns of Open vSwitch with a real one: the trials of test_nouns.py and test_faults.py, and what else can be.

The switch runs in the namespace of the test, with its userspace datapath.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
from collections.abc import Iterator
from ipaddress import ip_address
from pathlib import Path
from typing import Any

import pytest

import hosts
import vswitch
from berth.errors import NotFound, Refused, Taken, Unsupported
from berth.kernel import ovs, read
from berth.kernel.netns import inside
from berth.model import AttachRequest, Placement
from berth.ovs import DATAPATH, OvsBridge, OvsPort
from berth.plan import Add, Change, Del, diff
from berth.state import HOST, UPLINK_MARK, Addr, LinkUp, Obj, Veth, keys
from vswitch import OpenVSwitch

from . import test_faults as faults
from . import test_nouns as nouns
from .cases import ENDPOINT, NETWORK, Case
from .conftest import C1, Host, sh

pytestmark = pytest.mark.timeout(vswitch.patience(120))

_TWO_SWITCHES = """
for each in sw1 sw2; do ovs-vsctl add-br $each -- set bridge $each datapath_type=netdev; done
ip link add bv0 address 02:00:00:00:03:01 up type veth peer name x address 02:00:00:00:03:02
"""
_BRIDGE = OvsBridge("sw0", "02:00:00:00:00:01", "netdev", NETWORK)
_PORT = OvsPort("sw1", "bv0", ENDPOINT)
CASES = (
    Case(
        "ovs-bridge",
        _BRIDGE,
        OvsBridge("sw0", "02:00:00:00:00:02", "netdev", ENDPOINT),
        squatter="ovs-vsctl add-br sw0 -- set bridge sw0 datapath_type=netdev",
    ),
    Case(
        "ovs-port", _PORT, OvsPort("sw1", "bv0", NETWORK), squatter="ovs-vsctl add-port sw2 bv0", around=_TWO_SWITCHES
    ),
    Case("ovs-port-moves", _PORT, OvsPort("sw2", "bv0", ENDPOINT), around=_TWO_SWITCHES),
)
every = nouns.rows(CASES)


class SwitchedHost(Host):
    """A host with an Open vSwitch."""

    def __init__(self, switch: OpenVSwitch) -> None:
        self.switch = switch

    def everything(self) -> frozenset[str]:
        """With what the switch's database has."""
        return super().everything() | frozenset(database(self.switch))


def database(switch: OpenVSwitch) -> list[str]:
    """The bridges with their ports, and whose they are."""
    said = switch.vsctl("-f", "json", "--columns=name,external_ids", "list", "Port")
    found = [f"ovs port {row}" for row in json.loads(said)["data"]]
    settings = "--columns=name,external_ids,other_config,datapath_type,fail_mode,stp_enable,rstp_enable"
    found += [f"ovs bridge {row}" for row in json.loads(switch.vsctl("-f", "json", settings, "list", "Bridge"))["data"]]
    return found + [f"{name} has {switch.ports(name)}" for name in switch.vsctl("list-br").split()]


@pytest.fixture(scope="module", autouse=True)
def debian() -> None:
    """The switch's programs, made before a test is in a namespace without a network."""
    if Path("/proc/self/uid_map").read_text().split()[:2] != ["0", "0"] or os.geteuid() != 0:
        pytest.skip("Open vSwitch needs the machine's root: its own links come from /dev/net/tun")
    hosts.net_tree()


@pytest.fixture
def switch(host: Host, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[OpenVSwitch]:
    """A running switch, which Berth and `ovs-vsctl` find."""
    with OpenVSwitch(subprocess.Popen) as running:
        running.shim(tmp_path)
        monkeypatch.setenv("OVS_RUNDIR", str(running.home))
        monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
        yield running


@pytest.fixture
def switched(stage: Host, switch: OpenVSwitch) -> SwitchedHost:
    """The stage of the other nouns, with a switch."""
    return SwitchedHost(switch)


@pytest.fixture
def plugged(switched: SwitchedHost) -> SwitchedHost:
    """With two bridges of the operator's, and a cable."""
    sh(_TWO_SWITCHES)
    return switched


# --- the trials -----------------------------------------------------------------------------------------


@every
def test_what_is_sent_is_what_is_read_until_it_is_removed(switched: SwitchedHost, case: Case) -> None:
    nouns.test_what_is_sent_is_what_is_read_until_it_is_removed(switched, case)


@every
def test_a_change_sent_or_typed_leaves_exactly_the_new(switched: SwitchedHost, case: Case) -> None:
    nouns.test_a_change_sent_or_typed_leaves_exactly_the_new(switched, case)


@nouns.rows(case for case in CASES if case.squatter)
def test_what_is_somebody_elses_is_refused(switched: SwitchedHost, case: Case) -> None:
    nouns.test_what_is_somebody_elses_is_refused(switched, case)


@every
def test_what_is_printed_is_what_would_be_sent(switched: SwitchedHost, case: Case) -> None:
    nouns.test_what_is_printed_is_what_would_be_sent(switched, case)


# --- bridges --------------------------------------------------------------------------------------------


def test_a_bridges_own_link_can_be_used_at_once(switched: SwitchedHost) -> None:
    wanted: tuple[Obj, ...] = (LinkUp(HOST, "sw0"), Addr(HOST, "sw0", "10.6.0.1/24"))
    switched.send(Add(_BRIDGE), *(Add(each) for each in wanted))
    assert switched.read(*wanted) == {*wanted}
    (link,) = switched.ip("link", "show", "sw0")
    assert link["address"] == _BRIDGE.mac


def test_a_bridge_without_a_datapath_is_refused(switched: SwitchedHost) -> None:
    """The switch of these tests is told to do without the kernel's."""
    assert ovs.datapath() == "netdev"
    kernels = OvsBridge("sw0", _BRIDGE.mac, "", NETWORK)
    with pytest.raises(Refused, match=r"add-br sw0 .*module openvswitch"):
        switched.send(Add(kernels))
    switched.send(*diff({_BRIDGE}, switched.read(_BRIDGE)).ops)
    switched.send(Add(LinkUp(HOST, "sw0")))


def test_a_bridges_mac_is_pinned(plugged: SwitchedHost) -> None:
    low = "02:00:00:00:00:00"
    plugged.send(Add(_BRIDGE))
    sh(f"ip link add low address {low} up type veth peer name x2; ovs-vsctl add-port sw0 low")
    (link,) = plugged.ip("link", "show", "sw0")
    assert link["address"] == _BRIDGE.mac


@pytest.mark.parametrize("setting", ["stp_enable=true", "rstp_enable=true", "fail_mode=secure", "other_config={}"])
def test_a_bridge_that_is_no_plain_switch_is_put_right(switched: SwitchedHost, setting: str) -> None:
    switched.send(Add(_BRIDGE))
    sh(f"ovs-vsctl set bridge sw0 {setting}")
    plan = diff({_BRIDGE}, switched.read(_BRIDGE))
    assert [type(op) for op in plan.ops] == [Change]
    switched.send(*plan.ops)
    assert switched.read(_BRIDGE) == {_BRIDGE}


def test_a_bridge_takes_its_ports_along(plugged: SwitchedHost) -> None:
    port = OvsPort("sw0", "bv0", ENDPOINT)
    plugged.send(Add(_BRIDGE), Add(port))
    plan = diff((), plugged.read(_BRIDGE, port))
    assert plan.ops == (Del(_BRIDGE),)
    plugged.send(*plan.ops)
    assert plugged.read(_BRIDGE, port) == frozenset()


# --- ports ----------------------------------------------------------------------------------------------


def test_a_port_without_a_link_is_refused_in_the_switchs_words(plugged: SwitchedHost) -> None:
    with pytest.raises(Refused, match=r"ghost.*No such device"):
        plugged.send(Add(OvsPort("sw1", "ghost", ENDPOINT)))


def test_a_port_of_no_bridge_leaves_nothing_of_what_was_sent_with_it(plugged: SwitchedHost) -> None:
    before = plugged.everything()
    with pytest.raises(NotFound, match="bridge sw9"):
        plugged.send(Add(_PORT), Add(OvsPort("sw9", "x", ENDPOINT)))
    assert plugged.everything() == before


def test_many_ports_are_one_transaction(plugged: SwitchedHost) -> None:
    ports = [OvsPort("sw1", f"many{number}", ENDPOINT) for number in range(200)]
    plugged.batch("".join(f"link add {port.name} type veth peer name {port.name}x\n" for port in ports))
    plugged.send(*map(Add, ports))
    assert plugged.read(*ports) == {*ports}
    plugged.send(*map(Del, ports))
    assert plugged.switch.ports("sw1") == []


def test_what_berth_made_is_known_from_what_others_made(plugged: SwitchedHost) -> None:
    uplink = OvsPort("sw2", "up0", UPLINK_MARK + "up0")
    sh("ovs-vsctl add-port sw1 up1 -- set port up1 external_ids:iface-id=berth")
    plugged.send(Add(_BRIDGE), Add(_PORT), Add(uplink))
    assert plugged.read(marked=True) == {_BRIDGE, _PORT}
    assert plugged.read(uplink) == {uplink}
    with pytest.raises(Taken, match="up1"):
        diff({OvsPort("sw1", "up1", ENDPOINT)}, plugged.read(OvsPort("sw1", "up1", ENDPOINT)))


def test_a_port_outlives_its_link_and_is_swept(plugged: SwitchedHost) -> None:
    plugged.send(Add(_PORT))
    sh("ip link del bv0")
    found = plugged.read(marked=True)
    assert keys(found) == {_PORT.key}
    plugged.send(*diff((), found).ops)
    assert plugged.switch.ports("sw1") == []


def test_a_cable_has_no_master_to_be_freed_of(plugged: SwitchedHost) -> None:
    cable = Veth("bv1", "", 1400, ENDPOINT, C1, "eth1", "02:00:00:00:02:01")
    port = OvsPort("sw1", "bv1", ENDPOINT)
    plugged.send(Add(cable), Add(port))
    sh("ip link set bv1 down mtu 1300")
    plan = diff({cable, port}, plugged.read(cable, port))
    plugged.send(*plan.ops)
    assert plugged.read(cable, port) == {cable, port}


def test_the_hosts_links_are_told_with_their_switch(plugged: SwitchedHost) -> None:
    plugged.send(Add(_PORT))
    assert [ovs.ports(name) for name in ("sw1", "sw2", "plug")] == [("bv0",), (), ()]
    link = {each.name: each for each in read.host().links}
    assert (link["sw1"].kind, link["sw1"].userspace, link["bv0"].master) == ("ovs", True, "sw1")
    assert (link["plug"].kind, link["up0"].master) == ("bridge", "")
    assert link["ovs-netdev"].kind == "tun"


def test_a_switch_of_another_network_namespace_is_left_alone(plugged: SwitchedHost) -> None:
    plugged.send(Add(_PORT))
    with inside(C1):
        assert plugged.read(_PORT, marked=True) == frozenset()
        with pytest.raises(Unsupported, match="in this network namespace"):
            plugged.send(Add(OvsPort("sw1", "eth0", ENDPOINT)))
        plugged.send(Del(_PORT))
    assert plugged.read(_PORT) == {_PORT}


def test_the_kernels_datapath_is_no_bridge_to_be_unplugged_from(stage: Host) -> None:
    """As its ports look to the kernel; there need not be a module for it on a machine that runs the tests."""
    cable = Veth("bv1", "", 1400, ENDPOINT, C1, "eth1", "02:00:00:00:02:01")
    stage.send(Add(cable))
    sh(f"ip link add {DATAPATH} type bridge; ip link set bv1 master {DATAPATH} mtu 1300")
    plan = diff({cable}, stage.read(cable))
    stage.send(*plan.ops)
    assert stage.read(cable) == {cable}
    (link,) = stage.ip("link", "show", "bv1")
    assert (link["mtu"], link["master"]) == (1400, DATAPATH)


# --- a switch that is not there -------------------------------------------------------------------------


def test_without_a_switch_nothing_is_there_and_nothing_can_be(plugged: SwitchedHost) -> None:
    plugged.switch.stop_switch()
    plugged.switch.stop_database()
    assert plugged.read(_PORT, marked=True) == frozenset()
    with pytest.raises(Unsupported, match=r"no Open vSwitch runs.*systemctl start"):
        plugged.send(Add(_PORT))
    plugged.send(Del(_PORT))


def test_a_database_alone_takes_no_port_but_gives_one_up(plugged: SwitchedHost) -> None:
    plugged.send(Add(_PORT))
    plugged.switch.stop_switch()
    other = OvsPort("sw1", "x", ENDPOINT)
    with pytest.raises(Unsupported, match="ovs-vswitchd is not running"):
        plugged.send(Add(other))
    assert keys(plugged.read(_PORT, other)) == {_PORT.key}
    plugged.send(Del(_PORT))
    assert plugged.read(_PORT, other) == frozenset()
    plugged.switch.start_switch()
    plugged.send(Add(other))


def test_a_switch_that_hangs_is_not_waited_for_for_ever(plugged: SwitchedHost, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ovs, "_PATIENCE", 300)
    plugged.switch.signal_switch(signal.SIGSTOP)
    try:
        with pytest.raises(Refused, match=r"has not done .*add-port sw1 bv0"):
            plugged.send(Add(_PORT))
    finally:
        plugged.switch.signal_switch(signal.SIGCONT)
    plugged.send(Del(_PORT))
    assert plugged.read(_PORT) == frozenset()


# --- failures at every operation ------------------------------------------------------------------------


class World(faults.World):
    """A host whose LAN's bridge is Open vSwitch's."""

    switch: OpenVSwitch

    def snapshot(self) -> dict[str, Any]:
        """With what the switch's database has."""
        found = json.loads(faults._NEW_EACH_TIME.sub("new", json.dumps(sorted(database(self.switch)))))
        return super().snapshot() | {"ovs": found}


@pytest.fixture
def world(host: Host, switch: OpenVSwitch, tmp_path: Path) -> World:
    for name in ("c1", "c2", "far"):
        host.sandbox(name)
    for way in ("up", "down"):  # see test_faults.py
        sh(f"ip -n c1 link set lo {way}; ip -n c2 link set lo {way}")
    sh(
        "ovs-vsctl add-br br0 -- set bridge br0 datapath_type=netdev other_config:hwaddr=02:00:00:00:00:0b\n"
        "ip link add enp3s0 up type veth peer name port netns far\n"
        "ip -n far link set port up; ip link set br0 up\n"
        "ovs-vsctl add-port br0 enp3s0\n"
        "ip addr add 192.168.2.2/24 dev br0; ip addr add fd00:2::2/64 dev br0 nodad\n"
        "ip route add default via 192.168.2.1; ip -6 route add default via fd00:2::1"
    )
    state = tmp_path / "state"
    state.mkdir()
    made = World(host, state)
    made.switch = switch
    return made


@pytest.mark.parametrize("how", ["fail", "fail-and-go-on", "kill"])
@pytest.mark.parametrize("scenario", ["create-flat", "attach-flat", "detach-flat", "remove-flat"])
def test_every_operation_may_be_the_last(world: World, scenario: str, how: str) -> None:
    faults.test_every_operation_may_be_the_last(world, scenario, how)


def test_the_scenarios_are_about_the_switch(world: World) -> None:
    before_verbs, verb = faults.SCENARIOS["attach-flat"]
    for setup in before_verbs:
        world.do(setup)
    plan = world.do(verb, dry_run=True).plan
    assert any(isinstance(op, Add) and isinstance(op.new, OvsPort) for op in plan.ops)


def test_a_cable_that_was_handed_over_is_as_it_should_be(world: World) -> None:
    """Docker takes the inner end along, and its setting with it."""
    world.do(faults.FLAT)
    address, identity = ip_address("192.168.2.9"), "f" * 64
    request = AttachRequest("lan", "", addresses=(address,), placement=Placement.HANDOVER, id=identity)
    world.do(lambda engine, dry: engine.attach(request, dry_run=dry))
    inner = f"bw{identity[:12]}"
    assert "tx-checksumming: off" in sh(f"ethtool -k {inner}")
    sh(f"ip link set {inner} netns c1 name eth0; ip -n c1 link set eth0 up; ip -n c1 addr add {address}/24 dev eth0")
    before = world.snapshot()
    assert not world.do(lambda engine, _: engine.reconcile()).plan
    assert faults.differences(before, world.snapshot()) == []
    sh("ip -n c1 link del eth0")
    world.do(lambda engine, _: engine.reconcile())
    assert world.switch.ports("br0") == ["enp3s0"]


def test_what_is_broken_by_hand_is_put_right(world: World) -> None:
    world.do(faults.FLAT)
    world.do(faults.C2_ON_LAN)
    right = world.snapshot()
    (cable,) = {*world.switch.ports("br0")} - {"enp3s0"}
    elsewhere = "add-br other -- set bridge other datapath_type=netdev"
    for harm in (
        f"ovs-vsctl del-port {cable}",
        f"ovs-vsctl del-port {cable} -- {elsewhere} -- add-port other {cable} -- set port {cable} external_ids:berth=x",
        f"ovs-vsctl set port {cable} external_ids:berth=y",
        f"ip link del {cable}",
        "ip netns exec c2 ethtool -K eth0 tx on",
        "ovs-vsctl add-port br0 port9 -- set port port9 external_ids:berth=z -- set interface port9 type=internal",
    ):
        sh(harm)
        world.do(lambda engine, _: engine.reconcile())
        sh("ovs-vsctl --if-exists del-br other")
        assert faults.differences(right, world.snapshot()) == [], harm
        assert "tx-checksumming: off" in sh("ip netns exec c2 ethtool -k eth0"), harm
