"""What the overlay driver decides: number, MTU, and where a host is reached."""

from __future__ import annotations

from dataclasses import replace
from ipaddress import ip_address, ip_interface, ip_network

import pytest

from berth import spec
from berth.drivers import SPANNING, choose
from berth.errors import BerthError, Invalid, Taken
from berth.model import Endpoint, Host, HostLink, HostRecord, HostRoute, Network, Sandbox, SealKey
from berth.overlaid import Fdb, Neigh, Vxlan
from berth.sealed import WireGuard, WireGuardPeer
from berth.state import Addr

ID = "ab" * 32
HOST = Host(
    links=(
        HostLink("lo", "", 65536, True, addresses=(ip_interface("127.0.0.1/8"),)),
        HostLink(
            "eth0",
            "",
            1500,
            True,
            addresses=tuple(map(ip_interface, ("192.0.2.7/24", "2001:db8::7/64", "fe80::7/64"))),
        ),
        HostLink("eth1", "", 9000, True, addresses=(ip_interface("fd0a::7/64"),)),
    ),
    routes=(HostRoute(ip_network("0.0.0.0/0"), "eth0", ip_address("192.0.2.1")),),
)


def complete(*options: str, host: Host = HOST, ipv6: bool = False, identity: str = ID) -> Network:
    asked = spec.network_spec(name="wide", driver="overlay", subnets=["10.50.0.0/24"], options=options, ipv6=ipv6)
    assert choose(asked, host) is SPANNING
    return SPANNING.complete(asked, host, identity, "now")


@pytest.mark.parametrize(
    ("options", "mtu", "local"),
    [
        ((), 1450, "192.0.2.7"),
        (("underlay=eth0",), 1450, "192.0.2.7"),
        (("underlay=2001:db8::7",), 1430, "2001:db8::7"),
        (("underlay=eth1",), 8930, "fd0a::7"),
        (("underlay=fd0a::/16", "mtu=1400"), 1400, "fd0a::7"),
    ],
)
def test_the_mtu_is_what_the_underlay_leaves(options: tuple[str, ...], mtu: int, local: str) -> None:
    net = complete(*options)
    assert (net.mtu, net.scope, net.vxlan_port) == (mtu, "global", 4789)
    assert net.local == "", "each host has its own"
    assert SPANNING.placed(net, HOST).local == local


def test_an_address_is_asked_for_as_the_subnet_that_all_hosts_are_in() -> None:
    net = complete("underlay=192.0.2.7")
    there = replace(HOST.links[1], addresses=(ip_interface("192.0.2.8/24"),))
    assert SPANNING.placed(net, replace(HOST, links=(there,))).local == "192.0.2.8"


def test_a_host_without_an_address_there_has_no_tunnel() -> None:
    net = SPANNING.placed(complete("underlay=eth1"), replace(HOST, links=HOST.links[:2]))
    assert net.local == ""
    assert not any(isinstance(obj, Vxlan) for obj in SPANNING.network(net))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (("mtu=1451",), "mtu 1451 is more than the 1450 that are left of eth0's 1500"),
        (("underlay=eth7",), "underlay eth7: this host has no address there"),
        (("underlay=198.51.100.0/24",), "this host has no address there"),
        (("vni=16777216",), "is no VXLAN network number: give 1 to 16777215"),
        (("vni=0",), "is no VXLAN network number"),
        (("port=65536",), "is no UDP port"),
        (("icc=false",), "option icc is only for"),
    ],
)
def test_what_cannot_be_is_refused_in_one_line(options: tuple[str, ...], message: str) -> None:
    with pytest.raises(BerthError, match=r"^.+$") as refusal:
        complete(*options)
    assert message in str(refusal.value)


def test_ipv6_asks_for_more_than_a_small_underlay_leaves() -> None:
    small = replace(HOST, links=(replace(HOST.links[1], mtu=1320),))
    assert complete(host=small).mtu == 1270
    with pytest.raises(Invalid, match="less than the 1280"):
        complete(host=small, ipv6=True)


def test_no_number_is_given_twice() -> None:
    first = replace(complete(), name="first", pools=(), bridge="brtfirst")
    assert first.vni >= 4096
    host = replace(HOST, networks=(first,))
    assert complete(host=host, identity=ID[:-2] + "cd").vni == first.vni + 1
    with pytest.raises(Taken, match="belongs to network first"):
        complete(f"vni={first.vni}", host=host)
    assert complete(f"vni={first.vni}", "port=4790", host=host).vni == first.vni


def test_a_peer_is_one_place_and_all_its_addresses() -> None:
    net = SPANNING.placed(complete(), HOST)
    addresses = (ip_interface("10.50.0.9/24"), ip_interface("fd50::9/64"))
    mac = net.mac_for("c", addresses)
    ep = Endpoint("cd" * 32, net.id, "c", Sandbox("", ""), "", "eth0", mac, addresses, host="h2", vtep="192.0.2.8")
    tunnel = net.tunnel
    assert SPANNING.peer(net, ep) == {
        Fdb(tunnel, mac, "192.0.2.8"),
        Fdb.of_bridge(tunnel, mac),
        Neigh(tunnel, "10.50.0.9", mac),
        Neigh(tunnel, "fd50::9", mac),
    }
    assert mac == net.mac_for("another", addresses), "who has the address has its MAC"


# --- encrypted ------------------------------------------------------------------------------------------

KEYED = replace(HOST, id="h1", key=SealKey("a key", "/var/lib/berth/a key", 51820))


@pytest.mark.parametrize(
    ("options", "mtu"),
    [
        (("encrypt=true",), 1370),
        (("encrypted",), 1370),
        (("encrypted=", "underlay=2001:db8::7"), 1338),
        (("encrypt=1", "underlay=eth1"), 8842),
        (("encrypt=true", "mtu=1300"), 1300),
        (("encrypt=false",), 1450),
    ],
)
def test_encryption_takes_its_part_of_every_packet(options: tuple[str, ...], mtu: int) -> None:
    net = complete(*options)
    assert net.mtu == mtu
    # What is wrapped is padded to whole blocks of 16 bytes, and is to go uncut all the same.
    assert not net.encrypt or mtu == 1300 or (mtu + 70) % 16 == 0


def test_no_more_than_encryption_leaves() -> None:
    with pytest.raises(Invalid, match="mtu 1371 is more than the 1370"):
        complete("encrypt=true", "mtu=1371")
    with pytest.raises(Invalid, match="contradict"):
        complete("encrypt=false", "encrypted")


def test_an_encrypted_tunnel_is_bound_to_its_link_both_ways() -> None:
    net = SPANNING.placed(complete("encrypted"), KEYED)
    assert net.seal is not None
    made = SPANNING.network(net)
    assert {(obj.local, obj.link) for obj in made if isinstance(obj, Vxlan)} == {(net.seal.address, net.seal.link)}
    assert [obj.public for obj in made if isinstance(obj, WireGuard)] == ["a key"]
    assert Addr("", net.seal.link, f"{net.seal.address}/64") in made
    ep = Endpoint("cd" * 32, net.id, "c", Sandbox("", ""), "", "eth0", "02:00:00:00:00:01", (), vtep="fe80::8")
    assert {entry.via for entry in SPANNING.peer(net, ep) if isinstance(entry, Fdb) and entry.own} == {net.seal.link}
    assert SPANNING.peer(net, replace(ep, vtep="192.0.2.8")) == frozenset(), "nothing goes where nobody has a key"


def test_without_a_key_there_is_no_tunnel_and_without_an_underlay_neither() -> None:
    net = complete("encrypted")
    nowhere = replace(KEYED, links=KEYED.links[:1])
    for host in (HOST, nowhere):
        placed = SPANNING.placed(net, host)
        assert (placed.local, placed.seal) == ("", None)
        assert not any(isinstance(obj, Vxlan | WireGuard) for obj in SPANNING.network(placed))


def test_the_other_ends_are_all_hosts_that_have_told_a_key() -> None:
    net = SPANNING.placed(complete("encrypted"), KEYED)
    four, six = ip_address("192.0.2.8"), ip_address("2001:db8::8")
    mine = HostRecord("h1", "", (ip_address("192.0.2.7"),), "a key", 51820)
    others = [
        HostRecord("both", "", (six, four), "b", 1),  # by the version that both have
        HostRecord("six", "", (six,), "c", 2),
        HostRecord("keyless", "", (four,)),
        HostRecord("nowhere", "", (), "d", 3),
    ]
    assert net.seal is not None
    found = {peer for peer in SPANNING.hosts(net, "h1", [mine, *others]) if isinstance(peer, WireGuardPeer)}
    assert {(peer.public, peer.endpoint) for peer in found} == {("b", "192.0.2.8:1"), ("c", "[2001:db8::8]:2")}
    assert len({peer.address for peer in found} | {net.seal.address}) == 3
    assert SPANNING.hosts(SPANNING.placed(complete(), KEYED), "h1", others) == frozenset()
