"""The nouns as values: what they are known by, what they drag along, and how they are written down."""

from __future__ import annotations

import shlex
from dataclasses import dataclass
from typing import get_args

import msgspec
import pytest

from berth.firewall import tables
from berth.flows import NftFlows
from berth.moved import MovedAddr, MovedNeigh, MovedRoute, MovedRule, Port, TextFile
from berth.overlaid import Fdb, Neigh, Vxlan
from berth.ovs import OvsBridge, OvsPort, TxChecksums
from berth.rates import NftRate, Shaped
from berth.sealed import WireGuard, WireGuardPeer
from berth.seams import Intent
from berth.state import (
    HOST,
    MARK,
    NOTHING,
    Addr,
    Bridge,
    Foreign,
    LinkUp,
    NftElement,
    NftGuard,
    NftHook,
    NftPass,
    NftTable,
    Noun,
    Obj,
    Route,
    Sysctl,
    Veth,
    Zoned,
    at,
    keys,
    within,
)

C1 = "/run/netns/c1"
ODD = "/run/my sandboxes/it's; rm -rf $HOME"

BRIDGE = Bridge("brt0", "02:00:00:00:00:01", 1500, "berth:1")
CABLE = Veth("bv0", "brt0", 1500, "berth:2", C1, "eth0", "02:00:00:00:00:02")
HANDED = Veth("bv1", "", 1500, "berth:3", HOST, "bw1", "02:00:00:00:00:03")
TABLE = NftTable("inet", "berth", "abc/3", "  chain stamp { }\n")
FOREIGN = Foreign(("link", HOST, "brt0"), "a veth named brt0")


TUNNEL = Vxlan("bvx0", "brt0", 7, "10.0.0.1", 4789, "02:00:00:00:00:04", 1450, "berth:1")
SEAL = WireGuard("bwg0", "a key", 51820, 9200, "/var/lib/berth/a key")
SEALED = Vxlan("bvx1", "brt0", 8, "fe80::1", 4789, "02:00:00:00:00:04", 1370, "berth:1", SEAL.name)


def everything() -> list[Obj]:
    """Objects that all stand for something else."""
    elements = [
        NftElement(family, table, which, match, data)
        for family, table in (("inet", "berth"), ("bridge", "berth"), ("inet", "other"))
        for which, match, data in (
            ("bridges", (("ifname", "brt0"),), ()),
            ("bridges", (("ifname", "brt1"),), ()),
            ("intra", (("ifname", "brt0"), ("ifname", "brt0")), ()),
            ("anyport4", (("proto", "tcp"), ("port", "80")), (("ipv4", "10.0.0.2"), ("port", "80"))),
            ("anyport4", (("proto", "udp"), ("port", "80")), (("ipv4", "10.0.0.2"), ("port", "80"))),
            ("port4", (("ipv4", "10.0.0.1"), ("proto", "tcp"), ("port", "80")), (("ipv4", "10.0.0.2"), ("port", "80"))),
        )
    ]
    inside: list[Obj] = []
    for ns in (HOST, C1):
        for dev in ("eth0", "eth1"):
            inside += [LinkUp(ns, dev), Sysctl(ns, f"net.ipv4.conf.{dev}.forwarding", "1")]
            inside += [Addr(ns, dev, ip) for ip in ("10.0.0.1/24", "10.0.0.1/32", "fd00::1/64")]
        inside += [Route(ns, dst, "eth0", "", metric) for dst in ("0.0.0.0/0", "::/0") for metric in (5, 1024)]
    hooks = [NftHook(table, dev) for table in ("berth_1", "berth_2") for dev in ("eth0", "eth1")]
    limits: list[Obj] = [noun(dev, 1000, 9000) for noun in (NftRate, Shaped) for dev in ("bv0", "bv1")]
    passes: list[Obj] = [Zoned("brt0"), NftPass("ip", "brt0", "in", legacy=True)]
    passes += [NftPass(family, "brt0", way) for family in ("ip", "ip6") for way in NftPass.directions]
    passes += [NftGuard(dev, "abc/3") for dev in ("bv0", "bv1")]
    passes += [NftFlows(bridge, ("eth0",)) for bridge in ("brt0", "brt1")]
    skeletons = [TABLE, NftTable("bridge", "berth", "abc/3"), NftTable("netdev", "berth_1", "abc/3"), tables.inet()]
    switches: list[Obj] = [OvsBridge("ovs0", "02:00:00:00:00:03", "netdev", "berth:3"), TxChecksums(C1, "eth0")]
    switches += [OvsPort("ovs0", name, "berth:2") for name in ("bv0", "bv1")]
    switches += [Port(name, "br0", 1) for name in ("eth0", "eth1")]
    load: list[Obj] = [MovedAddr(dev, ip) for dev in ("eth0", "br0") for ip in ("10.0.0.1/24", "fd00::1/64")]
    load += [MovedAddr("eth0", "10.0.0.1/24", peer="10.0.0.9")]
    load += [MovedRoute(2, "0.0.0.0/0", "eth0", table=table, metric=metric) for table in (254, 7) for metric in (0, 5)]
    load += [MovedRoute(10, "::/0", "eth0", via=via) for via in ("fe80::1", "fe80::2")]
    load += [MovedRule(family, "02", 7, iif=iif) for family in (2, 10) for iif in ("eth0", "br0")]
    load += [MovedNeigh("eth0", "10.0.0.9", mac) for mac in ("02:00:00:00:00:09", "")]
    tunnels: list[Obj] = [TUNNEL, *(Neigh("bvx0", ip, "02:00:00:00:00:05") for ip in ("10.9.0.2", "fd09::2"))]
    for mac in ("02:00:00:00:00:05", "02:00:00:00:00:06"):
        tunnels += [Fdb("bvx0", mac, "10.0.0.2"), Fdb.of_bridge("bvx0", mac)]
    tunnels += [SEAL, SEALED, *(WireGuardPeer("bwg0", key, "10.0.0.2:1", "fe80::2") for key in ("one", "two"))]
    files = [TextFile(path, "x") for path in ("/etc/a", "/etc/b")]
    return [
        BRIDGE,
        CABLE,
        HANDED,
        *inside,
        *elements,
        *hooks,
        *limits,
        *passes,
        *skeletons[:3],
        *switches,
        *load,
        *tunnels,
        *files,
    ]


EVERYTHING = everything()


def test_the_list_has_every_noun() -> None:
    assert {type(obj) for obj in EVERYTHING} == set(get_args(Obj)) - {Foreign}


# --- keys -----------------------------------------------------------------------------------------------


def test_what_differs_in_what_it_stands_for_differs_in_its_key() -> None:
    assert len(keys(EVERYTHING)) == len(EVERYTHING)


@dataclass(frozen=True)
class Same:
    """Two values of one thing."""

    one: Obj
    two: Obj


SAME = [
    Same(BRIDGE, Bridge("brt0", "02:00:00:00:00:09", 1400, "berth:9")),
    Same(CABLE, Veth("bv0", "", 1400, "berth:9", HOST, "eth9", "02:00:00:00:00:09")),
    Same(Sysctl(C1, "net.ipv4.ip_forward", "0"), Sysctl(C1, "net.ipv4.ip_forward", "1")),
    Same(LinkUp(C1, "eth0", True), LinkUp(C1, "eth0", False)),
    Same(Route(C1, "10.0.0.0/8", "eth0", "10.1.1.1"), Route(C1, "10.0.0.0/8", "eth1")),
    Same(TABLE, NftTable("inet", "berth", "def/4")),
    Same(
        NftElement("inet", "berth", "anyport4", (("port", "80"),), (("ipv4", "10.0.0.2"),)),
        NftElement("inet", "berth", "anyport4", (("port", "80"),), (("ipv4", "10.0.0.3"),)),
    ),
    Same(FOREIGN, BRIDGE),
    Same(BRIDGE, Veth("brt0", "", 1500, "berth:1", HOST, "x", "02:00:00:00:00:09")),
]


@pytest.mark.parametrize("same", SAME)
def test_another_value_has_the_same_key(same: Same) -> None:
    assert same.one.key == same.two.key
    assert same.one != same.two
    assert len({same.one, same.two}) == 2


@pytest.mark.parametrize("obj", EVERYTHING, ids=repr)
def test_a_key_is_made_of_text(obj: Obj) -> None:
    assert all(isinstance(word, str) for word in obj.key)
    assert len(obj.key) >= 3


def test_within_and_keys() -> None:
    assert within(EVERYTHING, [CABLE.key, ("no", "such", "key")]) == {CABLE}
    assert within(EVERYTHING, ()) == NOTHING
    assert keys([CABLE, FOREIGN]) == {CABLE.key, BRIDGE.key}


# --- marks and what goes together -----------------------------------------------------------------------


def test_only_what_can_bear_a_mark_has_an_owner() -> None:
    marked = {type(obj) for obj in EVERYTHING if obj.owner is not None}
    assert marked == {Bridge, Veth, Vxlan, WireGuard, NftTable, NftGuard, OvsBridge, OvsPort}
    assert all(obj.owner.startswith(MARK) for obj in EVERYTHING if obj.owner is not None)
    assert FOREIGN.owner == NftTable("inet", "berth", "").owner == ""


@pytest.mark.parametrize(
    ("holder", "held"),
    [
        (CABLE, LinkUp(C1, "eth0")),
        (CABLE, Addr(C1, "eth0", "10.0.0.1/24")),
        (CABLE, Route(C1, "0.0.0.0/0", "eth0")),
        (HANDED, Addr(HOST, "bw1", "10.0.0.1/24")),
        (HANDED, LinkUp(HOST, "bv1")),
        (HANDED, Shaped("bv1", 1000, 9000)),
        (BRIDGE, Addr(HOST, "brt0", "10.0.0.1/24")),
        (BRIDGE, Route(HOST, "10.0.0.0/8", "brt0")),
        (TUNNEL, Fdb("bvx0", "02:00:00:00:00:05", "10.0.0.2")),
        (SEAL, SEALED),
        (SEAL, WireGuardPeer("bwg0", "one", "10.0.0.2:1", "fe80::2")),
        (TUNNEL, Neigh("bvx0", "10.9.0.2", "02:00:00:00:00:05")),
        (TABLE, NftElement("inet", "berth", "bridges", (("ifname", "brt0"),))),
        (NftTable("netdev", "berth_1", "x/1"), NftHook("berth_1", "eth0")),
    ],
)
def test_what_the_kernel_removes_together(holder: Obj, held: Obj) -> None:
    assert not set(held.holders).isdisjoint(holder.holds)


@pytest.mark.parametrize(
    ("one", "other"),
    [
        (BRIDGE, CABLE),  # a port is unplugged, not deleted
        (CABLE, Addr(C1, "eth1", "10.0.0.1/24")),
        (CABLE, NftRate("bv0", 1000, 9000)),  # a chain outlives its link
        (CABLE, Addr(HOST, "eth0", "10.0.0.1/24")),
        (CABLE, Sysctl(C1, "net.ipv4.ip_forward", "1")),
        (TABLE, NftElement("bridge", "berth", "bridges", (("ifname", "brt0"),))),
    ],
)
def test_what_stays(one: Obj, other: Obj) -> None:
    assert set(other.holders).isdisjoint(one.holds)


def test_a_cable_goes_with_its_sandbox_only_when_it_ends_there() -> None:
    assert CABLE.holders == (("ns", C1),)
    assert HANDED.holders == ()


def test_what_is_made_before_what() -> None:
    """Creation by rising rank: nothing is made before what it needs."""
    order: list[type[Noun]] = [
        Bridge,
        OvsBridge,
        WireGuard,
        Vxlan,
        NftTable,
        Veth,
        NftGuard,
        NftElement,
        Sysctl,
        TxChecksums,
        LinkUp,
        Port,
        Fdb,
        Neigh,
        Addr,
    ]
    order += [MovedNeigh, Route, MovedRule, NftPass, Zoned, OvsPort, TextFile]
    assert sorted(order, key=lambda noun: noun.rank) == order
    assert NftHook.rank == NftElement.rank
    assert (MovedAddr.rank, MovedRoute.rank) == (Addr.rank, Route.rank)
    assert {type(obj) for obj in EVERYTHING if obj.sticky} == {Sysctl, LinkUp, TxChecksums, Port}


def test_the_outer_end_never_has_the_lowest_mac() -> None:
    """A bridge without a MAC of its own takes the lowest of its ports; every card's is lower than fe:…"""
    assert CABLE.outer_mac == "fe:00:00:00:00:02"


# --- tables ---------------------------------------------------------------------------------------------


def test_a_table_is_its_digest() -> None:
    read = NftTable("inet", "berth", TABLE.digest)
    assert read == TABLE
    assert (read != TABLE) is False
    assert hash(read) == hash(TABLE)
    assert frozenset({read}) == frozenset({TABLE})
    assert NftTable("inet", "berth", "abc/4", TABLE.text) != TABLE
    assert NftTable("bridge", "berth", TABLE.digest, TABLE.text) != TABLE
    assert TABLE != BRIDGE


# --- printed --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("obj", [*EVERYTHING, FOREIGN], ids=repr)
def test_what_is_printed_is_one_line(obj: Obj) -> None:
    lines = [obj.describe_removal()]
    if not isinstance(obj, NftTable | NftGuard):
        lines += [obj.describe(), obj.describe_change(obj)]
    for line in lines:
        assert line.isprintable() and line == line.strip()
        assert line.startswith("#") or isinstance(obj, Foreign) or shlex.split(line)


@pytest.mark.parametrize(
    "obj",
    [
        Veth("bv0", "brt0", 1500, "berth:2", ODD, "eth0", "02:00:00:00:00:02"),
        Sysctl(ODD, "net.ipv4.ip_forward", "1"),
        LinkUp(ODD, "eth0"),
        Addr(ODD, "eth0", "10.0.0.1/24"),
        Route(ODD, "0.0.0.0/0", "eth0"),
    ],
    ids=lambda obj: type(obj).__name__,
)
def test_a_shell_reads_the_path_of_a_sandbox_as_one_word(obj: Obj) -> None:
    lines = [obj.describe(), obj.describe_change(obj)] + ([] if obj.sticky else [obj.describe_removal()])
    for line in lines:
        words = shlex.split(line)
        assert "del" in words or ODD in [word.removeprefix("--net=") for word in words]


def test_the_words_for_a_namespace() -> None:
    assert at(HOST) == ""
    assert at(C1) == f"nsenter --net={C1} "


def test_the_bare_noun_says_nothing() -> None:
    for words in (lambda: Noun().key, lambda: Noun().describe(), lambda: Noun().describe_removal()):
        with pytest.raises(NotImplementedError):
            words()
    assert (Noun().owner, Noun().holders, Noun().holds) == (None, (), ())


# --- written down ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("obj", [*EVERYTHING, FOREIGN, tables.inet()], ids=lambda obj: " ".join(obj.key))
def test_an_intent_is_read_as_it_was_written(obj: Obj) -> None:
    intent = Intent("0" * 64, "attach", NOTHING, frozenset({obj}))
    read = msgspec.json.decode(msgspec.json.encode(intent), type=Intent)
    assert read == intent
    (copy,) = read.after
    assert type(copy) is type(obj)
    assert repr(copy) == repr(obj)  # a table's text too, which its equality does not look at
    assert (copy.describe(), copy.key) == (obj.describe(), obj.key)


def test_an_intent_with_everything() -> None:
    for verb, forward in (("create", False), ("attach", False), ("remove", True), ("detach", True)):
        intent = Intent("1", verb, frozenset(EVERYTHING), frozenset({FOREIGN}))
        assert msgspec.json.decode(msgspec.json.encode(intent), type=Intent) == intent
        assert intent.forward is forward
