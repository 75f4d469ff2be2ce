"""Leases as they are shown: who has an address of the LAN's, from whom, and for how long."""

from __future__ import annotations

from collections.abc import Sequence
from ipaddress import IPv4Address

import msgspec

from berth.model import Endpoint, Lease, LeaseRecord

_FOR_EVER = 0xFFFF_FFFF  # seconds (RFC 2131 section 3.3)


class Lent(msgspec.Struct, frozen=True):
    """An address that a DHCP server has given."""

    address: str
    name: str  # of the endpoint; else what the server was told
    bridge: str
    server: str
    until: float  # seconds since 1970; 0: for ever
    trouble: str  # "": none


def lent(records: Sequence[LeaseRecord], endpoints: Sequence[Endpoint]) -> tuple[Lent, ...]:
    """All leases, by address."""
    names = {ep.id: ep.name for ep in endpoints}
    ordered = sorted(records, key=lambda each: (each.lease.address.version, each.lease.address))
    return tuple(_lent(each, names.get(each.endpoint) or each.lease.request.hostname) for each in ordered)


def _lent(record: LeaseRecord, name: str) -> Lent:
    lease = record.lease
    address, bridge = str(lease.address.ip), lease.request.dev
    return Lent(address, name, bridge, _server(lease), until(lease), record.trouble)


def until(lease: Lease) -> float:
    """When a lease ends, in seconds since 1970; 0: never."""
    return 0 if lease.lifetime >= _FOR_EVER else lease.acquired + lease.lifetime


def _server(lease: Lease) -> str:
    """By its address where it has told one; a DUID (RFC 8415 section 11) means nothing to people."""
    return str(IPv4Address(lease.server)) if len(lease.server) == 4 else lease.server_mac
