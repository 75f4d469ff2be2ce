"""From what is recorded and what the host looks like to the map."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence

from berth.model import Endpoint, Host, HostLink, Network, PortMapping
from berth.topology.nouns import Nic, Node, Router, Segment, Topology

_MADE = ("veth", "bridge", "ovs", "dummy", "tun", "wireguard")  # kinds of links that lead nowhere outside by themselves


def build(name: str, host: Host, networks: Sequence[Network], endpoints: Sequence[Endpoint]) -> Topology:
    """The map of a host of that name."""
    by_network: dict[str, list[Endpoint]] = defaultdict(list)
    for ep in endpoints:
        by_network[ep.network].append(ep)
    cables = {ep.link for ep in endpoints}
    segments = tuple(_segment(net, by_network[net.id], host, cables) for net in networks)
    used = {nic for segment in segments for nic in segment.nics}
    nics = tuple(_nic(link, host) for link in host.links if link.name in used or _outside(link, cables))
    return Topology(name, nics, _routers(networks, host), segments)


def _outside(link: HostLink, cables: set[str]) -> bool:
    return link.name != "lo" and link.name not in cables and link.kind not in _MADE and not link.alias


def _nic(link: HostLink, host: Host) -> Nic:
    bridge = host.link(link.master)
    held = (*link.addresses, *(bridge.addresses if bridge else ()))
    shown = tuple(str(address) for address in held if not address.is_link_local)
    return Nic(link.name, link.mac, link.up, shown, link.master)


def _segment(net: Network, endpoints: Sequence[Endpoint], host: Host, cables: set[str]) -> Segment:
    pool = net.pools[0] if net.pools else None
    return Segment(
        id=net.id,
        name=net.name,
        driver=net.driver,
        bridge=net.bridge,
        subnets=tuple(str(pool.subnet) for pool in net.pools),
        gateways=tuple(str(pool.gateway) for pool in net.pools if pool.gateway is not None),
        nics=net.nics if net.driver == "flat" else _ways_out(net, host, cables),
        internal=net.internal,
        capacity=0 if pool is None else pool.span.num_addresses,
        nodes=tuple(_node(ep) for ep in endpoints),
    )


def _ways_out(net: Network, host: Host, cables: set[str]) -> tuple[str, ...]:
    """The links of the host's default routes, which a network behind NAT goes out by."""
    if net.internal:
        return ()
    ways = (route.dev for route in host.routes if not route.dst.prefixlen)
    ports = {name: tuple(p.name for p in host.ports(name) if p.name not in cables) or (name,) for name in ways}
    return tuple(dict.fromkeys(port for several in ports.values() for port in several if port))


def _node(ep: Endpoint) -> Node:
    return Node(
        id=ep.id,
        name=ep.name,
        addresses=tuple(str(address.ip) for address in ep.addresses),
        mac=ep.mac,
        ports=tuple(port_text(mapping) for mapping in ep.ports),
        link=ep.link,
        ifname=ep.ifname,
        sandbox=ep.sandbox.path,
    )


def port_text(mapping: PortMapping) -> str:
    """A published port for people: host side, arrow, the endpoint's own."""
    where = "" if mapping.host_ip is None else f"{mapping.host_ip} "
    return f"{where}{mapping.host_port}→{mapping.port}/{mapping.proto}"


def _routers(networks: Sequence[Network], host: Host) -> tuple[Router, ...]:
    """Who the host's default routes and the LANs' endpoints send to."""
    found = {str(route.via): route.dev for route in host.routes if route.via is not None and not route.dst.prefixlen}
    for net in networks:
        if net.driver == "flat":
            found |= {str(pool.gateway): net.bridge for pool in net.pools if pool.gateway is not None}
    return tuple(Router(address, nic) for address, nic in found.items())
