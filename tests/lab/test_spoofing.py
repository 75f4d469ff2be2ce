"""A container on the LAN is nobody but itself: what it forges reaches nobody, and what it may say everybody.

Each attack is made on a network with antispoof=false too, where it has to get through.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable

import pytest
from lab_frames import (
    ALL_NODES,
    EVERYBODY,
    about,
    advertisement,
    arp,
    behind,
    ether,
    fragment,
    icmp6,
    igmp_report,
    ip4,
    ip6,
    udp,
    untagged,
)
from lab_ground import INTERNET, INTERNET6, LAPTOP, LAPTOP6, ROUTER, ROUTER6, ROUTER_MAC, STATION, Ground

pytestmark = pytest.mark.timeout(60)

LAN = "network create --driver flat --ipv6 -o parent=br0 lan"
LAPTOP_MAC, FORGED_MAC = "02:00:00:00:02:50", "02:66:66:66:66:66"
NOBODY, NONE6, MDNS, NODES = "00:00:00:00:00:00", "::", "01:00:5e:00:00:fb", "ff02::1"
DEAD, DEAD6 = "192.168.2.99", "fd00:2::99"  # an address that nobody has
IP4, IP6 = 0x0800, 0x86DD
bypass = pytest.mark.parametrize("bypass", ["never", "always"])


class Container:
    """Who is in the container, and what it says."""

    def __init__(self, ground: Ground, name: str) -> None:
        self.ground, self.name = ground, name
        ground.sandbox(name)
        ep = ground.told(f"attach lan {name}")
        self.ip, self.ip6 = (address.partition("/")[0] for address in ep["addresses"])
        self.mac: str = ep["mac"]
        octets = [int(each, 16) for each in self.mac.split(":")]
        octets[0] ^= 2
        self.local = "fe80::{:02x}{:02x}:{:02x}ff:fe{:02x}:{:02x}{:02x}".format(*octets)

    def four(self, packet: bytes, dst: str = LAPTOP_MAC) -> bytes:
        return ether(dst, self.mac, IP4, packet)

    def six(self, src: str, inner: tuple[int, bytes], dst: str = NODES, to: str = ALL_NODES) -> bytes:
        return ether(to, self.mac, IP6, ip6(src, dst, *inner))

    def said(self, kind: int, body: bytes, src: str = "", dst: str = NODES, to: str = ALL_NODES) -> bytes:
        """An ICMPv6 message, by itself its own address."""
        return self.six(src or self.ip6, icmp6(src or self.ip6, dst, kind, body), dst, to)

    def send(self, frames: list[bytes]) -> None:
        argv = [*STATION, "send", "eth0", *(frame.hex() for frame in frames)]
        self.ground.lab.run(self.name, argv, check=True)


def forged(web: Container) -> dict[str, bytes]:
    """What a container says that is not true, or not for it to say."""
    own, ra = (web.mac, web.ip), icmp6(web.local, NODES, 134, advertisement())
    split = icmp6(web.local, NODES, 134, advertisement())[1]
    asks_for = icmp6(NONE6, "ff02::1:ff00:50", 135, about(LAPTOP6, flags=0))
    return {
        "mac": ether(LAPTOP_MAC, FORGED_MAC, IP4, udp(web.ip, LAPTOP, 7, 7)),
        "mac-v6": ether(LAPTOP_MAC, FORGED_MAC, IP6, udp(web.ip6, LAPTOP6, 7, 7)),
        "source-of-the-lan": web.four(udp(DEAD, LAPTOP, 7, 7)),
        "source-of-the-router": web.four(udp(ROUTER, LAPTOP, 7, 7)),
        "source-beyond": web.four(udp(INTERNET, LAPTOP, 7, 7)),
        "source-none": web.four(udp("0.0.0.0", LAPTOP, 7, 7)),
        "source-v6-of-the-lan": web.six(DEAD6, udp_in(DEAD6, LAPTOP6), LAPTOP6, LAPTOP_MAC),
        "source-v6-beyond": web.six(INTERNET6, udp_in(INTERNET6, LAPTOP6), LAPTOP6, LAPTOP_MAC),
        "source-v6-link-local": web.six("fe80::1", udp_in("fe80::1", LAPTOP6), LAPTOP6, LAPTOP_MAC),
        "source-v6-none": web.six(NONE6, udp_in(NONE6, LAPTOP6), LAPTOP6, LAPTOP_MAC),
        "arp-gratuitous": arp(EVERYBODY, web.mac, 1, (web.mac, ROUTER), (NOBODY, ROUTER)),
        "arp-answer": arp(LAPTOP_MAC, web.mac, 2, (web.mac, ROUTER), (LAPTOP_MAC, LAPTOP)),
        "arp-other-mac": arp(LAPTOP_MAC, web.mac, 2, (FORGED_MAC, web.ip), (LAPTOP_MAC, LAPTOP)),
        "arp-from-other-mac": arp(LAPTOP_MAC, FORGED_MAC, 2, own, (LAPTOP_MAC, LAPTOP)),
        "arp-probe-for-another": arp(EVERYBODY, web.mac, 1, (web.mac, "0.0.0.0"), (NOBODY, LAPTOP)),
        "na-to-all": web.said(136, about(ROUTER6, web.mac)),
        "na-answer": web.said(136, about(ROUTER6, web.mac, flags=0x60), web.ip6, LAPTOP6, LAPTOP_MAC),
        "na-from-the-router": web.said(136, about(ROUTER6, web.mac), ROUTER6),
        "na-in-a-fragment": web.six(web.ip6, fragment(*icmp6(web.ip6, NODES, 136, about(web.ip6, web.mac)))),
        "dad-for-another": web.six(NONE6, asks_for, "ff02::1:ff00:50", "33:33:ff:00:00:50"),
        "dhcp-offer": web.four(udp(web.ip, "255.255.255.255", 67, 68), EVERYBODY),
        "dhcp-offer-odd-port": web.four(udp(web.ip, "255.255.255.255", 1067, 68), EVERYBODY),
        "dhcp-offer-unicast": web.four(udp(web.ip, LAPTOP, 67, 1068)),
        "dhcpv6": web.six(web.local, udp_in(web.local, LAPTOP6, 547, 546), LAPTOP6, LAPTOP_MAC),
        "dhcpv6-odd-port": web.six(web.local, udp_in(web.local, LAPTOP6, 5470, 546), LAPTOP6, LAPTOP_MAC),
        "ra": web.six(web.local, ra),
        "ra-hop-by-hop": web.six(web.local, behind(0, ra)),
        "ra-options": web.six(web.local, behind(60, ra)),
        "ra-many-headers": web.six(web.local, behind(0, behind(60, behind(60, behind(60, ra))))),
        "ra-in-a-fragment": web.six(web.local, fragment(*ra)),
        "ra-in-two-fragments": web.six(web.local, fragment(58, ra[1] + bytes(8), more=True)),
        "ra-hidden": web.six(web.local, fragment(60, behind(60, ra)[1][:8], more=True)),
        "ra-hidden-rest": web.six(web.local, fragment(60, split, 8)),
        "ra-empty-first": web.six(web.local, fragment(58, b"", more=True)),
        "ra-fragments-in-fragments": web.six(web.local, fragment(*fragment(*ra))),
        "redirect": web.said(137, bytes(4) + bytes(32), web.local, LAPTOP6, LAPTOP_MAC),
        "vlan": ether(LAPTOP_MAC, web.mac, IP4, udp(web.ip, LAPTOP, 7, 8), (0x8100, 7)),
        "vlan-0": ether(LAPTOP_MAC, web.mac, IP4, udp(web.ip, LAPTOP, 7, 9), (0x8100, 0)),
        "vlan-service": ether(LAPTOP_MAC, web.mac, IP4, udp(web.ip, LAPTOP, 7, 10), (0x88A8, 7)),
        "vlan-twice": ether(LAPTOP_MAC, web.mac, IP4, udp(web.ip, LAPTOP, 7, 11), (0x88A8, 7), (0x8100, 8)),
        "vlan-ra": ether(ALL_NODES, web.mac, IP6, ip6(web.local, NODES, *ra, hops=254), (0x8100, 7)),
        "bridge-protocol": ether("01:00:0c:cc:cc:cd", web.mac, 50, b"\xaa\xaa\x03\0\0\x0c\x01\x0b" + bytes(42)),
    }


def true(web: Container) -> dict[str, bytes]:
    """What a container says of itself."""
    four, six = (udp(web.ip, LAPTOP, 9, 9, b"y" * 64), udp_in(web.ip6, LAPTOP6, 9, 9, b"y" * 64))
    group6 = b"\0\0\0\1\4\0\0\0" + bytes.fromhex("ff02000000000000000000000000fffb")
    return {
        "udp": web.four(four),
        "udp-v6": web.six(web.ip6, six, LAPTOP6, LAPTOP_MAC),
        "link-local": web.six(web.local, udp_in(web.local, LAPTOP6), LAPTOP6, LAPTOP_MAC),
        "arp-asks": arp(EVERYBODY, web.mac, 1, (web.mac, web.ip), (NOBODY, LAPTOP)),
        "arp-answers": arp(LAPTOP_MAC, web.mac, 2, (web.mac, web.ip), (LAPTOP_MAC, LAPTOP)),
        "arp-probes": arp(EVERYBODY, web.mac, 1, (web.mac, "0.0.0.0"), (NOBODY, web.ip)),
        "arp-announces": arp(EVERYBODY, web.mac, 1, (web.mac, web.ip), (NOBODY, web.ip)),
        "na": web.said(136, about(web.ip6, web.mac)),
        "na-link-local": web.said(136, about(web.local, web.mac), web.local),
        "ns": web.said(135, about(LAPTOP6, web.mac, flags=0), web.ip6, LAPTOP6, LAPTOP_MAC),
        "dad": web.said(135, about(web.ip6, flags=0), NONE6),
        "dad-link-local": web.said(135, about(web.local, flags=0), NONE6),
        "rs": web.said(133, bytes(4), NONE6),
        "mld-none": web.six(NONE6, behind(0, icmp6(NONE6, NODES, 143, group6))),
        "mld": web.six(web.local, behind(0, icmp6(web.local, NODES, 143, group6))),
        "echo-fragment": web.six(web.ip6, fragment(58, b"\x80\0" + bytes(46), more=True), LAPTOP6, LAPTOP_MAC),
        "echo-later-fragment": web.six(web.ip6, fragment(58, b"\x86\0" + bytes(46), 48), LAPTOP6, LAPTOP_MAC),
        "udp-fragment": web.six(web.ip6, fragment(*six, more=True), LAPTOP6, LAPTOP_MAC),
        "mdns": web.four(udp(web.ip, "224.0.0.251", 5353, 5353), MDNS),
        "mdns-v6": web.six(web.local, udp_in(web.local, "ff02::fb", 5353, 5353), "ff02::fb", "33:33:00:00:00:fb"),
        "igmp": web.four(ip4(web.ip, "224.0.0.251", 2, igmp_report()), MDNS),
        "igmp-none": web.four(ip4("0.0.0.0", "224.0.0.251", 2, igmp_report()), MDNS),
        "dhcp": web.four(udp("0.0.0.0", "255.255.255.255", 68, 67), EVERYBODY),
        "dhcpv6": web.six(web.local, udp_in(web.local, NODES, 546, 547)),
    }


def udp_in(src: str, dst: str, sport: int = 7, dport: int = 7, data: bytes = b"x" * 16) -> tuple[int, bytes]:
    """A UDP datagram over IPv6, as (protocol, bytes)."""
    return 17, udp(src, dst, sport, dport, data)[40:]


def reach(web: Container, frames: dict[str, bytes], *listeners: Callable[[], list[str]]) -> list[set[str]]:
    """Which of the frames each listener hears. All hear the last one, which is true."""
    known = {untagged(frame).hex(): name for name, frame in frames.items()}
    assert len(known) == len(frames)
    heard: list[set[str]] = [set() for _ in listeners]
    end = web.four(udp(web.ip, "255.255.255.255", 4444, 4444, os.urandom(8)), EVERYBODY)
    web.send([*frames.values(), end])
    for listener, of in zip(listeners, heard, strict=True):
        until = time.monotonic() + 10
        while end.hex() not in of:
            assert time.monotonic() < until, "the listener heard nothing"
            of.update(listener())
            time.sleep(0.02)
    return [{known[frame] for frame in of if frame in known} for of in heard]


def unicast(frames: dict[str, bytes]) -> set[str]:
    return {name for name, frame in frames.items() if not frame[0] & 1}


def all_get_through(ground: Ground, web: Container, frames: dict[str, bytes]) -> None:
    """The laptop hears all of them, and the neighbour all that are not for one machine only."""
    with ground.station("laptop", "hear", "eth0") as laptop, ground.station("db", "hear", "eth0") as db:
        lan, neighbour = reach(web, frames, laptop, db)
    assert set(frames) - lan == set()
    assert set(frames) - unicast(frames) - neighbour == set()


def prepare(ground: Ground) -> None:
    """Everybody forgets afterwards what they were told; and no bridge keeps to itself who joined a group."""
    for node, dev in (("laptop", "eth0"), ("router", "lan0"), ("host", "br0")):
        ground.until_end("true", f"ip neigh flush dev {dev}", node)
    for node in ("host", "switch"):
        (bridge,) = ground.ip(node, "link", "show", "type", "bridge")
        snooping = f"ip link set {bridge['ifname']} type bridge mcast_snooping"
        ground.until_end(f"{snooping} 0", f"{snooping} 1", node)


@bypass
def test_what_is_forged_reaches_nobody(ground: Ground, bypass: str) -> None:
    prepare(ground)
    ground.berth(f"{LAN} -o bypass={bypass}")
    web, _ = Container(ground, "web"), Container(ground, "db")
    with ground.station("laptop", "hear", "eth0") as laptop, ground.station("db", "hear", "eth0") as db:
        assert reach(web, forged(web), laptop, db) == [set(), set()]


@bypass
def test_what_is_forged_gets_through_where_nobody_looks(ground: Ground, bypass: str) -> None:
    prepare(ground)
    ground.berth(f"{LAN} -o bypass={bypass} -o antispoof=false")
    web, _ = Container(ground, "web"), Container(ground, "db")
    all_get_through(ground, web, forged(web))


@bypass
@pytest.mark.parametrize("antispoof", ["true", "false"])
def test_what_is_true_gets_through(ground: Ground, bypass: str, antispoof: str) -> None:
    prepare(ground)
    ground.berth(f"{LAN} -o bypass={bypass} -o antispoof={antispoof}")
    web, _ = Container(ground, "web"), Container(ground, "db")
    all_get_through(ground, web, true(web))


# --- what comes of it ---


@bypass
@pytest.mark.parametrize("antispoof", ["true", "false"])
def test_the_laptop_keeps_its_router(ground: Ground, bypass: str, antispoof: str) -> None:
    prepare(ground)
    ground.berth(f"{LAN} -o bypass={bypass} -o antispoof={antispoof}")
    web = Container(ground, "web")
    assert ground.pings(("laptop", ROUTER), ("laptop", ROUTER6)) == []
    lies = {name: forged(web)[name] for name in ("arp-gratuitous", "arp-answer", "na-to-all", "na-answer")}
    with ground.station("laptop", "hear", "eth0") as laptop:
        reach(web, lies, laptop)
    found = [ground.ip("laptop", "neigh", "show", "to", router)[0]["lladdr"] for router in (ROUTER, ROUTER6)]
    assert found == [ROUTER_MAC if antispoof == "true" else web.mac] * 2


def routers_of(ground: Ground, node: str) -> list[str]:
    """Who made itself a router of a node by advertisement, and its addresses from there."""
    routes = [route.get("gateway", "") for route in ground.ip(node, "-6", "route", "show", "proto", "ra")]
    entries = ground.ip(node, "-6", "address", "show", "to", "fd66::/64")
    return [*routes, *(address["local"] for entry in entries for address in entry["addr_info"] if address)]


@bypass
@pytest.mark.parametrize(
    ("options", "taken"),
    [("", False), ("-o allow_services=dhcp", False), ("-o allow_services=ra", True), ("-o antispoof=false", True)],
)
def test_a_stranger_is_nobodys_router(ground: Ground, bypass: str, options: str, taken: bool) -> None:
    for node, dev in (("laptop", "eth0"), ("host", "br0")):
        undo = f"ip -6 route flush proto ra; ip -6 address flush dev {dev} to fd66::/64"
        ground.until_end("true", undo, node)
    ground.berth(f"{LAN} -o bypass={bypass} {options}")
    web = Container(ground, "web")
    plain = icmp6(web.local, NODES, 134, advertisement(1800))
    lies = {"ra": web.six(web.local, plain), "ra-options": web.six(web.local, behind(60, plain))}
    with ground.station("laptop", "hear", "eth0") as laptop:
        (heard,) = reach(web, lies, laptop)
    assert heard == (set(lies) if taken else set())
    assert bool(routers_of(ground, "laptop")) == taken


@pytest.mark.parametrize(("options", "heard"), [("", 0), ("-o allow_services=ra", 0), ("-o allow_services=ra,dhcp", 5)])
def test_a_dhcp_server_has_to_be_allowed(ground: Ground, options: str, heard: int) -> None:
    ground.berth(f"{LAN} {options}")
    web = Container(ground, "web")
    offers = {name: frame for name, frame in forged(web).items() if name.startswith("dhcp")}
    with ground.station("laptop", "hear", "eth0") as laptop:
        assert len(reach(web, offers, laptop)[0]) == heard


@bypass
def test_large_packets_and_a_dhcp_client_work_in_a_container(ground: Ground, bypass: str) -> None:
    ground.berth(f"{LAN} -o bypass={bypass}")
    web = Container(ground, "web")
    large = [("web", ["ping", "-n", "-c1", "-W2", "-s5000", address]) for address in (LAPTOP, LAPTOP6, ROUTER)]
    large += [("laptop", ["ping", "-n", "-c1", "-W2", "-s5000", address]) for address in (web.ip, web.ip6)]
    assert [code for code, _ in ground.at_once(*large)] == [0] * 5
    ground.sh("busybox udhcpc -nqf -i eth0 -s /bin/true", "web")


def test_reconcile_protects_the_networks_of_an_older_berth(ground: Ground) -> None:
    """They have no table, or one in which the same chain is for everybody; and their records lack the word."""
    prepare(ground)
    ground.berth(LAN)
    web = Container(ground, "web")
    frames = {name: forged(web)[name] for name in ("mac", "arp-answer", "na-answer")}
    ground.sh("nft delete table $(nft list tables | sed -n 's/table \\(netdev berth_.*\\)/\\1/p')")
    with ground.station("laptop", "hear", "eth0") as laptop:
        assert reach(web, frames, laptop) == [set(frames)]
        ground.berth("reconcile")
        assert reach(web, frames, laptop) == [set()]
        assert reach(web, true(web), laptop) == [set(true(web))]
