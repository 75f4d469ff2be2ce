"""NAT networks: private, behind the host, reached through published ports only."""

from __future__ import annotations

import time

import pytest
from lab_ground import HOST, HOST6, INTERNET, INTERNET6, LAPTOP, LAPTOP6, ROUTER6, Ground

pytestmark = pytest.mark.timeout(60)

BACKEND = "network create --subnet 10.20.0.0/24 --ipv6 --subnet fd20::/64 backend"
FRONTEND = "network create --subnet 10.30.0.0/24 --ipv6 --subnet fd30::/64 frontend"
OUTSIDE, OUTSIDE6 = "203.0.113.1", "2001:db8::1"  # the router's


def container(ground: Ground, network: str, name: str, more: str = "") -> tuple[str, str]:
    """A new container's two addresses."""
    ground.sandbox(name)
    four, six = ground.attach(network, name, more)
    return four, six


def test_a_container_goes_out_as_the_host(ground: Ground) -> None:
    ground.berth("network create --ipv6 backend")
    four, six = container(ground, "backend", "api")
    assert four.startswith("172.17.0.")
    assert six.startswith("fd")
    assert ground.pings(*(("api", a) for a in (INTERNET, INTERNET6, LAPTOP, LAPTOP6, HOST, HOST6))) == []
    with ground.serving("laptop"), ground.serving("internet", port=8081):
        for proto in ("tcp", "udp"):
            assert ground.ask("api", LAPTOP, LAPTOP6, proto=proto) == [HOST, HOST6]
            assert ground.ask("api", INTERNET, INTERNET6, port=8081, proto=proto) == [OUTSIDE, OUTSIDE6]


def test_addresses_are_kept_without_masquerade(ground: Ground) -> None:
    ground.berth(f"{BACKEND} -o masquerade=false")
    addresses = container(ground, "backend", "api")
    ground.until_end(
        f"ip route add 10.20.0.0/24 via {HOST}; ip route add fd20::/64 via {HOST6}",
        "ip route delete 10.20.0.0/24; ip route delete fd20::/64",
        "laptop",
    )
    with ground.serving("laptop"):
        assert ground.ask("api", LAPTOP, LAPTOP6) == [*addresses]


def test_networks_are_isolated_from_each_other(ground: Ground) -> None:
    ground.berth(BACKEND)
    ground.berth(FRONTEND)
    api, db = container(ground, "backend", "api"), container(ground, "backend", "db")
    web = container(ground, "frontend", "web")
    with ground.serving("api", "db", "web"):
        assert ground.ask("api", *db, *web) == [*api, "", ""]
        assert ground.ask("web", *api, *db, *web, proto="udp") == ["", "", "", "", *web]
    across = [*(("api", a) for a in web), *(("web", a) for a in api)]
    assert ground.pings(*across, wait=1) == across
    assert ground.pings(*(("api", a) for a in db)) == []


def test_an_internal_network_has_no_way_out_nor_in(ground: Ground) -> None:
    ground.berth(f"{BACKEND} --internal")
    api, db = container(ground, "backend", "api"), container(ground, "backend", "db")
    assert ground.defaults("api") == ground.defaults("api", 6) == []
    assert ground.pings(*(("api", a) for a in db)) == []
    # Not even for somebody who insists.
    ground.sh("ip route add default via 10.20.0.1; ip route add default via fd20::1", "api")
    ground.until_end(
        f"ip route add 10.20.0.0/24 via {HOST}; ip route add fd20::/64 via {HOST6}",
        "ip route delete 10.20.0.0/24; ip route delete fd20::/64",
        "laptop",
    )
    ground.sh("sysctl -qw net.ipv4.ip_forward=1 net.ipv6.conf.all.forwarding=1")
    tried = [*(("api", a) for a in (LAPTOP, LAPTOP6, INTERNET, INTERNET6)), *(("laptop", a) for a in api)]
    assert ground.pings(*tried, wait=1) == tried
    with ground.serving("api"):
        assert ground.ask("laptop", *api) == ["", ""]
        assert ground.ask("db", *api) == [*db]


# --- Published ports ---


@pytest.mark.parametrize("proto", ["tcp", "udp"])
def test_a_published_port_is_the_only_way_in(ground: Ground, proto: str) -> None:
    ground.berth(BACKEND)
    api = container(ground, "backend", "api", f"-p 8080:80/{proto}")
    ground.until_end(
        f"ip route add 10.20.0.0/24 via {HOST}; ip route add fd20::/64 via {HOST6}",
        "ip route delete 10.20.0.0/24; ip route delete fd20::/64",
        "laptop",
    )
    with ground.serving("api"), ground.serving("api", port=81):
        for node, seen in (("laptop", [LAPTOP, LAPTOP6]), ("host", [HOST, HOST6])):
            assert ground.ask(node, HOST, HOST6, port=8080, proto=proto) == seen
        for port in (80, 81):
            assert ground.ask("laptop", *api, HOST, HOST6, port=port, proto=proto) == ["", "", "", ""]
        other = {"tcp": "udp", "udp": "tcp"}[proto]
        assert ground.ask("laptop", *api, HOST, HOST6, port=8080, proto=other) == ["", "", "", ""]
        ground.berth("detach backend api")
        assert ground.ask("laptop", HOST, HOST6, port=8080, proto=proto) == ["", ""]


def test_a_port_is_published_on_one_address(ground: Ground) -> None:
    ground.until_end("ip address add 192.168.2.3/24 dev br0", "ip address delete 192.168.2.3/24 dev br0")
    ground.berth(BACKEND)
    container(ground, "backend", "api", "-p 192.168.2.3:8080:80 -p [fd00:2::2]:8081:80")
    with ground.serving("api"):
        assert ground.ask("laptop", "192.168.2.3", HOST, HOST6, port=8080) == [LAPTOP, "", ""]
        assert ground.ask("laptop", "192.168.2.3", HOST, HOST6, port=8081) == ["", "", LAPTOP6]


def test_the_host_reaches_a_published_port_by_localhost(ground: Ground) -> None:
    ground.berth(f"{BACKEND} --gateway 10.20.0.1")
    container(ground, "backend", "api", "-p 8080:80 -p 127.0.0.1:8081:80 -p 127.0.0.9:8082:80")
    with ground.serving("api"):
        assert ground.ask("host", "127.0.0.1", port=8080) == ["10.20.0.1"]
        assert ground.ask("host", "127.0.0.1", port=8081) == ["10.20.0.1"]
        assert ground.ask("host", "127.0.0.9", port=8082) == ["10.20.0.1"]
        assert ground.ask("host", "127.0.0.53", port=8080) == [""], "somebody else's"
        assert ground.ask("laptop", HOST, port=8081) == [""]


def test_a_container_does_not_reach_what_is_the_hosts_own(ground: Ground) -> None:
    """A bridge that lets 127.0.0.1 through, for the host, is a door for containers that ask for it."""
    ground.berth(f"{BACKEND} --gateway 10.20.0.1")
    container(ground, "backend", "api", "-p 8080:80")
    ground.sh(
        "sysctl -qw net.ipv4.conf.all.route_localnet=1; ip address flush dev lo;"
        " ip route flush table local 127.0.0.0/8 || true; ip route add 127.0.0.0/8 via 10.20.0.1",
        "api",
    )
    with ground.serving("host"):
        assert ground.ask("api", "10.20.0.1") != [""], "what it serves to everybody"
        assert ground.ask("api", "127.0.0.1", "127.0.0.2") == ["", ""]
        ground.sh("nft flush chain inet berth loopback")
        assert ground.ask("api", "127.0.0.1") != [""], "which this chain alone prevents"


def test_a_range_is_published_port_by_port(ground: Ground) -> None:
    ground.berth(BACKEND)
    container(ground, "backend", "api", "-p 9000-9002:80-82")
    for port in (80, 82):
        with ground.serving("api", port=port):
            assert ground.ask("laptop", HOST, HOST6, port=8920 + port) == [LAPTOP, LAPTOP6]
    rows = [(row["host_port"], row["port"]) for row in ground.told("port ls")]
    assert rows == [(9000, 80), (9001, 81), (9002, 82)]


@pytest.mark.parametrize("filtered", [0, 1], ids=["routed", "br_netfilter"])
@pytest.mark.parametrize("node", ["api", "db", "web"])
def test_a_published_port_is_reached_from_inside(ground: Ground, node: str, filtered: int) -> None:
    """By the host's LAN address: from the container itself, its neighbour, and another network.

    With br_netfilter the bridge translates and passes on by itself what would else be routed.
    """
    setting = "sysctl -eqw net.bridge.bridge-nf-call-iptables={0} net.bridge.bridge-nf-call-ip6tables={0}"
    ground.until_end(setting.format(filtered), setting.format(1))
    ground.berth(BACKEND)
    ground.berth(FRONTEND)
    container(ground, "backend", "api", "-p 8080:80")
    container(ground, "backend", "db")
    container(ground, "frontend", "web")
    with ground.serving("api"):
        assert all(ground.ask(node, HOST, HOST6, port=8080))


def test_a_port_is_published_once(ground: Ground) -> None:
    ground.berth(BACKEND)
    container(ground, "backend", "api", "-p 8080:80")
    ground.sandbox("db")
    assert "api" in ground.refused("attach backend db -p 8080:80")
    assert "api" in ground.refused("attach backend db -p 127.0.0.1:8080:80")
    ground.berth("attach backend db -p 8080:80/udp -p 8081:80")


# --- Where it is put ---


def test_a_default_pool_avoids_what_the_host_reaches(ground: Ground) -> None:
    ground.until_end(
        f"ip route add 172.17.0.0/24 via {LAPTOP}; ip address add 172.18.5.1/30 dev enp3s0",
        "ip route delete 172.17.0.0/24; ip address delete 172.18.5.1/30 dev enp3s0",
    )
    ground.berth("network create one")
    ground.berth("network create two")
    subnets = [net["IPAM"]["Config"][0]["Subnet"] for net in ground.told("network ls")]
    assert subnets == ["172.19.0.0/16", "172.20.0.0/16"]


def test_the_default_route_moves_to_the_network_that_is_left(ground: Ground) -> None:
    ground.berth(BACKEND)
    ground.berth(FRONTEND)
    container(ground, "backend", "api")
    ground.attach("frontend", "api")
    assert ground.defaults("api") == [("10.20.0.1", "eth0")]
    ground.berth("detach backend api")
    assert ground.defaults("api") == [("10.30.0.1", "eth1")]
    assert ground.defaults("api", 6) == [("fd30::1", "eth1")]
    assert ground.pings(("api", INTERNET), ("api", INTERNET6)) == []
    ground.attach("backend", "api")
    assert ground.defaults("api") == [("10.30.0.1", "eth1")]


def test_a_default_route_that_a_router_advertised_stays(ground: Ground) -> None:
    """A host that forwards IPv6 no longer listens to routers, unless accept_ra is 2."""
    ground.until_end(
        "sysctl -qw net.ipv6.conf.all.forwarding=0 net.ipv6.conf.br0.accept_ra=1\n"
        f"ip -6 route delete default; ip -6 route add default via {ROUTER6} dev br0 proto ra metric 1024 expires 300",
        f"ip -6 route delete default; ip -6 route add default via {ROUTER6}; sysctl -qw net.ipv6.conf.br0.accept_ra=1",
    )
    ground.berth("network create --ipv6 backend")
    container(ground, "backend", "api")
    assert ground.sh("sysctl -n net.ipv6.conf.all.forwarding net.ipv6.conf.br0.accept_ra").split() == ["1", "2"]
    assert ground.defaults("host", 6) == [(ROUTER6, "br0")]
    assert ground.pings(("api", INTERNET6), ("host", INTERNET6)) == []


def test_a_network_leaves_nothing_behind(ground: Ground) -> None:
    ground.berth("network create probe")  # so that forwarding is on before and after
    ground.berth("network rm probe")
    time.sleep(0.05)
    before, rules = ground.look(), ground.sh("nft list ruleset")
    ground.berth(BACKEND)
    container(ground, "backend", "api", "-p 8080:80 -p 5353:53/udp")
    assert ground.look() != before
    ground.berth("detach backend api")
    ground.berth("network rm backend")
    assert (ground.look(), ground.sh("nft list ruleset")) == (before, rules)
