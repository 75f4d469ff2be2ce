"""NAT bridge networks: a bridge of Berth's own, which the host routes and masquerades for."""

from __future__ import annotations

import hashlib
from dataclasses import replace
from typing import ClassVar

from berth import ipam
from berth.drivers.cable import cable
from berth.drivers.pools import (
    first_free,
    mtu,
    refuse_overlap_with_host,
    refuse_overlap_with_networks,
    routed,
    routes,
)
from berth.errors import Invalid, NotFound, Taken
from berth.firewall import elements, passes, policy, tables
from berth.flows import NftFlows
from berth.model import Endpoint, Host, Ipam, Network, NetworkSpec, Subnet
from berth.spec import pair_pools
from berth.state import HOST, MARK, Addr, Bridge, Obj, State, Sysctl


class BridgeDriver:
    """A private network behind the host."""

    name: ClassVar[str] = "bridge"

    def complete(self, asked: NetworkSpec, host: Host, identity: str, created: str) -> Network:
        """Choose subnets, gateway and bridge name. Raises `Taken` or `Invalid`."""
        _refuse_lans_options(asked)
        bridge = asked.setting("bridge") or f"brt{identity[:12]}"
        _refuse_taken_name(bridge, host)
        pools = pair_pools(asked, self._subnets(asked, host, identity))
        for pool in pools:
            ipam.check(pool)
        if asked.ipam is Ipam.NETWORK:  # others would not know that the address is taken
            pools = tuple(replace(p, gateway=first_free(p)) if p.gateway is None else p for p in pools)
        refuse_overlap_with_networks(pools, host)
        refuse_overlap_with_host(pools, host)
        return Network(
            id=identity,
            name=asked.name,
            driver=self.name,
            bridge=bridge,
            pools=pools,
            mtu=mtu(asked, _host_mtu(host)),
            created=created,
            internal=asked.internal,
            ipv6=any(pool.subnet.version == 6 for pool in pools),
            masquerade=asked.setting("masquerade") != "false",
            bridge_address=asked.setting("inhibit_ipv4") != "true",
            ifname_prefix=asked.setting("iface_prefix") or "eth",
            ra_links=tuple(sorted({r.dev for r in host.routes if r.from_ra and not r.dst.prefixlen})),
            routes=routes(asked, pools),
            allow_from=_allowed(asked, host),
            host_access=asked.setting("host_access") != "false",
            proxy=asked.setting("proxy") or "auto",
            offload=_offloaded(asked, host),
            rates=asked.rates,
            naming=asked.naming,
            icc=asked.setting("icc") != "false",
            allow=asked.setting("allow") or "",
            ipam=asked.ipam,
            labels=asked.labels,
            options=asked.options,
        )

    def _subnets(self, asked: NetworkSpec, host: Host, identity: str) -> tuple[Subnet, ...]:
        """What was asked, with an IPv4 subnet always and an IPv6 one if wanted."""
        if asked.ipam is not Ipam.NETWORK:
            return asked.subnets
        versions = {subnet.version for subnet in asked.subnets}
        subnets = list(asked.subnets)
        if 4 not in versions:
            occupied = [subnet for subnet, _ in routed(host)]
            occupied += [*host.held, *(pool.subnet for net in host.networks for pool in net.pools)]
            subnets.insert(0, ipam.default_subnet(occupied))
        if asked.ipv6 and 6 not in versions:
            subnets.append(ipam.ula_subnet(identity))
        return tuple(subnets)

    def network(self, net: Network) -> State:
        """The bridge with the gateway's addresses, forwarding, NAT and isolation."""
        objects: set[Obj] = {Bridge(net.bridge, _mac(net), net.mtu, MARK + net.id)}
        for pool in net.pools:
            if pool.gateway is not None and (net.bridge_address or pool.subnet.version == 6):
                objects.add(Addr(HOST, net.bridge, f"{pool.gateway}/{pool.subnet.prefixlen}"))
        # A container must not be able to give the host a router.
        settings = f"net.ipv6.conf.{net.bridge.replace('.', '/')}"
        objects.add(Sysctl(HOST, f"{settings}.accept_ra", "0"))
        # Nor does the host wait two seconds for its link-local address, without which it asks for no neighbour.
        objects.add(Sysctl(HOST, f"{settings}.accept_dad", "0"))
        if not net.internal:
            # The host reaches published ports by 127.0.0.1 too; see the chain `loopback`.
            objects.add(Sysctl(HOST, f"net.ipv4.conf.{net.bridge.replace('.', '/')}.route_localnet", "1"))
            objects |= _forwarding(net)
        if net.offload:
            objects.add(NftFlows(net.bridge, net.offload))
        return frozenset({*objects, tables.inet(), *elements.for_network(net), *passes.for_network(net)})

    def endpoint(self, net: Network, ep: Endpoint) -> State:
        """A cable into the bridge with its guard, and the published ports."""
        return cable(net, ep) | policy.for_endpoint(net, ep) | elements.for_endpoint(net, ep)


def _allowed(asked: NetworkSpec, host: Host) -> tuple[str, ...]:
    """The bridges of the networks that may reach this one. Raises `Invalid` for one that there is no way from."""
    names = (asked.setting("allow_from") or "").split(",")
    if asked.internal and any(names):
        raise Invalid("an internal network has no way in: leave allow_from or --internal out")
    bridges = []
    for name in filter(None, names):
        other = next((net for net in host.networks if name in (net.name, net.id)), None)
        if other is None:
            raise Invalid(f"option allow_from: no network {name}: see `berth network ls`")
        if other.driver != "bridge" or other.internal:
            kind = "internal" if other.internal else other.driver
            raise Invalid(f"option allow_from: network {name} is {kind}: only NAT networks can be allowed")
        bridges.append(other.bridge)
    return tuple(sorted({*bridges}))


def _offloaded(asked: NetworkSpec, host: Host) -> tuple[str, ...]:
    """The links that lead outside; `auto`: those of default routes. Raises `Invalid` and `NotFound`."""
    said = asked.setting("offload")
    if said is None:
        return ()
    if asked.internal:
        raise Invalid("an internal network has no connections by other links: leave offload or --internal out")
    links = {route.dev for route in host.routes if not route.dst.prefixlen} if said == "auto" else {*said.split(",")}
    if not links:
        raise Invalid("option offload: the host has no default route to find the link by: name it, as offload=eth0")
    for link in sorted(links):
        if host.link(link) is None:
            raise NotFound(f"option offload: no link {link}: see `ip link`")
    return tuple(sorted(links))


def _refuse_lans_options(asked: NetworkSpec) -> None:
    for key in ("antispoof", "allow_services", "addresses", "addresses6", "keep_lease", "mdns"):
        if asked.setting(key) is not None:
            raise Invalid(f"option {key} is for the containers of a LAN, and this network is NAT: leave it out")


def _refuse_taken_name(bridge: str, host: Host) -> None:
    for other in host.networks:
        if bridge in other.allow_from and not any(net.bridge == bridge for net in host.networks):
            # Whom it was said of is gone, and who comes under that name is not meant.
            raise Taken(f"network {other.name} still lets in whoever is on bridge {bridge}: choose another name")
        if other.bridge == bridge:
            raise Taken(f"bridge {bridge} belongs to network {other.name}: choose another name")
    link = host.link(bridge)
    if link is not None and link.kind == "bridge":
        raise Taken(
            f"bridge {bridge} is already there and carries no LAN address: for a network on it use"
            f" `--driver flat -o parent={bridge}` with --subnet and --gateway, or choose another name"
        )
    if link is not None:
        raise Taken(f"{bridge} is already the name of another link: choose another name for the bridge")


def _host_mtu(host: Host) -> int:
    """What the host's way out carries, so that a container's packets are never too large for it."""
    defaults = sorted((r for r in host.routes if not r.dst.prefixlen), key=lambda r: r.metric)
    for route in defaults:
        link = host.link(route.dev)
        if link is not None:
            return link.mtu
    return 1500


def _mac(net: Network) -> str:
    digest = hashlib.sha256(f"bridge {net.id}".encode()).digest()
    return bytes([0x02, *digest[:5]]).hex(":")


def _forwarding(net: Network) -> set[Sysctl]:
    settings = {Sysctl(HOST, "net.ipv4.ip_forward", "1")}
    if net.ipv6:
        settings.add(Sysctl(HOST, "net.ipv6.conf.all.forwarding", "1"))
        # A forwarding host no longer listens to routers unless told to: it would lose its own default route.
        for dev in net.ra_links:
            settings.add(Sysctl(HOST, f"net.ipv6.conf.{dev.replace('.', '/')}.accept_ra", "2"))
    return settings
