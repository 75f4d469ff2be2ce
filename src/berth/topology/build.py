"""From what is recorded and what the host looks like to the map."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Sequence

from berth.model import Endpoint, Host, HostLink, HostRecord, Neighbour, Network, PortMapping
from berth.topology.nouns import Machine, Nic, Node, Peer, Router, Segment, Topology

_MADE = ("veth", "bridge", "ovs", "dummy", "tun", "wireguard")  # kinds of links that lead nowhere outside by themselves


def build(
    name: str,
    host: Host,
    networks: Sequence[Network],
    endpoints: Sequence[Endpoint],
    *,
    elsewhere: Sequence[Endpoint] = (),
    hosts: Sequence[HostRecord] = (),
    neighbours: Sequence[Neighbour] = (),
) -> Topology:
    """The map of a host of that name.

    `elsewhere`: endpoints on other hosts; `hosts`: who they are, this one too; `neighbours`: whom the kernel knows.
    """
    names = {each.id: each.name for each in hosts}
    nodes: dict[str, list[Node]] = defaultdict(list)
    for ep in endpoints:
        nodes[ep.network].append(_node(ep))
    for ep in elsewhere:
        nodes[ep.network].append(_node(ep, names.get(ep.host) or f"host {ep.host[:8]}"))
    cables = {ep.link for ep in endpoints}
    segments = tuple(_segment(net, nodes[net.id], host, cables) for net in networks)
    used = {nic for segment in segments for nic in segment.nics}
    nics = tuple(_nic(link, host) for link in host.links if link.name in used or _outside(link, cables))
    routers = _routers(networks, host)
    known = {router.address for router in routers} | {str(held.ip) for ep in endpoints for held in ep.addresses}
    lans = {*(net.bridge for net in networks if net.driver == "flat"), *(nic.name for nic in nics)}
    machines = _machines([each for each in neighbours if each.dev in lans and str(each.address) not in known])
    return Topology(name, nics, routers, segments, machines, _peers(host, endpoints, elsewhere, hosts))


def _machines(neighbours: Sequence[Neighbour]) -> tuple[Machine, ...]:
    """One for each MAC on a link; who is known by a link-local address alone is left out."""
    held: dict[tuple[str, str], list[Neighbour]] = defaultdict(list)
    for each in neighbours:
        if not each.address.is_link_local:
            held[each.dev, each.mac].append(each)
    ordered = [sorted(them, key=lambda each: (each.address.version, each.address)) for them in held.values()]
    ordered.sort(key=lambda them: (them[0].address.version, them[0].address))
    return tuple(
        Machine(them[0].mac, tuple(str(each.address) for each in them), them[0].dev, them[0].vendor) for them in ordered
    )


def _peers(
    host: Host, endpoints: Sequence[Endpoint], elsewhere: Sequence[Endpoint], hosts: Sequence[HostRecord]
) -> tuple[Peer, ...]:
    """The other hosts: this one is known by its endpoints, and by having the address that it told the others."""
    own = {held.ip for link in host.links for held in link.addresses}
    mine = {ep.host for ep in endpoints} | {each.id for each in hosts if own & {*each.underlay}}
    count = Counter(ep.host for ep in elsewhere)
    return tuple(
        Peer(each.name, tuple(map(str, each.underlay)), count[each.id]) for each in hosts if each.id not in mine
    )


def _outside(link: HostLink, cables: set[str]) -> bool:
    return link.name != "lo" and link.name not in cables and link.kind not in _MADE and not link.alias


def _nic(link: HostLink, host: Host) -> Nic:
    bridge = host.link(link.master)
    held = (*link.addresses, *(bridge.addresses if bridge else ()))
    shown = tuple(str(address) for address in held if not address.is_link_local)
    return Nic(link.name, link.mac, link.up, shown, link.master)


def _segment(net: Network, nodes: Sequence[Node], host: Host, cables: set[str]) -> Segment:
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
        nodes=tuple(nodes),
    )


def _ways_out(net: Network, host: Host, cables: set[str]) -> tuple[str, ...]:
    """The links of the host's default routes, which a network behind NAT goes out by."""
    if net.internal:
        return ()
    ways = (route.dev for route in host.routes if not route.dst.prefixlen)
    ports = {name: tuple(p.name for p in host.ports(name) if p.name not in cables) or (name,) for name in ways}
    return tuple(dict.fromkeys(port for several in ports.values() for port in several if port))


def _node(ep: Endpoint, host: str = "") -> Node:
    return Node(
        id=ep.id,
        name=ep.name,
        addresses=tuple(str(address.ip) for address in ep.addresses),
        mac=ep.mac,
        ports=tuple(port_text(mapping) for mapping in ep.ports),
        link=ep.link,
        ifname=ep.ifname,
        sandbox=ep.sandbox.path,
        host=host,
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
