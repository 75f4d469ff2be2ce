"""What is set inside a container of Docker's, and its addresses, when its lease has ended or become another one.

Docker leaves it to the kernel to make IPv6 addresses of its own by advertisements. Nobody knows of those, and the
container is not let send from them. Where IPv6 is as the LAN's routers advertise, the rest is the kernel's to do: the
router and the MTU come and go, which Docker cannot be told, and Docker takes no link-local router.

Docker cannot be told of another address, and goes on to show the one that it knows; but the LAN's server is who says
which address the container may use, so it is changed in the container itself, where Berth can get there.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import replace
from ipaddress import IPv6Network

from berth.engine import options
from berth.engine.parts import Parts
from berth.engine.reach import reach
from berth.errors import BerthError
from berth.firewall.spoofing import link_local
from berth.model import Address, Endpoint, LeaseRecord, Network
from berth.plan import Add, Del, Op
from berth.seams import Scope, Tx
from berth.state import Addr, Obj, Route, Sysctl, keys

_DEFAULT = {4: ("0.0.0.0/0", 0), 6: ("::/0", 1024)}  # and the metric that the kernel gives


def remember(tx: Tx, identity: str, ns: str) -> None:
    """Record with an endpoint's leases where its container is."""
    for record in tx.leases(identity):
        if record.sandbox != ns:
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


# --- once its end of the cable is there ---


def settle(net: Network, ep: Endpoint, ns: str, dev: str) -> Iterator[Op]:
    """The settings of the link, and what the kernel may have made before they were made."""
    versions = {address.version for address in ep.addresses}
    if 4 in versions:
        yield _set(ns, dev, "ipv4", "arp_notify", "1")
    if 6 not in versions:
        return
    yield _set(ns, dev, "ipv6", "ndisc_notify", "1")
    if ep.learnt.advertised:
        yield _set(ns, dev, "ipv6", "autoconf", "0")
        yield _set(ns, dev, "ipv6", "accept_ra_defrtr", "1" if options.gateway(ep) and not net.internal else "0")
    else:
        yield _set(ns, dev, "ipv6", "accept_ra", "0")
    own = {str(address) for address in ep.addresses}
    for subnet in (pool.subnet for pool in net.pools):
        made = _made(subnet, ep.mac) if isinstance(subnet, IPv6Network) else None
        if made is not None and made not in own:
            yield Del(Addr(ns, dev, made))


def _made(subnet: IPv6Network, mac: str) -> str | None:
    """The address that a kernel makes of a prefix (RFC 4862 section 5.5.3)."""
    if subnet.prefixlen != 64:
        return None
    return f"{subnet[int(link_local(mac)) & (1 << 64) - 1]}/64"


def _set(ns: str, dev: str, family: str, name: str, value: str) -> Op:
    return Add(Sysctl(ns, f"net.{family}.conf.{dev.replace('.', '/')}.{name}", value))
