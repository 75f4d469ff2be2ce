"""What a network and an endpoint put into the firewall's sets and maps."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from ipaddress import IPv4Network, IPv6Network

from berth.firewall import proxy
from berth.firewall.tables import FAMILY, TABLE
from berth.model import Endpoint, Network, PortMapping, Proxied
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
    if not net.host_access:
        names.append("closed")
    pair = "intra" if net.icc else "apart"
    allowed = {_element("allowed", (("ifname", other), bridge)) for other in net.allow_from}
    return frozenset(allowed | {_element(pair, (bridge, bridge)), *(_element(name, (bridge,)) for name in names)})


def for_endpoint(net: Network, ep: Endpoint) -> frozenset[NftElement]:
    """The endpoint's published ports: those that the kernel translates, and those that the proxy passes on.

    Neighbouring ports that keep their numbers are one element, however many: a translation to an address alone leaves
    the port as it is. Where ports are shifted each is its own element, as nftables picks any port of a target range.
    """
    elements = set()
    for first, last in _runs(ep.ports):
        for interface in ep.addresses if net.proxy != "always" or first.proto == "sctp" else ():
            if first.host_ip is None or first.host_ip.version == interface.version:
                elements.add(_port(first, last, interface.version, str(interface.ip)))
        for listen, target in proxy.ways(net.proxy, first, ep.addresses):
            way = Proxied(listen, first.proto, first.host_port, last.host_port, target, first.port)
            elements.add(proxy.element(way))
    return frozenset(elements)


def _runs(ports: Iterable[PortMapping]) -> Iterator[tuple[PortMapping, PortMapping]]:
    """Mappings as (first, last) of neighbours that keep their port numbers; (one, one) of all others."""
    kept: dict[tuple[str, str], list[PortMapping]] = {}
    for mapping in ports:
        if mapping.host_port == mapping.port:
            kept.setdefault((str(mapping.host_ip), mapping.proto), []).append(mapping)
        else:
            yield mapping, mapping
    for each in kept.values():
        each.sort(key=lambda mapping: mapping.port)
        first = before = each[0]
        for mapping in each[1:]:
            if mapping.port != before.port + 1:
                yield first, before
                first = mapping
            before = mapping
        yield first, before


def _port(first: PortMapping, last: PortMapping, version: int, address: str) -> NftElement:
    family = f"ipv{version}"
    alone = first == last
    ports = str(first.host_port) if alone else f"{first.host_port}-{last.host_port}"
    match: tuple[Part, ...] = (("proto", first.proto), ("port", ports))
    data: tuple[Part, ...] = ((family, address), ("port", str(first.port))) if alone else ((family, address),)
    name = f"{'port' if alone else 'range'}{version}"
    if first.host_ip is None or first.host_ip.is_unspecified:
        return _element(f"any{name}", match, data)
    return _element(name, ((family, str(first.host_ip)), *match), data)
