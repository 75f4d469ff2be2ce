"""The doctor's checks that rest on facts which a lab has no time or program for."""

from __future__ import annotations

from dataclasses import replace
from ipaddress import IPv4Address, IPv4Network, ip_interface

import pytest

from berth.doctor.checks.keeping import docker_backend_changed, manager_takes_nic
from berth.doctor.checks.services import stale_lease
from berth.doctor.examination import findings
from berth.doctor.facts import Facts, Keeping, Records, Unreached
from berth.model import Endpoint, Host, Ipam, Lease, LeaseRecord, LeaseRequest, Network, Pool, Sandbox

POOL = Pool(IPv4Network("10.0.0.0/24"), gateway=IPv4Address("10.0.0.1"))
NET = Network("n" * 64, "lan", "flat", "br0", (POOL,), 1500, "2026-01-01T00:00:00Z")
EP = Endpoint(
    "e" * 64, NET.id, "web", Sandbox("/run/netns/web", "1"), "bv1", "eth0", "02:00:00:00:00:01",
    (ip_interface("10.0.0.7/24"),),
)  # fmt: skip
LEASE = Lease(
    LeaseRequest(EP.id, "br0", EP.mac, b"x"), ip_interface("10.0.0.7/24"), b"\n\0\0\1", acquired=1000, lifetime=60
)


def facts(*leases: LeaseRecord, now: float = 1030) -> Facts:
    return Facts(Records((NET,), (EP,), leases=leases), Host(), now=now)


@pytest.mark.parametrize(
    ("record", "now", "said"),
    [
        (LeaseRecord(LEASE, EP.id), 1030, ""),
        (LeaseRecord(LEASE, EP.id), 1061, "ran out"),
        (LeaseRecord(replace(LEASE, lifetime=0xFFFFFFFF), EP.id), 1e9, ""),
        (LeaseRecord(LEASE, "gone"), 1030, "its endpoint is not"),
        (LeaseRecord(LEASE, EP.id, trouble="the server says no"), 1030, "the server says no"),
        (LeaseRecord(LEASE, pool="berth/10.0.0.0/24/"), 1030, ""),
    ],
)
def test_leases(record: LeaseRecord, now: float, said: str) -> None:
    found = list(stale_lease(facts(record, now=now)))
    assert [said in each.message for each in found] == ([True] if said else [])


def test_a_lease_in_trouble_is_got_anew() -> None:
    (found,) = stale_lease(facts(LeaseRecord(LEASE, EP.id, trouble="no")))
    assert found.command
    assert found.fix == "berth detach lan /run/netns/web && berth attach lan /run/netns/web --name web"


def test_a_manager_is_told_in_its_own_way() -> None:
    for manager, word in (("NetworkManager", "nmcli device set eth0"), ("systemd-networkd", "/r/etc/systemd/network/")):
        (found,) = manager_takes_nic(replace(facts(), keeping=(Keeping("eth0", "br0", True, (manager,), root="/r/"),)))
        assert word in found.fix


def test_the_backend_in_use_is_left_alone() -> None:
    assert not list(docker_backend_changed(replace(facts(), docker=("iptables-nft",))))
    (found,) = docker_backend_changed(replace(facts(), docker=("iptables-legacy", "iptables-nft")))
    assert found.fix.startswith("iptables-nft-save |") and "ip6tables-nft-restore" in found.fix


def test_ranges_are_those_that_berth_gives_from() -> None:
    records = facts().records
    ((span, taken),) = records.ranges(NET)
    assert span == POOL.subnet
    assert {IPv4Address("10.0.0.1"), IPv4Address("10.0.0.7"), IPv4Address("10.0.0.255")} <= taken
    assert not list(records.ranges(replace(NET, addresses="dhcp")))
    docker = replace(NET, ipam=Ipam.POOL)
    assert list(records.ranges(docker))
    assert not list(replace(records, leases=(LeaseRecord(LEASE, EP.id),)).ranges(docker))


def test_a_silent_router_explains_the_rest() -> None:
    ip = IPv4Address("10.0.0.1")
    every = tuple(Unreached(EP, ip, kind) for kind in ("router", "peer", "internet"))
    seen = replace(facts(), unreached=every, host=Host())
    checks = {each.check for each in findings(seen)}
    assert "reach-peer" not in checks and "reach-internet" not in checks
