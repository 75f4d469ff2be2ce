"""What servers give to containers: addresses for a while, and answers for names."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime

from berth.doctor.facts import Facts
from berth.doctor.report import Finding, Severity
from berth.model import LeaseRecord, Placement

_FOREVER = 0xFFFFFFFF
_DAEMON = "start the daemon, which keeps leases and answers for names, and keep it running: berth daemon"


def pool_overlaps_dhcp(facts: Facts) -> Iterator[Finding]:
    """Berth and a DHCP server of the LAN's give addresses from the same range."""
    for each in facts.overlaps:
        name = each.network.name
        yield Finding(
            "pool-overlaps-dhcp",
            Severity.WARNING,
            f"the DHCP server {each.server} offers {each.address}, which is in the range of network {name} too",
            "sooner or later a machine of the LAN and a container have the same address",
            f"make network {name} anew with an --ip-range that the server does not lease (see `berth lan show"
            f" {each.network.bridge}`), or take {each.address} and the rest of it out of the server's range",
            command=False,
        )


def stale_lease(facts: Facts) -> Iterator[Finding]:
    """A lease has run out, is in trouble, or belongs to nobody."""
    endpoints = {ep.id: ep for ep in facts.records.endpoints}
    networks = {net.id: net for net in facts.records.networks}
    for record in facts.records.leases:
        stale = _stale(record, facts.now, {*endpoints})
        if not stale:
            continue
        ep = endpoints.get(record.endpoint)
        fix, command = _DAEMON, False
        if record.trouble and ep is not None and ep.placement is Placement.FULL:
            net, where = networks[ep.network].name, ep.sandbox.path
            fix, command = f"berth detach {net} {where} && berth attach {net} {where} --name {ep.name}", True
        elif record.trouble:
            fix = "start the container anew"
        yield Finding(
            "stale-lease",
            Severity.ERROR,
            f"the lease of {record.lease.address.ip} of {ep.name if ep else 'a container'} {stale}",
            "the server may give the address to somebody else",
            fix,
            command=command,
        )


def _stale(record: LeaseRecord, now: float, endpoints: set[str]) -> str:
    """What is wrong with a lease, in words; "" for nothing."""
    lease = record.lease
    over = lease.acquired + lease.lifetime
    if record.trouble:
        return f"is in trouble: {record.trouble}"
    if record.endpoint and record.endpoint not in endpoints:
        return "is on record, and its endpoint is not"
    if lease.lifetime != _FOREVER and over < now:
        return f"ran out at {datetime.fromtimestamp(over, UTC):%Y-%m-%d %H:%M:%S} UTC, and nobody renewed it"
    return ""


def dns_in_sandbox(facts: Facts) -> Iterator[Finding]:
    """A name server that a container asks does not answer."""
    for each in facts.deaf:
        own = each.server == "127.0.0.11"
        fix = f"see who drops it: berth trace {each.endpoint.name} {each.server}:53/udp"
        if own:
            fix = f"see `nft list ruleset` inside {each.endpoint.sandbox.path}, and start the daemon anew"
        yield Finding(
            "dns-in-sandbox",
            Severity.ERROR,
            f"{each.server}, the name server of {each.endpoint.name}, does not answer there",
            "the container finds nobody by name",
            _DAEMON if own and not each.daemon else fix,
            command=False,
        )
