"""What the routers of a LAN have advertised and still holds, and the address that a container makes of it. Pure.

Times are seconds of CLOCK_BOOTTIME. Sources: RFC 4861 section 6.3.4 (routers, prefixes), RFC 4862 section 5.5.3
(lifetimes), RFC 4191 (which router is preferred), RFC 8106 (name servers).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from ipaddress import IPv6Address, IPv6Interface, IPv6Network
from math import inf

from berth.errors import Refused
from berth.lan.dhcp6.asking import Information
from berth.lan.slaac import Advertised, Prefix, slaac_address
from berth.model import Address, Lease, LeaseRequest

FOREVER = 0xFFFF_FFFF
_TWO_HOURS = 7200.0  # nobody shortens a prefix's life to less by one advertisement: it may be forged
_REMEMBERED = 1800.0  # seconds for which a router of an earlier process is believed to be there (its usual lifetime)
_GLOBAL = IPv6Network("2000::/3")
_MOST = 16  # routers, and prefixes, of a LAN: more are a flood


@dataclass(frozen=True, slots=True)
class Spoken:
    """What a router said last."""

    said: Advertised
    until: float  # it may be a default router
    dns_until: float


@dataclass(frozen=True, slots=True)
class Shared:
    """A prefix of which addresses may be made."""

    subnet: IPv6Network
    router: IPv6Address  # that advertised it last
    preferred: float  # until when
    valid: float


@dataclass(frozen=True, slots=True)
class Link:
    """A LAN as its routers describe it, whoever was heard first in front."""

    routers: tuple[Spoken, ...] = ()
    prefixes: tuple[Shared, ...] = ()

    def best(self, now: float) -> Spoken | None:
        """The default router: of those that are preferred most, the one that is known for longest."""
        alive = [spoken for spoken in self.routers if spoken.until > now]
        return max(alive, key=lambda spoken: spoken.said.preference, default=None)

    def managed(self) -> bool:
        """Whether addresses are to be had by DHCPv6."""
        return any(spoken.said.managed for spoken in self.routers)

    def other(self) -> bool:
        """Whether the rest is to be had by DHCPv6."""
        return any(spoken.said.other or spoken.said.managed for spoken in self.routers)

    def prefix(self, now: float, favoured: Sequence[object] = (), has: Address | None = None) -> Shared | None:
        """The prefix to have an address of: one in use before one that is deprecated.

        Of several first the network's own, then the one that the address is of, then one that leads to the internet.
        """
        valid = [shared for shared in self.prefixes if shared.valid > now]
        return max(
            valid,
            key=lambda shared: (
                shared.preferred > now,
                shared.subnet in favoured,
                has is not None and has in shared.subnet,
                shared.subnet.subnet_of(_GLOBAL),
            ),
            default=None,
        )

    def next(self, now: float) -> float:
        """When something of it ends."""
        ends = [end for spoken in self.routers for end in (spoken.until, spoken.dns_until)]
        ends += [end for shared in self.prefixes for end in (shared.preferred, shared.valid)]
        return min((end for end in ends if end > now), default=inf)


def hear(link: Link, said: Advertised, now: float) -> Link:
    """The same after an advertisement."""
    spoken = Spoken(said, _end(now, said.lifetime), _end(now, said.dns_lifetime))
    known = [each.said.router for each in link.routers]
    if said.router in known:
        routers = tuple(spoken if each.said.router == said.router else each for each in link.routers)
    else:
        others = link.routers if len(link.routers) < _MOST else [each for each in link.routers if each.until > now]
        routers = (*others, spoken)[:_MOST]
    prefixes = {shared.subnet: shared for shared in link.prefixes if shared.valid > now}
    for each in said.prefixes:
        before = prefixes.get(each.subnet)
        usable = each.autonomous and each.subnet.prefixlen == 64 and not each.subnet.is_link_local
        new = before is None and bool(each.valid) and len(prefixes) < _MOST
        if usable and each.preferred <= each.valid and (before is not None or new):
            prefixes[each.subnet] = _shared(each, before, said.router, now)
    return Link(routers, tuple(prefixes.values()))


def _shared(said: Prefix, before: Shared | None, router: IPv6Address, now: float) -> Shared:
    valid = _end(now, said.valid)
    if before is not None and said.valid <= _TWO_HOURS and valid < before.valid:
        valid = min(before.valid, now + _TWO_HOURS)
    return Shared(said.subnet, router, _end(now, said.preferred), valid)


def remember(link: Link, lease: Lease, now: float, real: float) -> Link:
    """The same with what a lease of an earlier process tells; `real` in seconds since 1970."""
    if not isinstance(lease.address, IPv6Interface) or not lease.slaac:
        return link
    left = inf if lease.lifetime == FOREVER else now + max(lease.acquired + lease.lifetime - real, 0.0)
    subnet = lease.address.network
    prefixes = link.prefixes
    if subnet not in [shared.subnet for shared in prefixes]:
        prefixes = (*prefixes, Shared(subnet, IPv6Address(lease.server), left, left))
    routers = link.routers
    if isinstance(lease.router, IPv6Address) and lease.router not in [spoken.said.router for spoken in routers]:
        dns = tuple(server for server in lease.dns if isinstance(server, IPv6Address))
        said = Advertised(lease.router, 0, False, False, mtu=lease.mtu, dns=dns, search=lease.search)
        routers = (*routers, Spoken(said, now + _REMEMBERED, now + _REMEMBERED))
    return Link(routers, prefixes)


def make(request: LeaseRequest, link: Link, has: Address | None, counter: int, now: float, real: float) -> Lease:
    """The address that a client has by a link's advertisements, and until when. Raises `Refused` where it has none.

    `has`: its address so far; `counter`: how many that it made before somebody else had (RFC 7217 section 5).
    """
    shared = link.prefix(now, request.subnets, has)
    if shared is None:
        raise Refused(f"no router on {request.dev} advertises a prefix that addresses can be made of")
    wish = has if has is not None or counter else request.wanted
    if isinstance(wish, IPv6Address) and wish in shared.subnet:
        address = IPv6Interface((wish, 64))
    else:
        address = slaac_address(shared.subnet, f"{request.client_id.hex()} {counter}")
    lifetime = FOREVER if shared.valid == inf else int(shared.valid - now)
    return Lease(request, address, shared.router.packed, acquired=real, lifetime=lifetime, slaac=True)


def complete(lease: Lease, link: Link, told: Information | None, now: float) -> Lease:
    """A lease with what routers advertise of router, name servers and MTU, and what a server says (`told`)."""
    best = link.best(now)
    heard = [spoken for spoken in link.routers if spoken.dns_until > now]
    # Of a link-local name server nobody knows which link is meant.
    dns = [server for spoken in heard for server in spoken.said.dns if not server.is_link_local]
    search = [name for spoken in heard for name in spoken.said.search]
    said = told or Information((), (), ())
    return replace(
        lease,
        router=None if best is None else best.said.router,
        dns=tuple(dict.fromkeys((*lease.dns, *said.dns, *dns))),
        search=tuple(dict.fromkeys((*lease.search, *said.search, *search))),
        ntp=tuple(dict.fromkeys((*lease.ntp, *said.ntp))),
        mtu=None if best is None else best.said.mtu,
    )


def _end(now: float, seconds: int) -> float:
    return inf if seconds == FOREVER else now + seconds
