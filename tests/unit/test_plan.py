"""`diff`, over random pairs of states and a kernel that does as Linux does."""

from __future__ import annotations

from collections.abc import Iterable
from random import Random
from typing import get_args

import pytest
from hypothesis import event, given, settings
from hypothesis import strategies as st

from berth.errors import Taken
from berth.flows import NftFlows
from berth.moved import MovedAddr, MovedNeigh, MovedRoute, MovedRule, Port, TextFile
from berth.overlaid import Fdb, Neigh, Vxlan
from berth.ovs import OvsBridge, OvsPort, TxChecksums
from berth.plan import Add, Change, Del, Op, Plan, diff
from berth.rates import NftRate, Shaped
from berth.sealed import WireGuard, WireGuardPeer
from berth.state import (
    HOST,
    Addr,
    Bridge,
    Foreign,
    Key,
    LinkUp,
    NftElement,
    NftGuard,
    NftHook,
    NftPass,
    NftTable,
    Obj,
    Route,
    State,
    Sysctl,
    Veth,
    Zoned,
    keys,
)

C1, C2 = "/run/netns/c1", "/run/netns/c2"
drawn = settings(deadline=None, max_examples=150)

# --- states that meet -----------------------------------------------------------------------------------

spaces = st.sampled_from([HOST, C1, C2])
inners = st.sampled_from(["eth0", "eth1"])
devices = st.sampled_from(["brt0", "bv0", "eth0"])
macs = st.sampled_from(["02:00:00:00:00:01", "02:00:00:00:00:02"])
plugs = st.sampled_from(["", "brt0"])
mtus = st.sampled_from([1400, 1500])
marks = st.sampled_from(["berth:1", "berth:2"])
families = st.sampled_from(["inet", "bridge"])
switches = st.sampled_from(["ovs0", "ovs1"])
parts = st.sampled_from(["brt0", "brt1"]).map(lambda name: (("ifname", name),))

NOUNS: dict[type, st.SearchStrategy[Obj]] = {
    Bridge: st.builds(Bridge, st.sampled_from(["brt0", "brt1"]), macs, mtus, marks),
    Veth: st.builds(Veth, st.just("bv0"), plugs, mtus, marks, st.sampled_from([C1, C2]), inners, macs)
    | st.builds(Veth, st.just("bv1"), plugs, mtus, marks, st.just(HOST), inners, macs),  # handed over
    Sysctl: st.builds(Sysctl, spaces, st.sampled_from(["net.a", "net.b"]), st.sampled_from(["0", "1"])),
    LinkUp: st.builds(LinkUp, spaces, devices, st.booleans()),
    Addr: st.builds(Addr, spaces, devices, st.sampled_from(["10.0.0.1/24", "fd00::1/64"])),
    Route: st.builds(Route, spaces, st.sampled_from(["0.0.0.0/0", "::/0"]), devices, st.sampled_from(["", "10.0.0.9"])),
    NftTable: st.builds(NftTable, families, st.just("berth"), st.sampled_from(["abc/1", "def/2"])),
    NftElement: st.builds(NftElement, families, st.just("berth"), st.just("s"), parts, st.just(()) | parts),
    NftHook: st.builds(NftHook, st.sampled_from(["berth_1", "berth_2"]), devices, st.sampled_from(["lan", "guarded"])),
    NftGuard: st.builds(NftGuard, devices, st.sampled_from(["abc/1", "def/2"])),
    NftRate: st.builds(NftRate, devices, st.sampled_from([0, 1000]), st.just(9000)),
    WireGuard: st.builds(WireGuard, devices, st.sampled_from(["", "k="]), st.just(51820), st.just(1420), st.just("/k")),
    WireGuardPeer: st.builds(
        WireGuardPeer, devices, st.sampled_from(["a=", "b="]), st.just("192.0.2.2:51820"), st.just("fe80::2")
    ),
    NftFlows: st.builds(NftFlows, devices, st.sampled_from([(), ("eth0",), ("eth0", "eth1")])),
    Shaped: st.builds(Shaped, devices, st.sampled_from([1000, 2000]), st.just(9000)),
    NftPass: st.builds(NftPass, st.sampled_from(["ip", "ip6"]), devices, st.sampled_from(NftPass.directions)),
    Zoned: st.builds(Zoned, devices),
    OvsBridge: st.builds(OvsBridge, switches, macs, st.sampled_from(["", "netdev"]), marks),
    OvsPort: st.builds(OvsPort, switches, devices, marks),
    TxChecksums: st.builds(TxChecksums, spaces, devices, st.booleans()),
    Port: st.builds(Port, devices, plugs, st.sampled_from([0, 1])),
    MovedAddr: st.builds(MovedAddr, devices, st.sampled_from(["10.1.0.1/24", "fd01::1/64"]), label=inners),
    MovedRoute: st.builds(MovedRoute, st.just(2), st.sampled_from(["0.0.0.0/0", "10.7.0.0/16"]), devices, plugs),
    MovedRule: st.builds(MovedRule, st.just(2), st.just("02"), st.sampled_from([7, 8]), devices),
    MovedNeigh: st.builds(MovedNeigh, devices, st.just("10.1.0.9"), macs),
    Vxlan: st.builds(
        Vxlan, st.just("bvx0"), plugs, st.sampled_from([7, 8]), st.just("10.0.0.1"), st.just(4789), macs, mtus, marks
    ),
    Fdb: st.builds(Fdb, devices, macs, st.sampled_from(["10.0.0.2", "10.0.0.3"])),
    Neigh: st.builds(Neigh, devices, st.sampled_from(["10.9.0.2", "fd09::2"]), macs),
    TextFile: st.builds(TextFile, st.sampled_from(["/etc/a", "/etc/b"]), st.sampled_from(["1", "2"])),
}
objects: st.SearchStrategy[Obj] = st.one_of(*NOUNS.values())
foreign = objects.map(lambda obj: Foreign(obj.key, f"a thing at {'-'.join(obj.key)}"))


def one_a_key(every: Iterable[Obj]) -> State:
    """As in a kernel, nothing twice."""
    return frozenset({obj.key: obj for obj in every}.values())


states = st.lists(objects, max_size=14).map(one_a_key)


@st.composite
def pairs(draw: st.DrawFn) -> tuple[State, State]:
    """What should be and what is, among them some that is both, and some that is somebody else's."""
    strangers = one_a_key(draw(st.lists(foreign, max_size=3)))
    have = _without(draw(states), strangers)
    both = draw(st.frozensets(st.sampled_from(sorted(have, key=repr)))) if have else frozenset()
    want = one_a_key([*_without(draw(states), strangers), *both])
    while lost := _lost(want, have):
        want -= lost
    return want, have | strangers


def _without(state: State, strangers: State) -> State:
    return frozenset(obj for obj in state if obj.key not in keys(strangers))


def _lost(want: State, have: State) -> State:
    """What is wanted on a link, or in a table, that is not wanted there."""
    gone = {held for obj in have for held in obj.holds} - {held for obj in want for held in obj.holds}
    return frozenset(obj for obj in want if not gone.isdisjoint(obj.holders))


class FakeKernel:
    """Holds objects by key, and drops with an object what cannot be without it."""

    def __init__(self, have: State) -> None:
        self.there = {obj.key: obj for obj in have}

    def read(self) -> State:
        return frozenset(self.there.values())

    def send(self, plan: Plan) -> None:
        for op in plan.ops:
            match op:
                case Add(new=new):
                    assert new.key not in self.there, f"{new} is there already"
                    self.there[new.key] = new
                case Change(old=old, new=new):
                    assert self.there[old.key] == old
                    self.there[new.key] = new
                    self._drop(old, set(old.holds) if _rewired(old, new) else set())
                case Del(old=old):
                    self.there.pop(old.key, None)  # gone already, with the cable that was replaced: no error
                    self._drop(old, set(old.holds))

    def _drop(self, holder: Obj, gone: set[Key]) -> None:
        for key, obj in [*self.there.items()]:
            if key != holder.key and not gone.isdisjoint(obj.holders):
                del self.there[key]
                self._drop(obj, set(obj.holds))


def _rewired(old: Obj, new: Obj) -> bool:
    """Whether another cable takes the old one's place: the kernel cannot give a link another peer."""
    return isinstance(old, Veth) and isinstance(new, Veth) and (old.ns, old.inner) != (new.ns, new.inner)


# --- what always holds ----------------------------------------------------------------------------------


@drawn
@given(pairs())
def test_a_plan_leads_to_what_is_wanted(pair: tuple[State, State]) -> None:
    want, have = pair
    kernel = FakeKernel(have)
    rounds = 0
    while plan := diff(want, kernel.read()):
        rounds += 1
        kernel.send(plan)
        assert rounds <= 2, "see berth.engine.reach"
    replaced = any(isinstance(op, Change) and _rewired(op.old, op.new) for op in diff(want, have).ops)
    assert rounds <= 1 or replaced
    event(f"{rounds} rounds")
    left = kernel.read()
    assert want <= left
    for obj in left - want:
        assert obj in have and (obj.sticky or isinstance(obj, Foreign))


@drawn
@given(pairs())
def test_what_is_made_comes_before_what_goes(pair: tuple[State, State]) -> None:
    ops = diff(*pair).ops
    made = [subject(op).turn for op in ops if not _takes_away(op)]
    gone = [subject(op).turn for op in ops if _takes_away(op)]
    assert made == sorted(made)
    assert gone == sorted(gone, reverse=True)
    assert [_takes_away(op) for op in ops] == [False] * len(made) + [True] * len(gone)


def _takes_away(op: Op) -> bool:
    return isinstance(op, Del) or (isinstance(op, Change) and op.new.lets_go(op.old))


@drawn
@given(pairs())
def test_every_operation_is_about_a_difference(pair: tuple[State, State]) -> None:
    want, have = pair
    ops = diff(want, have).ops
    implied = {held for op in ops if isinstance(op, Del) for held in op.old.holds}
    remade = {held for op in ops if isinstance(op, Change) and op.new.remakes(op.old) for held in op.old.holds}
    there = {obj.key: obj for obj in have}
    for op in ops:
        match op:
            case Add(new=new):
                assert new in want
                lost = new.key in there and not remade.isdisjoint(there[new.key].holders)
                assert new.key not in there or lost, "or lost with what is made anew"
            case Change(old=old, new=new):
                assert new in want and old in have and old.key == new.key and old != new
            case Del(old=old):
                assert old in have and old.key not in keys(want)
                assert not old.sticky, "left alone"
                assert not isinstance(old, Foreign), "not ours"
                assert implied.isdisjoint(old.holders), "goes by itself"
    assert len({subject(op).key for op in ops}) == len(ops)


def subject(op: Op) -> Obj:
    return op.old if isinstance(op, Del) else op.new


@drawn
@given(states)
def test_nothing_to_do(state: State) -> None:
    assert not diff(state, state)
    assert diff(state, ()).ops == tuple(Add(new) for new in _sorted(state))
    assert not diff((), [obj for obj in state if obj.sticky])


def _sorted(state: State) -> list[Obj]:
    return sorted(state, key=lambda obj: (obj.turn, obj.order))


@drawn
@given(pairs(), st.randoms(use_true_random=False))
def test_the_order_of_the_question_does_not_matter(pair: tuple[State, State], random: Random) -> None:
    want, have = ([*state] for state in pair)
    plan = diff(want, have)
    random.shuffle(want)
    random.shuffle(have)
    assert diff(want, have) == plan


@drawn
@given(pairs(), objects)
def test_a_foreign_thing_is_refused_by_name(pair: tuple[State, State], new: Obj) -> None:
    want, have = pair
    stranger = Foreign(new.key, "a zebra named brt0")
    have = frozenset(obj for obj in have if obj.key != new.key) | {stranger}
    with pytest.raises(Taken) as refusal:
        diff({*want, new}, have)
    assert "a zebra named brt0" in str(refusal.value)
    assert str(refusal.value).isprintable()


# --- by example -----------------------------------------------------------------------------------------

BRIDGE = Bridge("brt0", "02:00:00:00:00:01", 1500, "berth:1")
CABLE = Veth("bv0", "brt0", 1500, "berth:2", C1, "eth0", "02:00:00:00:00:02")
ADDRESS = Addr(C1, "eth0", "10.0.0.1/24")
FORWARD = Sysctl(HOST, "net.ipv4.ip_forward", "1")
TABLE = NftTable("inet", "berth", "abc/1", "  chain stamp { }\n")
ELEMENT = NftElement("inet", "berth", "bridges", (("ifname", "brt0"),))
EXAMPLES: tuple[Obj, ...] = (
    *(BRIDGE, CABLE, ADDRESS, FORWARD, TABLE, ELEMENT),
    *(LinkUp(C1, "eth0"), Route(C1, "0.0.0.0/0", "eth0"), NftHook("berth_1", "bv0")),
    *(NftGuard("bv0", "abc/1"), NftRate("bv0", 1000, 9000), Shaped("bv0", 1000, 9000)),
    NftFlows("brt0", ("eth0",)),
    *(WireGuard("bwg0", "k=", 51820, 1420, "/k"), WireGuardPeer("bwg0", "a=", "192.0.2.2:51820", "fe80::2")),
    *(NftPass("ip", "brt0", "in"), Zoned("brt0"), TxChecksums(C1, "eth0")),
    *(OvsBridge("ovs0", "02:00:00:00:00:03", "netdev", "berth:3"), OvsPort("ovs0", "bv0", "berth:2")),
    Vxlan("bvx0", "brt0", 7, "10.0.0.1", 4789, "02:00:00:00:00:04", 1450, "berth:1"),
    *(Fdb("bvx0", "02:00:00:00:00:05", "10.0.0.2"), Neigh("bvx0", "10.9.0.2", "02:00:00:00:00:05")),
    *(Port("eth0", "br0", 1), MovedAddr("eth0", "10.0.0.2/24"), MovedRoute(2, "0.0.0.0/0", "eth0", "10.0.0.1")),
    *(MovedRule(2, "02", 7, "eth0"), MovedNeigh("eth0", "10.0.0.9", "02:00:00:00:00:09"), TextFile("/etc/a", "b")),
)


def test_the_strategies_draw_every_noun() -> None:
    assert set(NOUNS) == set(get_args(Obj)) - {Foreign}


@pytest.mark.parametrize("noun", NOUNS, ids=lambda noun: noun.__name__)
def test_every_noun_gives_way_to_a_foreign_one(noun: type) -> None:
    new = next(obj for obj in EXAMPLES if type(obj) is noun)
    with pytest.raises(Taken, match="a zebra"):
        diff({new}, {Foreign(new.key, "a zebra")})
    assert not diff((), {Foreign(new.key, "a zebra")})


def test_a_table_without_a_stamp_is_somebody_elses() -> None:
    with pytest.raises(Taken, match="table inet berth"):
        diff({TABLE}, {NftTable("inet", "berth", "")})


def test_a_table_of_another_version_is_changed() -> None:
    old = NftTable("inet", "berth", "old/9")
    assert diff({TABLE}, {old}) == Plan((Change(old, TABLE),))


def test_a_cable_takes_everything_in_it_along() -> None:
    have: State = frozenset({BRIDGE, CABLE, ADDRESS, LinkUp(C1, "eth0"), Route(C1, "0.0.0.0/0", "eth0"), FORWARD})
    assert diff((), have) == Plan((Del(CABLE), Del(BRIDGE)))
    assert diff({BRIDGE, FORWARD}, have) == Plan((Del(CABLE),))


def test_a_table_takes_its_elements_along() -> None:
    assert diff((), {TABLE, ELEMENT}) == Plan((Del(TABLE),))
    assert diff({TABLE}, {TABLE, ELEMENT}) == Plan((Del(ELEMENT),))


def test_a_default_route_moves_without_a_gap() -> None:
    old, new = Route(HOST, "0.0.0.0/0", "eth0", "10.0.0.9"), Route(HOST, "0.0.0.0/0", "br0", "10.0.0.9", 5)
    assert diff({new}, {old}) == Plan((Add(new), Del(old)))


def test_a_plan_prints_as_what_a_person_would_type() -> None:
    plan = diff({LinkUp(HOST, "eth0"), ELEMENT}, {LinkUp(HOST, "eth0", up=False), ADDRESS})
    assert str(plan).splitlines() == [
        """+ nft 'add element inet berth bridges { "brt0" }'""",
        "~ ip link set eth0 up",
        f"- nsenter --net={C1} ip addr del 10.0.0.1/24 dev eth0",
    ]
    assert plan and not Plan()
    assert str(Plan()) == ""
