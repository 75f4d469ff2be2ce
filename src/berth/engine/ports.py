"""Publishing ports: which host port it will be, and of an endpoint that is there already."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace

from berth.engine.parts import Parts
from berth.errors import Exhausted, Invalid, NotFound, Taken
from berth.model import Endpoint, Network, PortChange, PortMapping, PortRequest
from berth.plan import diff
from berth.seams import Intent, Outcome, Tx

_MANY = 32  # ports from which on it is quicker to list all that are listened on than to try each: 0.1 ms a port
_ANY = range(32768, 61000)  # the kernel's own range of local ports, which Docker takes random host ports from


def publish(parts: Parts, identity: str, wanted: Sequence[PortRequest]) -> Sequence[PortMapping]:
    """Publish these ports in place of those the endpoint has, or do nothing at all; what was chosen."""
    with parts.changing():
        known = parts.known(identity)
        if known is None:
            raise NotFound(f"no endpoint {identity[:12]}: it was detached, or Berth's records were lost")
        return _replace(parts, *known, (), wanted, dry_run=False).value.ports


def change(parts: Parts, asked: PortChange, *, dry_run: bool) -> Outcome[Endpoint]:
    """Publish and unpublish ports of an endpoint, all in one transaction or none; the endpoint as it is then."""
    with parts.changing():
        with parts.store.read() as tx:
            net, ep = _find(tx, asked.endpoint)
        there = {*ep.ports}
        for mapping in asked.unpublish:
            if mapping not in there:
                raise NotFound(f"{_shown(mapping)} is not published by endpoint {ep.name}: see `berth port ls`")
        stay = there - (there if asked.everything else {*asked.unpublish})
        kept = tuple(mapping for mapping in ep.ports if mapping in stay)
        new = [PortRequest.of(mapping) for mapping in asked.publish if mapping not in stay]
        return _replace(parts, net, ep, kept, new, dry_run=dry_run)


def _replace(
    parts: Parts,
    net: Network,
    ep: Endpoint,
    kept: tuple[PortMapping, ...],
    wanted: Sequence[PortRequest],
    *,
    dry_run: bool,
) -> Outcome[Endpoint]:
    """Give an endpoint these ports in place of those that it has."""
    if wanted and not net.nat:
        raise Invalid(f"network {net.name} is {net.driver}: the endpoint's own address has all its ports")
    with parts.store.read() as tx:  # nobody else writes: the lock is held
        after = replace(ep, ports=(*kept, *choose(parts, tx, wanted, ep.id, kept)))
    intent = Intent(ep.id, "publish", parts.want_endpoint(net, ep), parts.want_endpoint(net, after))
    plan = diff(intent.after, intent.before)
    if not dry_run and after != ep:
        with parts.store.write() as tx:
            tx.open(intent)
        parts.carry_out(intent, plan, lambda tx: tx.save_endpoint(after))  # not before: a failure goes back
    return Outcome(after, plan)


def _find(tx: Tx, text: str) -> tuple[Network, Endpoint]:
    """The endpoint of that name, id or beginning of an id. Raises `NotFound`; `Invalid` for several."""
    found = [ep for ep in tx.endpoints() if ep.name == text or (len(text) >= 12 and ep.id.startswith(text))]
    if not found:
        raise NotFound(f"no endpoint {text}: see `berth endpoint ls`")
    if len(found) > 1:
        ids = ", ".join(ep.id[:12] for ep in found)
        raise Invalid(f"several networks have an endpoint {text}: give the id of one ({ids})")
    net = tx.network(found[0].network)
    assert net is not None
    return net, found[0]


def _shown(mapping: PortMapping) -> str:
    where = "" if mapping.host_ip is None else f"{mapping.host_ip} "
    return f"{where}{mapping.host_port}:{mapping.port}/{mapping.proto}"


def choose(
    parts: Parts, tx: Tx, wanted: Sequence[PortRequest], own: str = "", kept: Sequence[PortMapping] = ()
) -> tuple[PortMapping, ...]:
    """A host port for each request, beside those that stay. `own`: the endpoint that asks, if it exists.

    Raises `Taken`, or `Exhausted` where there was a choice and none is free.
    """
    chosen: list[PortMapping] = []
    here: dict[tuple[str, int], list[PortMapping]] = {}
    for mapping in kept:
        here.setdefault((mapping.proto, mapping.host_port), []).append(mapping)
    protos = {request.proto for request in wanted} if len(wanted) >= _MANY else ()
    busy = {proto: parts.kernel.listening(proto) for proto in protos}
    onwards: dict[tuple[str, str], Iterator[int]] = {}  # where the search for any port has got to
    for request in wanted:
        ports: Iterator[int] = iter(range(request.first, request.last + 1))
        if not request.first:
            ports = onwards.setdefault((str(request.host_ip), request.proto), iter(_ANY))
        mapping = _first_free(parts, tx, request, ports, here, own, busy.get(request.proto))
        here.setdefault((mapping.proto, mapping.host_port), []).append(mapping)
        chosen.append(mapping)
    return tuple(chosen)


def _first_free(
    parts: Parts,
    tx: Tx,
    request: PortRequest,
    ports: Iterator[int],
    here: dict[tuple[str, int], list[PortMapping]],
    own: str,
    busy: frozenset[int] | None,
) -> PortMapping:
    for host_port in ports:
        mapping = PortMapping(request.host_ip, host_port, request.port, request.proto)
        twice = any(mapping.clashes(other) for other in here.get((mapping.proto, host_port), ()))
        if not twice and _free(parts, tx, mapping, own, busy):
            return mapping
        if request.first == request.last != 0:
            raise Taken(_why_taken(parts, tx, mapping, twice=twice))
    first, last = (request.first, request.last) if request.first else (_ANY[0], _ANY[-1])
    raise Exhausted(f"no host port of {first}-{last}/{request.proto} is free: choose others")


def _free(parts: Parts, tx: Tx, mapping: PortMapping, own: str, busy: frozenset[int] | None) -> bool:
    owner = tx.port_owner(mapping)
    if owner is not None:
        return owner == own
    return (busy is not None and mapping.host_port not in busy) or parts.kernel.listener(mapping) is None


def _why_taken(parts: Parts, tx: Tx, mapping: PortMapping, *, twice: bool) -> str:
    """Why a host port cannot be published, in a line."""
    port = f"host port {mapping.host_port}/{mapping.proto}"
    if twice:
        return f"{port} is published twice: leave one out"
    owner = tx.port_owner(mapping)
    if owner is None:
        who = parts.kernel.listener(mapping) or "a process that has just ended"
        return f"{port} is in use by {who}: choose another, or end that first"
    ep = tx.endpoint(owner)
    return f"{port} is published by endpoint {ep.name if ep is not None else owner[:12]} already: choose another"
