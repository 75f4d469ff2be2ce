"""Which pool Docker gets when it asks for one, by what the host looks like."""

from __future__ import annotations

from dataclasses import replace
from ipaddress import ip_address, ip_interface, ip_network

import pytest

from berth.errors import BerthError, Exhausted, Invalid, NotFound, Taken
from berth.ipam import on_lan, pool_for
from berth.model import Host, HostLink, HostRoute, Network, Pool, PoolRequest
from berth.state import MARK

SEED = "f" * 64


def link(name: str, *addresses: str, kind: str = "bridge", alias: str = "") -> HostLink:
    return HostLink(name, kind, 1500, True, alias=alias, addresses=tuple(map(ip_interface, addresses)))


def route(dst: str, dev: str, via: str | None = None, metric: int = 0) -> HostRoute:
    return HostRoute(ip_network(dst), dev, None if via is None else ip_address(via), metric)


EMPTY = Host((link("lo", "127.0.0.1/8", "::1/128", kind=""),))
LAN = Host(
    (
        *EMPTY.links,
        link("br0", "192.168.2.2/24", "192.168.2.3/24", "fd02::2/64", "fe80::1/64"),
        link("wg0", "10.9.0.7/24", kind="wireguard"),
    ),
    (
        route("0.0.0.0/0", "br0", "192.168.2.1", 100),
        route("0.0.0.0/0", "wg0", "10.9.0.1", 50),
        route("::/0", "br0", "fe80::99", 1024),
        route("192.168.2.0/24", "br0"),
        route("172.17.0.0/16", "docker0"),
    ),
)


def ask(subnet: str = "", ip_range: str = "", *, version: int = 4, parent: str = "") -> PoolRequest:
    return PoolRequest(
        ip_network(subnet) if subnet else None, ip_network(ip_range) if ip_range else None, version, parent
    )


def network(*pools: Pool, name: str = "mine") -> Network:
    return Network("1" * 64, name, "bridge", "brt111111111111", pools, 1500, "2026-01-01T00:00:00Z")


def held(host: Host, *requests: PoolRequest) -> list[Pool]:
    """The pools for requests, each held when the next one comes."""
    pools: list[Pool] = []
    for number, request in enumerate(requests):
        pools.append(pool_for(request, host, pools, f"{number:064x}"))
    return pools


def test_a_certain_subnet() -> None:
    pool = pool_for(ask("10.20.0.0/24", "10.20.0.128/25"), LAN, [], SEED)
    assert (pool.subnet, pool.ip_range) == (ip_network("10.20.0.0/24"), ip_network("10.20.0.128/25"))
    assert (pool.gateway, pool.reserved, pool.aux) == (None, (), ())
    assert pool.owner == "berth/10.20.0.0/24/10.20.0.128/25" and not on_lan(pool)


def test_the_lans_subnet_knows_the_router_and_the_hosts_own_addresses() -> None:
    pool = pool_for(ask("192.168.2.0/24"), LAN, [], SEED)
    assert pool.gateway == ip_address("192.168.2.1") and on_lan(pool)
    assert pool.reserved == (ip_address("192.168.2.2"), ip_address("192.168.2.3"))


def test_the_lans_router_is_the_one_in_the_subnet() -> None:
    assert pool_for(ask("10.9.0.0/24"), LAN, [], SEED).gateway == ip_address("10.9.0.1")
    nearer = replace(LAN, routes=(*LAN.routes, route("0.0.0.0/0", "br0", "192.168.2.254", 10)))
    assert pool_for(ask("192.168.2.0/24"), nearer, [], SEED).gateway == ip_address("192.168.2.254")


def test_a_lan_without_a_router_in_it() -> None:
    pool = pool_for(ask("fd02::/64"), LAN, [], SEED)
    assert pool.gateway is None and pool.reserved == (ip_address("fd02::2"),) and on_lan(pool)


def test_a_bridge_of_berths_own_is_no_lan() -> None:
    ours = Host((*EMPTY.links, link("brt1", "10.20.0.1/24", alias=f"{MARK}x")), (route("0.0.0.0/0", "x", "10.20.0.9"),))
    pool = pool_for(ask("10.20.0.0/24"), ours, [], SEED)
    assert not on_lan(pool) and pool.gateway is None


def test_a_part_of_the_lan_knows_what_lies_in_it() -> None:
    pool = pool_for(ask("192.168.2.0/30"), LAN, [], SEED)
    assert pool.reserved == (ip_address("192.168.2.2"), ip_address("192.168.2.3"))


def test_default_subnets_overlap_nothing() -> None:
    mine = network(Pool(ip_network("172.18.0.0/16")))
    host = replace(LAN, networks=(mine,))
    pools = held(host, *[ask()] * 20)
    obstacles = [ip_network("172.17.0.0/16"), ip_network("172.18.0.0/16"), ip_network("192.168.2.0/24")]
    obstacles += [pool.subnet for pool in pools]
    for pool in pools:
        assert sum(pool.subnet.overlaps(other) for other in obstacles) == 1  # itself  # type: ignore[arg-type]
        assert not on_lan(pool)
    assert str(pools[0].subnet) == "172.19.0.0/16"


def test_every_request_gets_another_subnet_until_none_is_left() -> None:
    with pytest.raises(Exhausted, match="--subnet"):
        held(EMPTY, *[ask()] * 32)
    assert len({pool.subnet for pool in held(EMPTY, *[ask()] * 31)}) == 31


def test_every_request_for_ipv6_gets_another_subnet() -> None:
    pools = held(EMPTY, *[ask(version=6)] * 50)
    assert len({pool.owner for pool in pools}) == 50
    assert all(pool.subnet.version == 6 and pool.subnet.prefixlen == 64 and pool.subnet.is_private for pool in pools)


@pytest.mark.parametrize("size", ["0.0.0.0/24", "0.0.0.0/20", "0.0.0.0/28"])
def test_a_subnet_of_a_size(size: str) -> None:
    pools = held(LAN, *[ask(size)] * 5)
    assert {pool.subnet.prefixlen for pool in pools} == {ip_network(size).prefixlen}
    assert len({pool.subnet for pool in pools}) == 5 and not any(on_lan(pool) for pool in pools)


@pytest.mark.parametrize("size", ["::/64", "::/80"])
def test_an_ipv6_subnet_of_a_size(size: str) -> None:
    pools = held(LAN, *[ask(size)] * 5)
    assert {pool.subnet.prefixlen for pool in pools} == {ip_network(size).prefixlen}
    assert len({pool.subnet for pool in pools}) == 5


@pytest.mark.parametrize("size", ["::/48", "0.0.0.0/0", "::/0", "0.0.0.0/31", "::/127", "0.0.0.0/8"])
def test_sizes_that_there_are_not(size: str) -> None:
    with pytest.raises(BerthError):
        pool_for(ask(size), EMPTY, [], SEED)


def test_the_same_pool_is_shared() -> None:
    one, two = held(LAN, ask("10.20.0.0/24"), ask("10.20.0.0/24"))
    assert one == two
    one, two = held(LAN, ask("192.168.2.0/24", "192.168.2.64/26"), ask("192.168.2.0/24", "192.168.2.64/26"))
    assert one.owner == two.owner


@pytest.mark.parametrize("second", ["10.20.0.0/25", "10.20.0.0/16", "10.0.0.0/8", "10.20.0.128/25"])
def test_pools_that_overlap_are_refused(second: str) -> None:
    with pytest.raises(Taken, match=r"10\.20\.0\.0/24"):
        held(EMPTY, ask("10.20.0.0/24"), ask(second))


def test_one_subnet_with_two_ranges_is_refused() -> None:
    with pytest.raises(Taken):
        held(EMPTY, ask("10.20.0.0/24"), ask("10.20.0.0/24", "10.20.0.128/25"))


def test_a_subnet_of_berths_own_network_is_refused() -> None:
    host = replace(EMPTY, networks=(network(Pool(ip_network("10.20.0.0/24"))),))
    with pytest.raises(Taken, match=r"10\.20\.0\.0/24"):
        pool_for(ask("10.20.0.0/24"), host, [], SEED)


def test_a_pool_whose_network_is_there_still_is_the_same_pool() -> None:
    """Docker let the pool go, the network is Berth's still, and Docker asks again."""
    pool = pool_for(ask("10.20.0.0/24"), EMPTY, [], SEED)
    again = pool_for(ask("10.20.0.0/24"), replace(EMPTY, networks=(network(pool),)), [], SEED)
    assert again.owner == pool.owner


def test_the_lan_behind_a_link() -> None:
    assert str(pool_for(ask(parent="br0"), LAN, [], SEED).subnet) == "192.168.2.0/24"
    assert str(pool_for(ask(parent="br0", version=6), LAN, [], SEED).subnet) == "fd02::/64"
    assert str(pool_for(ask("10.20.0.0/24", parent="br0"), LAN, [], SEED).subnet) == "10.20.0.0/24"


def test_the_lan_behind_a_link_is_given_once() -> None:
    """Docker finds that the host is on it, and would ask for another for ever."""
    with pytest.raises(Exhausted, match=r"--subnet 192\.168\.2\.0/24"):
        held(LAN, ask(parent="br0"), ask(parent="br0"))


@pytest.mark.parametrize(
    ("request_", "kind", "word"),
    [
        (ask(parent="nosuch"), NotFound, "nosuch"),
        (ask(parent="wg0", version=6), Invalid, "wg0"),
        (ask("", "10.20.0.0/25"), Invalid, "--subnet"),
        (ask("10.20.0.0/24", "10.21.0.0/25"), Invalid, "ip-range"),
        (ask("10.20.0.0/24", "fd00::/80"), Invalid, "ip-range"),
        (ask("224.0.0.0/24"), Invalid, "multicast"),
        (ask("127.0.0.0/24"), Invalid, "loopback"),
        (ask("10.20.0.0/31"), Invalid, "too small"),
        (ask("fe80::/64"), Invalid, "link-local"),
    ],
)
def test_what_makes_no_pool(request_: PoolRequest, kind: type[BerthError], word: str) -> None:
    with pytest.raises(kind, match=word):
        pool_for(request_, LAN, [], SEED)
