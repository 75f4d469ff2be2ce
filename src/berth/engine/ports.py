"""Publishing ports of an endpoint that is there already."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from berth.engine.parts import Parts
from berth.errors import Exhausted, Invalid, NotFound, Taken
from berth.model import Endpoint, PortMapping, PortRequest
from berth.plan import diff
from berth.seams import Intent, Tx

_ANY = range(32768, 61000)  # the kernel's own range of local ports, which Docker takes random host ports from


def publish(parts: Parts, identity: str, wanted: Sequence[PortRequest]) -> Sequence[PortMapping]:
    """Publish these ports in place of those the endpoint has, or do nothing at all; what was chosen."""
    with parts.changing():
        known = parts.known(identity)
        if known is None:
            raise NotFound(f"no endpoint {identity[:12]}: it was detached, or Berth's records were lost")
        net, ep = known
        if wanted and net.driver != "bridge":
            raise Invalid(f"network {net.name} is {net.driver}: the endpoint's own address has all its ports")
        with parts.store.write() as tx:
            after = replace(ep, ports=_choose(parts, tx, ep, wanted))
            intent = Intent(ep.id, "publish", parts.want_endpoint(net, ep), parts.want_endpoint(net, after))
            plan = diff(intent.after, intent.before)
            if not plan:
                return after.ports
            tx.open(intent)
        parts.carry_out(intent, plan, lambda tx: tx.save_endpoint(after))  # not before: a failure goes back
        return after.ports


def why_taken(parts: Parts, tx: Tx, mapping: PortMapping, own: str) -> str | None:
    """Why a host port cannot be published, in a line; None when it can. `own`: the endpoint that asks, if it exists."""
    port = f"host port {mapping.host_port}/{mapping.proto}"
    owner = tx.port_owner(mapping)
    if owner is not None:
        return None if owner.id == own else f"{port} is published by endpoint {owner.name} already: choose another"
    who = parts.kernel.listener(mapping)
    return None if who is None else f"{port} is in use by {who}: choose another, or end that first"


def _choose(parts: Parts, tx: Tx, ep: Endpoint, wanted: Sequence[PortRequest]) -> tuple[PortMapping, ...]:
    chosen: list[PortMapping] = []
    for request in wanted:
        candidates = range(request.first, request.last + 1) if request.first else _ANY
        why = ""
        for host_port in candidates:
            mapping = PortMapping(request.host_ip, host_port, request.port, request.proto)
            if any(mapping.clashes(other) for other in chosen):
                why = f"host port {host_port}/{request.proto} is published twice: leave one out"
            else:
                why = why_taken(parts, tx, mapping, ep.id) or ""
            if not why:
                chosen.append(mapping)
                break
        if why and len(candidates) > 1:
            raise Exhausted(f"no host port of {candidates[0]}-{candidates[-1]}/{request.proto} is free: choose others")
        if why:
            raise Taken(why)
    return tuple(chosen)
