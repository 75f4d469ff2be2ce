"""What an endpoint has from a lease, and how a lease is remembered."""

from __future__ import annotations

import sqlite3
from dataclasses import replace
from ipaddress import IPv4Address, ip_address, ip_interface, ip_network
from pathlib import Path

import pytest

from berth.engine.leases import learnt, refuse_other
from berth.errors import Taken
from berth.model import Endpoint, Learnt, Lease, LeaseRecord, LeaseRequest, Network, Pool, Sandbox, StaticRoute
from berth.store.sqlite import SqliteStore

NET = Network(
    id="a" * 64, name="lan", driver="flat", bridge="br0", mtu=1500, created="", pools=(Pool(ip_network("10.0.0.0/24")),)
)
ASKED = LeaseRequest("k" * 64, "br0", "02:00:00:00:00:01", b"\xff\x00\x01", "web", wanted=ip_address("10.0.0.9"))
LEASE = Lease(
    ASKED,
    ip_interface("10.0.0.9/24"),
    b"\x0a\x00\x00\x01",
    router=ip_address("10.0.0.1"),
    dns=(ip_address("10.0.0.1"),),
    domain="lab",
    search=("lab", "test"),
    mtu=1400,
    routes=(StaticRoute(ip_network("10.8.0.0/16"), ip_address("10.0.0.2")),),
    ntp=(ip_address("10.0.0.3"),),
    acquired=1.5,
    lifetime=3600,
    t1=1800,
    t2=3150,
    server_mac="02:00:00:00:02:01",
)
DEFAULT = StaticRoute(ip_network("0.0.0.0/0"), ip_address("10.0.0.7"))


def test_router_routes_mtu_and_name_servers() -> None:
    assert learnt(NET, [LEASE]) == Learnt((4,), (ip_address("10.0.0.1"),), LEASE.routes, 1400, LEASE.dns)


def test_a_classless_default_route_outrules_the_router() -> None:
    found = learnt(NET, [replace(LEASE, routes=(*LEASE.routes, DEFAULT))])
    assert (found.routers, found.routes) == ((DEFAULT.via,), LEASE.routes)


def test_what_the_kernel_would_refuse_is_left_out() -> None:
    far = StaticRoute(ip_network("10.9.0.0/16"), ip_address("172.16.0.1"))
    own = StaticRoute(ip_network("10.0.0.0/24"), IPv4Address(0))
    near = StaticRoute(ip_network("10.5.0.0/24"), IPv4Address(0))
    found = learnt(NET, [replace(LEASE, router=ip_address("172.16.0.1"), routes=(far, own, near))])
    assert (found.routers, found.routes) == ((), (near,))


def test_an_address_that_was_asked_for_and_not_given_is_refused() -> None:
    refuse_other(LEASE)
    with pytest.raises(Taken, match=r"gives 10\.0\.0\.8 and not 10\.0\.0\.9"):
        refuse_other(replace(LEASE, address=ip_interface("10.0.0.8/24")))


def test_all_of_a_lease_is_remembered(tmp_path: Path) -> None:
    store = SqliteStore(tmp_path / "berth.db")
    record = LeaseRecord(LEASE, endpoint="e" * 64, pool="", keep=True, trouble="a NAK")
    docker = LeaseRecord(
        replace(LEASE, request=replace(ASKED, key="docker", wanted=None), address=ip_interface("10.0.0.8/24"),
                router=None, mtu=None), endpoint="e" * 64, pool="berth/10.0.0.0/24",
    )  # fmt: skip
    with store.write() as tx:
        tx.save_lease(record)
        tx.save_lease(docker)
    with store.read() as tx:
        assert tx.leases() == [record, docker]
        assert tx.lease(ASKED.key) == tx.lease_at(ip_address("10.0.0.9")) == record
    with store.write() as tx:
        tx.drop_leases("e" * 64)  # Docker gives its own back by itself
        assert tx.leases() == [docker]
        tx.drop_lease("docker")
        assert tx.leases() == []
    store.close()


def test_records_of_the_format_before_are_taken_over(tmp_path: Path) -> None:
    path = tmp_path / "berth.db"
    store = SqliteStore(path)
    ep = Endpoint("e" * 64, NET.id, "web", Sandbox("/run/netns/web", "1"), "bv1", "eth0", ASKED.mac, (LEASE.address,))
    with store.write() as tx:
        tx.save_network(NET)
        tx.save_endpoint(ep)
    store.close()
    with sqlite3.connect(path) as db:  # as it was: no table of leases, and endpoints that have learnt nothing
        db.execute("DROP TABLE lease")
        db.execute("UPDATE endpoint SET body = CAST(json_remove(body, '$.learnt') AS BLOB)")
        db.execute("UPDATE network SET body = CAST(json_remove(body, '$.addresses', '$.keep_lease') AS BLOB)")
        db.execute("PRAGMA user_version=2")
    store = SqliteStore(path)
    with store.read() as tx:
        assert (tx.leases(), tx.network("lan"), tx.endpoint(ep.id)) == ([], NET, ep)
    store.close()
