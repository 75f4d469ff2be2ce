"""Putting the host and the store in order: after a crash, a reboot, or somebody's hands."""

from __future__ import annotations

from dataclasses import replace

from berth.engine.parts import Parts, forget
from berth.engine.reach import reach
from berth.errors import BerthError
from berth.model import Endpoint
from berth.seams import Outcome, Scope
from berth.state import Obj, Veth, keys


def reconcile(parts: Parts) -> Outcome[tuple[str, ...]]:
    """Finish or take back what was under way, forget what is gone, make what is missing, remove what is not wanted."""
    with parts.changing():
        _go_round_obstacles(parts)
        with parts.store.read() as tx:
            networks = {net.id: net for net in tx.networks()}
            endpoints = tx.endpoints()
        gone = [ep for ep in endpoints if not _alive(parts, ep)]
        with parts.store.write() as tx:
            for ep in gone:
                forget(tx, ep.id)
        want: set[Obj] = set()
        for net in networks.values():
            want |= parts.want_network(net)
        for ep in endpoints:
            if ep not in gone:
                want |= parts.want_endpoint(networks[ep.network], ep)
        namespaces = frozenset(obj.ns for obj in want if isinstance(obj, Veth))
        plan = reach(parts.kernel, frozenset(want), Scope(keys(want), marked=True, namespaces=namespaces))
        parts.kernel.sweep()
    return Outcome(tuple(f"endpoint {ep.name}: its sandbox {ep.sandbox.path} is gone" for ep in gone), plan)


def _go_round_obstacles(parts: Parts) -> None:
    """Give flat networks the bypass that they need now and did not need when they were made."""
    with parts.store.read() as tx:
        without = [n for n in tx.networks() if n.driver == "flat" and not n.bypass and not n.bypass_asked]
    if without and parts.kernel.obstacles():
        with parts.store.write(durable=True) as tx:
            for net in without:
                tx.save_network(replace(net, bypass=True))


def _alive(parts: Parts, ep: Endpoint) -> bool:
    """Whether the endpoint's sandbox is still there, and still the same one."""
    try:
        return parts.kernel.sandbox(ep.sandbox.path).identity == ep.sandbox.identity
    except BerthError:
        return False
