"""The engine that tells what it does: for who follows events, for the log and for metrics."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import TypeVar

import msgspec

from berth.engine.engine import Engine
from berth.engine.parts import Parts
from berth.errors import BerthError
from berth.events import Event, Operation, Tell
from berth.model import (
    AttachRequest,
    Endpoint,
    Lease,
    Network,
    NetworkSpec,
    PortChange,
    PortMapping,
    PortRequest,
)
from berth.plan import Plan
from berth.seams import Outcome

T = TypeVar("T")


class Told(Engine):
    """The verbs as `Engine` has them. What changes nothing (a dry run, a look that finds all well) is no event."""

    def __init__(self, parts: Parts, tell: Tell) -> None:
        super().__init__(parts)
        self._tell = tell

    def create_network(self, spec: NetworkSpec, *, dry_run: bool = False) -> Outcome[Network]:
        """Make a network."""
        if dry_run:
            return super().create_network(spec, dry_run=True)
        create = super().create_network
        return self._told("create", lambda: create(spec), lambda done: [self._network("create", done.value)])

    def remove_network(self, name: str, *, dry_run: bool = False) -> Outcome[Network]:
        """Remove a network without endpoints."""
        if dry_run:
            return super().remove_network(name, dry_run=True)
        remove = super().remove_network
        return self._told("remove", lambda: remove(name), lambda done: [self._network("remove", done.value)])

    def attach(self, request: AttachRequest, *, dry_run: bool = False) -> Outcome[Endpoint]:
        """Plug a sandbox into a network."""
        if dry_run:
            return super().attach(request, dry_run=True)
        attach = super().attach
        return self._told(
            "attach", lambda: attach(request), lambda done: [self._endpoint("attach", done.value, done.warnings)]
        )

    def detach(self, network: str, sandbox: str, *, dry_run: bool = False) -> Outcome[tuple[Endpoint, ...]]:
        """Unplug a sandbox from a network."""
        if dry_run:
            return super().detach(network, sandbox, dry_run=True)
        detach = super().detach
        return self._told(
            "detach",
            lambda: detach(network, sandbox),
            lambda done: [self._endpoint("detach", ep) for ep in done.value],
        )

    def release(self, identity: str) -> Plan:
        """Unplug the endpoint of that id."""
        release, gone = super().release, self.endpoint(identity)
        return self._told(
            "detach", lambda: release(identity), lambda _: [] if gone is None else [self._endpoint("detach", gone)]
        )

    def rename(self, network: str, name: str, endpoints: Mapping[str, str]) -> bool:
        """Call a network and endpoints of it by other names."""
        rename, before = super().rename, self._names(network)

        def changes(_: bool) -> list[Event]:
            after = self._names(network)
            return [event for key, event in after.items() if key in before and before[key].name != event.name]

        return self._told("rename", lambda: rename(network, name, endpoints), changes)

    def publish(self, identity: str, wanted: Sequence[PortRequest]) -> Sequence[PortMapping]:
        """Publish ports of an endpoint in place of those it has."""
        publish = super().publish
        return self._told("publish", lambda: publish(identity, wanted), lambda _: self._published(identity))

    def change_ports(self, asked: PortChange, *, dry_run: bool = False) -> Outcome[Endpoint]:
        """Publish and unpublish ports of an endpoint."""
        if dry_run:
            return super().change_ports(asked, dry_run=True)
        change = super().change_ports
        return self._told("publish", lambda: change(asked), lambda done: [self._endpoint("publish", done.value)])

    def renew(self, lease: Lease) -> str:
        """Record a lease that was renewed and carry its changes to the sandbox."""
        renew = super().renew
        return self._told("renew", lambda: renew(lease), lambda said: self._leased("readdress", lease, said))

    def lose(self, lease: Lease, why: str) -> str:
        """Record that a lease has ended, and take its address out of use."""
        lose = super().lose
        return self._told("lose", lambda: lose(lease, why), lambda said: self._leased("lose", lease, said))

    def reconcile(self) -> Outcome[tuple[str, ...]]:
        """Put host and store in order."""
        return self._told("reconcile", super().reconcile, lambda done: self._mended("reconcile", done.plan, done.value))

    def refresh(self) -> Plan:
        """Make what is missing of the networks themselves."""
        return self._told("refresh", super().refresh, lambda plan: self._mended("refresh", plan))

    def heal(self) -> Plan:
        """Make what is missing of the firewall."""
        return self._told("heal", super().heal, lambda plan: self._mended("heal", plan))

    def _told(self, verb: str, work: Callable[[], T], events: Callable[[T], Iterable[Event]]) -> T:
        start = time.perf_counter()
        try:
            done = work()
        except BerthError as error:
            self._tell(Operation(verb, time.perf_counter() - start, str(error)))
            raise
        seconds = time.perf_counter() - start
        self._tell(Operation(verb, seconds, "", tuple(events(done))))
        return done

    def _network(self, action: str, net: Network) -> Event:
        subnets = ",".join(str(pool.subnet) for pool in net.pools)
        said = {"driver": net.driver, "bridge": net.bridge, "subnets": subnets}
        return Event(self._parts.now(), "network", action, net.id, net.name, said)

    def _endpoint(self, action: str, ep: Endpoint, warnings: Sequence[str] = ()) -> Event:
        said = {"network": ep.network, "addresses": ",".join(map(str, ep.addresses)), "mac": ep.mac}
        if ep.ports:
            said["ports"] = ",".join(f"{m.host_port}:{m.port}/{m.proto}" for m in ep.ports)
        if warnings:
            said["warnings"] = "; ".join(warnings)
        return Event(self._parts.now(), "endpoint", action, ep.id, ep.name, said)

    def _leased(self, action: str, lease: Lease, said: str) -> list[Event]:
        """What there is to tell of a lease; "": nothing."""
        with self._parts.store.read() as tx:
            record = tx.lease(lease.request.key)
        ep = self.endpoint(record.endpoint) if record is not None and record.endpoint else None
        if not said or ep is None:
            return []
        event = self._endpoint(action, ep)
        return [msgspec.structs.replace(event, attributes={**event.attributes, "message": said})]

    def _published(self, identity: str) -> list[Event]:
        ep = self.endpoint(identity)
        return [] if ep is None else [self._endpoint("publish", ep)]

    def _mended(self, action: str, plan: Plan, forgotten: Sequence[str] = ()) -> list[Event]:
        if not plan.ops and not forgotten:
            return []
        said = {"operations": str(len(plan.ops)), "forgotten": "; ".join(forgotten)}
        return [Event(self._parts.now(), "host", action, "", "", {key: value for key, value in said.items() if value})]

    def _names(self, network: str) -> dict[str, Event]:
        with self._parts.store.read() as tx:
            net = tx.network(network)
            if net is None:
                return {}
            endpoints = tx.endpoints(network=net.id)
        return {net.id: self._network("rename", net), **{ep.id: self._endpoint("rename", ep) for ep in endpoints}}
