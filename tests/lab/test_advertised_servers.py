"""IPv6 as routers advertise: radvd and dnsmasq as routers, Kea and dnsmasq as their DHCPv6 servers."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Callable, Iterator
from dataclasses import replace
from ipaddress import IPv6Address, IPv6Network
from pathlib import Path

import pytest
from lab_clients import Heard, run

import lan_servers
from berth.errors import NotFound, Refused
from berth.lan.clients import LanClients
from berth.lan.dhcp import client_id
from berth.lan.dhcp.clients import Check
from berth.lan.dhcp6.mux import link_local
from berth.model import Address, LeaseRequest
from lan_servers import Lan

SUBNET = IPv6Network("fd77::/64")
DNS = IPv6Address("fd77::53")
SIX = LeaseRequest("key1", "br0", "02:00:00:00:00:01", client_id("web"), hostname="web", version=6, auto=True)
POOL: dict[str, object] = {"subnet": str(SUBNET), "interface": "s0", "pools": [{"pool": "fd77::50 - fd77::99"}]}
KEA: dict[str, object] = {
    "valid-lifetime": 6, "preferred-lifetime": 5, "renew-timer": 1, "rebind-timer": 3, "subnet6": [POOL],
    "option-data": [{"name": "dns-servers", "data": str(DNS)}, {"name": "domain-search", "data": "a.example"}],
}  # fmt: skip
QUICK = "MinRtrAdvInterval 3; MaxRtrAdvInterval 4;"
PREFIX = f"{QUICK} prefix {SUBNET} {{}};"
ALONE = f"{QUICK} AdvManagedFlag on; prefix {SUBNET} {{ AdvAutonomous off; }};"
FROM_SERVER = range(int(SUBNET[0x50]), int(SUBNET[0x99]) + 1)
STATEFUL = ("--dhcp-range=fd77::50,fd77::99,64,120", "--enable-ra")
STATELESS = ("--dhcp-range=fd77::,ra-stateless,64,120", "--enable-ra", "--dhcp-option=option6:dns-server,[fd77::53]")
ONLY = ("--dhcp-range=fd77::,ra-only,64,120", "--enable-ra")


@pytest.fixture
def home(tmp_path: Path) -> Iterator[Lan]:
    with lan_servers.lan(tmp_path) as made:
        yield made


def told_of(check: Check | None = None) -> Heard[LanClients]:
    return Heard(LanClients, check)


def test_an_address_of_a_server_and_the_router_of_an_advertisement(home: Lan) -> None:
    async def work() -> None:
        told = told_of()
        with lan_servers.radvd(home, ALONE):
            with lan_servers.kea(home, 6, KEA):
                lease = await told.clients.acquire(SIX)
                assert int(lease.address.ip) in FROM_SERVER and not lease.slaac
                assert lease.router is not None and lease.router.is_link_local
                assert (lease.dns, lease.search) == ((DNS,), ("a.example",))
                assert await told.clients.acquire(SIX) == lease
                await told.until(lambda: len(told.changed) >= 2, "renewed")
                assert {(each.address, each.router) for each in told.changed} == {(lease.address, lease.router)}
            await told.until(lambda: told.lost, "ended")
            assert told.clients.leases() == {}
            with lan_servers.kea(home, 6, KEA):
                before = len(told.changed)
                await told.until(lambda: len(told.changed) > before, "given again")
                assert told.changed[-1].address == lease.address
        told.clients.close()

    run(home, work)


def test_an_address_is_made_where_the_server_is_silent_or_gone(home: Lan) -> None:
    async def work() -> None:
        told = told_of()
        with lan_servers.radvd(home, f"AdvManagedFlag on; {PREFIX}"):
            made = await told.clients.acquire(SIX)
            assert made.slaac and made.address.ip in SUBNET
            with lan_servers.kea(home, 6, KEA):
                other = await told.clients.acquire(replace(SIX, key="key2", client_id=client_id("db")))
                assert not other.slaac
            await told.until(lambda: told.changed and told.changed[-1].slaac, "made when the server was gone")
            assert (told.lost[-1][0].address, told.changed[-1].request.key) == (other.address, "key2")
            assert {*told.clients.leases()} == {"key1", "key2"}
        told.clients.close()

    run(home, work)


def test_an_address_is_made_where_the_hosts_own_client_has_the_port(home: Lan) -> None:
    async def work() -> None:
        told, host = told_of(), socket.socket(socket.AF_INET6, socket.SOCK_DGRAM)
        with host, lan_servers.radvd(home, f"AdvManagedFlag on; {PREFIX}"):
            host.bind((link_local("br0"), 546, 0, socket.if_nametoindex("br0")))
            assert (await told.clients.acquire(SIX)).slaac
        told.clients.close()

    run(home, work)


def test_what_radvd_says_is_in_the_lease(home: Lan) -> None:
    async def work() -> None:
        told = told_of()
        lease = await told.clients.acquire(SIX)
        assert lease.slaac and lease.address.ip in SUBNET and lease.router is not None and lease.router.is_link_local
        assert (lease.mtu, lease.dns, lease.search) == (1400, (DNS,), ("a.example",))
        assert 290 <= lease.lifetime <= 300
        told.clients.close()

    words = (
        f"AdvLinkMTU 1400; RDNSS {DNS} fe80::53 {{}}; DNSSL a.example {{}};"
        f"prefix {SUBNET} {{ AdvValidLifetime 300; AdvPreferredLifetime 200; }};"
    )
    with lan_servers.radvd(home, words):
        run(home, work)


def test_name_servers_by_stateless_dhcp(home: Lan) -> None:
    async def work() -> None:
        told = told_of()
        with lan_servers.radvd(home, f"AdvOtherConfigFlag on; {PREFIX}"), lan_servers.kea(home, 6, KEA):
            lease = await told.clients.acquire(SIX)
            assert (lease.slaac, lease.dns, lease.search) == (True, (DNS,), ("a.example",))
            other = await told.clients.acquire(replace(SIX, key="key2", client_id=client_id("db")))
            assert other.dns == (DNS,)
        told.clients.close()

    run(home, work)


@pytest.mark.parametrize(
    "options, slaac", [(STATEFUL, False), (STATELESS, True), (ONLY, True)], ids=["stateful", "stateless", "only"]
)
def test_what_dnsmasq_offers_is_taken(home: Lan, options: tuple[str, ...], slaac: bool) -> None:
    async def work() -> None:
        told = told_of()
        lease = await told.clients.acquire(SIX)
        assert (lease.slaac, lease.address.ip in SUBNET) == (slaac, True)
        assert (int(lease.address.ip) in FROM_SERVER) is not slaac
        assert DNS in lease.dns or options is not STATELESS
        told.clients.close()
        heir = told_of()
        heir.clients.resume(lease)
        assert heir.clients.leases() == {"key1": lease}
        await heir.clients.release("key1")
        again = await heir.clients.acquire(SIX)
        assert again.address == lease.address
        heir.clients.close()

    with lan_servers.dnsmasq(home, *options):
        run(home, work)


def test_an_address_that_others_have_is_not_made(home: Lan) -> None:
    checked: list[Address] = []

    async def check(_: LeaseRequest, address: Address, __: Callable[[], None]) -> str | None:
        checked.append(address)
        return "02:66:66:66:66:66" if len(checked) == 1 else None

    async def everybody(_: LeaseRequest, __: Address, ___: Callable[[], None]) -> str | None:
        return "02:66:66:66:66:66"

    async def work() -> None:
        told = told_of(check)
        lease = await told.clients.acquire(SIX)
        assert checked[1] == lease.address.ip != checked[0]
        told.clients.close()
        nobody = told_of(everybody)
        with pytest.raises(Refused, match="in use on the LAN of br0 by the machine with MAC 02:66:66:66:66:66"):
            await nobody.clients.acquire(SIX)
        assert nobody.clients.leases() == {}
        nobody.clients.close()

    with lan_servers.radvd(home, PREFIX):
        run(home, work)


def test_what_cannot_be_asked_is_refused_by_name(home: Lan) -> None:
    async def work() -> None:
        told = told_of()
        with pytest.raises(NotFound, match="no link nobr"):
            await told.clients.acquire(replace(SIX, dev="nobr"))
        with pytest.raises(Refused, match="no IPv6 router answers on br0"):
            await told.clients.acquire(SIX, 0.3)
        with lan_servers.radvd(home, QUICK):
            with pytest.raises(Refused, match="no router on br0 advertises a prefix"):
                await told.clients.acquire(SIX, 5)
        asking = asyncio.ensure_future(told.clients.acquire(replace(SIX, key="key3")))
        await asyncio.sleep(0)
        await told.clients.release("key3")
        with pytest.raises(Refused):
            await asking
        assert told.clients.leases() == {}
        told.clients.close()

    run(home, work)


def test_a_bridge_that_is_made_anew(home: Lan) -> None:
    async def work() -> None:
        told = told_of()
        with lan_servers.radvd(home, PREFIX):
            lease = await told.clients.acquire(SIX)
            home.run(home.host, "ip", "link", "del", "br0")
            home.run(home.host, "ip", "link", "add", "br0", "up", "type", "bridge", "forward_delay", "0")
            home.run(home.host, "ip", "link", "set", "u0", "master", "br0")
            other = await told.clients.acquire(replace(SIX, key="key2", client_id=client_id("db")))
            assert other.address != lease.address
        with lan_servers.radvd(home, f"RDNSS {DNS} {{}}; {PREFIX}"):
            both = {"key1", "key2"}
            await told.until(
                lambda: {each.request.key for each in told.changed if each.dns == (DNS,)} == both, "heard anew"
            )
        told.clients.close()

    run(home, work)
