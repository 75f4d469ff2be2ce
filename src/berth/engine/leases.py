"""Addresses that a server of the LAN's gives: what is asked of it, what becomes of an answer, and of a change.

Asking takes seconds, so no verb waits for it: whoever keeps the leases (the daemon) asks first, with what `wanted` or
`wanted_for_docker` says, and attaches then, with the answer.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from datetime import datetime
from ipaddress import ip_interface

from berth import ipam
from berth.engine import containers
from berth.engine.parts import Parts
from berth.errors import Invalid, NotFound, Taken, Unsupported
from berth.model import (
    Address,
    AttachRequest,
    Endpoint,
    Grant,
    Host,
    Interface,
    Learnt,
    Lease,
    LeaseRecord,
    LeaseRequest,
    Network,
    Placement,
    Pool,
    PoolRequest,
    StaticRoute,
    Subnet,
)
from berth.plan import Plan, diff
from berth.seams import Intent, Tx
from berth.state import Addr, Route

RETURN = 30  # seconds within which the next to come without a name is taken for the one that just left
_OPTION = {4: "addresses", 6: "addresses6"}


def versions(net: Network, request: AttachRequest) -> tuple[int, ...]:
    """The IP versions for which an endpoint has its address from a server of the LAN's. Raises `Invalid`."""
    if request.placement is not Placement.FULL:
        return ()  # Docker's IPAM driver has seen to it
    found = tuple(version for version in _OPTION if _source(net, request, version) != "pool")
    if found and net.driver != "flat":
        raise Invalid(f"network {net.name} is {net.driver}: only a LAN (driver flat) has a DHCP server; leave it out")
    for version in found:
        pools = any(pool.subnet.version == version for pool in net.pools)
        if not pools and _source(net, request, version) != "auto":
            raise Invalid(f"network {net.name} has no IPv{version} subnet: leave {_OPTION[version]}=dhcp out")
    return found


def _source(net: Network, request: AttachRequest, version: int) -> str:
    """Where an endpoint has its address of an IP version from: pool | dhcp | auto."""
    theirs = net.addresses if version == 4 else net.addresses6
    return dict(request.options).get(_OPTION[version], theirs)


def advertised(net: Network, request: AttachRequest) -> bool:
    """Whether IPv6 is as the LAN's routers advertise."""
    return request.placement is Placement.FULL and _source(net, request, 6) == "auto"


def wanted(
    parts: Parts, net: Network, request: AttachRequest, choose: Callable[[], str]
) -> tuple[AttachRequest, tuple[LeaseRequest, ...]]:
    """An attach with id and MAC decided, and what to ask a server for before; nothing where no lease is wanted.

    `choose` gives the name that the endpoint will have.
    The MAC and the client's id follow from host, network and name: who is made anew is given the same address.
    """
    found = versions(net, request)
    if not found:
        return request, ()
    name, identity = choose(), parts.identity()
    mac = request.mac or net.mac_for(name, ())
    asked = replace(request, id=identity, name=name, mac=mac)
    return asked, tuple(
        LeaseRequest(
            key=identity if version == 4 else f"{identity}/{version}",
            dev=net.bridge,
            mac=mac,
            client_id=parts.client_id(f"{net.bridge_mac} {net.name} {name}"),
            hostname=name,
            wanted=next((address for address in request.addresses if address.version == version), None),
            version=version,
            conflict=net.conflict,
            early=net.conflict == "fast",  # should somebody object later, the endpoint moves to another address
            auto=version == 6 and advertised(net, request),
            subnets=tuple(pool.subnet for pool in net.pools if pool.subnet.version == version),
        )
        for version in found
    )


def recorded(net: Network, leases: Sequence[Lease]) -> tuple[LeaseRecord, ...]:
    """What is remembered of an endpoint's leases."""
    return tuple(
        LeaseRecord(lease, endpoint=lease.request.key.partition("/")[0], keep=net.keep_lease) for lease in leases
    )


def granted(net: Network, request: AttachRequest, version: int) -> Address:
    """The leased address of an IP version. Raises `Unsupported`, `Taken` and `Invalid`."""
    lease = next((r.lease for r in request.leases if r.lease.address.version == version), None)
    if lease is None:
        raise Unsupported(
            f"network {net.name} has its addresses from the LAN's DHCP server, and leases need the daemon:"
            " start it: berth daemon"
        )
    refuse_other(lease)
    if net.pool_of(lease.address.ip) is None and not lease.slaac:
        subnets = ", ".join(str(pool.subnet) for pool in net.pools)
        raise Invalid(
            f"the DHCP server gives {lease.address.ip}, which is outside network {net.name} ({subnets}):"
            " correct the server, or make the network anew"
        )
    return lease.address.ip


def refuse_other(lease: Lease) -> None:
    """Raise `Taken` where the server gave another address than was asked for by `--ip`."""
    asked = lease.request.wanted
    if asked is not None and asked != lease.address.ip and lease.slaac:
        raise Taken(
            f"{asked} is not to be had: it is in use on the LAN, or of no prefix that a router advertises now; leave"
            " --ip out"
        )
    if asked is not None and asked != lease.address.ip:
        raise Taken(
            f"the DHCP server gives {lease.address.ip} and not {asked}: leave --ip out, or reserve {asked}"
            f" at the server for {lease.request.mac}"
        )


def learnt(net: Network, leases: Sequence[Lease]) -> Learnt:
    """What an endpoint has from its leases, but for what its kernel would refuse: routers that are not its neighbours.

    Classless routes outrule the router option (RFC 3442); a default route among them is the router.
    """
    routers: list[Address] = []
    routes: list[StaticRoute] = []
    for lease in leases:
        own = _lan(net, lease)
        near = [r for r in lease.routes if r.via.is_unspecified or r.via in own]
        defaults = [r.via for r in near if not r.subnet.prefixlen and not r.via.is_unspecified]
        router = defaults[0] if defaults else lease.router
        if router is not None and (router in own or router.is_link_local):
            routers.append(router)
        routes += [r for r in near if r.subnet.prefixlen and r.subnet != own]
    mtu, mtu6 = (
        min((lease.mtu for lease in leases if lease.mtu and lease.address.version == version), default=0)
        for version in (4, 6)
    )
    seen = tuple(lease.address.version for lease in leases)
    dns = tuple(dict.fromkeys(server for lease in leases for server in lease.dns))
    auto = any(lease.request.auto for lease in leases)
    return Learnt(seen, tuple(routers), tuple({r.subnet: r for r in routes}.values()), mtu, dns, auto, mtu6)


def _lan(net: Network, lease: Lease) -> Subnet:
    pool = net.pool_of(lease.address.ip)
    return pool.subnet if pool is not None else lease.address.network


# --- what a server says later ---


def renew(parts: Parts, lease: Lease) -> str:
    """Record a lease that was renewed, and carry what has changed to the sandbox; in words, "" for nothing to tell."""
    with parts.changing():
        with parts.store.read() as tx:
            record = tx.lease(lease.request.key)
        if record is None:
            return ""  # given up meanwhile
        known = parts.known(record.endpoint) if record.endpoint else None
        if known is None:
            return _note(parts, record, lease)
        net, ep = known
        handed = ep.placement is Placement.HANDOVER
        same = lease.address.ip == record.lease.address.ip
        if handed and not same and containers.reachable(parts, record, ep.mac) is None:
            return _note(parts, record, lease)
        with parts.store.read() as tx:
            others = [r.lease for r in tx.leases(ep.id) if r.lease.request.key != lease.request.key]
            after = _moved(net, ep, record, lease, others)
            trouble = "" if handed and same else _obstacle(tx, net, ep, lease)
        shown = record.shown or ("" if same or not handed else str(record.lease.address.ip))
        new = replace(record, lease=lease, trouble=trouble, over=False, way_out=False, shown=shown)
        if trouble or after == ep:
            with parts.store.write() as tx:
                tx.save_lease(new if not trouble else replace(record, trouble=trouble))
            return trouble
        return _said(ep, record, lease) + _carry(parts, net, ep, after, new, way_out=record.way_out)


def prolong(parts: Parts, several: Sequence[Lease]) -> None:
    """Record leases that go on as they were; one that is on record otherwise, or no more, is left."""
    with parts.changing(), parts.store.write() as tx:
        for lease in several:
            record = tx.lease(lease.request.key)
            if record is not None and replace(record.lease, acquired=lease.acquired) == lease:
                tx.save_lease(replace(record, lease=lease))


def _said(ep: Endpoint, record: LeaseRecord, lease: Lease) -> str:
    before, now = record.lease.address.ip, lease.address.ip
    who = "a router" if lease.slaac else "the DHCP server"
    if before != now:
        told = f", and `docker inspect` goes on to show {before}" if ep.placement is Placement.HANDOVER else ""
        return f"endpoint {ep.name}: {who} has moved it from {before} to {now}{told}"
    if record.over:
        return f"endpoint {ep.name}: {who} has given {now} to it again"
    return f"endpoint {ep.name}: {who} has changed its router, routes, MTU or name servers"


def _note(parts: Parts, record: LeaseRecord, lease: Lease) -> str:
    """A container that Berth cannot get into keeps what Docker gave it: the record says so, and asks for that again."""
    trouble = ""
    if lease.address.ip != record.lease.address.ip:
        trouble = f"the LAN gives {lease.address.ip} now, and a container of Docker's keeps its address"
        lease = replace(record.lease, request=replace(lease.request, wanted=record.lease.address.ip))
    with parts.store.write() as tx:
        tx.save_lease(replace(record, lease=lease, trouble=trouble))
    return f"{record.lease.address.ip}: {trouble}: start it anew" if trouble else ""


def _moved(net: Network, ep: Endpoint, record: LeaseRecord, new: Lease, others: Sequence[Lease]) -> Endpoint:
    pool = net.pool_of(new.address.ip)
    length = pool.subnet.prefixlen if pool is not None else new.address.network.prefixlen
    address = ip_interface(f"{new.address.ip}/{length}")
    kept = [a for a in ep.addresses if a.ip != record.lease.address.ip]
    addresses = tuple(sorted((address, *kept), key=lambda a: a.version))
    told = learnt(net, (new, *others))
    if ep.placement is Placement.HANDOVER:
        return replace(ep, addresses=addresses, learnt=replace(told, mtu=ep.learnt.mtu))  # the cable's end is Docker's
    offered = [r for r in (*told.routers, *(p.gateway for p in net.pools)) if r is not None]
    again = {address.version} if record.way_out and any(r.version == address.version for r in offered) else set()
    return replace(ep, addresses=addresses, learnt=told, default_route=tuple(sorted({*ep.default_route, *again})))


def _obstacle(tx: Tx, net: Network, ep: Endpoint, lease: Lease) -> str:
    """Why an endpoint cannot move to the address of a lease; "" where it can, or is there."""
    address = lease.address.ip
    if address in [a.ip for a in ep.addresses]:
        return ""
    pool = net.pool_of(address)
    if pool is None:
        return "" if lease.slaac else f"the DHCP server gives {address}, which is outside network {net.name}"
    if tx.ledger(net.id, pool).covering(int(address)) is not None:
        return f"the DHCP server gives {address}, which another endpoint of network {net.name} has"
    return ""


def _carry(
    parts: Parts, net: Network, ep: Endpoint, after: Endpoint, record: LeaseRecord, *, way_out: bool = False
) -> str:
    """Carry an endpoint's other addresses and routes to where it is; what could not be done, in words.

    The old addresses go first: the kernel would take a new one of their subnet along with them.
    """
    before, want = parts.want_endpoint(net, ep), parts.want_endpoint(net, after)
    middle = before
    if after.addresses != ep.addresses:
        middle = frozenset(obj for obj in before if obj in want or not isinstance(obj, Addr | Route))
        middle = frozenset(obj for obj in middle if not isinstance(obj, Route) or obj.ns != ep.sandbox.path)
    plan = Plan((*diff(middle, before).ops, *diff(want, middle).ops))
    intent = Intent(ep.id, "readdress", before, want)
    with parts.store.write() as tx:
        tx.open(intent)
    parts.carry_out(intent, plan, lambda tx: _record(parts, tx, net, ep, after, record))
    if ep.placement is Placement.HANDOVER:
        return _carry_over(parts, net, ep, after, record, way_out=way_out)
    if after.ifname and after.addresses and after.addresses != ep.addresses:
        parts.kernel.announce(after.sandbox.path, after.ifname, after.mac)
    return ""


def _record(parts: Parts, tx: Tx, net: Network, ep: Endpoint, after: Endpoint, record: LeaseRecord) -> None:
    """What Docker holds, Docker gives back by itself."""
    handed = ep.placement is Placement.HANDOVER
    for gone in {*ep.addresses} - {*after.addresses}:
        if (pool := net.pool_of(gone.ip)) is not None and not handed:
            ipam.give_back(pool, tx.ledger(net.id, pool), gone.ip)
    for new in {*after.addresses} - {*ep.addresses}:
        pool = net.pool_of(new.ip)
        if pool is None or (handed and tx.ledger(net.id, pool).covering(int(new.ip)) is not None):
            continue
        ipam.take(pool, tx.ledger(net.id, pool), new.ip)
        if handed and pool.owner:
            tx.save_grant(Grant(pool.owner, new.ip, "", datetime.fromisoformat(parts.now()).timestamp()))
    tx.save_endpoint(after)
    tx.save_lease(record)


def _carry_over(
    parts: Parts, net: Network, ep: Endpoint, after: Endpoint, record: LeaseRecord, *, way_out: bool
) -> str:
    dev = containers.reachable(parts, record, ep.mac)
    if dev is None:
        return "; Berth cannot get into its container: start it anew" if after.addresses else ""
    version = record.lease.address.version
    pools = [pool.gateway for pool in net.pools]
    routers = [r for r in (*after.learnt.routers, *pools) if r is not None and r.version == version]
    # Of a router that is advertised the container's kernel hears itself.
    known = not record.lease.request.auto and way_out and after.addresses
    router = routers[0] if known and routers else None
    failed = containers.carry(parts, record, dev, ep, after, router)
    return f"; in its container that failed: {failed}: start it anew" if failed else ""


def lost(parts: Parts, lease: Lease, why: str) -> str:
    """Record that a lease has ended, and take its address out of use (RFC 2131 section 4.4.5), with what rests on it.

    The server is asked on, mostly for the same: it comes back by `renew`.
    """
    with parts.changing():
        with parts.store.read() as tx:
            record = tx.lease(lease.request.key)
        if record is None:
            return ""
        record = replace(record, trouble=why, over=True)
        known = parts.known(record.endpoint) if record.endpoint else None
        said = f"{record.lease.address.ip}: the lease is lost: {why}"
        if known is None or record.lease.address.ip not in [a.ip for a in known[1].addresses]:
            with parts.store.write() as tx:
                tx.save_lease(record)
            return said
        net, ep = known
        after = _without(ep, record.lease)
        way_out = ep.default_route != after.default_route
        if ep.placement is Placement.HANDOVER:
            dev = containers.reachable(parts, record, ep.mac)
            way_out = dev is not None and containers.has_way_out(parts, record, dev)
        failed = _carry(parts, net, ep, after, replace(record, way_out=way_out))
        return f"{said}: endpoint {ep.name} is without it until the LAN gives one again{failed}"


def _without(ep: Endpoint, lease: Lease) -> Endpoint:
    """An endpoint whose lease has ended."""
    version = lease.address.version
    learnt = replace(
        ep.learnt,
        routers=tuple(r for r in ep.learnt.routers if r.version != version),
        routes=tuple(r for r in ep.learnt.routes if r.subnet.version != version),
    )
    addresses = tuple(a for a in ep.addresses if a.ip != lease.address.ip)
    if ep.placement is Placement.HANDOVER:
        return replace(ep, addresses=addresses, learnt=learnt)
    if version == 6 and learnt.advertised:
        return replace(ep, addresses=addresses, learnt=learnt)  # its router comes and goes by itself
    kept = tuple(each for each in ep.default_route if each != version)
    return replace(ep, addresses=addresses, learnt=learnt, default_route=kept)


# --- Docker's IPAM driver ---


def lan_request(parts: Parts, asked: PoolRequest) -> PoolRequest:
    """The LAN's pool, where none is named: of the bridge that the host's default route leaves through."""
    if asked.subnet is not None or asked.parent:
        return asked
    host = parts.kernel.host()
    devs = [r.dev for r in sorted(host.routes, key=lambda r: r.metric)
            if not r.dst.prefixlen and r.dst.version == asked.version]  # fmt: skip
    if not devs:
        raise Invalid("this host has no default route to tell the LAN by: name its bridge with --ipam-opt parent=br0")
    return replace(asked, parent=devs[0])


def wanted_for_docker(
    parts: Parts, pool: Pool, holder: str, identity: str, mac: str, wanted: Address | None
) -> tuple[LeaseRequest, Address | None]:
    """What to ask a server for a container, and the address that the same one had before.

    `identity`: by which it is known again. Raises `NotFound` where no bridge of the host's is on the pool's LAN.
    """
    bridge, bridge_mac = _bridge(parts.kernel.host(), pool.subnet)
    with parts.store.read() as tx:
        now = datetime.fromisoformat(parts.now()).timestamp()
        before = tx.granted_to(pool.owner, holder) if holder else tx.first_released(pool.owner, now - RETURN)
        users = [net for net in tx.networks() if any(each.owner == pool.owner for each in net.pools)]
    client = f"{bridge_mac} {pool.owner} {identity}"
    request = LeaseRequest(
        key=f"docker {client}",
        dev=bridge,
        mac=mac,
        client_id=parts.client_id(client),
        hostname=holder,
        wanted=wanted,
        conflict=users[0].conflict if users else "fast",
        version=pool.subnet.version,
        auto=pool.subnet.version == 6,
        subnets=(pool.subnet,),
    )
    return request, before.address if before is not None else None


def nameless(key: str) -> str:
    """By what a container without a name is known again, from the key of its lease; "" for one with a name.

    The lease is on record, so it is known after a restart as well.
    """
    identity = key.rpartition(" ")[2]
    return identity if key.startswith("docker ") and key.count(" ") == 3 else ""


def _bridge(host: Host, subnet: Subnet) -> tuple[str, str]:
    for link in host.links:
        if link.kind in ("bridge", "ovs") and any(address.ip in subnet for address in link.addresses):
            return link.name, link.mac
    raise NotFound(f"no bridge of this host is on the LAN {subnet}: see `ip -br address show type bridge`")


def interface(pool: Pool, lease: Lease) -> Interface:
    """The leased address, with the length of the pool's subnet. Raises `Invalid` for one outside."""
    address = lease.address.ip
    if address not in pool.subnet:
        raise Invalid(f"the LAN gives {address}, which is outside {pool.subnet}: correct it, or give another --subnet")
    return ip_interface(f"{address}/{pool.subnet.prefixlen}")
