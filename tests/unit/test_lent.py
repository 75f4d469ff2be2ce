"""Leases as the page shows them."""

from __future__ import annotations

from dataclasses import replace
from ipaddress import ip_address, ip_interface

from berth.model import Endpoint, Lease, LeaseRecord, LeaseRequest, Sandbox
from berth.topology import Lent, lent

ASKED = LeaseRequest("k", "br0", "02:00:00:00:00:01", b"", hostname="told")
FOUR = Lease(
    ASKED, ip_interface("192.0.2.10/24"), ip_address("192.0.2.1").packed, acquired=1000, lifetime=600, server_mac="mac"
)
SIX = replace(FOUR, address=ip_interface("2001:db8::10/128"), server=b"\0\3\0\1\2\3\4\5", lifetime=0xFFFFFFFF)
EP = Endpoint("e", "n", "web", Sandbox("/run/netns/web", "1"), "bv1", "eth0", ASKED.mac, (FOUR.address,))


def test_who_has_it_from_whom_and_until_when() -> None:
    assert lent([LeaseRecord(FOUR, endpoint="e")], [EP]) == (Lent("192.0.2.10", "web", "br0", "192.0.2.1", 1600, ""),)


def test_without_an_endpoint_the_name_is_what_the_server_was_told() -> None:
    (shown,) = lent([LeaseRecord(FOUR, pool="lan", trouble="the server gives another")], [EP])
    assert (shown.name, shown.trouble) == ("told", "the server gives another")


def test_a_server_without_an_address_is_shown_by_its_mac_and_addresses_are_in_order() -> None:
    later = replace(FOUR, address=ip_interface("192.0.2.9/24"))
    found = lent([LeaseRecord(SIX), LeaseRecord(FOUR), LeaseRecord(later)], [])
    assert [(each.address, each.server, each.until) for each in found] == [
        ("192.0.2.9", "192.0.2.1", 1600), ("192.0.2.10", "192.0.2.1", 1600), ("2001:db8::10", "mac", 0),
    ]  # fmt: skip
