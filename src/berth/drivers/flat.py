"""Flat networks: containers are members of the LAN that one of the host's bridges is plugged into.

The bridge, its NIC and its addresses are the operator's; Berth only plugs cables in. The LAN has a router
already, so the gateway is found, not made.
"""

from __future__ import annotations

from dataclasses import replace
from typing import ClassVar

from berth import ipam
from berth.drivers.cable import cable
from berth.drivers.pools import mtu, refuse_overlap_with_networks, routes
from berth.errors import Invalid, NotFound, Taken, Unsupported
from berth.firewall import frames, policy
from berth.model import Address, Endpoint, Host, HostLink, Ipam, Network, NetworkSpec, Pool, Subnet
from berth.spec import pair_pools
from berth.state import State, ours

_SWITCHES = ("bridge", "ovs")


class FlatDriver:
    """Containers on the host's own LAN."""

    name: ClassVar[str] = "flat"

    def complete(self, asked: NetworkSpec, host: Host, identity: str, created: str) -> Network:
        """Find the LAN's subnet and router through the bridge. Raises `Invalid`, `NotFound` or `Taken`."""
        bridge = _bridge(asked, host)
        _refuse_rates(asked, bridge)
        _refuse_switch(asked, bridge)
        subnets = asked.subnets or _lan_subnets(asked, bridge) or _served_subnets(asked, bridge)
        _refuse_strange(subnets, bridge)
        pools = tuple(_pool(pool, asked, bridge, host) for pool in pair_pools(asked, subnets))
        refuse_overlap_with_networks(pools, host)
        addresses6 = _addresses6(asked, pools)
        return Network(
            id=identity,
            name=asked.name,
            driver=self.name,
            bridge=bridge.name,
            pools=pools,
            mtu=mtu(asked, bridge.mtu, limit=bridge.mtu),
            created=created,
            internal=asked.internal,
            ipv6=addresses6 == "auto" or any(pool.subnet.version == 6 for pool in pools),
            masquerade=False,
            bypass=_bypass(asked, bridge, host),
            bypass_asked=asked.setting("bypass") in ("always", "never"),
            icc=asked.setting("icc") != "false",
            antispoof=asked.setting("antispoof") != "false" and not bridge.userspace,
            services=_services(asked),
            bridge_mac=bridge.mac,
            bridge_mtu=bridge.mtu,
            switch=bridge.kind,
            userspace=bridge.userspace,
            nics=tuple(sorted(port.name for port in host.ports(bridge.name) if not ours(port.alias))),
            ifname_prefix=asked.setting("iface_prefix") or "eth",
            routes=routes(asked, pools),
            rates=asked.rates,
            naming=asked.naming,
            allow=asked.setting("allow") or "",
            conflict=asked.setting("conflict") or "fast",
            ipam=asked.ipam,
            addresses=asked.setting("addresses") or "pool",
            addresses6=addresses6,
            keep_lease=asked.setting("keep_lease") == "true",
            labels=asked.labels,
            options=asked.options,
            served=asked.served,
        )

    def network(self, net: Network) -> State:
        """The LAN is there already: only what is done with the frames of its endpoints."""
        return frames.for_network(net)

    def endpoint(self, net: Network, ep: Endpoint) -> State:
        """A cable into the LAN's bridge, and what is known of who is behind it."""
        return cable(net, ep) | policy.for_endpoint(net, ep) | frames.for_endpoint(net, ep)


def _refuse_switch(asked: NetworkSpec, bridge: HostLink) -> None:
    """Raise `Invalid` for what this kind of switch cannot keep."""
    if bridge.kind == "ovs" and asked.setting("icc") == "false":
        raise Invalid(
            f"icc=false is for bridges of the kernel's: {bridge.name} is Open vSwitch's, whose ports cannot be kept"
            " apart; leave it out"
        )
    if bridge.userspace and asked.setting("antispoof") == "true":
        raise Invalid(
            f"antispoof=true cannot be kept on {bridge.name}: ovs-vswitchd takes its frames before the kernel checks"
            " them; leave it out"
        )


def _addresses6(asked: NetworkSpec, pools: tuple[Pool, ...]) -> str:
    """IPv6 is as the LAN's routers advertise where IPv4 is by DHCP, and nothing else was said."""
    leased = asked.ipv6 and asked.setting("addresses") == "dhcp"
    chosen = asked.setting("addresses6") or ("auto" if leased else "pool")
    if chosen == "auto" and not asked.ipv6:
        raise Invalid("addresses6=auto is of no use to a network without IPv6: add --ipv6, or leave it out")
    if chosen == "dhcp" and not any(pool.subnet.version == 6 for pool in pools):
        raise Invalid("addresses6=dhcp is of no use to a network without IPv6: add --ipv6, or leave it out")
    return chosen


def _services(asked: NetworkSpec) -> tuple[str, ...]:
    text = asked.setting("allow_services")
    return tuple(sorted(text.split(","))) if text else ()


def _refuse_rates(asked: NetworkSpec, bridge: HostLink) -> None:
    if asked.rates and bridge.kind == "ovs":
        # It takes its ports' queues away, and one outside the kernel sees frames before any hook.
        key, _ = asked.rates[0]
        raise Invalid(f"{key} is for bridges of the kernel's, and {bridge.name} is Open vSwitch's: leave it out")


def _bypass(asked: NetworkSpec, bridge: HostLink, host: Host) -> bool:
    choice = asked.setting("bypass")
    if bridge.kind == "ovs":
        if choice == "always":
            raise Invalid(
                f"bypass=always is for bridges of the kernel's: no FORWARD chain sees what crosses {bridge.name},"
                " which is Open vSwitch's; leave it out"
            )
        return False
    return bool(host.obstacles) if choice in (None, "auto") else choice == "always"


def carries_lan(link: HostLink | None) -> bool:
    """Whether a link is a bridge of the operator's with an address of a LAN on it."""
    if link is None or link.kind not in _SWITCHES or ours(link.alias):
        return False
    return any(not address.is_link_local for address in link.addresses)


def _bridge(asked: NetworkSpec, host: Host) -> HostLink:
    name = asked.setting("bridge")
    if name is None:
        raise Invalid(
            "which LAN? name the bridge that carries it with `-o parent=br0` (see `ip link show type bridge`)"
        )
    link = host.link(name)
    if link is None:
        raise NotFound(f"no bridge {name} on this host: see `ip link show type bridge`")
    if link.kind == "openvswitch":
        raise Unsupported(
            f"{name} is Open vSwitch's, and that is not running: start it (`systemctl start openvswitch-switch`)"
        )
    if link.kind not in _SWITCHES:
        raise Invalid(f"{name} is not a bridge: a flat network needs the LAN's NIC to be a port of one")
    if ours(link.alias):
        raise Invalid(f"bridge {name} belongs to a NAT network of Berth's: name the bridge that carries the LAN")
    return link


def _lan_subnets(asked: NetworkSpec, bridge: HostLink) -> tuple[Subnet, ...]:
    """The networks of the bridge's own addresses; IPv6 only when it was asked for."""
    versions = (4, 6) if asked.ipv6 else (4,)
    found: dict[int, Subnet] = {}
    for address in bridge.addresses:
        if address.version in versions and not address.is_link_local:
            found.setdefault(address.version, address.network)
    return tuple(found.values())


def _served_subnets(asked: NetworkSpec, bridge: HostLink) -> tuple[Subnet, ...]:
    """The LAN as its DHCP servers describe it, for a host that is not a member of it itself."""
    subnets = {served.subnet for served in asked.served or () if served.subnet is not None}
    if not subnets:
        raise Invalid(
            f"bridge {bridge.name} carries no address to learn the LAN from, and no DHCP server answers on it:"
            " give --subnet and --gateway"
        )
    if len(subnets) > 1:
        words = " and ".join(sorted(map(str, subnets)))
        raise Invalid(f"the DHCP servers on {bridge.name} are of different subnets, {words}: say which by --subnet")
    if asked.ipv6:
        raise Invalid(
            f"bridge {bridge.name} carries no address to learn the LAN's IPv6 subnet from: give --subnet for both"
            " IP versions, or leave --ipv6 out"
        )
    return tuple(subnets)


def _refuse_strange(subnets: tuple[Subnet, ...], bridge: HostLink) -> None:
    """A subnet of another size or place than the LAN's would make neighbours take each other for strangers."""
    for subnet in subnets:
        lans = [a for a in bridge.addresses if a.version == subnet.version and not a.is_link_local]
        if lans and subnet not in [a.network for a in lans]:
            raise Invalid(
                f"subnet {subnet} is not the LAN's: {bridge.name} carries {lans[0]}; use --subnet {lans[0].network},"
                " and --ip-range for the part of it that containers may use"
            )


def _pool(pool: Pool, asked: NetworkSpec, bridge: HostLink, host: Host) -> Pool:
    own = tuple(a.ip for a in bridge.addresses if a.version == pool.subnet.version and a.ip in pool.subnet)
    gateway = _gateway(pool, asked, bridge, host)
    if asked.ipam is not Ipam.NETWORK:
        router = (gateway,) if gateway is not None and gateway in pool.subnet else ()
        _refuse_unaware(pool, asked, (*own, *router))
        pool = replace(pool, aux=tuple((name, a) for name, a in pool.aux if a not in own and a != gateway))
    for name, address in pool.aux:
        if address in own:
            raise Invalid(
                f"aux-address {name}={address} is this host's own address: it is reserved anyway, leave it out"
            )
    routable = gateway is not None and not gateway.is_link_local
    ipam.check(replace(pool, gateway=gateway if routable else None))
    return replace(pool, gateway=gateway, reserved=own)


def _refuse_unaware(pool: Pool, asked: NetworkSpec, reserved: tuple[Address, ...]) -> None:
    """Docker's own IPAM does not know the LAN, and gives away whatever it was not told of."""
    known = {pool.gateway, *(address for _, address in pool.aux)}
    unknown = [address for address in reserved if address not in known]
    if asked.ipam is Ipam.DOCKER and unknown:
        words = " and ".join(map(str, unknown))
        aux = " ".join(f"--aux-address lan{number}={address}" for number, address in enumerate(unknown, 1))
        raise Taken(
            f"Docker's own IPAM would give a container {words}, which the host or the LAN's router has:"
            f" add --ipam-driver berth, or {aux}"
        )


def _gateway(pool: Pool, asked: NetworkSpec, bridge: HostLink, host: Host) -> Address | None:
    """The LAN's router: the host's default route through the bridge, else the one that was given."""
    version = pool.subnet.version
    routes = [r for r in host.routes if r.dst.version == version and not r.dst.prefixlen and r.dev == bridge.name]
    routers = [r.via for r in sorted(routes, key=lambda r: r.metric) if r.via and r.via.version == version]
    if pool.gateway is not None and not (asked.ipam is Ipam.POOL and pool.gateway == pool.subnet.network_address):
        if routers and pool.gateway not in routers and asked.ipam is Ipam.DOCKER:
            return routers[0]  # whether Docker made its gateway up or was given it cannot be told
        if routers and pool.gateway not in routers:
            raise Taken(
                f"gateway {pool.gateway} contradicts the LAN: this host's router on {bridge.name} is {routers[0]};"
                " leave --gateway out, or give that one"
            )
        return pool.gateway
    if routers:
        return routers[0]
    offered = [served.router for served in asked.served or () if _within(served.router, pool)]
    if offered and not asked.internal:
        return offered[0]
    if asked.internal or version == 6 or asked.setting("addresses") == "dhcp":
        return None  # a lease names it; an IPv6 LAN without a router is common, IPv4 endpoints without one a mistake
    raise Invalid(
        f"this host has no default route through {bridge.name}, and no DHCP server tells of a router: name the"
        " LAN's router with --gateway, or use --internal for a network without one"
    )


def _within(address: Address | None, pool: Pool) -> bool:
    return address is not None and address in pool.subnet
