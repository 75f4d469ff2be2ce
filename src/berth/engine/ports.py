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
        with parts.store.read() as tx:
            ep = tx.endpoint(identity)
            net = tx.network(ep.network) if ep is not None else None
        if ep is None or net is None:
            raise NotFound(f"no endpoint {identity[:12]}: it was detached, or Berth's records were lost")
        if wanted and net.driver != "bridge":
            raise Invalid(f"network {net.name} is {net.driver}: the endpoint's own address has all its ports")
        with parts.store.write() as tx:
            after = replace(ep, ports=_choose(tx, ep, wanted))
            intent = Intent(ep.id, "publish", parts.want_endpoint(net, ep), parts.want_endpoint(net, after))
            plan = diff(intent.after, intent.before)
            if not plan:
                return after.ports
            tx.open(intent)
        parts.carry_out(intent, plan, lambda tx: tx.save_endpoint(after))  # not before: a failure goes back
        return after.ports


def _choose(tx: Tx, ep: Endpoint, wanted: Sequence[PortRequest]) -> tuple[PortMapping, ...]:
    chosen: list[PortMapping] = []
    for request in wanted:
        candidates = range(request.first, request.last + 1) if request.first else _ANY
        for host_port in candidates:
            mapping = PortMapping(request.host_ip, host_port, request.port, request.proto)
            owner = tx.port_owner(mapping)
            if (owner is None or owner.id == ep.id) and not any(mapping.clashes(other) for other in chosen):
                chosen.append(mapping)
                break
        else:
            _refuse(tx, request, candidates)
    return tuple(chosen)


def _refuse(tx: Tx, request: PortRequest, candidates: range) -> None:
    if len(candidates) > 1:
        raise Exhausted(f"no host port of {candidates[0]}-{candidates[-1]}/{request.proto} is free: choose others")
    owner = tx.port_owner(PortMapping(request.host_ip, request.first, request.port, request.proto))
    whose = f"endpoint {owner.name}" if owner is not None else "the same request, twice"
    raise Taken(f"host port {request.first}/{request.proto} is published by {whose} already: choose another")
