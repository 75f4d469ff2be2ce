"""What the daemon's own API carries: the verbs' requests as texts, and their outcomes.

Requests hold what a person types, so that `spec` stays the only parser; results are in the written form of `schema`.
"""

from __future__ import annotations

from typing import Any

import msgspec

from berth import spec
from berth.errors import CODES, BerthError, Refused
from berth.model import AttachRequest, NetworkSpec, PortChange, PortMapping
from berth.plan import Plan
from berth.seams import Outcome


class NetworkCreate(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """POST /v1/networks: the flags of `berth network create`."""

    name: str
    driver: str = "bridge"
    subnets: list[str] = []
    ip_ranges: list[str] = []
    gateways: list[str] = []
    aux: list[str] = []
    ipv6: bool = False
    internal: bool = False
    labels: list[str] = []
    options: list[str] = []
    dry_run: bool = False


class Attach(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """POST /v1/endpoints: the flags of `berth attach`."""

    network: str
    sandbox: str
    name: str | None = None
    ips: list[str] = []
    mac: str | None = None
    ifname: str | None = None
    ports: list[str] = []
    options: list[str] = []
    aliases: list[str] = []
    dry_run: bool = False


class Ports(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """POST /v1/ports: what `berth port publish` and `berth port unpublish` take."""

    endpoint: str
    publish: list[str] = []
    unpublish: list[str] = []
    everything: bool = False
    dry_run: bool = False


class NodeChange(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """POST /v1/nodes/{name}: what `berth node drain` and `berth node undrain` say."""

    drained: bool


class Web(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """POST /v1/web: what `berth web` takes. `port`: 0 for any, or the one that is open already."""

    write: bool = False
    port: int = 0


class Reply(msgspec.Struct, frozen=True):
    """The outcome of a verb that changes something."""

    value: msgspec.Raw
    plan: Plan = Plan()
    warnings: tuple[str, ...] = ()


class Failure(msgspec.Struct, frozen=True):
    """Why a verb did nothing. `message` is Docker's word, `kind` one of `errors.CODES`."""

    message: str
    kind: str = Refused.__name__


def network_create(asked: NetworkSpec, *, dry_run: bool) -> NetworkCreate:
    """A parsed request as texts again."""
    return NetworkCreate(
        name=asked.name,
        driver=asked.driver,
        subnets=[str(subnet) for subnet in asked.subnets],
        ip_ranges=[str(ip_range) for ip_range in asked.ip_ranges],
        gateways=[str(gateway) for gateway in asked.gateways],
        aux=[f"{name}={address}" for name, address in asked.aux],
        ipv6=asked.ipv6,
        internal=asked.internal,
        labels=[f"{key}={value}" for key, value in asked.labels],
        options=[f"{key}={value}" for key, value in asked.options],
        dry_run=dry_run,
    )


def network_spec(asked: NetworkCreate) -> NetworkSpec:
    """The reverse of `network_create`. Raises `Invalid`."""
    texts = msgspec.structs.asdict(asked)
    del texts["dry_run"]
    return spec.network_spec(**texts)


def attach(asked: AttachRequest, *, dry_run: bool) -> Attach:
    """A parsed request as texts again."""
    return Attach(
        network=asked.network,
        sandbox=asked.sandbox,
        name=asked.name,
        ips=[str(address) for address in asked.addresses],
        mac=asked.mac,
        ifname=asked.ifname,
        ports=[_port(mapping) for mapping in asked.ports],
        options=[f"{key}={value}" for key, value in asked.options],
        aliases=list(asked.aliases),
        dry_run=dry_run,
    )


def attach_request(asked: Attach) -> AttachRequest:
    """The reverse of `attach`. Raises `Invalid`."""
    texts = msgspec.structs.asdict(asked)
    del texts["dry_run"]
    return spec.attach_request(**texts)


def ports(asked: PortChange, *, dry_run: bool) -> Ports:
    """A parsed request as texts again."""
    return Ports(
        endpoint=asked.endpoint,
        publish=[_port(mapping) for mapping in asked.publish],
        unpublish=[_port(mapping) for mapping in asked.unpublish],
        everything=asked.everything,
        dry_run=dry_run,
    )


def port_change(asked: Ports) -> PortChange:
    """The reverse of `ports`. Raises `Invalid`."""
    texts = msgspec.structs.asdict(asked)
    del texts["dry_run"]
    return spec.port_change(**texts)


def reply(outcome: Outcome[Any], value: bytes) -> bytes:
    """An outcome whose value is written already."""
    return msgspec.json.encode(Reply(msgspec.Raw(value), outcome.plan, outcome.warnings))


def failure(error: BerthError) -> bytes:
    """An error."""
    return msgspec.json.encode(Failure(str(error), type(error).__name__))


def error(said: Failure) -> BerthError:
    """The reverse of `failure`."""
    kinds = {kind.__name__: kind for kind in CODES}
    return kinds.get(said.kind, Refused)(said.message)


def _port(mapping: PortMapping) -> str:
    host = f"{mapping.host_port or ''}:{mapping.port}/{mapping.proto}"
    if mapping.host_ip is None:
        return host.removeprefix(":")
    return f"[{mapping.host_ip}]:{host}" if mapping.host_ip.version == 6 else f"{mapping.host_ip}:{host}"
