"""Addresses that a server of the LAN's gives: what is asked of it, what becomes of an answer, and of a change.

Asking takes seconds, so no verb waits for it: whoever keeps the leases (the daemon) asks first, with what `wanted` or
`wanted_for_docker` says, and attaches then, with the answer.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from ipaddress import ip_interface

from berth import ipam
from berth.engine.parts import Parts
from berth.errors import Invalid, NotFound, Taken, Unsupported
from berth.model import (
    Address,
    AttachRequest,
    Endpoint,
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
    parts: Parts, net: Network, request: AttachRequest, name: str
) -> tuple[AttachRequest, tuple[LeaseRequest, ...]]:
    """An attach with id and MAC decided, and what to ask a server for before; nothing where no lease is wanted.

    The MAC and the client's id follow from host, network and name: who is made anew is given the same address.
    """
    found = versions(net, request)
    if not found:
        return request, ()
    mac = request.mac or net.mac_for(name, ())
    identity = parts.identity()
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
        if known is None or known[1].placement is not Placement.FULL:
            return _note(parts, record, lease)
        net, ep = known
        with parts.store.read() as tx:
            others = [r.lease for r in tx.leases() if r.endpoint == ep.id and r.lease.request.key != lease.request.key]
            after = _moved(net, ep, record.lease, lease, others)
            trouble = _obstacle(tx, net, ep, lease)
        new = replace(record, lease=lease, trouble=trouble)
        if trouble or after == ep:
            with parts.store.write() as tx:
                tx.save_lease(new if not trouble else replace(record, trouble=trouble))
            return trouble
        _carry(parts, net, ep, after, new)
        who = "a router" if lease.slaac else "the DHCP server"
        if after.addresses == ep.addresses:
            return f"endpoint {ep.name}: {who} has changed its router, routes, MTU or name servers"
        return f"endpoint {ep.name}: {who} has moved it from {record.lease.address.ip} to {lease.address.ip}"


def _note(parts: Parts, record: LeaseRecord, lease: Lease) -> str:
    """Docker cannot be told of another address: the record says so, and keeps the old one to ask for."""
    trouble = ""
    if lease.address.ip != record.lease.address.ip:
        trouble = f"the LAN gives {lease.address.ip} now, and a container of Docker's keeps its address"
        lease = replace(record.lease, request=replace(lease.request, wanted=record.lease.address.ip))
    with parts.store.write() as tx:
        tx.save_lease(replace(record, lease=lease, trouble=trouble))
    return f"{record.lease.address.ip}: {trouble}: start it anew" if trouble else ""


def _moved(net: Network, ep: Endpoint, old: Lease, new: Lease, others: Sequence[Lease]) -> Endpoint:
    pool = net.pool_of(new.address.ip)
    length = pool.subnet.prefixlen if pool is not None else new.address.network.prefixlen
    address = ip_interface(f"{new.address.ip}/{length}")
    addresses = tuple(address if a.ip == old.address.ip else a for a in ep.addresses)
    if address not in addresses:  # it had none any more
        addresses = tuple(sorted((*addresses, address), key=lambda a: a.version))
    return replace(ep, addresses=addresses, learnt=learnt(net, (new, *others)))


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


def _carry(parts: Parts, net: Network, ep: Endpoint, after: Endpoint, record: LeaseRecord) -> None:
    """The old addresses go first: the kernel would take a new one of their subnet along with them."""
    before, want = parts.want_endpoint(net, ep), parts.want_endpoint(net, after)
    middle = before
    if after.addresses != ep.addresses:
        middle = frozenset(obj for obj in before if obj in want or not isinstance(obj, Addr | Route))
        middle = frozenset(obj for obj in middle if not isinstance(obj, Route) or obj.ns != ep.sandbox.path)
    plan = Plan((*diff(middle, before).ops, *diff(want, middle).ops))
    intent = Intent(ep.id, "readdress", before, want)
    with parts.store.write() as tx:
        tx.open(intent)

    def then(tx: Tx) -> None:
        for gone in {*ep.addresses} - {*after.addresses}:
            if (pool := net.pool_of(gone.ip)) is not None:
                ipam.give_back(pool, tx.ledger(net.id, pool), gone.ip)
        for new in {*after.addresses} - {*ep.addresses}:
            if (pool := net.pool_of(new.ip)) is not None:
                ipam.take(pool, tx.ledger(net.id, pool), new.ip)
        tx.save_endpoint(after)
        tx.save_lease(record)

    parts.carry_out(intent, plan, then)
    if after.ifname and after.addresses != ep.addresses:
        parts.kernel.announce(after.sandbox.path, after.ifname, after.mac)


def lost(parts: Parts, lease: Lease, why: str) -> str:
    """Record that a lease has ended. The address stays in use: the same is asked for again, and mostly given."""
    with parts.changing():
        with parts.store.read() as tx:
            record = tx.lease(lease.request.key)
        if record is None:
            return ""
        if lease.request.auto:
            _withdraw(parts, replace(record, trouble=why))
        with parts.store.write() as tx:
            tx.save_lease(replace(record, trouble=why))
    return f"{record.lease.address.ip}: the lease is lost: {why}"


def _withdraw(parts: Parts, record: LeaseRecord) -> None:
    """Take an address that routers advertise no more from its endpoint; one of Docker's keeps what it has."""
    known = parts.known(record.endpoint) if record.endpoint else None
    if known is None or known[1].placement is not Placement.FULL:
        return
    net, ep = known
    with parts.store.read() as tx:
        others = [
            r.lease for r in tx.leases() if r.endpoint == ep.id and r.lease.request.key != record.lease.request.key
        ]
    left = tuple(address for address in ep.addresses if address.ip != record.lease.address.ip)
    kept = replace(learnt(net, others), advertised=True)
    _carry(parts, net, ep, replace(ep, addresses=left, learnt=kept), record)


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
        before = tx.granted_to(pool.owner, holder) if holder else None
    client = f"{bridge_mac} {pool.owner} {identity}"
    request = LeaseRequest(
        key=f"docker {client}",
        dev=bridge,
        mac=mac,
        client_id=parts.client_id(client),
        hostname=holder,
        wanted=wanted,
        version=pool.subnet.version,
        auto=pool.subnet.version == 6,
        subnets=(pool.subnet,),
    )
    return request, before.address if before is not None else None


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
