"""What Docker's engine sends, and what it means in Berth's words. Pure.

Docker sends null, nothing and an empty value for the same thing.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import msgspec

from berth import spec
from berth.errors import Invalid
from berth.model import Address, AttachRequest, Ipam, NetworkSpec, Placement, PoolRequest, PortRequest

#: The one address space of Berth's IPAM driver. One, so that Docker leaves it to Berth to look for overlaps: its own
#: check asks again for ever when the pool is the LAN's.
SPACE = "berth"
#: The same of its other IPAM driver, whose addresses the LAN's own DHCP server gives.
LEASED = "berth-dhcp"

GENERIC = "com.docker.network.generic"
GATEWAY = "com.docker.network.gateway"
NAME = "com.docker.network.endpoint.name"
MAC = "com.docker.network.endpoint.macaddress"
PORTS = "com.docker.network.portmap"
_OURS = "com.docker.network.container_iface_prefix"
_PROTOCOLS = {6: "tcp", 17: "udp", 132: "sctp"}
_ID = re.compile("[0-9A-Za-z]{12,128}")

Options = dict[str, Any] | None


class Message(msgspec.Struct, frozen=True, rename="pascal"):
    """A request, by Docker's field names; what Berth has no use for is left out."""


class Nothing(Message, frozen=True):
    """A call without a body, or without anything of interest in it."""


class IpamData(Message, frozen=True):
    """One subnet of a network."""

    pool: str = ""
    address_space: str = ""
    gateway: str | None = None
    aux_addresses: dict[str, str] | None = None


class CreateNetwork(Message, frozen=True):
    network_id: str = msgspec.field(name="NetworkID")
    options: Options = None
    ipv4_data: list[IpamData] | None = msgspec.field(name="IPv4Data", default=None)
    ipv6_data: list[IpamData] | None = msgspec.field(name="IPv6Data", default=None)


class OfNetwork(Message, frozen=True):
    network_id: str = msgspec.field(name="NetworkID")


class OfEndpoint(Message, frozen=True):
    network_id: str = msgspec.field(name="NetworkID")
    endpoint_id: str = msgspec.field(name="EndpointID")
    options: Options = None


class Join(OfEndpoint, frozen=True):
    sandbox_key: str = ""


class EndpointInterface(Message, frozen=True):
    address: str | None = None
    address_ipv6: str | None = msgspec.field(name="AddressIPv6", default=None)
    mac_address: str | None = None


class CreateEndpoint(OfEndpoint, frozen=True):
    interface: EndpointInterface | None = None


class GwAllocCheck(Message, frozen=True):
    options: Options = None


class RequestPool(Message, frozen=True):
    pool: str | None = None
    sub_pool: str | None = None
    options: dict[str, str] | None = None
    v6: bool = False


class ReleasePool(Message, frozen=True):
    pool_id: str = msgspec.field(name="PoolID")


class RequestAddress(Message, frozen=True):
    pool_id: str = msgspec.field(name="PoolID")
    address: str | None = None
    options: dict[str, str] | None = None


class PortBinding(Message, frozen=True):
    proto: int
    port: int
    host_ip: str | None = msgspec.field(name="HostIP", default=None)
    host_port: int = 0
    host_port_end: int = 0


def identity(text: str, what: str) -> str:
    """An id of Docker's: no path, no option, no name of anything else. Raises `Invalid`."""
    if _ID.fullmatch(text) is None:
        raise Invalid(f"{what} id {text[:80]!r} is no id: 12 to 128 letters and digits are")
    return text


def network_spec(asked: CreateNetwork) -> NetworkSpec:
    """The network that Docker asks for; it says the id, but not the name. Raises `Invalid`."""
    ident = identity(asked.network_id, "network")
    data = [*(asked.ipv4_data or ()), *(asked.ipv6_data or ())]
    if any(entry.pool in ("0.0.0.0/0", "::/0") for entry in data):
        raise Invalid("a network needs a subnet, which --ipam-driver null does not give: use --ipam-driver berth")
    options = generic(asked.options)
    spec_ = spec.network_spec(
        name=ident[:12],
        driver="flat" if "parent" in options and "mode" not in options else "bridge",
        subnets=[entry.pool for entry in data],
        gateways=[_bare(entry.gateway) for entry in data if entry.gateway],
        aux=_aux(data),
        ipv6=flag(asked.options, "com.docker.network.enable_ipv6"),
        internal=flag(asked.options, "com.docker.network.internal"),
        options=[f"{key}={value}" for key, value in options.items()],
    )
    spaces = {entry.address_space for entry in data}
    if LEASED in spaces:
        spec_ = replace(spec_, settings=(*spec_.settings, ("addresses", "dhcp")))
    return replace(spec_, id=ident, ipam=Ipam.POOL if spaces <= {SPACE, LEASED} else Ipam.DOCKER)


def attach_request(asked: CreateEndpoint) -> AttachRequest:
    """The endpoint that Docker asks for. Raises `Invalid`."""
    there = asked.interface or EndpointInterface()
    texts = [text for text in (there.address, there.address_ipv6) if text]
    said = {key: value for key, value in (asked.options or {}).items() if key == _OURS or not key.startswith("com.")}
    for key, value in said.items():
        if not isinstance(value, str):
            raise Invalid(f"endpoint option {key} is not a text: {value!r}")
    options = spec.endpoint_options(tuple(said.items()))
    mac = there.mac_address or dict(options).get("mac")
    return AttachRequest(
        network=identity(asked.network_id, "network"),
        sandbox="",
        addresses=tuple(spec.parse_address(_bare(text), "address") for text in texts),
        mac=spec.mac(mac) if mac else None,
        placement=Placement.HANDOVER,
        id=identity(asked.endpoint_id, "endpoint"),
        options=options,
    )


def pool_request(asked: RequestPool) -> PoolRequest:
    """The pool that Docker asks for. Raises `Invalid`."""
    options = asked.options or {}
    for key in options:
        if key not in ("parent", "bridge", "network"):
            raise Invalid(
                f"ipam option {key!r} is not known: parent=LINK is, for the LAN that a link carries, and network=NAME,"
                " for one that other hosts have made"
            )
    subnet = spec.parse_subnet(asked.pool, "subnet") if asked.pool else None
    return PoolRequest(
        subnet=subnet,
        ip_range=spec.parse_subnet(asked.sub_pool, "ip-range") if asked.sub_pool else None,
        version=subnet.version if subnet is not None else 6 if asked.v6 else 4,
        parent=options.get("parent") or options.get("bridge") or "",
        network=options.get("network", ""),
    )


def port_requests(options: Options) -> Sequence[PortRequest]:
    """The ports to publish. Raises `Invalid` and `msgspec.ValidationError`."""
    bindings = msgspec.convert((options or {}).get(PORTS) or [], list[PortBinding])
    return tuple(_port(binding) for binding in bindings)


def generic(options: Options) -> dict[str, str]:
    """What was said with `-o`. Raises `msgspec.ValidationError`."""
    return msgspec.convert((options or {}).get(GENERIC) or {}, dict[str, str])


def flag(options: Options, key: str) -> bool:
    """A yes or no of Docker's own. Raises `msgspec.ValidationError`."""
    return msgspec.convert((options or {}).get(key) or False, bool)


def wanted_address(asked: RequestAddress) -> Address | None:
    """The address that is asked for; None: any. Raises `Invalid`."""
    return spec.parse_address(_bare(asked.address), "address") if asked.address else None


def _port(binding: PortBinding) -> PortRequest:
    proto = _PROTOCOLS.get(binding.proto)
    if proto is None:
        raise Invalid(f"protocol {binding.proto} cannot be published: tcp, udp and sctp can")
    last = max(binding.host_port, binding.host_port_end)
    if not 1 <= binding.port <= 65535 or not 0 <= binding.host_port <= last <= 65535:
        raise Invalid(f"port mapping {binding.host_port}-{last}:{binding.port} is out of range: give 1 to 65535")
    host_ip = spec.parse_address(binding.host_ip, "host address") if binding.host_ip else None
    return PortRequest(host_ip, binding.host_port, last, binding.port, proto)


def _aux(data: Sequence[IpamData]) -> list[str]:
    pairs: dict[str, str] = {}
    for entry in data:
        for name, address in (entry.aux_addresses or {}).items():
            pairs[f"{name}6" if name in pairs else name] = _bare(address)
    return [f"{name}={address}" for name, address in pairs.items()]


def _bare(text: str) -> str:
    return text.partition("/")[0]
