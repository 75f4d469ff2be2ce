"""This host among those that share the store."""

from __future__ import annotations

from berth import __version__
from berth.engine.parts import Parts
from berth.model import Address, Endpoint, Host, HostRecord


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
            before = tx.own_record()
        key = before.public_key if before is not None else ""
        record = HostRecord(parts.shared.host, name, underlay(parts.kernel.host()), key, parts.now(), __version__)
        lost = parts.shared.register(record)
        with parts.store.read() as tx:
            tx.hosts()  # raises where the others cannot be asked: a network would seem to be there
            found = [ep for ep in map(tx.endpoint, lost) if ep is not None]
            return tuple(ep for ep in found if tx.network(ep.network) is not None)


def expire(parts: Parts) -> tuple[str, ...]:
    """Free the addresses of hosts that are gone for longer than the grace time; the ids of their endpoints."""
    if parts.shared is None:
        return ()
    with parts.changing():
        return parts.shared.expire()


def underlay(host: Host) -> tuple[Address, ...]:
    """Where other hosts reach this one: of each IP version, the first address of the link with the default route."""
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
