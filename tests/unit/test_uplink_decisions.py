"""What is decided about a NIC: its two states, the risks, and who keeps it over a reboot."""

from __future__ import annotations

from dataclasses import replace
from ipaddress import ip_address, ip_interface, ip_network

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec import structs

from berth.errors import Invalid
from berth.hostconfig import File
from berth.hostconfig.systems import RENDERERS
from berth.model import Addressing, Uplink, UplinkRoute
from berth.moved import FOREVER, RA, Hop, MovedAddr, MovedNeigh, MovedRoute, MovedRule, Port
from berth.plan import diff
from berth.state import HOST, UPLINK_MARK, Bridge, LinkUp, Obj, Sysctl
from berth.uplink.decide import aged, carry, on_bridge, on_nic, reachable
from berth.uplink.facts import Client, Facts, Nic
from berth.uplink.persist import choose, described, merged
from berth.uplink.record import Client as Started
from berth.uplink.risks import risks

NIC = Nic("eth0", "", 1, "02:00:00:00:00:02", 1500, True, True, 0)
ADDRESS = MovedAddr("eth0", "192.168.2.2/24", label="eth0")
WEB = MovedAddr("eth0", "192.168.2.3/24", label="eth0:web", valid=900, preferred=600, place=1)
DEFAULT = MovedRoute(2, "0.0.0.0/0", "eth0", "192.168.2.1")
LEARNT = MovedRoute(10, "::/0", "eth0", "fe80::1", metric=1024, protocol=RA, expires=1800)
RULE = MovedRule(2, "02", 1000, "eth0")
NEIGHBOUR = MovedNeigh("eth0", "192.168.2.9", "02:00:00:00:00:09")
SETTING = Sysctl(HOST, "net.ipv4.conf.eth0.rp_filter", "2")
LOAD: list[Obj] = [ADDRESS, WEB, DEFAULT, LEARNT, RULE, NEIGHBOUR]
FACTS = Facts(NIC, carried=frozenset(LOAD), answering=frozenset({"192.168.2.1", "fe80::1"}))


def test_the_bridge_has_all_that_the_nic_had() -> None:
    after = on_bridge(NIC, "br0", LOAD, [SETTING])
    assert Bridge("br0", NIC.mac, 1500, UPLINK_MARK + "eth0") in after
    assert Port("eth0", "br0", 1) in after
    assert Port("br0", "", 0) in after
    assert LinkUp(HOST, "eth0") in after
    assert Sysctl(HOST, "net.ipv4.conf.br0.rp_filter", "2") in after
    assert structs.replace(WEB, dev="br0", label="br0:web") in after
    assert structs.replace(RULE, iif="br0") in after
    moved = [obj for obj in after if isinstance(obj, MovedAddr | MovedRoute | MovedNeigh)]
    assert {obj.dev for obj in moved} == {"br0"}
    assert len(moved) == 5


def test_the_two_states_differ_by_what_moves() -> None:
    before, after = on_nic(NIC, LOAD, [SETTING]), on_bridge(NIC, "br0", LOAD, [SETTING])
    there, back = diff(after, before), diff(before, after)
    assert str(there.ops[0]).startswith("+ ip link add br0 address 02:00:00:00:00:02")
    assert str(back.ops[-1]) == "- ip link del br0"
    lines = [str(op) for op in there.ops]
    assert lines.index("~ ip route replace default via 192.168.2.1 dev br0 proto static") < lines.index(
        "- ip addr del 192.168.2.2/24 dev eth0"
    )


def test_at_no_moment_of_a_move_does_anything_lead_where_it_gets_lost() -> None:
    """In: the addresses, the NIC, then what leads there. Out: what leads there, the addresses, the NIC, the bridge."""
    before, after = on_nic(NIC, LOAD, [SETTING]), on_bridge(NIC, "br0", LOAD, [SETTING])
    lines = [str(op) for op in diff(after, before).ops]
    port = lines.index("~ ip link set eth0 master br0 addrgenmode none")
    assert all(lines.index(f"+ ip addr add {words}") < port for words in _ADDRESSES)
    assert port < lines.index("~ ip route replace default via 192.168.2.1 dev br0 proto static")
    lines = [str(op) for op in diff(before, after).ops]
    port = lines.index("~ ip link set eth0 nomaster addrgenmode eui64")
    assert lines.index("~ ip route replace default via 192.168.2.1 dev eth0 proto static") < port
    gone = [line for line in lines if line.startswith("-") and "dev br0" in line]
    assert len(gone) == 4  # two addresses, a route that was learnt, a neighbour
    assert max(map(lines.index, gone)) < port == len(lines) - 2
    assert lines[-1] == "- ip link del br0"


_ADDRESSES = (
    "192.168.2.2/24 dev br0",
    "192.168.2.3/24 label br0:web valid_lft 900 preferred_lft 600 dev br0",
)
loads = st.sampled_from(LOAD)


@given(loads)
def test_carrying_there_and_back_changes_nothing(obj: Obj) -> None:
    assert carry(carry(obj, "eth0", "br0"), "br0", "eth0") == obj
    assert carry(obj, "eth7", "br0") == obj or isinstance(obj, MovedAddr | MovedNeigh)


def test_next_hops_through_other_links_stay() -> None:
    hops = (Hop("eth0", 0, 0, "192.168.2.1"), Hop("eth1", 0, 0, "10.0.0.1"))
    route = carry(MovedRoute(2, "0.0.0.0/0", "eth0", hops=hops), "eth0", "br0")
    assert isinstance(route, MovedRoute)
    assert [hop.dev for hop in route.hops] == ["br0", "eth1"]


def test_what_a_router_advertised_has_a_stand_in() -> None:
    (stand_in,) = reachable(frozenset({LEARNT}))
    assert isinstance(stand_in, MovedRoute)
    assert (stand_in.metric, stand_in.expires) == (1025, 1800)
    assert reachable(frozenset({DEFAULT})) == {DEFAULT}


@given(st.integers(0, 2000))
def test_lifetimes_run(seconds: int) -> None:
    later = aged(frozenset(LOAD), seconds)
    assert {ADDRESS, DEFAULT, RULE, NEIGHBOUR} <= later
    web = [obj for obj in later if isinstance(obj, MovedAddr) and obj.valid != FOREVER]
    assert [(obj.valid, obj.preferred) for obj in web] == (
        [(900 - seconds, max(600 - seconds, 0))] if seconds < 900 else []
    )
    assert any(isinstance(obj, MovedRoute) and obj.expires for obj in later) == (seconds < 1800)


# --- risks ----------------------------------------------------------------------------------------------

RISKY = {
    "is-a-bridge": (replace(FACTS, nic=replace(NIC, kind="bridge")), True),
    "wireless": (replace(FACTS, nic=replace(NIC, wireless=True)), True),
    "not-ethernet": (replace(FACTS, nic=replace(NIC, type=772)), True),
    "has-a-master": (replace(FACTS, nic=replace(NIC, master="bond0", master_kind="bond")), True),
    "down": (replace(FACTS, nic=replace(NIC, up=False)), True),
    "no-carrier": (replace(FACTS, nic=replace(NIC, carrier=False)), True),
    "in-use": (replace(FACTS, nic=replace(NIC, over=(("mv0", "macvlan"),))), True),
    "vlan": (replace(FACTS, nic=replace(NIC, over=(("eth0.7", "vlan"),))), False),
    "name-taken": (replace(FACTS, bridge_there="a bridge of that name"), True),
    "unmovable": (replace(FACTS, unmovable=("a route by a nexthop object",)), True),
    "no-address": (replace(FACTS, carried=frozenset({DEFAULT, LEARNT})), False),
    "no-gateway": (replace(FACTS, carried=frozenset({ADDRESS})), False),
    "silent-gateway": (replace(FACTS, answering=frozenset({"fe80::1"})), False),
    "mac-filter": (replace(FACTS, cloud="Amazon EC2"), False),
    "802.1x": (replace(FACTS, dot1x=True), False),
    "session": (replace(FACTS, session="192.168.2.50"), False),
    "managed": (replace(FACTS, managers=("NetworkManager",)), False),
    "dhcpcd": (replace(FACTS, managers=("dhcpcd",)), True),
    "dhcp-client": (replace(FACTS, clients=(Client("dhclient", 7, ("dhclient", "eth0")),)), False),
}


@pytest.mark.parametrize("name", RISKY)
def test_a_risk_is_told(name: str) -> None:
    facts, blocks = RISKY[name]
    (risk,) = risks(facts, "br0")
    assert (risk.name, risk.blocks) == (name, blocks)
    assert risk.message.isprintable()


def test_a_healthy_nic_has_none() -> None:
    assert risks(FACTS, "br0") == ()


def test_what_is_refused_comes_first() -> None:
    both = replace(FACTS, nic=replace(NIC, up=False), cloud="Azure", session="10.0.0.1")
    assert [risk.blocks for risk in risks(both, "br0")] == [True, False, False]


# --- who keeps it ---------------------------------------------------------------------------------------

UPLINK = Uplink("eth0", "br0", NIC.mac)
INTERFACES = {"etc/network/interfaces": File("auto eth0\niface eth0 inet dhcp\n")}
NETPLAN = {"etc/netplan/50.yaml": File("network:\n  version: 2\n  ethernets:\n    eth0: {dhcp4: true}\n")}
NETWORKD = {"etc/systemd/network/10.network": File("[Match]\nName=eth0\n[Network]\nDHCP=yes\n")}
NM_SAYS, NETWORKD_SAYS = (
    {"NetworkManager": "[device]\nmanaged=true\n"},
    {"systemd-networkd": "ADMIN_STATE=configured\n"},
)


@pytest.mark.parametrize(
    ("told", "files", "system"),
    [
        ({}, {}, None),
        ({}, INTERFACES, "ifupdown"),
        ({}, NETPLAN, "netplan"),
        ({}, NETWORKD, "networkd"),
        (NETWORKD_SAYS, NETWORKD, "networkd"),
        (NETWORKD_SAYS, NETWORKD | INTERFACES, "networkd"),
        (NM_SAYS, INTERFACES, "ifupdown"),
        (NM_SAYS, NETPLAN, "netplan"),
        (NM_SAYS, {}, "networkmanager"),
    ],
)
def test_the_system_that_configures_the_nic_is_found(
    told: dict[str, str], files: dict[str, File], system: str | None
) -> None:
    found = choose("auto", told, files, UPLINK, RENDERERS)
    assert (found.name if found else None) == system


def test_the_operator_may_name_it() -> None:
    found = choose("ifcfg", NETWORKD_SAYS, NETWORKD, UPLINK, RENDERERS)
    assert found is not None
    assert found.name == "ifcfg"


def test_what_the_kernel_tells_in_the_words_of_configuration() -> None:
    static: list[Obj] = [ADDRESS, DEFAULT, MovedAddr("eth0", "fe80::2/64"), MovedAddr("eth0", "fd00::2/64", place=2)]
    static += [MovedRoute(2, "10.0.0.0/8", "eth0", "192.168.2.9", table=100, metric=5)]
    resolver = "search lab.example\nnameserver 192.168.2.1\nnameserver what\n"
    assert described(Facts(NIC, carried=frozenset(static)), "br0", "bridge", resolver) == Uplink(
        "eth0",
        "br0",
        NIC.mac,
        ipv4=Addressing("static", (ip_interface("192.168.2.2/24"),), ip_address("192.168.2.1")),
        ipv6=Addressing("static", (ip_interface("fd00::2/64"),)),
        routes=(UplinkRoute(ip_network("10.0.0.0/8"), ip_address("192.168.2.9"), 5, 100),),
        dns=(ip_address("192.168.2.1"),),
        search=("lab.example",),
    )


def test_what_is_leased_or_learnt_is_not_written_down() -> None:
    leased = replace(FACTS, clients=(Client("dhclient", 7, ("dhclient", "eth0")),), nic=replace(NIC, mtu=9000))
    told = described(leased, "br0", "bridge", "")
    assert (told.ipv4, told.ipv6.method, told.mtu) == (Addressing("auto"), "auto", 9000)


def test_no_file_is_written_twice() -> None:
    assert merged({"a": None}, {"b": None}) == {"a": None, "b": None}
    with pytest.raises(Invalid, match="a would be written twice"):
        merged({"a": None}, {"a": None})


def test_a_client_for_another_link() -> None:
    argv = ("/sbin/dhclient", "-lf", "/var/lib/dhcp/dhclient.eth0.leases", "eth0")
    there = Started("dhclient", argv).serving("eth0", "br0")
    assert there.argv == ("/sbin/dhclient", "-lf", "/var/lib/dhcp/dhclient.br0.leases", "br0")
    assert there.serving("br0", "eth0").argv == argv
