"""The addresses inside a container of Docker's, when its lease has ended or become another one.

Docker cannot be told of another address, and goes on to show the one that it knows; but the LAN's server is who says
which address the container may use, so it is changed in the container itself, where Berth can get there.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace

from berth.engine.parts import Parts
from berth.engine.reach import reach
from berth.errors import BerthError
from berth.model import Address, Endpoint, LeaseRecord
from berth.seams import Scope, Tx
from berth.state import Addr, Obj, Route, keys

_DEFAULT = {4: ("0.0.0.0/0", 0), 6: ("::/0", 1024)}  # and the metric that the kernel gives


def remember(tx: Tx, identity: str, ns: str) -> None:
    """Record with an endpoint's leases where its container is."""
    for record in tx.leases():
        if record.endpoint == identity and record.sandbox != ns:
            tx.save_lease(replace(record, sandbox=ns))


def reachable(parts: Parts, record: LeaseRecord, mac: str) -> str | None:
    """The container's link, where Berth can get there."""
    if not record.sandbox or not parts.kernel.enters():
        return None
    return parts.kernel.find(record.sandbox, mac)


def has_way_out(parts: Parts, record: LeaseRecord, dev: str) -> bool:
    """Whether the container's default route, of the lease's IP version, is by this link."""
    dst, metric = _DEFAULT[record.lease.address.version]
    found = parts.kernel.read(Scope(frozenset({("route", record.sandbox, dst, str(metric))})))
    return any(isinstance(obj, Route) and obj.dev == dev for obj in found)


def carry(
    parts: Parts, record: LeaseRecord, dev: str, before: Endpoint, after: Endpoint, router: Address | None
) -> str:
    """Give the container the endpoint's addresses, and a default route by the router; why that failed, or "".

    The old addresses go first: the kernel would take a new one of their subnet along with them.
    """
    ns = record.sandbox
    old = {Addr(ns, dev, str(address)) for address in before.addresses}
    new: set[Obj] = {Addr(ns, dev, str(address)) for address in after.addresses}
    dst, metric = _DEFAULT[record.lease.address.version]
    if router is not None:
        new.add(Route(ns, dst, dev, str(router), metric))
    try:
        _reach(parts, old & new, old)
        _reach(parts, new, new)
        if after.addresses:
            parts.kernel.announce(ns, dev, after.mac)
    except BerthError as error:
        return str(error)
    return ""


def _reach(parts: Parts, want: Iterable[Obj], scope: Iterable[Obj]) -> None:
    reach(parts.kernel, frozenset(want), Scope(keys(scope)))
