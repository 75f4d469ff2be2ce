"""Deciding what a sandbox looks like from inside: its name, its resolver, its hosts file."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

from berth.model import Address, Endpoint, Lease, Network
from berth.names.records import RESOLVER as RESOLVER_INSIDE
from berth.names.records import named
from berth.run import names
from berth.run.channel import Look
from berth.run.join import Target
from berth.run.request import LONGEST_HOSTNAME, Mode, RunRequest

RESOLVER = "/etc/resolv.conf"
HOSTS = "/etc/hosts"

#: Where systemd-resolved keeps the name servers that it asks itself (systemd-resolved.service(8)).
_BEHIND_THE_STUB = "/run/systemd/resolve/resolv.conf"


def look(
    request: RunRequest,
    name: str,
    plugged: tuple[Network, Endpoint] | None = None,
    target: Target | None = None,
    leases: Sequence[Lease] = (),
    *,
    answered: bool = False,
) -> Look:
    """The looks of a sandbox; what is not said stays as it is outside.

    `name` is the sandbox's own; `plugged` is where it was attached, `target` whose network it shares;
    `answered`, whether a daemon answers for names in sandboxes. Where it does not, name servers that the sandbox's
    `leases` name take the place of the host's.
    """
    if request.mode is Mode.HOST:
        hostname = request.hostname or request.name
        return Look(hostname, {} if hostname is None else {HOSTS: names.hosts_with(outside(HOSTS), hostname)})
    if target is not None:
        seen = {path: target.file(path) for path in (RESOLVER, HOSTS)}
        shared = request.hostname or request.name or target.name or name
        return Look(shared[:LONGEST_HOSTNAME], {path: text for path, text in seen.items() if text is not None})
    hostname = request.hostname or name[:LONGEST_HOSTNAME]
    if plugged is None:
        return Look(hostname, {HOSTS: names.hosts(hostname, [], [name])})
    network, endpoint = plugged
    addresses = [interface.ip for interface in endpoint.addresses]
    if answered and named(network):
        domains = [network.naming_option("domain") or "", *names.domains(leases)]
        resolver = names.own_resolver(RESOLVER_INSIDE, domains, outside(RESOLVER))
    else:
        resolver = names.leased(leases) or names.resolv_conf(_resolver_outside(), _gateways(network, addresses))
    return Look(hostname, {RESOLVER: resolver, HOSTS: names.hosts(hostname, addresses, [name])})


def outside(path: str) -> str:
    """A file of the caller's; empty when there is none."""
    try:
        return Path(path).read_text(errors="replace")
    except OSError:
        return ""


def _resolver_outside() -> str:
    """The caller's resolver settings, by way of the name servers that its own resolver asks when it has one."""
    text = outside(RESOLVER)
    return (outside(_BEHIND_THE_STUB) or text) if names.only_local_stub(text) else text


def _gateways(network: Network, addresses: list[Address]) -> Iterator[Address]:
    for address in addresses:
        pool = network.pool_of(address)
        if pool is not None and pool.gateway is not None:
            yield pool.gateway
