"""DHCPv6 against dnsmasq and Kea, and router advertisements by radvd and dnsmasq."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from ipaddress import IPv6Address
from pathlib import Path

import pytest
from lab_clients import Told, run

import lan_servers
from berth.errors import Refused, Taken
from berth.lan.dhcp import client_id
from berth.model import Address, LeaseRequest
from lan_servers import Lan

RANGE = "--dhcp-range=fd77::50,fd77::99,64,120"
SIX = LeaseRequest("key1", "br0", "02:00:00:00:00:01", client_id("web"), hostname="web", version=6)
SUBNET: dict[str, object] = {"subnet": "fd77::/64", "interface": "s0", "pools": [{"pool": "fd77::50 - fd77::99"}]}
KEA: dict[str, object] = {
    "valid-lifetime": 6, "preferred-lifetime": 5, "renew-timer": 1, "rebind-timer": 3, "subnet6": [SUBNET],
    "option-data": [{"name": "dns-servers", "data": "fd77::53"}, {"name": "domain-search", "data": "a.example"}],
}  # fmt: skip


@pytest.fixture
def home(tmp_path: Path) -> Iterator[Lan]:
    with lan_servers.lan(tmp_path) as made:
        yield made


def test_dnsmasq_gives_the_same_identity_the_same_address(home: Lan) -> None:
    async def work() -> None:
        told = Told()
        lease = await told.clients.acquire(replace(SIX, wanted=IPv6Address("fd77::77")))
        assert str(lease.address) == "fd77::77/128" and lease.dns == (IPv6Address("fd77::53"),)
        assert lease.lifetime == 120 and 0 < lease.t1 < lease.t2 < 120
        other = await told.clients.acquire(replace(SIX, key="key2", client_id=client_id("db")))
        assert other.address != lease.address
        told.clients.close()
        heir = Told()
        heir.clients.resume(replace(lease, acquired=lease.acquired - 1000))
        await heir.until(lambda: heir.changed, "confirmed after a restart")
        assert heir.changed[0].address == lease.address and not heir.lost
        await heir.clients.release("key1")
        await heir.until(lambda: "DHCPRELEASE" in home.log, "released")
        heir.clients.close()

    with lan_servers.dnsmasq(home, RANGE, "--dhcp-option=option6:dns-server,[fd77::53]"):
        run(home, work)


def test_kea_prolongs_and_ends(home: Lan) -> None:
    async def work() -> None:
        told = Told()
        with lan_servers.kea(home, 6, KEA):
            lease = await told.clients.acquire(SIX)
            assert (lease.lifetime, lease.t1, lease.t2, lease.search) == (6, 1, 3, ("a.example",))
            await told.until(lambda: len(told.changed) >= 2, "renewed")
            assert {each.address for each in told.changed} == {lease.address}
        await told.until(lambda: told.lost, "ended")
        assert "ended after 6 s" in told.lost[0][1]
        told.clients.close()

    run(home, work)


def test_a_conflict_is_declined(home: Lan) -> None:
    checked: list[Address] = []

    async def check(_: LeaseRequest, address: Address, __: Callable[[], None]) -> str | None:
        checked.append(address)
        return "02:66:66:66:66:66" if len(checked) == 1 else None

    async def work() -> None:
        told = Told(check)
        lease = await told.clients.acquire(SIX)
        assert checked[1] == lease.address.ip != checked[0]
        told.clients.close()

    with lan_servers.kea(home, 6, KEA):
        run(home, work)


def test_stateless_and_nobody(home: Lan) -> None:
    async def work() -> None:
        told = Told()
        with pytest.raises(Refused, match="no DHCP server answers on br0"):
            await told.clients.acquire(SIX, 0.3)
        with pytest.raises(Refused, match="no DHCPv6 server answers on br0"):
            await told.clients.inform("br0", client_id("web"), 0.3)
        with lan_servers.kea(home, 6, KEA):
            said = await told.clients.inform("br0", client_id("web"))
            assert (said.dns, said.search) == ((IPv6Address("fd77::53"),), ("a.example",))
        with pytest.raises(Taken, match="another DHCPv6 client has port 546 on br0"):
            await Told().clients.acquire(SIX)
        told.clients.close()

    run(home, work)
