"""icc=false: the containers of a network do not reach each other, by any way but a published port; all else they do."""

from __future__ import annotations

import pytest
from lab_ground import HOST, HOST6, INTERNET, INTERNET6, LAPTOP, LAPTOP6, ROUTER, ROUTER6, ROUTER_MAC, Ground

pytestmark = pytest.mark.timeout(60)

NAT = "network create --subnet 10.99.0.0/24 --subnet fd99::/64 net"
LAN = "network create --driver flat --ipv6 -o parent=br0 net"
EVERYBODY = (HOST, HOST6, ROUTER, ROUTER6, LAPTOP, LAPTOP6, INTERNET, INTERNET6)
apart = pytest.mark.parametrize("icc", ["true", "false"])


def pair(ground: Ground, create: str, ports: str = "") -> tuple[list[str], list[str]]:
    """A network and two containers on it; their addresses."""
    ground.berth(create)
    for name in ("web", "db"):
        ground.sandbox(name)
    return ground.attach("net", "web"), ground.attach("net", "db", ports)


def by_way_of(ground: Ground, node: str, mac: str, addresses: list[str]) -> None:
    """A container sends what is for a neighbour to somebody else's MAC."""
    for address in addresses:
        ground.sh(f"ip neigh replace {address} lladdr {mac} nud permanent dev eth0", node)


def ways(web: list[str], db: list[str]) -> list[tuple[str, str]]:
    return [*(("web", address) for address in db), *(("db", address) for address in web)]


@apart
@pytest.mark.parametrize("word", ["icc", "com.docker.network.bridge.enable_icc"])
def test_nat(ground: Ground, icc: str, word: str) -> None:
    web, db = pair(ground, f"{NAT} -o {word}={icc}")
    every = ways(web, db)
    assert ground.pings(*every, wait=1) == ([] if icc == "true" else every)
    assert ground.pings(*(("web", address) for address in EVERYBODY)) == []
    assert ground.pings(*(("host", address) for address in (*web, *db))) == []


@apart
def test_nat_by_way_of_the_gateway(ground: Ground, icc: str) -> None:
    web, db = pair(ground, f"{NAT} -o icc={icc}")
    (bridge,) = {link["ifname"] for link in ground.ip("host", "link", "show", "type", "bridge")} - {"br0"}
    mac = ground.ip("host", "link", "show", bridge)[0]["address"]
    by_way_of(ground, "web", mac, db)
    by_way_of(ground, "db", mac, web)
    every = ways(web, db)
    assert ground.pings(*every, wait=1) == ([] if icc == "true" else every)


@apart
def test_a_published_port_is_for_neighbours_too(ground: Ground, icc: str) -> None:
    # With br_netfilter the kernel would turn the packet round within the bridge, which keeps the two apart.
    setting = "sysctl -eqw net.bridge.bridge-nf-call-iptables={0} net.bridge.bridge-nf-call-ip6tables={0}"
    ground.until_end(setting.format(0), setting.format(1))
    web, db = pair(ground, f"{NAT} -o icc={icc}", "-p 8080:80")
    with ground.serving("db"):
        assert all(ground.ask("web", HOST, HOST6, port=8080))
        assert ground.ask("laptop", HOST, port=8080) == [LAPTOP]
        assert ground.ask("web", *db) == (web if icc == "true" else ["", ""])


@apart
@pytest.mark.parametrize("antispoof", ["true", "false"])
@pytest.mark.parametrize("bypass", ["never", "always"])
def test_flat(ground: Ground, icc: str, bypass: str, antispoof: str) -> None:
    web, db = pair(ground, f"{LAN} -o icc={icc} -o bypass={bypass} -o antispoof={antispoof}")
    every = ways(web, db)
    assert ground.pings(*every, wait=1) == ([] if icc == "true" else every)
    assert ground.pings(*(("web", address) for address in EVERYBODY)) == []
    assert ground.pings(*((node, address) for node in ("host", "laptop", "router") for address in web)) == []


@apart
@pytest.mark.parametrize("bypass", ["never", "always"])
def test_flat_by_way_of_the_router(ground: Ground, icc: str, bypass: str) -> None:
    """A router that gets a packet for the LAN from the LAN brings it back."""
    web, db = pair(ground, f"{LAN} -o icc={icc} -o bypass={bypass}")
    by_way_of(ground, "web", ROUTER_MAC, db)
    by_way_of(ground, "db", ROUTER_MAC, web)
    every = ways(web, db)
    assert ground.pings(*every, wait=1) == ([] if icc == "true" else every)


@pytest.mark.parametrize("what", ["antispoof=true", "allow_services=dhcp"])
def test_what_is_for_a_lan_is_refused_behind_nat(ground: Ground, what: str) -> None:
    assert "is for the containers of a LAN" in ground.refused(f"{NAT} -o {what}")
    assert ground.told("network ls") == []
