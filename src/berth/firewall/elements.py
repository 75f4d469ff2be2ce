"""What a network and an endpoint put into the firewall's sets and maps."""

from __future__ import annotations

from ipaddress import IPv4Network, IPv6Network

from berth.firewall.tables import FAMILY, TABLE
from berth.model import Endpoint, Network, PortMapping
from berth.state import NftElement, Part

_ULA = IPv6Network("fc00::/7")


def _element(name: str, match: tuple[Part, ...], data: tuple[Part, ...] = ()) -> NftElement:
    return NftElement(FAMILY, TABLE, name, match, data)


def for_network(net: Network) -> frozenset[NftElement]:
    """Isolation for every network; masquerading for IPv4, and for IPv6 where the addresses are private.

    Global IPv6 addresses are routed as they are (RFC 4864 section 4.2: no need to hide them).
    """
    bridge: Part = ("ifname", net.bridge)
    names = ["bridges"]
    if net.internal:
        names.append("internal")
    elif net.masquerade:
        subnets = [pool.subnet for pool in net.pools]
        if any(isinstance(subnet, IPv4Network) for subnet in subnets):
            names.append("masquerade4")
        if any(isinstance(subnet, IPv6Network) and subnet.subnet_of(_ULA) for subnet in subnets):
            names.append("masquerade6")
    return frozenset({_element("intra", (bridge, bridge)), *(_element(name, (bridge,)) for name in names)})


def for_endpoint(ep: Endpoint) -> frozenset[NftElement]:
    """The endpoint's published ports."""
    elements = set()
    for mapping in ep.ports:
        for interface in ep.addresses:
            if mapping.host_ip is None or mapping.host_ip.version == interface.version:
                elements.add(_port(mapping, interface.version, str(interface.ip)))
    return frozenset(elements)


def _port(mapping: PortMapping, version: int, address: str) -> NftElement:
    family = f"ipv{version}"
    match: tuple[Part, ...] = (("proto", mapping.proto), ("port", str(mapping.host_port)))
    data: tuple[Part, ...] = ((family, address), ("port", str(mapping.port)))
    if mapping.host_ip is None or mapping.host_ip.is_unspecified:
        return _element(f"anyport{version}", match, data)
    return _element(f"port{version}", ((family, str(mapping.host_ip)), *match), data)
