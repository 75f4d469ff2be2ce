"""Putting the host and the store in order: after a crash, a reboot, or somebody's hands."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace

from berth.doctor.facts import Records
from berth.engine import overlays, peers
from berth.engine.parts import Parts, forget
from berth.engine.reach import reach
from berth.errors import BerthError, Refused, Taken
from berth.flows import NftFlows
from berth.model import Endpoint, LeaseRecord, Network, Placement
from berth.plan import Plan, diff, subject
from berth.rates import NftRate
from berth.seams import Outcome, Scope
from berth.state import HOST, NftElement, NftGuard, NftHook, NftPass, NftTable, Obj, State, Veth, Zoned, keys


def reconcile(parts: Parts) -> Outcome[tuple[str, ...]]:
    """Finish or take back what was under way, forget what is gone, make what is missing, remove what is not wanted."""
    with parts.changing():
        _go_round_obstacles(parts)
        gone, want, scope = _due(parts, _recorded(parts))
        with parts.store.write() as tx:
            for ep in gone:
                forget(tx, ep.id)
        plan = reach(parts.kernel, want, scope)
        parts.kernel.sweep()
    return Outcome(tuple(f"endpoint {ep.name}: {_why(ep)} is gone" for ep in gone), plan)


@dataclass(frozen=True, slots=True)
class _Recorded:
    """The records of one moment."""

    networks: tuple[Network, ...]
    endpoints: tuple[Endpoint, ...]
    others: frozenset[Obj]  # what should exist for endpoints on other hosts
    leases: tuple[LeaseRecord, ...]
    interrupted: int


def _recorded(parts: Parts) -> _Recorded:
    with parts.store.read() as tx:
        networks = tuple(tx.networks())
        others = frozenset(peers.all_of(parts, tx, networks))
        return _Recorded(networks, tuple(tx.endpoints()), others, tuple(tx.leases()), len(tx.intents()))


def on_record(parts: Parts) -> Records:
    """What is on record, and nothing of what is."""
    found = _recorded(parts)
    return Records(found.networks, found.endpoints, leases=found.leases, spanned=overlays.examine(parts))


def examine(parts: Parts) -> Records:
    """What is on record, and what `reconcile` would do to host and records. Changes nothing.

    Others may work meanwhile: the lock is held only to look once more at what seems wrong, which may have been a verb
    half done.
    """
    found = _recorded(parts)
    gone, want, scope = _due(parts, found)
    try:
        plan = diff(want, parts.kernel.read(scope))
    except (Taken, OSError):  # somebody else's is in the way, or links came and went all the time
        return _examine_held(parts, None)
    if plan or gone or found.interrupted:
        return _examine_held(parts, plan)
    return Records(found.networks, found.endpoints, leases=found.leases, spanned=overlays.examine(parts))


def _examine_held(parts: Parts, suspected: Plan | None) -> Records:
    """The same while nobody else works; of the kernel's state only what a plan is about. None: all of it."""
    with parts.lock.held():
        found = _recorded(parts)
        gone, want, scope = _due(parts, found)
        if suspected is not None:
            about = keys(map(subject, suspected.ops))
            want = frozenset(obj for obj in want if obj.key in about)
            seen = (*want, *map(subject, suspected.ops))
            scope = Scope(about, namespaces=frozenset(obj.ns for obj in seen if isinstance(obj, Veth)))
        plan, refusal = Plan(), ""
        try:
            plan = diff(want, parts.kernel.read(scope)) if scope.keys else Plan()
        except Taken as error:
            refusal = str(error)
    records = Records(found.networks, found.endpoints, tuple(gone), plan, refusal, found.interrupted, found.leases)
    return replace(records, spanned=overlays.examine(parts))


def _due(parts: Parts, found: _Recorded) -> tuple[list[Endpoint], State, Scope]:
    """The endpoints whose sandbox is gone, what should exist for all others, and where to look for it."""
    networks = {net.id: net for net in found.networks}
    endpoints = [ep for ep in found.endpoints if peers.here(parts, networks[ep.network], ep)]
    if not parts.store.host and any(net.scope == "global" for net in found.networks):
        raise Refused(
            "this host shares its store with others, and what it has there would look like nobody's: name the store"
            " as its daemon does, by --store etcd://… or $BERTH_STORE"
        )
    if not parts.kernel.enters():
        endpoints = [_from_outside(ep) for ep in endpoints]
    cables = _cables(parts, endpoints)
    gone = [ep for ep in endpoints if not _alive(parts, ep, cables)]
    lost = {ep.id for ep in gone}
    want: set[Obj] = {*found.others}
    for net in networks.values():
        want |= parts.want_network(net)
    for ep in endpoints:
        if ep.id not in lost:
            want |= parts.want_endpoint(networks[ep.network], ep)
    namespaces = frozenset(obj.ns for obj in want if isinstance(obj, Veth))
    return gone, frozenset(want), Scope(keys(want), marked=True, namespaces=namespaces)


def _from_outside(ep: Endpoint) -> Endpoint:
    """An endpoint as it is without its sandbox, which cannot be seen from here: what is inside is left alone."""
    return replace(ep, placement=Placement.HANDOVER)


def _why(ep: Endpoint) -> str:
    return f"its sandbox {ep.sandbox.path}" if ep.sandbox.path else "the container that Docker had for it"


def refresh(parts: Parts) -> Plan:
    """Make what is missing of the networks themselves, as when Docker has come and set up its chains."""
    with parts.changing():
        _go_round_obstacles(parts)
        with parts.store.read() as tx:
            networks = tx.networks()
        want: frozenset[Obj] = frozenset().union(*(parts.want_network(net) for net in networks))
        return reach(parts.kernel, want, Scope(keys(want)))


def heal(parts: Parts) -> Plan:
    """Make what is missing of the firewall, after somebody has flushed it: in one transaction; what was done.

    Of the kernel's state only the firewall is read, and whether the links are there that it names.
    """
    with parts.changing():
        with parts.store.read() as tx:
            networks = {net.id: net for net in tx.networks()}
            endpoints = [ep for ep in tx.endpoints() if peers.here(parts, networks[ep.network], ep)]
        states = [parts.want_network(net) for net in networks.values()]
        states += [parts.want_endpoint(networks[ep.network], ep) for ep in endpoints if _filtered(networks, ep)]
        want = {obj for state in states for obj in state if isinstance(obj, _FIREWALL)}
        named = {("link", HOST, link) for obj in want if (link := _link(obj))}
        there = keys(parts.kernel.read(Scope(frozenset(named)))) if named else frozenset()
        want = {obj for obj in want if not (link := _link(obj)) or ("link", HOST, link) in there}
        return reach(parts.kernel, frozenset(want), Scope(keys(want)))


_FIREWALL = (NftTable, NftElement, NftHook, NftPass, NftRate, NftGuard, NftFlows, Zoned)


def _filtered(networks: Mapping[str, Network], ep: Endpoint) -> bool:
    """Whether an endpoint has a part of its own in the firewall."""
    net = networks[ep.network]
    return bool(ep.ports or ep.options or net.rates or net.allow) or net.driver == "flat"


def _link(obj: Obj) -> str:
    """The link that has to be there for an element or a hook; "" for none."""
    if isinstance(obj, NftHook | NftRate | NftGuard):
        return obj.dev
    if isinstance(obj, NftFlows):
        return obj.bridge
    if not isinstance(obj, NftElement):
        return ""
    named = obj.match if obj.family == NftHook.family else ()
    return next((value for kind, value in (*obj.data, *named) if kind in ("ifindex", "ifname")), "")


def _go_round_obstacles(parts: Parts) -> None:
    """Give flat networks the bypass that they need now and did not need when they were made."""
    with parts.store.read() as tx:
        flat = [net for net in tx.networks() if net.driver == "flat" and net.switch == "bridge"]
        without = [net for net in flat if not net.bypass and not net.bypass_asked]
    if without and parts.kernel.obstacles():
        with parts.store.write(durable=True) as tx:
            for net in without:
                tx.save_network(replace(net, bypass=True))


def abandoned(parts: Parts) -> frozenset[str]:
    """The handed-over endpoints, by id, whose cable is gone, or whose inner end nobody has come for."""
    with parts.store.read() as tx:
        endpoints = [
            ep for ep in tx.endpoints() if ep.placement is Placement.HANDOVER and ep.host in ("", parts.store.host)
        ]
    cables = _cables(parts, endpoints)
    return frozenset(ep.id for ep in endpoints if ep.link not in cables or cables[ep.link].ns == HOST)


def _cables(parts: Parts, endpoints: Iterable[Endpoint]) -> dict[str, Veth]:
    """The cables of handed-over endpoints that are there: one goes with the sandbox that holds its inner end."""
    wanted = frozenset(("link", HOST, ep.link) for ep in endpoints if ep.placement is Placement.HANDOVER)
    return {obj.name: obj for obj in parts.kernel.read(Scope(wanted)) if isinstance(obj, Veth)} if wanted else {}


def _alive(parts: Parts, ep: Endpoint, cables: Mapping[str, Veth]) -> bool:
    """Whether the endpoint's sandbox is still there, and still the same one."""
    if ep.placement is Placement.HANDOVER:
        return ep.link in cables
    try:
        return parts.kernel.sandbox(ep.sandbox.path).identity == ep.sandbox.identity
    except BerthError:
        return False
