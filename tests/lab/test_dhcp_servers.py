"""DHCPv4 against dnsmasq and Kea."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from dataclasses import replace
from ipaddress import IPv4Address, IPv4Network
from pathlib import Path

import pytest
from lab_clients import Told, run

import lan_servers
from berth.errors import NotFound, Refused
from berth.lan.dhcp import client_id
from berth.model import Address, LeaseRequest, StaticRoute
from lan_servers import Lan

RANGE = "--dhcp-range=10.77.0.50,10.77.0.99,255.255.255.0,120"
QUICK = ("--dhcp-option=58,1", "--dhcp-option=59,3")  # dnsmasq gives no less than two minutes, but renews when told


@pytest.fixture
def home(tmp_path: Path) -> Iterator[Lan]:
    with lan_servers.lan(tmp_path) as made:
        yield made


def request(number: int = 1, **more: object) -> LeaseRequest:
    made = LeaseRequest(
        f"key{number}", "br0", f"02:00:00:00:{number >> 8:02x}:{number & 255:02x}", client_id(f"web{number}")
    )
    return replace(made, **more)  # type: ignore[arg-type]


def test_a_first_lease_has_all_that_the_server_says(home: Lan) -> None:
    options = (
        "--domain=home.example", "--dhcp-option=option:dns-server,10.77.0.2,10.77.0.3", "--dhcp-option=option:mtu,1400",
        "--dhcp-option=option:ntp-server,10.77.0.4", "--dhcp-option=option:domain-search,a.example,b.example",
        "--dhcp-option=121,10.9.0.0/16,10.77.0.254,0.0.0.0/0,10.77.0.253",
    )  # fmt: skip

    async def work() -> None:
        told = Told()
        lease = await told.clients.acquire(request(hostname="web", wanted=IPv4Address("10.77.0.77")))
        assert str(lease.address) == "10.77.0.77/24"
        assert (lease.router, lease.mtu, lease.domain) == (None, 1400, "home.example")  # 121 outrules the router
        assert lease.dns == (IPv4Address("10.77.0.2"), IPv4Address("10.77.0.3"))
        assert lease.search == ("a.example", "b.example")
        assert lease.ntp == (IPv4Address("10.77.0.4"),)
        assert lease.routes == (
            StaticRoute(IPv4Network("10.9.0.0/16"), IPv4Address("10.77.0.254")),
            StaticRoute(IPv4Network("0.0.0.0/0"), IPv4Address("10.77.0.253")),
        )
        assert (lease.lifetime, lease.t1, lease.t2) == (120, 60, 105)
        assert told.clients.leases() == {"key1": lease}
        assert await told.clients.acquire(lease.request) == lease
        told.clients.close()

    with lan_servers.dnsmasq(home, RANGE, *options):
        run(home, work)
        assert " web " in (home.dir / "leases").read_text()


def test_a_client_made_anew_gets_its_address_again(home: Lan) -> None:
    async def work() -> None:
        told = Told()
        first = await told.clients.acquire(request())
        other = await told.clients.acquire(request(2))
        assert first.address != other.address
        await told.clients.release("key1", tell=False)
        again = await told.clients.acquire(
            request(mac="02:00:00:00:99:99", key="other")
        )  # a new MAC, the same identity
        assert again.address == first.address
        await told.clients.release("other")
        await told.until(lambda: "DHCPRELEASE" in home.log, "released")
        told.clients.close()

    with lan_servers.dnsmasq(home, RANGE):
        run(home, work)


def test_renewal_goes_to_the_server_and_a_change_is_told(home: Lan) -> None:
    async def work() -> None:
        told = Told()
        lease = await told.clients.acquire(request())
        await told.until(lambda: len(told.changed) >= 2, "renewed twice")
        assert {each.address for each in told.changed} == {lease.address}
        assert told.changed[1].acquired > told.changed[0].acquired >= lease.acquired
        told.clients.update(request(hostname="blue"))
        await told.until(lambda: any(each.request.hostname for each in told.changed), "renewed with a name")
        await told.until(lambda: " blue " in (home.dir / "leases").read_text(), "the server knows the name")
        assert not told.lost
        told.clients.close()

    with lan_servers.dnsmasq(home, RANGE, *QUICK):
        run(home, work)


def test_another_server_takes_over_at_t2(home: Lan) -> None:
    """The server is replaced by one with another address: the renewal is unanswered, the rebinding is not."""

    async def work() -> None:
        told = Told()
        server = lan_servers.dnsmasq(home, RANGE, "--dhcp-option=58,1", "--dhcp-option=59,3")
        with server:
            lease = await told.clients.acquire(request())
        home.run(home.server, "ip", "address", "flush", "dev", "s0", "scope", "global")
        home.run(home.server, "ip", "address", "add", "10.77.0.2/24", "dev", "s0")
        with lan_servers.dnsmasq(home, RANGE):
            await told.until(lambda: told.changed and told.changed[-1].server != lease.server, "rebound")
            assert told.changed[-1].address == lease.address
            assert not told.lost
        told.clients.close()

    run(home, work)


def test_a_refused_renewal_ends_the_lease_and_another_begins(home: Lan) -> None:
    async def work() -> None:
        told = Told()
        with lan_servers.dnsmasq(home, RANGE, *QUICK):
            lease = await told.clients.acquire(request())
        elsewhere = "--dhcp-range=10.77.0.150,10.77.0.199,255.255.255.0,120"
        with lan_servers.dnsmasq(home, elsewhere, leases="other"):
            await told.until(lambda: told.lost and told.changed, "refused, and given another")
            assert told.lost[0][0].address == lease.address and "refuses" in told.lost[0][1]
            assert int(told.changed[-1].address.ip) >= int(IPv4Address("10.77.0.150"))
        told.clients.close()

    run(home, work)


def test_a_conflict_is_declined_and_the_next_address_taken(home: Lan) -> None:
    checked: list[Address] = []

    async def check(_: LeaseRequest, address: Address, __: Callable[[], None]) -> str | None:
        checked.append(address)
        return "02:66:66:66:66:66" if len(checked) == 1 else None

    async def work() -> None:
        told = Told(check)
        lease = await told.clients.acquire(request())
        assert [checked[1]] == [lease.address.ip] and checked[0] != checked[1]
        assert "DHCPDECLINE" in home.log
        told.clients.close()

    with lan_servers.dnsmasq(home, RANGE):
        run(home, work)


def test_another_process_goes_on_with_the_lease(home: Lan) -> None:
    async def work() -> None:
        told = Told()
        lease = await told.clients.acquire(request())
        told.clients.close()
        for age in (0, 61, 1000, -1000):  # fresh, past T1, past its end by a clock that was set, from the future
            heir = Told()
            heir.clients.resume(replace(lease, acquired=lease.acquired - age))
            assert heir.clients.leases()["key1"].address == lease.address
            if age:
                await heir.until(lambda heir=heir: heir.changed, "confirmed")  # type: ignore[misc]
                assert heir.changed[0].address == lease.address
            assert not heir.lost
            heir.clients.close()

    with lan_servers.dnsmasq(home, RANGE):
        run(home, work)


def test_many_at_once_get_an_address_each(home: Lan) -> None:
    async def work() -> None:
        told = Told()
        leases = await asyncio.gather(*(told.clients.acquire(request(number), 60) for number in range(1, 201)))
        assert len({lease.address for lease in leases}) == 200
        told.clients.close()

    with lan_servers.dnsmasq(home, "--dhcp-range=10.77.0.2,10.77.0.254,255.255.255.0,120", "--quiet-dhcp"):
        run(home, work)


def test_kea_gives_prolongs_and_ends(home: Lan) -> None:
    subnet = {"id": 1, "subnet": "10.77.0.0/24", "pools": [{"pool": "10.77.0.50 - 10.77.0.99"}]}
    settings: dict[str, object] = {"valid-lifetime": 4, "renew-timer": 1, "rebind-timer": 3, "subnet4": [subnet]}

    async def work() -> None:
        told = Told()
        with lan_servers.kea(home, 4, settings):
            lease = await told.clients.acquire(request(hostname="web"))
            assert (lease.lifetime, lease.t1, lease.t2) == (4, 1, 3)
            await told.until(lambda: len(told.changed) >= 3, "renewed")
            assert {each.address for each in told.changed} == {lease.address}
            await told.clients.release("key1", tell=False)
            again = await told.clients.acquire(request())
            assert again.address == lease.address
        await told.until(lambda: told.lost, "expired")
        assert "ended after 4 s" in told.lost[0][1]
        assert not told.clients.leases()
        told.clients.close()

    run(home, work)


def test_what_cannot_be_asked_is_refused_by_name(home: Lan) -> None:
    async def work() -> None:
        told = Told()
        with pytest.raises(NotFound, match="no link nobr"):
            await told.clients.acquire(request(dev="nobr"))
        with pytest.raises(Refused, match=r"no DHCP server answers on br0 within 0\.3 s"):
            await told.clients.acquire(request(), 0.3)
        home.run(home.host, "ip", "link", "set", "br0", "down")
        with pytest.raises(Refused, match="br0 sends no DHCP messages"):
            await told.clients.acquire(request(), 0.3)
        assert not told.clients.leases()
        told.clients.close()

    run(home, work)


def test_a_client_that_is_ended_while_it_asks_is_told_so(home: Lan) -> None:
    async def work() -> None:
        told = Told()
        asking = asyncio.ensure_future(told.clients.acquire(request()))
        await asyncio.sleep(0.05)
        await told.clients.release("key1")
        with pytest.raises(Refused, match="key1 was ended while it asked on br0"):
            await asking
        again = asyncio.ensure_future(told.clients.acquire(request()))
        await asyncio.sleep(0.05)
        again.cancel()
        with pytest.raises(asyncio.CancelledError):
            await again
        assert not told.clients.leases()
        told.clients.close()

    run(home, work)


def test_a_bridge_that_is_made_anew_and_promiscuous_only_while_it_waits(home: Lan) -> None:
    def promiscuous() -> bool:
        return "promiscuity 1" in home.run(home.host, "ip", "-d", "link", "show", "br0")

    async def work() -> None:
        told = Told()
        lease = await told.clients.acquire(request())
        assert promiscuous()
        await told.until(lambda: not promiscuous(), "quiet")
        home.run(home.host, "ip", "link", "del", "br0")
        home.run(home.host, "ip", "link", "add", "br0", "up", "type", "bridge", "forward_delay", "0")
        home.run(home.host, "ip", "link", "set", "u0", "master", "br0")
        told.clients.update(request(hostname="again"))
        await told.until(lambda: told.changed, "renewed through the new bridge")
        assert told.changed[0].address == lease.address
        told.clients.close()

    with lan_servers.dnsmasq(home, RANGE):
        run(home, work)
