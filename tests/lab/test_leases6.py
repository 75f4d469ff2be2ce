"""Endpoints of a LAN that have IPv6 as its routers advertise: `--ipv6 -o addresses=dhcp`, with the daemon."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from ipaddress import IPv6Address, IPv6Network
from typing import Any

import pytest
from lab_ground import HOST6, INTERNET6, LAPTOP, LAPTOP6, ROUTER6, Ground
from test_leases import Keeper, until

from router_dhcp import RouterDhcp

pytestmark = pytest.mark.timeout(120)

NET = "network create --driver flat -o parent=br0 -o addresses=dhcp --ipv6 lan"
PREFIX = IPv6Network("fd00:2::/64")
Radvd = Callable[..., None]


@pytest.fixture
def ground(ground: Ground) -> Ground:
    """The lab's host, which takes no addresses of its own from advertisements, as one that forwards."""
    for setting in ("accept_ra", "autoconf"):
        name = f"net.ipv6.conf.br0.{setting}"
        ground.until_end(f"sysctl -qw {name}=0", f"sysctl -qw {name}=1")
    return ground


@pytest.fixture
def keeper(ground: Ground) -> Iterator[Keeper]:
    daemon = Keeper(ground)
    daemon.start()
    yield daemon
    for net in ground.told("network ls"):
        for ep in ground.told(f"endpoint ls --network {net['Name']}"):
            ground.tried(f"detach {net['Name']} {ep['name']}")
    daemon.kill9()


@pytest.fixture
def radvd(ground: Ground) -> Iterator[Radvd]:
    """Have the router advertise, in radvd's words; nothing, to have it end as a router does that is switched off."""
    here = ground.lab.work / "router"
    pid = here / "radvd.pid"
    stop = f"test ! -e {pid} || {{ kill $(cat {pid}); while test -e {pid}; do sleep 0.05; done; }}"

    def says(config: str = "", more: str = "") -> None:
        ground.sh(stop, "router")
        if config:
            words = f"AdvSendAdvert on; MinRtrAdvInterval 3; MaxRtrAdvInterval 4; {more} {config}"
            (here / "radvd.conf").write_text(f"interface lan0 {{ {words} }};\n")
            ground.sh(f"radvd -C {here}/radvd.conf -p {pid} -m logfile -l {here}/radvd.log", "router")

    yield says
    ground.sh(stop, "router")


def prefix(subnet: object = PREFIX, valid: int = 3600, preferred: int = 1800) -> str:
    return f"prefix {subnet} {{ AdvValidLifetime {valid}; AdvPreferredLifetime {preferred}; }};"


def record(ground: Ground, name: str = "web") -> dict[str, Any]:
    """The lease of an endpoint's IPv6 address."""
    found = [each for each in ground.told("lease ls") if each["endpoint_name"] == name]
    (six,) = [each for each in found if each["lease"]["request"]["version"] == 6]
    return dict(six)


def held(ground: Ground, name: str = "web") -> list[str]:
    """The IPv6 addresses that a sandbox has, but for link-local ones."""
    found = ground.ip(name, "-6", "address", "show", "dev", "eth0", "scope", "global")
    return [info["local"] for link in found for info in link["addr_info"] if info]


def link_local(ground: Ground, node: str = "router", dev: str = "lan0") -> str:
    found = ground.ip(node, "-6", "address", "show", "dev", dev, "scope", "link")
    return next(str(info["local"]) for link in found for info in link["addr_info"] if info)


def test_an_address_is_made_of_the_advertised_prefix(ground: Ground, keeper: Keeper, radvd: Radvd) -> None:
    radvd(prefix(), "AdvLinkMTU 1400; RDNSS fd00:2::53 {}; DNSSL a.example {};")
    ground.berth(NET)
    ground.sandbox("web")
    four, six = ground.attach("lan", "web")
    assert IPv6Address(six) in PREFIX
    assert held(ground) == [six]
    assert ground.defaults("web", 6) == [(link_local(ground), "eth0")]
    until(lambda: ground.pings(("web", LAPTOP6), ("laptop", six), ("web", LAPTOP), ("laptop", four)) == [])
    said = record(ground)["lease"]
    assert (said["dns"], said["search"], said["slaac"]) == (["fd00:2::53"], ["a.example"], True)
    assert ground.sh("cat /proc/sys/net/ipv6/conf/eth0/mtu", "web").strip() == "1400"
    (link,) = ground.ip("web", "link", "show", "eth0")
    assert link["mtu"] == 1500
    assert ground.berth("reconcile") == "nothing to change on this host\n"
    ground.berth("detach lan web")
    ground.sh("ip netns del web && ip netns add web")
    assert ground.attach("lan", "web") == [four, six]


def test_a_router_that_is_switched_off_and_on(ground: Ground, keeper: Keeper, radvd: Radvd) -> None:
    radvd(prefix())
    ground.berth(NET)
    ground.sandbox("web")
    _, six = ground.attach("lan", "web")
    router = [(link_local(ground), "eth0")]
    assert ground.defaults("web", 6) == router
    radvd()  # its last word is that it is no router any more
    until(lambda: ground.defaults("web", 6) == [])
    assert held(ground) == [six]
    assert ground.pings(("web", LAPTOP6)) == []
    radvd(prefix())
    until(lambda: ground.defaults("web", 6) == router)
    assert held(ground) == [six]


def test_a_prefix_in_place_of_another(ground: Ground, keeper: Keeper, radvd: Radvd) -> None:
    """The provider has another prefix: the old one is deprecated, and the new one is not of the network's subnets."""
    new = IPv6Network("2001:db8:7::/64")
    radvd(prefix())
    ground.berth(NET)
    ground.sandbox("web")
    four, six = ground.attach("lan", "web")
    ground.until_end(f"ip address add {new[1]}/64 dev lan0 nodad", f"ip address del {new[1]}/64 dev lan0", "router")
    radvd(prefix(preferred=0) + prefix(new))
    until(lambda: held(ground) != [six])
    (moved,) = held(ground)
    assert IPv6Address(moved) in new
    assert [each.partition("/")[0] for each in ground.told("endpoint ls")[0]["addresses"]] == [four, moved]
    assert ground.pings(("web", str(new[1])), ("router", moved), ("web", LAPTOP)) == []  # it is let send from there
    assert record(ground)["trouble"] == ""
    assert f"moved it from {six} to {moved}" in keeper.log()
    ground.berth("detach lan web")
    assert ground.attach("lan", "web") == [four, moved]


def test_a_prefix_that_ends_and_comes_back(ground: Ground, keeper: Keeper, radvd: Radvd) -> None:
    radvd(prefix(valid=5, preferred=5))
    ground.berth(NET)
    ground.sandbox("web")
    four, six = ground.attach("lan", "web")
    radvd(" ")
    until(lambda: held(ground) == [], 20)
    assert [each.partition("/")[0] for each in ground.told("endpoint ls")[0]["addresses"]] == [four]
    assert "advertises fd00:2::/64 any more" in record(ground)["trouble"]
    assert ground.pings(("web", LAPTOP)) == []
    assert ground.berth("reconcile") == "nothing to change on this host\n"
    radvd(prefix())
    until(lambda: held(ground) == [six])
    until(lambda: record(ground)["trouble"] == "")
    assert ground.pings(("web", LAPTOP6), ("laptop", six)) == []


@pytest.mark.parametrize("end", ["stop", "kill9"])
def test_addresses_outlive_the_daemon(ground: Ground, keeper: Keeper, radvd: Radvd, end: str) -> None:
    radvd(prefix())
    ground.berth(NET)
    ground.sandbox("web")
    addresses = ground.attach("lan", "web")
    router = ground.defaults("web", 6)
    getattr(keeper, end)()
    until(lambda: ground.pings(("laptop", addresses[1])) == [])
    radvd()
    keeper.start()
    assert held(ground) == [addresses[1]]
    assert ground.defaults("web", 6) == router  # nobody has said yet that it is gone
    ends = record(ground)["until"]
    radvd(prefix(), "RDNSS fd00:2::53 {};")
    until(lambda: "fd00:2::53" in record(ground)["lease"]["dns"])
    assert record(ground)["until"] > ends
    assert ground.told("endpoint ls")[0]["addresses"] == [f"{addresses[0]}/24", f"{addresses[1]}/64"]


def test_where_no_router_advertises_nothing_is_left(ground: Ground, keeper: Keeper) -> None:
    ground.berth(NET)
    ground.sandbox("web")
    assert "no IPv6 router answers on br0" in ground.refused("attach lan web", code=1)
    assert (ground.told("endpoint ls"), ground.told("lease ls")) == ([], [])
    ground.berth("network rm lan")
    assert "add --ipv6" in ground.refused(NET.replace("--ipv6", "-o addresses6=auto"))


def test_an_address_that_somebody_has_is_not_made(ground: Ground, keeper: Keeper, radvd: Radvd) -> None:
    radvd(prefix())
    ground.berth(NET)
    ground.sandbox("web")
    _, first = ground.attach("lan", "web")
    ground.berth("detach lan web")
    ground.until_end(f"ip address add {first}/64 dev eth0 nodad", f"ip address del {first}/64 dev eth0", "laptop")
    _, second = ground.attach("lan", "web")
    assert IPv6Address(second) in PREFIX and second != first
    assert ground.pings(("web", LAPTOP6), ("router", second)) == []
    ground.sandbox("other")
    assert "is not to be had" in ground.refused(f"attach lan other --ip {first}")
    ground.berth("attach lan other --ip fd00:2::abcd")
    assert held(ground, "other") == ["fd00:2::abcd"]


def test_a_host_without_an_ipv6_address_of_its_own(ground: Ground, keeper: Keeper, radvd: Radvd) -> None:
    back = f"ip address add {HOST6}/64 dev br0 nodad; ip route add default via {ROUTER6}"
    ground.until_end(f"ip address del {HOST6}/64 dev br0", back)
    radvd(prefix())
    ground.berth(NET)
    ground.sandbox("web")
    _, six = ground.attach("lan", "web")
    assert IPv6Address(six) in PREFIX
    assert ground.pings(("web", LAPTOP6), ("laptop", six), ("web", INTERNET6)) == []
    ground.berth("network create back")
    ground.berth("attach back web --ifname eth1")
    ground.berth("detach lan web")
    assert ground.defaults("web", 6) == []
    assert [dev for _, dev in ground.defaults("web")] == ["eth1"]


def test_an_address_of_the_lans_dhcpv6_server(ground: Ground, keeper: Keeper) -> None:
    router = RouterDhcp(ground.lab)
    router.says("dhcp-range=192.168.2.200,192.168.2.220,1h", "dhcp-range=fd00:2::200,fd00:2::2ff,64,1h", "enable-ra")
    try:
        ground.berth(NET)
        ground.sandbox("web")
        four, six = ground.attach("lan", "web")
        assert six.startswith("fd00:2::2")
        assert held(ground) == [six]
        assert ground.defaults("web", 6) == [(link_local(ground), "eth0")]
        assert ground.pings(("web", LAPTOP6), ("laptop", six), ("web", INTERNET6)) == []
        assert record(ground)["lease"]["slaac"] is False
        ground.berth("detach lan web")
        assert ground.attach("lan", "web") == [four, six]
    finally:
        router.back()
