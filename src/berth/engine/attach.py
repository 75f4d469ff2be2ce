"""Plugging a sandbox into a network: the hot path. And unplugging it."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from ipaddress import ip_interface

from berth import ipam
from berth.engine import containers, leases, options, peers, served
from berth.engine import vet as vetting
from berth.engine.networks import Removed, find, find_heard, must_be_there
from berth.engine.parts import Parts, forget, lent
from berth.engine.ports import choose
from berth.errors import Exhausted, Invalid, NotFound, Taken
from berth.model import (
    Address,
    AttachRequest,
    Endpoint,
    Interface,
    Ipam,
    Learnt,
    LeaseRecord,
    Network,
    Placement,
    Pool,
    PortRequest,
    Sandbox,
)
from berth.plan import Plan, diff
from berth.seams import Intent, Outcome, Scope, Tx
from berth.state import LinkUp, Route, State

_BRIDGE_PORTS = 1023
_WARN_FROM = 900
_DEFAULTS = {4: ("0.0.0.0/0", "0"), 6: ("::/0", "1024")}


class _DryRun(Exception):
    """Leaves a transaction without keeping anything of it."""


class _Unasked(Exception):
    """The LAN has to be asked for these addresses first."""

    def __init__(self, ahead: vetting.Candidates) -> None:
        super().__init__(ahead)
        self.ahead = ahead


@dataclass(frozen=True, slots=True)
class _Place:
    """What is known of a sandbox before it is changed."""

    sandbox: Sandbox
    ifname: str  # of the new endpoint
    others: Sequence[Endpoint]  # that the sandbox has
    there: State


def attach(parts: Parts, request: AttachRequest, *, dry_run: bool) -> Outcome[Endpoint]:
    """Give a sandbox an address and a cable on a network, or do nothing at all."""
    try:
        return _attach_asked(parts, request, dry_run=dry_run)
    except Removed:
        pass  # there may be another of that name by now
    except Taken:
        if not _drop_forgotten(parts, request):
            raise
    return _attach_asked(parts, request, dry_run=dry_run)


def _drop_forgotten(parts: Parts, request: AttachRequest) -> bool:
    """Detach who has an address that Docker's own IPAM has just given to somebody else: Docker has forgotten them."""
    with parts.store.read() as tx:
        net = tx.network(request.network)
        if net is None or net.ipam is not Ipam.DOCKER or request.placement is not Placement.HANDOVER:
            return False
        forgotten = [
            ep.id
            for ep in tx.endpoints(network=net.id)
            if ep.placement is Placement.HANDOVER and {address.ip for address in ep.addresses} & {*request.addresses}
        ]
    for identity in forgotten:
        release(parts, identity)
    return bool(forgotten)


def _attach_asked(parts: Parts, request: AttachRequest, *, dry_run: bool) -> Outcome[Endpoint]:
    """Where the LAN has to be asked for addresses first, nobody waits for the lock meanwhile: it takes a while."""
    try:
        return _attach(parts, request, dry_run=dry_run, asked=dry_run)
    except _Unasked as found:
        ahead = found.ahead
    vetting.ask(parts, ahead.net, ahead.addresses, ahead.mine)
    return _attach(parts, request, dry_run=dry_run, asked=True)


def _attach(parts: Parts, request: AttachRequest, *, dry_run: bool, asked: bool) -> Outcome[Endpoint]:
    with parts.changing():
        with parts.store.read() as tx:
            net = find_heard(parts, tx, request.network)
            same = tx.endpoint(request.id) if request.id else None
            if same is not None:  # who asks chose the id: the same call once more
                return Outcome(same, Plan())
            if not asked and (ahead := vetting.ahead(parts, tx, net, request)) is not None:
                raise _Unasked(ahead)
        net = peers.made(parts, net, dry_run=dry_run)
        place = _hand_over(parts, request) if request.placement is Placement.HANDOVER else _place(parts, net, request)
        held = vetting.vet(parts, net, request)
        try:
            with parts.store.write() as tx:
                if net.scope == "global":
                    tx.foresee(net.id, request.name or _likely_name(request), request.addresses)
                    must_be_there(parts, tx, net)
                ep, warnings = _decide(parts, tx, net, request, place, held)
                warnings = (*warnings, *served.of_endpoint(net, ep))
                want = parts.want_endpoint(net, ep)
                before = frozenset(obj for obj in place.there if obj.key[0] == "up")
                plan = diff(want, before)
                intent = Intent(ep.id, "attach", before, want)
                if dry_run:
                    raise _DryRun
                tx.save_endpoint(ep)
                _save_leases(tx, request, ep)
                tx.open(intent)
        except _DryRun:
            return Outcome(ep, plan, warnings)
        if net.vets:
            parts.vetted.given(net.bridge, (address.ip for address in ep.addresses))
        parts.carry_out(intent, plan)
        if ep.ifname and ep.placement is Placement.FULL and net.announces(ep):
            parts.kernel.announce(ep.sandbox.path, ep.ifname, ep.mac)
        return Outcome(ep, plan, warnings)


def _save_leases(tx: Tx, request: AttachRequest, ep: Endpoint) -> None:
    for record in request.leases:
        tx.save_lease(record)
    for record in _leased_before(tx, ep.addresses) if ep.placement is Placement.HANDOVER else ():
        tx.save_lease(replace(record, endpoint=ep.id))


def _leased_before(tx: Tx, addresses: Sequence[Interface]) -> list[LeaseRecord]:
    """The leases that Docker's IPAM driver has got for these addresses."""
    found = [tx.lease_at(interface.ip) for interface in addresses]
    return [record for record in found if record is not None and record.pool]


def announce(parts: Parts, identity: str, ns: str) -> bool:
    """Tell the neighbours of an endpoint that was handed over, once it is up in its sandbox; False: not yet.

    Docker does so itself since 28.0; before, an address that changed hands could be out of reach for minutes.
    """
    with parts.changing():
        known = parts.known(identity)
        if known is None or not known[0].announces(known[1]):
            return True
        _, ep = known
        dev = parts.kernel.find(ns, ep.mac)
        if dev is None:
            return False
        with parts.store.write() as tx:
            containers.remember(tx, identity, ns)
        parts.kernel.send(Plan(tuple(containers.settle(known[0], ep, ns, dev))))
        parts.kernel.announce(ns, dev, ep.mac)
    return True


def _place(parts: Parts, net: Network, request: AttachRequest) -> _Place:
    sandbox = parts.kernel.sandbox(request.sandbox)
    with parts.store.read() as tx:
        others = tx.endpoints(sandbox=sandbox)
    ifname = request.ifname or _free_ifname(options.prefix(net, request), others)
    return _Place(sandbox, ifname, others, parts.kernel.read(_sandbox_scope(sandbox, ifname)))


def _hand_over(parts: Parts, request: AttachRequest) -> _Place:
    """No sandbox yet: the inner end waits in the host, under a name that is found again."""
    begin = request.id[:12]
    sandbox = Sandbox("", f"handed:{begin}")
    with parts.store.read() as tx:
        if tx.endpoints(sandbox=sandbox):
            raise Taken(f"endpoint {begin} is there, of which another id begins alike: choose another id")
    return _Place(sandbox, f"bw{begin}", (), frozenset())


def _sandbox_scope(sandbox: Sandbox, ifname: str) -> Scope:
    """The little that has to be known of a sandbox before it is changed."""
    ns = sandbox.path
    routes = {("route", ns, dst, metric) for dst, metric in _DEFAULTS.values()}
    return Scope(frozenset({("up", ns, "lo"), ("up", ns, ifname), *routes}))


def _decide(
    parts: Parts, tx: Tx, net: Network, request: AttachRequest, place: _Place, held: frozenset[Address]
) -> tuple[Endpoint, tuple[str, ...]]:
    """Fill every hole of the request, or refuse it."""
    ifname = place.ifname
    for other in place.others:
        if other.network == net.id and request.ifname is None:
            raise Taken(
                f"{request.sandbox} is attached to network {net.name} already, as {other.ifname or other.name}:"
                " detach it first, or give a second interface its own --ifname"
            )
        if other.ifname == ifname and net.bridge:
            raise Taken(f"{request.sandbox} has a Berth interface {ifname} already: choose another --ifname")
    if any(isinstance(obj, LinkUp) and obj.dev == ifname for obj in place.there) and net.bridge:
        raise Taken(f"{request.sandbox} has an interface {ifname} already, not of Berth's: choose another --ifname")
    if request.ports and not net.nat:
        raise Invalid(
            f"network {net.name} is {net.driver}: ports are published on NAT networks only;"
            " here the endpoint's own address has all its ports"
        )
    options.refuse_useless(net, request)
    handed = request.placement is Placement.HANDOVER
    name = request.name or (_handed_name(tx, net, request) if handed else _free_name(tx, net, request.sandbox))
    if request.name is not None and tx.named(net.id, name):
        raise Taken(f"network {net.name} has an endpoint {name} already: choose another --name, or detach it")
    ports = choose(parts, tx, [PortRequest.of(mapping) for mapping in request.ports])
    identity = request.id or parts.identity()
    addresses = tuple(_addresses(tx, net, request, held | peers.resting(tx, net, request.mac)))
    leased = _leased_before(tx, addresses) if handed else request.leases
    learnt = leases.learnt(net, [record.lease for record in leased])
    mac = request.mac or (leased[0].lease.request.mac if leased else net.mac_for("" if handed else name, addresses))
    peers.refuse_resting(tx, net, addresses, mac)
    warnings = [*_port_warnings(tx, net), *_obstacle_warnings(parts, net)]
    return (
        Endpoint(
            id=identity,
            network=net.id,
            name=name,
            sandbox=place.sandbox,
            link=f"bv{identity[:12]}",
            ifname=ifname if net.bridge else "",
            mac=mac,
            addresses=addresses,
            default_route=_default_route(net, place, learnt, warnings) if options.gateway(request) else (),
            ports=ports,
            placement=request.placement,
            options=request.options,
            learnt=learnt,
            aliases=request.aliases,
            host=parts.store.host if net.scope == "global" else "",
            vtep=net.local,
        ),
        tuple(warnings),
    )


def _free_ifname(prefix: str, endpoints: Sequence[Endpoint]) -> str:
    used = {ep.ifname for ep in endpoints}
    return next(name for name in (f"{prefix}{number}" for number in range(len(used) + 1)) if name not in used)


def _free_name(tx: Tx, net: Network, sandbox: str) -> str:
    """A name after the sandbox's that no other has."""
    base = name = _base_name(sandbox)
    number = 1
    while tx.named(net.id, name):
        number += 1
        name = f"{base}-{number}"
    return name


def _likely_name(request: AttachRequest) -> str:
    return _base_name(request.sandbox) if request.placement is Placement.FULL else request.id[:12]


def _base_name(sandbox: str) -> str:
    """The last part of a path, `pid-7` for pid:7."""
    base = re.sub(r"[^a-zA-Z0-9_.-]+", "-", sandbox.rstrip("/").rsplit("/", 1)[-1]).strip("-.")[:100] or "endpoint"
    if sandbox.startswith("/proc/"):
        base = f"pid-{sandbox.split('/')[2]}"
    return base


def name_for(tx: Tx, net: Network, request: AttachRequest) -> str:
    """The name that an endpoint will have, if no other takes it first."""
    return _free_name(tx, net, request.sandbox) if request.name is None else request.name


def _handed_name(tx: Tx, net: Network, request: AttachRequest) -> str:
    """The name that the IPAM driver was told, else a part of the id."""
    for address in request.addresses:
        pool = net.pool_of(address)
        grant = tx.grant(pool.owner, address) if pool is not None else None
        if grant is not None and grant.holder and not tx.named(net.id, grant.holder):
            return grant.holder
    return request.id[:12]


def _addresses(tx: Tx, net: Network, request: AttachRequest, held: frozenset[Address]) -> Iterator[Interface]:
    """One address of each IP version that the network has pools of, none that a machine of the LAN holds."""
    left = list(request.addresses)
    handed = request.placement is Placement.HANDOVER
    leased = leases.versions(net, request)
    for version in sorted({pool.subnet.version for pool in net.pools} | {*leased}):
        pools = [pool for pool in net.pools if pool.subnet.version == version]
        wanted = next((address for address in left if address.version == version), None)
        if wanted is not None:
            left.remove(wanted)
        if version in leased:
            wanted = leases.granted(net, request, version)
            if net.pool_of(wanted) is None:
                yield ip_interface(f"{wanted}/64")  # of a prefix that a router advertises
                continue
        if wanted is None and handed:
            continue  # Docker leaves IPv6 out where the container has it switched off
        if wanted is None and net.ipam is Ipam.DOCKER:
            raise Invalid(f"the addresses of network {net.name} are given by Docker: name a free one with --ip")
        yield _take(tx, net, pools, wanted, request.placement, held)
    if left:
        raise Invalid(f"network {net.name} has no IPv{left[0].version} subnet for {left[0]}: leave it out")


def _take(
    tx: Tx,
    net: Network,
    pools: Sequence[Pool],
    wanted: Address | None,
    placement: Placement,
    held: frozenset[Address],
) -> Interface:
    if wanted is not None:
        pool = net.pool_of(wanted)
        if pool is None:
            subnets = ", ".join(str(p.subnet) for p in pools)
            raise Invalid(f"address {wanted} is outside network {net.name} ({subnets}): choose one inside")
        if lent(pool, placement):
            return ip_interface(f"{wanted}/{pool.subnet.prefixlen}")
        pools = [pool]
    for pool in pools:
        try:
            address = ipam.take(pool, tx.ledger(net.id, pool), wanted, held)
        except Exhausted:
            if pool is pools[-1]:
                raise
        else:
            return ip_interface(f"{address}/{pool.subnet.prefixlen}")
    raise Exhausted(f"network {net.name} has no pool to take an address from")


def _default_route(net: Network, place: _Place, learnt: Learnt, warnings: list[str]) -> tuple[int, ...]:
    """The IP versions for which the sandbox has no way out yet and this network offers one."""
    if net.internal:
        return ()
    offered = {pool.subnet.version for pool in net.pools if pool.gateway is not None}
    offered |= {router.version for router in learnt.routers}
    offered |= {6} if learnt.advertised else set()  # its router comes and goes
    ours = {version for ep in place.others for version in ep.default_route}
    for obj in place.there:
        if isinstance(obj, Route):
            version = 6 if ":" in obj.dst else 4
            if version in offered - ours:
                warnings.append(f"the sandbox has a default route via {obj.via or obj.dev} already: it stays")
                offered.discard(version)
    return tuple(sorted(offered - ours))


def _port_warnings(tx: Tx, net: Network) -> Iterator[str]:
    count = tx.count(net.id) + 1
    if net.bridge and net.switch == "bridge" and count >= _WARN_FROM:
        yield f"bridge {net.bridge} has {count} of the {_BRIDGE_PORTS:,} ports that a Linux bridge can take"


def _obstacle_warnings(parts: Parts, net: Network) -> Iterator[str]:
    if net.driver != "flat" or net.bypass or net.switch != "bridge":
        return
    remedy = "" if net.bypass_asked else ": `berth reconcile` makes Berth pass its endpoints' frames on before that"
    for obstacle in parts.kernel.obstacles():
        yield f"frames through {net.bridge} pass this host's FORWARD chains, where the {obstacle} drops them{remedy}"


# --- unplugging -----------------------------------------------------------------------------------------


def detach(parts: Parts, network: str, sandbox: str, *, dry_run: bool) -> Outcome[tuple[Endpoint, ...]]:
    """Unplug a sandbox from a network. The cable is out of service when this returns; see `Kernel.sweep`."""
    with parts.changing():
        with parts.store.read() as tx:
            net = find(tx, network)
            endpoints = _matching(parts, tx, net, sandbox)
        ops = [op for ep in endpoints for op in _detach_one(parts, net, ep, dry_run=dry_run).ops]
        return Outcome(tuple(endpoints), Plan(tuple(ops)))


def release(parts: Parts, identity: str) -> Plan:
    """Unplug the endpoint of that id. One that is gone already is fine."""
    with parts.changing():
        known = parts.known(identity)
        return Plan() if known is None else _detach_one(parts, *known, dry_run=False)


def _matching(parts: Parts, tx: Tx, net: Network, text: str) -> list[Endpoint]:
    """A sandbox's endpoints on a network; also by endpoint name or id, and by path when the sandbox is gone."""
    try:
        found = list(tx.endpoints(network=net.id, sandbox=parts.kernel.sandbox(text)))
    except NotFound:
        found = []
    if not found:
        every = [ep for ep in tx.endpoints(network=net.id) if peers.here(parts, net, ep)]
        gone = (f"/run/netns/{text}", f"/proc/{text.removeprefix('pid:')}/ns/net", text)
        found = [ep for ep in every if text in (ep.name, ep.id)] or [ep for ep in every if ep.sandbox.path in gone]
    if not found:
        raise NotFound(f"{text} is not attached to network {net.name}: see `berth endpoint ls --network {net.name}`")
    return found


def _detach_one(parts: Parts, net: Network, ep: Endpoint, *, dry_run: bool) -> Plan:
    before = parts.want_endpoint(net, ep)
    after: State = frozenset()
    with parts.store.read() as tx:
        heir = _heir(tx, ep)
        heir_net = tx.network(heir.network) if heir is not None else None
    if heir is not None and heir_net is not None:
        before |= parts.want_endpoint(heir_net, heir)
        offered = _offers(heir_net, heir, ep.default_route)
        heir = replace(heir, default_route=tuple(sorted({*heir.default_route, *offered})))
        after = parts.want_endpoint(heir_net, heir)
    plan = diff(after, before)
    if dry_run:
        return plan
    intent = Intent(ep.id, "detach", before, after)
    with parts.store.write() as tx:
        forget(tx, ep.id)
        if heir is not None:
            tx.save_endpoint(heir)
        tx.open(intent)
    parts.retired = True
    parts.carry_out(intent, plan)
    return plan


def _heir(tx: Tx, ep: Endpoint) -> Endpoint | None:
    """The sandbox's next endpoint that can take over a default route."""
    if not ep.default_route:
        return None
    for other in tx.endpoints(sandbox=ep.sandbox):
        net = tx.network(other.network)
        if other.id == ep.id or net is None or not options.gateway(other):
            continue
        if _offers(net, other, ep.default_route):
            return other
    return None


def _offers(net: Network, ep: Endpoint, versions: tuple[int, ...]) -> set[int]:
    """Which of the IP versions an endpoint has a way out for by its network, or may have when a router advertises."""
    if net.internal:
        return set()
    found = {pool.subnet.version for pool in net.pools if pool.gateway is not None}
    return (found | ({6} if ep.learnt.advertised else set())) & {*versions}
