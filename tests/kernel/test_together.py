"""Nouns that depend on each other, and what they become in other hands."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from berth.engine.reach import reach, scope_of
from berth.firewall import tables
from berth.kernel import read
from berth.kernel.linux import LinuxKernel
from berth.plan import Add, Change, Del, Op, Plan, diff
from berth.seams import Scope
from berth.state import HOST, Addr, Bridge, LinkUp, NftElement, NftHook, NftTable, Obj, Route, State, Veth, keys

from .cases import CASES, ENDPOINT, GUARD, LAN_TABLE, NETWORK, table
from .conftest import C1, Host, sh, type_in

BRIDGE = Bridge("brt0", "02:00:00:00:00:01", 1500, NETWORK)
CABLE = Veth("bv0", "brt0", 1500, ENDPOINT, C1, "eth1", "02:00:00:00:02:01")
HANDED = Veth("bv1", "brt0", 1500, ENDPOINT, HOST, "bw1", "02:00:00:00:02:02")
ELEMENT = NftElement("inet", "berth", "bridges", (("ifname", "brt0"),))


def state(*objects: Obj) -> State:
    return frozenset(objects)


def make(stage: Host, *objects: Obj) -> None:
    """Send each by itself."""
    for obj in objects:
        stage.send(Add(obj))


# --- one plan -------------------------------------------------------------------------------------------


def test_a_plan_may_plug_a_cable_into_the_bridge_that_it_makes(stage: Host) -> None:
    want = state(BRIDGE, CABLE, HANDED, Addr(HOST, "brt0", "10.7.0.1/24"))
    stage.send(*diff(want, ()).ops)
    assert stage.read(*want) == want


def test_one_plan_for_everything(stage: Host) -> None:
    """An object of every key that can stand beside the others; gone again by one plan."""
    beside = {case.obj.key: case.obj for case in CASES if case.obj.key[:1] != ("link",) and not case.obj.sticky}
    for around in {case.around for case in CASES if case.around}:
        sh(around)
    beside |= {obj.key: obj for obj in (GUARD, LAN_TABLE, tables.inet())}
    for ns, dev in ((HOST, "plug"), (C1, "eth0")):
        del beside["addr", ns, dev, "fd07::1/128"]  # the kernel takes an IPv6 address with one length only
    links = {case.obj for case in CASES if case.name in ("bridge", "veth", "vxlan-6", "seal")}
    want = frozenset({*beside.values(), *links})
    before = stage.everything()
    stage.send(*diff(want, ()).ops)
    assert stage.read(*want) == want
    stage.send(*diff((), want).ops)
    assert {obj for obj in stage.read(*want) if not obj.sticky} == set()  # a way that needs no rule is always there
    LinuxKernel().sweep()
    assert stage.everything() == before


def test_the_kernel_drops_what_the_plan_does_not_name(stage: Host) -> None:
    """What vanishes with a table, a cable or a sandbox's link is not removed one by one."""
    before = stage.everything()
    own = state(BRIDGE, CABLE, Addr(C1, "eth1", "10.7.0.1/24"), tables.inet(), ELEMENT, LAN_TABLE)
    make(stage, *sorted(own, key=lambda obj: obj.rank))
    plan = diff((), stage.read(*own))
    assert {type(op.old) for op in plan.ops if isinstance(op, Del)} == {Bridge, Veth, NftTable}
    stage.send(*plan.ops)
    LinuxKernel().sweep()
    assert stage.everything() == before


def test_a_hook_goes_with_its_cable(stage: Host) -> None:
    make(stage, BRIDGE, LAN_TABLE)
    before = stage.everything()
    make(stage, CABLE, hook := NftHook(LAN_TABLE.name, "bv0"))
    stage.send(*diff((), stage.read(CABLE, hook)).ops)
    LinuxKernel().sweep()
    assert stage.everything() == before


def test_an_entry_that_points_to_a_lost_link_can_be_removed(stage: Host) -> None:
    entry = NftElement("netdev", LAN_TABLE.name, "cables", (("mac", CABLE.mac),), (("ifindex", "bv0"),))
    make(stage, LAN_TABLE, BRIDGE, CABLE, entry)
    sh("ip link del bv0")
    stage.send(*diff((), stage.read(entry)).ops)
    assert stage.read(entry) == frozenset()
    make(stage, CABLE, entry)


# --- by mark --------------------------------------------------------------------------------------------


def test_everything_marked_is_found_and_nothing_else(stage: Host) -> None:
    hook = NftHook(LAN_TABLE.name, "bv0")
    entry = NftElement("netdev", LAN_TABLE.name, "cables", (("mac", CABLE.mac),), (("ifindex", "bv0"),))
    ours = (BRIDGE, CABLE, HANDED, tables.inet(), GUARD, ELEMENT, LAN_TABLE, hook, entry)
    make(stage, *ours)
    sh("ip link add br7 type bridge && ip link set br7 alias 'not berth:7'")
    sh("nft add table ip berth; nft add table inet other; nft 'add set inet other bridges { type ifname; }'")
    sh("nft 'add element inet other bridges { brt0 }'; nft add table netdev other")
    assert stage.read(marked=True) == set(ours)


def test_a_table_of_berths_name_without_its_stamp_is_somebody_elses(stage: Host) -> None:
    """Reconciling compares all that is marked with what is wanted: here, nothing."""
    sh("nft 'table inet berth { set bridges { type ifname; elements = { x }; }; chain forward { }; }'")
    sh("nft 'table netdev berth_y { chain stamp { }; }'")  # which a flushed one of Berth's has besides its sets
    sh("nft 'table bridge berth { chain x { counter; }; }'")
    sh("nft 'table netdev berth_x { chain x { type filter hook ingress device plug priority 0; }; }'")
    assert not diff((), stage.read(marked=True))


def test_a_cable_that_nobody_wants_is_removed_though_its_sandbox_is_unknown(stage: Host) -> None:
    before = stage.everything()
    make(stage, BRIDGE, CABLE)
    stage.send(*diff((), read.read(Scope(frozenset(), marked=True))).ops)
    LinuxKernel().sweep()
    assert stage.everything() == before


# --- out of service -------------------------------------------------------------------------------------


def test_a_cable_out_of_service_is_not_there_and_makes_room(stage: Host) -> None:
    make(stage, BRIDGE, CABLE, HANDED)
    stage.send(Del(CABLE), Del(HANDED))
    assert stage.read(BRIDGE, CABLE, HANDED, marked=True) == {BRIDGE}
    again = Veth("bv2", "brt0", 1500, ENDPOINT, C1, "eth1", CABLE.mac)
    make(stage, again, Veth("bv3", "brt0", 1500, ENDPOINT, HOST, "bw1", HANDED.mac))
    LinuxKernel().sweep()
    assert {link["ifname"] for link in stage.ip("link", ns=C1)} == {"lo", "eth0", "eth0.7", "eth1"}
    made = {"brt0", "bv2", "bv3", "bw1"}
    assert {link["ifname"] for link in stage.ip("link")} == {"lo", "plug", "plug2", "up0", "up1", *made}


def test_a_sweep_with_nothing_to_do_is_no_error(stage: Host) -> None:
    before = stage.everything()
    LinuxKernel().sweep()
    assert stage.everything() == before


@pytest.mark.parametrize("ns", [HOST, C1, "/run/netns/gone"])
def test_what_went_with_its_link_or_sandbox_can_be_removed(stage: Host, ns: str) -> None:
    stage.send(Add(LinkUp(C1, "eth0.7")), Del(Addr(ns, "lost", "10.7.0.1/24")), Del(Route(ns, "10.5.0.0/16", "lost")))


@pytest.mark.parametrize("left", ["nothing", "a file"])
def test_a_cable_can_be_removed_after_its_sandbox(stage: Host, left: str) -> None:
    make(stage, BRIDGE, CABLE)
    sh("ip netns del c1")
    if left == "a file":  # what is left of a name whose mount is gone
        Path(C1).touch()
    stage.send(Del(CABLE))
    assert stage.read(CABLE) == frozenset()


# --- in other hands -------------------------------------------------------------------------------------


def test_a_bridge_keeps_its_mtu_and_mac_whatever_is_plugged_in(stage: Host) -> None:
    """The kernel gives a bridge the smallest MTU of its ports, unless its MTU was changed by hand."""
    make(stage, BRIDGE)
    stage.batch("link add p0 mtu 1300 address 00:00:00:00:00:01 type veth peer name p1\nlink set p0 master brt0 up")
    assert stage.read(BRIDGE) == {BRIDGE}
    stage.batch("link del p0")
    assert stage.read(BRIDGE) == {BRIDGE}


def _sent(op: Op) -> None:
    LinuxKernel().send(Plan((op,)))


ways = pytest.mark.parametrize("way", [pytest.param(_sent, id="sent"), pytest.param(type_in, id="typed")])


@ways
@pytest.mark.parametrize(
    "meddling",
    ["type bridge stp_state 1", "type bridge forward_delay 1500", "down", "mtu 1300", "address 02:00:00:00:09:09"],
)
def test_a_bridge_is_put_right_by_one_change(stage: Host, meddling: str, way: Callable[[Op], None]) -> None:
    make(stage, BRIDGE)
    sh(f"ip link set brt0 {meddling}")
    (op,) = diff({BRIDGE}, stage.read(BRIDGE)).ops
    assert isinstance(op, Change)
    way(op)
    assert stage.read(BRIDGE) == {BRIDGE}


@ways
@pytest.mark.parametrize("meddling", ["nomaster", "down", "mtu 1300", "master plug"])
def test_a_cable_is_put_right_by_one_change(stage: Host, meddling: str, way: Callable[[Op], None]) -> None:
    make(stage, BRIDGE, CABLE)
    sh(f"ip link set bv0 {meddling}")
    (op,) = diff({CABLE}, stage.read(CABLE)).ops
    assert isinstance(op, Change)
    way(op)
    assert stage.read(CABLE) == {CABLE}


def test_a_bridge_that_was_deleted_comes_back_with_its_cables_plugged_in(stage: Host) -> None:
    want = state(BRIDGE, CABLE, HANDED)
    make(stage, BRIDGE, CABLE, HANDED)
    sh("ip link del brt0")
    reach(LinuxKernel(), want, scope_of(want))
    assert stage.read(*want) == want


def test_a_cable_that_was_handed_over_may_move_on(stage: Host) -> None:
    """The engine that it was handed to moves it into a container that Berth is not told of, and renames it."""
    make(stage, BRIDGE, HANDED)
    sh("ip link set bw1 netns c1 name eth1 && ip -n c1 link set eth1 up")
    assert not diff(state(BRIDGE, HANDED), read.read(Scope(keys({BRIDGE, HANDED}), marked=True)))


# --- tables of another version --------------------------------------------------------------------------


def test_a_new_table_keeps_elements_and_hooks(stage: Host) -> None:
    family, name = LAN_TABLE.family, LAN_TABLE.name
    kept = "map cables { type ether_addr : iface_index; }\nchain lan { }"
    old, new = (table(family, name, n, digest=str(n) * 12, sets=kept, hooked=False) for n in (1, 2))
    entry = NftElement(family, name, "cables", (("mac", CABLE.mac),), (("ifindex", "up0"),))
    hook = NftHook(name, "up0")
    make(stage, old, entry, hook)
    stage.send(*diff(state(new, entry, hook), stage.read(old, entry, hook)).ops)
    assert stage.read(new, entry, hook) == {new, entry, hook}
    assert "jump lan" in sh(f"nft list chain {family} {name} {hook.chain}")


@pytest.mark.parametrize("difference", ["priority -5; policy accept;", "priority 0; policy drop;"])
def test_a_new_table_may_hook_its_chain_elsewhere(stage: Host, difference: str) -> None:
    sets = "set bridges { type ifname; }"
    old = table("inet", "berth", 1, sets=sets)
    text = table("inet", "berth", 1, digest="ffffffffffff", sets=sets).text.replace(
        "priority 0; policy accept;", difference
    )
    new = NftTable("inet", "berth", "ffffffffffff/2", text)
    make(stage, old, ELEMENT)
    stage.send(Change(old, new))
    assert stage.read(new, ELEMENT) == {new, ELEMENT}


def test_a_table_whose_rules_were_changed_by_hand_is_put_right(stage: Host) -> None:
    make(stage, tables.inet(), ELEMENT)
    sh("nft flush chain inet berth forward")
    want = state(tables.inet(), ELEMENT)
    stage.send(*diff(want, stage.read(*want)).ops)
    assert stage.read(*want) == want
    assert "iifname @internal drop" in sh("nft list chain inet berth forward")
