"""This host among those that share the store."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from ipaddress import ip_address

from berth import __version__
from berth.engine.parts import Parts
from berth.engine.reach import reach, scope_of
from berth.errors import Invalid, Refused
from berth.model import Address, Endpoint, Host, HostRecord, Network
from berth.sealed import WireGuard
from berth.state import State


def register(parts: Parts, name: str) -> tuple[Endpoint, ...]:
    """Tell the other hosts who this one is, and which endpoints it has.

    Gives the endpoints whose addresses were given to others while this host was gone: they are to be released, since
    two would answer to one address. Those whose network is gone are nobody's rivals, and stay. Raises `Refused` when
    the store cannot be had.
    """
    if parts.shared is None:
        return ()
    with parts.changing():
        with parts.store.read() as tx:
            networks = tx.networks()
        lost = parts.shared.register(record(parts, name, networks))
        with parts.store.read() as tx:
            tx.hosts()  # raises where the others cannot be asked: a network would seem to be there
            found = [ep for ep in map(tx.endpoint, lost) if ep is not None]
            return tuple(ep for ep in found if tx.network(ep.network) is not None)


def record(parts: Parts, name: str, networks: Sequence[Network], since: str = "") -> HostRecord:
    """This host as the others should know it."""
    key = parts.keys.current()
    return HostRecord(
        id=parts.store.host,
        name=name,
        underlay=_reached(parts, parts.kernel.host(), networks),
        public_key=key.public,
        wireguard_port=key.port,
        since=since or parts.now(),
        version=__version__,
    )


def expire(parts: Parts) -> tuple[str, ...]:
    """Free the addresses of hosts that are gone for longer than the grace time; the ids of their endpoints."""
    if parts.shared is None:
        return ()
    with parts.changing():
        return parts.shared.expire()


def renew_key(parts: Parts) -> HostRecord:
    """Give this host another key for its encrypted ways, and tell the others; this host as they know it then.

    It listens for the new one before they hear of it, so that whoever has heard is understood. Until then what they
    send is lost. Raises `Invalid` where no store is shared, and `Refused` while it cannot be had: the key stays then.
    """
    if parts.shared is None:
        raise Invalid("this host shares no store, so it has no key for others: set BERTH_STORE=etcd://HOST:2379 first")
    with parts.changing():
        with parts.store.read() as tx:
            networks = tx.networks()
            me = tx.own_record()
        if me is None:
            raise Refused("the other hosts do not see this one: start `berth daemon`, then try again")
        parts.keys.renew()
        wanted: State = frozenset().union(*(parts.want_network(net) for net in networks if net.encrypt))
        own: State = frozenset(obj for obj in wanted if isinstance(obj, WireGuard))
        try:
            reach(parts.kernel, own, scope_of(own))
        finally:  # the key is another one already, come what may
            told = record(parts, me.name, networks)
            with parts.store.write() as tx:
                tx.save_host(told)
    return told


def _reached(parts: Parts, host: Host, networks: Sequence[Network]) -> tuple[Address, ...]:
    """Where other hosts reach this one: one address of each IP version.

    That is where the oldest encrypted network that names an underlay says, since all encrypted ones share one way;
    else the first address of the link with the default route.
    """
    named = sorted((net.created, net.id, net) for net in networks if net.encrypt and net.underlay)
    placed = (parts.spanning.placed(replace(net, encrypt=False), host) for _, _, net in named[:1])
    asked = [ip_address(net.local) for net in placed if net.local]
    way_out = underlay(host)
    return (*asked, *(ip for ip in way_out if ip.version not in {each.version for each in asked}))


def underlay(host: Host) -> tuple[Address, ...]:
    """The way out: of each IP version, the first address of the link with the default route."""
    found: list[Address] = []
    for version in (4, 6):
        routes = [route for route in host.routes if route.dst.version == version and route.dst.prefixlen == 0]
        for route in sorted(routes, key=lambda route: route.metric):
            link = host.link(route.dev)
            here = [at.ip for at in (link.addresses if link else ()) if at.version == version and not at.is_link_local]
            if here:
                found.append(here[0])
                break
    return tuple(found)
