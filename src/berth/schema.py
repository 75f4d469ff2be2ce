"""One written form of the model: for the store, the API and `--json`.

msgspec does the JSON; what it cannot know (addresses, in their many types) is turned to text here.
"""

from __future__ import annotations

from base64 import b64decode
from collections.abc import Iterable
from functools import lru_cache
from ipaddress import ip_address, ip_interface, ip_network
from typing import Any

import msgspec

from berth.model import (
    Conflict,
    Endpoint,
    HostRecord,
    Ipam,
    Learnt,
    Lease,
    LeaseRecord,
    LeaseRequest,
    Network,
    Node,
    Placement,
    Pool,
    PortMapping,
    Sandbox,
    Served,
    StaticRoute,
)

Json = dict[str, Any]

_encode = msgspec.json.Encoder(enc_hook=str).encode  # addresses and subnets become their text
_decode = msgspec.json.Decoder().decode


def dump(thing: Network | Endpoint | HostRecord | Node) -> bytes:
    """A network, endpoint, host or node as JSON."""
    return _encode(thing)


@lru_cache(maxsize=1024)
def load_network(data: bytes) -> Network:
    """The reverse of `dump`; the same bytes give the same (immutable) network."""
    raw: Json = _decode(data)
    raw["pools"] = tuple(_pool(pool) for pool in raw["pools"])
    for field in ("labels", "options"):
        raw[field] = tuple((key, value) for key, value in raw[field])
    for field in ("nics", "ra_links"):
        raw[field] = tuple(raw[field])
    for field in ("allow_from", "services", "offload"):
        raw[field] = tuple(raw.get(field, ()))
    raw["routes"] = _routes(raw.get("routes", ()))
    raw["rates"] = tuple((key, value) for key, value in raw.get("rates", ()))
    raw["naming"] = tuple((key, value) for key, value in raw.get("naming", ()))
    raw["ipam"] = Ipam(raw.get("ipam", Ipam.NETWORK))
    raw["served"] = _served(raw.get("served"))
    return Network(**raw)


def _served(raw: list[Json] | None) -> tuple[Served, ...] | None:
    if raw is None:
        return None
    return tuple(
        Served(
            ip_address(each["server"]),
            ip_address(each["first"]),
            ip_address(each["last"]),
            None if each["subnet"] is None else ip_network(each["subnet"]),
            None if each["router"] is None else ip_address(each["router"]),
        )
        for each in raw
    )


def dump_pool(pool: Pool) -> bytes:
    """A pool as JSON."""
    return _encode(pool)


def load_pool(data: bytes) -> Pool:
    """The reverse of `dump_pool`."""
    return _pool(_decode(data))


def _pool(raw: Json) -> Pool:
    return Pool(
        subnet=ip_network(raw["subnet"]),
        ip_range=None if raw["ip_range"] is None else ip_network(raw["ip_range"]),
        gateway=None if raw["gateway"] is None else ip_address(raw["gateway"]),
        aux=tuple((name, ip_address(address)) for name, address in raw["aux"]),
        reserved=tuple(ip_address(address) for address in raw["reserved"]),
        owner=raw.get("owner", ""),
    )


@lru_cache(maxsize=4096)
def load_endpoint(data: bytes) -> Endpoint:
    """The reverse of `dump`; the same bytes give the same (immutable) endpoint."""
    raw: Json = _decode(data)
    raw["sandbox"] = Sandbox(**raw["sandbox"])
    raw["addresses"] = tuple(ip_interface(address) for address in raw["addresses"])
    raw["default_route"] = tuple(raw["default_route"])
    raw["ports"] = tuple(_port(port) for port in raw["ports"])
    raw["placement"] = Placement(raw["placement"])
    raw["options"] = tuple((key, value) for key, value in raw.get("options", ()))
    raw["conflicts"] = tuple(
        Conflict(ip_address(each["address"]), each["mac"], each["vendor"], each["seen"])
        for each in raw.get("conflicts", ())
    )
    raw["learnt"] = _learnt(raw["learnt"]) if "learnt" in raw else Learnt()
    raw["aliases"] = tuple(raw.get("aliases", ()))
    return Endpoint(**raw)


def _learnt(raw: Json) -> Learnt:
    routers = tuple(ip_address(router) for router in raw["routers"])
    dns = tuple(ip_address(server) for server in raw.get("dns", ()))
    advertised, mtu6 = raw.get("advertised", False), raw.get("mtu6", 0)
    return Learnt(tuple(raw["versions"]), routers, _routes(raw["routes"]), raw["mtu"], dns, advertised, mtu6)


def _routes(raw: Iterable[Json]) -> tuple[StaticRoute, ...]:
    return tuple(StaticRoute(ip_network(route["subnet"]), ip_address(route["via"])) for route in raw)


def dump_lease(record: LeaseRecord) -> bytes:
    """A lease as JSON."""
    return _encode(record)


@lru_cache(maxsize=4096)
def load_lease(data: bytes) -> LeaseRecord:
    """The reverse of `dump_lease`; the same bytes give the same (immutable) record."""
    raw: Json = _decode(data)
    lease: Json = raw["lease"]
    asked: Json = lease["request"]
    asked["client_id"] = b64decode(asked["client_id"])
    asked["wanted"] = None if asked["wanted"] is None else ip_address(asked["wanted"])
    asked["subnets"] = tuple(ip_network(subnet) for subnet in asked.get("subnets", ()))
    lease["request"] = LeaseRequest(**asked)
    lease["server"] = b64decode(lease["server"])
    lease["address"] = ip_interface(lease["address"])
    lease["router"] = None if lease["router"] is None else ip_address(lease["router"])
    for field in ("dns", "ntp"):
        lease[field] = tuple(ip_address(address) for address in lease[field])
    lease["search"] = tuple(lease["search"])
    lease["routes"] = _routes(lease["routes"])
    raw["lease"] = Lease(**lease)
    return LeaseRecord(**raw)


def load_host(data: bytes) -> HostRecord:
    """The reverse of `dump`."""
    return _host(_decode(data))


def load_node(data: bytes) -> Node:
    """The reverse of `dump`."""
    raw: Json = _decode(data)
    raw["host"] = _host(raw["host"])
    return Node(**raw)


def _host(raw: Json) -> HostRecord:
    raw["underlay"] = tuple(ip_address(address) for address in raw["underlay"])
    return HostRecord(**raw)


def _port(raw: Json) -> PortMapping:
    host_ip = None if raw["host_ip"] is None else ip_address(raw["host_ip"])
    return PortMapping(host_ip, raw["host_port"], raw["port"], raw["proto"])


def docker_network(net: Network, endpoints: list[Endpoint]) -> Json:
    """A network in the shape of Docker's API (GET /networks/{id})."""
    return {
        "Name": net.name,
        "Id": net.id,
        "Created": net.created,
        "Scope": net.scope,
        "Driver": net.driver,
        "EnableIPv4": any(pool.subnet.version == 4 for pool in net.pools),
        "EnableIPv6": net.ipv6,
        "IPAM": {"Driver": "default", "Options": {}, "Config": [_docker_pool(pool) for pool in net.pools]},
        "Internal": net.internal,
        "Attachable": False,
        "Ingress": False,
        "ConfigFrom": {"Network": ""},
        "ConfigOnly": False,
        "Containers": {ep.id: _docker_endpoint(ep) for ep in endpoints},
        "Options": dict(net.options),
        "Labels": dict(net.labels),
    }


def _docker_pool(pool: Pool) -> Json:
    config: Json = {"Subnet": str(pool.subnet)}
    if pool.ip_range is not None:
        config["IPRange"] = str(pool.ip_range)
    if pool.gateway is not None:
        config["Gateway"] = str(pool.gateway)
    if pool.aux:
        config["AuxiliaryAddresses"] = {name: str(address) for name, address in pool.aux}
    return config


def _docker_endpoint(ep: Endpoint) -> Json:
    by_version = {address.version: str(address) for address in ep.addresses}
    return {
        "Name": ep.name,
        "EndpointID": ep.id,
        "MacAddress": ep.mac,
        "IPv4Address": by_version.get(4, ""),
        "IPv6Address": by_version.get(6, ""),
    }


def endpoint_json(ep: Endpoint, network_name: str) -> Json:
    """An endpoint for `--json`: as stored, with its network's name."""
    raw: Json = _decode(dump(ep))
    raw["network_name"] = network_name
    return raw
