"""What Berth reads is what iproute2 reads, and pyroute2, on a host full of everything."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterable
from dataclasses import fields
from ipaddress import ip_address, ip_interface, ip_network
from typing import Any

import pytest

from berth.kernel import read, rtnl
from berth.kernel.netlink import ROUTE, Netlink
from berth.kernel.netns import inside
from berth.model import HostLink, HostRoute
from berth.state import HOST

from .conftest import C1, C2, Host, ip, sh

_HOST = f"""\
netns add c1
netns add c2
link set lo mtu 32768
link add br0 address 02:00:00:00:00:01 type bridge stp_state 0 forward_delay 0
link set br0 up alias berth:0123456789abcdef
link add br1 mtu 9000 type bridge stp_state 1
link add br2 mtu 1280 type bridge stp_state 0 forward_delay 200
link set br2 alias "with spaces, and: colons"
link add v0 mtu 1400 master br0 type veth peer name eth0 netns c1
link add v1 master br1 type veth peer name eth0 netns c2
link add v2 type veth peer name eth1 netns c2
link add a0 type veth peer name a1
link add nic.7 type veth peer name nic7peer
link add name-of-15chars type veth peer name other-of-15char
link set v0 up
link set v0 type bridge_slave isolated on
link set v1 up group 77
link set v2 group {rtnl.RETIRED}
link set a0 up
link set a1 up master br2
link set br2 up
link set nic.7 up
addr add 127.1.2.3/8 dev lo
addr add 192.168.2.2/24 brd + dev br0
addr add 192.168.2.3/24 dev br0
addr add 192.168.2.4/32 dev br0 scope link
addr add 10.0.0.1/31 dev br0
addr add 10.1.1.1 peer 10.1.1.2/32 dev br0
addr add 172.16.0.1/12 dev br0 valid_lft 600 preferred_lft 300
addr add 172.16.0.1/16 dev br0 label br0:old
addr add fd00:2::2/64 dev br0 nodad
addr add fd00:2::3/128 dev br0 nodad
addr add fd00:2::4/64 dev br0 nodad preferred_lft 0
addr add 2001:db8::1/64 dev a0 valid_lft 600 preferred_lft 300
addr add fe80::7/64 dev a0 nodad
addr add fd00:3::1 peer fd00:3::2/128 dev a0 nodad
addr add ::ffff:1.2.3.4/128 dev lo
addr add 10.9.9.1/24 dev a1
addr add fd00:9::1/64 dev br2 nodad
route add default via 192.168.2.1
route add default via 192.168.2.9 metric 100
route add default dev a0 metric 200
route add 10.20.0.0/16 via 192.168.2.7 src 192.168.2.3 mtu 1300
route add 10.20.0.0/16 dev a1 metric 5
route add 10.21.0.0/16 via 203.0.113.1 dev br0 onlink
route add 10.22.0.1/32 dev br0 scope link
route add 10.23.0.0/16 nexthop via 192.168.2.7 weight 3 nexthop via 10.9.9.2 dev a1
route add 10.24.0.0/16 via 192.168.2.8 proto dhcp
route add 10.25.0.0/16 via 192.168.2.8 table 100
route add 10.26.0.0/16 via 192.168.2.8 dsfield 0x10
route add blackhole 10.30.0.0/16
route add unreachable 10.31.0.0/16 metric 3
route add prohibit 10.32.0.0/16
route add throw 10.33.0.0/16
route add local 10.34.0.1 dev br0 table main
route add fd20::/48 via fd00:2::7
route add fd20::/48 via fd00:9::7 metric 5
route add fd21::/48 dev a0 metric 9
route add fd22::1/128 dev br0
route add fd23::/48 nexthop via fd00:2::7 nexthop via fd00:9::7
route add fd24::/48 via fe80::1 dev br0 proto ra
route add fd25::/48 via fd00:2::8 table 100
route add blackhole fd30::/48
route add unreachable fd31::/48
route add prohibit fd32::/48
nexthop add id 1 via 10.9.9.76 dev a1
nexthop add id 2 via 2001:db8::77 dev a0
nexthop add id 3 via 10.9.9.77 dev a1
nexthop add id 9 group 1/3
route add 10.40.0.0/16 nhid 1
route add 10.41.0.0/16 nhid 9
route add fd40::/48 nhid 2
"""
_C1 = """\
link set lo up
link set eth0 up
addr add 192.168.2.50/24 dev eth0
addr add fd00:2::50/64 dev eth0 nodad
route add default via 192.168.2.1
"""
_ALL = (HOST, C1, C2)


@pytest.fixture
def full(host: Host) -> Host:
    """A host with much in it, and two sandboxes."""
    host.batch(_HOST)
    sh("ip -6 route add default via fd00:2::1; ip -6 route add default via fe80::1 dev br0 metric 100 proto ra")
    host.batch(_C1, ns=C1)
    return host


# --- what ip says ---------------------------------------------------------------------------------------


def _kind(entry: dict[str, Any]) -> str:
    return str(entry.get("linkinfo", {}).get("info_kind", ""))


def _group(name: str) -> int:
    return 0 if name == "default" else int(name)


def links_by_ip(ns: str) -> dict[str, rtnl.Link]:
    every = ip("-d", "link", ns=ns)
    index = {entry["ifname"]: entry["ifindex"] for entry in every}
    found = {}
    for entry in every:
        bridge = entry.get("linkinfo", {}).get("info_data", {}) if _kind(entry) == "bridge" else {}
        found[entry["ifname"]] = rtnl.Link(
            index=entry["ifindex"],
            name=entry["ifname"],
            kind=_kind(entry),
            up="UP" in entry["flags"],
            mtu=entry["mtu"],
            mac=entry["address"],
            master=index.get(entry.get("master", ""), 0),
            alias=entry.get("ifalias", ""),
            isolated=entry.get("linkinfo", {}).get("info_slave_data", {}).get("isolated", False),
            group=_group(entry["group"]),
            peer=entry.get("link_index") or index.get(entry.get("link", ""), 0),
            peer_nsid=entry.get("link_netnsid", -1),
            fresh=not (bridge.get("stp_state") or bridge.get("forward_delay")),
            hairpin=bool(entry.get("linkinfo", {}).get("info_slave_data", {}).get("hairpin")),
            address_mode=["eui64", "none", "stable_secret", "random"].index(entry["inet6_addr_gen_mode"]),
            carrier="LOWER_UP" in entry["flags"],
            stp=bool(bridge.get("stp_state")),
        )
    return found


def addresses_by_ip(ns: str) -> set[tuple[str, str]]:
    return {(e["ifname"], f"{a['local']}/{a['prefixlen']}") for e in ip("addr", ns=ns) for a in e["addr_info"]}


_PROTOCOLS = {"kernel": 2, "boot": 3, "static": 4, "ra": 9, "dhcp": 16}
Entry = tuple[str, str, str, int, int]  # destination, gateway, link, metric, protocol


def routes_by_ip(ns: str) -> list[Entry]:
    entries = [
        (family, entry)
        for family in ("-4", "-6")
        for entry in ip(family, "-d", "route", "show", "table", "main", ns=ns)
        if entry["type"] == "unicast"
    ]
    return sorted(_entry(family, entry) for family, entry in entries)


def _entry(family: str, entry: dict[str, Any]) -> Entry:
    dst = {"-4": "0.0.0.0/0", "-6": "::/0"}[family] if entry["dst"] == "default" else entry["dst"]
    several = "nexthops" in entry
    return (
        str(ip_network(dst)),
        entry.get("gateway", ""),
        "" if several else entry["dev"],
        entry.get("metric", 0),
        _PROTOCOLS[entry["protocol"]],
    )


# --- what Berth says ------------------------------------------------------------------------------------


def links_by_berth(ns: str) -> dict[str, rtnl.Link]:
    with inside(ns), Netlink(ROUTE) as nl:
        return {link.name: link for link in rtnl.links(nl)}


def _named(entries: Iterable[rtnl.RouteEntry], label: dict[int, str]) -> list[Entry]:
    return sorted((e.dst, e.via, label.get(e.index, ""), e.metric, e.protocol) for e in entries)


@pytest.mark.parametrize("ns", _ALL)
def test_links(full: Host, ns: str) -> None:
    assert links_by_berth(ns) == links_by_ip(ns)


def test_one_link(full: Host) -> None:
    with Netlink(ROUTE) as nl:
        for name, link in links_by_ip(HOST).items():
            assert rtnl.link(nl, name) == link
        for name in ("no-such-link", "", "longer-than-any-link", "naïve", "a/b"):
            assert rtnl.link(nl, name) is None


@pytest.mark.parametrize("ns", _ALL)
def test_addresses(full: Host, ns: str) -> None:
    label = {link.index: name for name, link in links_by_ip(ns).items()}
    with inside(ns), Netlink(ROUTE) as nl:
        found = [(label[index], address) for index, address in rtnl.addresses(nl)]
    assert len(found) == len(set(found))
    assert set(found) == {(dev, ip_interface(text)) for dev, text in addresses_by_ip(ns)}


@pytest.mark.parametrize("ns", _ALL)
def test_routes(full: Host, ns: str) -> None:
    label = {link.index: name for name, link in links_by_ip(ns).items()}
    with inside(ns), Netlink(ROUTE) as nl:
        found = _named(rtnl.routes(nl), label)
    assert found == routes_by_ip(ns)


def test_a_next_hop_of_the_other_family(full: Host) -> None:
    """RFC 8950: an IPv4 route may lead to an IPv6 router; it is not on the link."""
    sh("ip route add 10.50.0.0/16 via inet6 fe80::1 dev br0")
    with Netlink(ROUTE) as nl:
        (found,) = [entry for entry in rtnl.routes(nl) if entry.dst == "10.50.0.0/16"]
    assert found.via == "fe80::1"


def test_the_host_as_a_whole(full: Host) -> None:
    host = read.host()
    links = links_by_ip(HOST)
    name = {link.index: link.name for link in links.values()}
    held = addresses_by_ip(HOST)
    retired = {link.name for link in links.values() if link.group == rtnl.RETIRED}
    assert retired == {"v2"}
    for link in host.links:
        expected = links.pop(link.name)
        assert link == HostLink(
            name=expected.name,
            kind=expected.kind,
            mtu=expected.mtu,
            up=expected.up,
            master=name.get(expected.master, ""),
            alias=expected.alias,
            addresses=link.addresses,
            mac=expected.mac,
            carrier=link.carrier,  # the kernel is late in telling of one that has just come
            stp=expected.stp,
        )
        assert {(link.name, address) for address in link.addresses} == {
            (dev, ip_interface(text)) for dev, text in held if dev == link.name
        }
    assert set(links) == retired
    by_ip = [HostRoute(ip_network(d), dev, _via(via), metric, p == 9) for d, via, dev, metric, p in routes_by_ip(HOST)]
    assert sorted(host.routes, key=repr) == sorted(by_ip, key=repr)


def _via(text: str) -> Any:
    return ip_interface(text).ip if text else None


def test_an_empty_host(host: Host) -> None:
    found = read.host()
    assert [(link.name, link.kind, link.up) for link in found.links] == [("lo", "", True)]
    assert found.routes == ()


def test_more_links_than_fit_into_one_answer(host: Host) -> None:
    count = 150
    host.batch(
        "".join(f"link add a{i} type veth peer name b{i}\naddr add 10.1.{i}.1/24 dev a{i}\n" for i in range(count))
    )
    assert links_by_berth(HOST) == links_by_ip(HOST)
    assert len(read.host().links) == 2 * count + 1
    assert sum(len(link.addresses) for link in read.host().links) == count + 2


# --- and a third --------------------------------------------------------------------------------------

_PYROUTE2 = """
import json, pyroute2
with pyroute2.IPRoute() as ipr:
    links = [[l["index"], l.get("ifname"), l.get(("linkinfo", "kind")) or "", bool(l["flags"] & 1), l.get("mtu"),
              l.get("address"), l.get("master") or 0, l.get("ifalias") or "", l.get("group"), l.get("link") or 0,
              -1 if l.get("link_netnsid") is None else l.get("link_netnsid")] for l in ipr.get_links()]
    addresses = [[a["index"], a.get("local") or a.get("address"), a["prefixlen"]] for a in ipr.get_addr()]
print(json.dumps([links, addresses]))
"""


def test_pyroute2_agrees(full: Host) -> None:
    done = subprocess.run([sys.executable, "-c", _PYROUTE2], capture_output=True, text=True, check=True)
    links, addresses = json.loads(done.stdout)
    with Netlink(ROUTE) as nl:
        own = [[getattr(link, field.name) for field in fields(link)][:-6] for link in rtnl.links(nl)]
        held = [[index, str(address.ip), address.network.prefixlen] for index, address in rtnl.addresses(nl)]
    assert sorted(own) == sorted(links)
    assert {tuple(a) for a in held} == {(index, str(ip_address(text)), length) for index, text, length in addresses}
