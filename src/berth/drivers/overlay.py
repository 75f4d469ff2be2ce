"""Overlay networks: one network on several hosts, each with a bridge, joined by VXLAN (RFC 7348).

On one host it is a NAT network: the gateway's address is on every host's bridge, so endpoints go out where they are.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator
from contextlib import suppress
from dataclasses import replace
from ipaddress import ip_network
from typing import ClassVar

from berth import ipam
from berth.drivers import seals
from berth.drivers.bridge import BridgeDriver
from berth.drivers.pools import routed
from berth.errors import Invalid, NotFound, Taken
from berth.model import Address, Endpoint, Host, HostLink, HostRecord, Interface, Ipam, Network, NetworkSpec
from berth.overlaid import OVERHEAD, Fdb, Neigh, Vxlan
from berth.spec import VNI
from berth.state import MARK, Obj, State

PORT = 4789  # UDP; IANA's for VXLAN, where the kernel's own default is another
_FIRST = 4096  # the numbers below are left to who takes those of VLANs
_SMALLEST = {4: 68, 6: 1280}  # bytes; RFC 791, RFC 8200


class OverlayDriver:
    """One network across hosts."""

    name: ClassVar[str] = "overlay"

    def __init__(self) -> None:
        self._nat = BridgeDriver()

    def complete(self, asked: NetworkSpec, host: Host, identity: str, created: str) -> Network:
        """Choose what a NAT network has, the number and the MTU. Raises `Taken`, `Invalid` or `NotFound`."""
        if asked.ipam is Ipam.DOCKER:
            raise Invalid("Docker's own IPAM does not know what other hosts have given: add --ipam-driver berth")
        net = self._nat.complete(asked, host, identity, created)
        underlay = asked.setting("underlay") or ""
        interface, link = _underlay(underlay, host)
        address = interface.ip
        port = int(asked.setting("port") or PORT)
        return replace(
            net,
            driver=self.name,
            scope="global",
            # By which a Docker on any of the hosts asks for its addresses.
            pools=tuple(replace(pool, owner=ipam.owner(pool.subnet, pool.ip_range)) for pool in net.pools),
            vni=_vni(asked.setting("vni"), port, host, identity),
            vxlan_port=port,
            # The other hosts have other addresses.
            underlay=str(interface.network) if underlay == str(address) else underlay,
            underlay_version=address.version,
            mtu=_mtu(asked, link, address, net.ipv6),
            encrypt=_encrypts(asked),
        )

    def placed(self, net: Network, host: Host) -> Network:
        """The network as it is on this host; without an address on the underlay it has no tunnel there.

        Nor has an encrypted one without a key: what it carries never goes in the clear.
        """
        with suppress(NotFound):
            local = str(_underlay(net.underlay, host, net.underlay_version)[0].ip)
            if not net.encrypt:
                return replace(net, local=local)
            if host.key is not None:
                seal = seals.seal(host.id, host.key)
                return replace(net, local=seal.address, seal=seal)
        return replace(net, local="")

    def misfit(self, net: Network, host: Host) -> str:
        """Why the network cannot be on this host: it would take away what the host reaches by another link.

        A network that is there already stays, whatever came later: its endpoints use it.
        """
        if host.link(net.bridge) is not None:
            return ""
        for subnet, dev in routed(host):
            for pool in net.pools:
                if ipam.overlap(pool.subnet, subnet):
                    return f"network {net.name} has {pool.subnet}, and this host reaches {subnet} by {dev}"
        return ""

    def network(self, net: Network) -> State:
        """What a NAT network is made of, and the tunnel."""
        tunnel: set[Obj] = set()
        if net.local:
            mark = MARK + net.id
            mac = _mac(net)
            through = net.seal.link if net.seal is not None else ""
            tunnel.add(Vxlan(net.tunnel, net.bridge, net.vni, net.local, net.vxlan_port, mac, net.mtu, mark, through))
        if net.seal is not None:
            tunnel |= seals.own(net.seal)
        return self._nat.network(net) | tunnel

    def endpoint(self, net: Network, ep: Endpoint) -> State:
        """An endpoint on this host: as behind NAT."""
        return self._nat.endpoint(net, ep)

    def peer(self, net: Network, ep: Endpoint) -> State:
        """An endpoint on another host: where its MAC is, and whose its addresses are."""
        through = net.seal.link if net.seal is not None else ""
        if net.encrypt and not seals.sealed(ep.vtep):
            return frozenset()  # its host has no key: it gets nothing, rather than something in the clear
        entries: set[Obj] = {Fdb(net.tunnel, ep.mac, ep.vtep, via=through), Fdb.of_bridge(net.tunnel, ep.mac)}
        entries |= {Neigh(net.tunnel, str(address.ip), ep.mac) for address in ep.addresses}
        return frozenset(entries)

    def hosts(self, net: Network, me: str, hosts: Iterable[HostRecord]) -> State:
        """The other hosts, where the network is encrypted."""
        return seals.peers(net.seal, me, hosts) if net.seal is not None else frozenset()


def _encrypts(asked: NetworkSpec) -> bool:
    return asked.setting("encrypt") == "true"


def _vni(text: str | None, port: int, host: Host, identity: str) -> int:
    """The number asked for; else one that follows from the id, so that two hosts at once hardly choose the same."""
    taken = {other.vni: other.name for other in host.networks if other.vxlan_port == port}
    if text is not None:
        if int(text) in taken:
            raise Taken(f"vni {text} belongs to network {taken[int(text)]}: leave it out, or choose another")
        return int(text)
    room = len(VNI) - _FIRST
    start = int(identity[:16], 16)
    return next(vni for step in range(room) if (vni := _FIRST + (start + step) % room) not in taken)


def _mtu(asked: NetworkSpec, link: HostLink, address: Address, ipv6: bool) -> int:
    """What the underlay carries less what the tunnel adds. Raises `Invalid` for more, or where too little is left."""
    room = link.mtu - OVERHEAD[address.version]
    if _encrypts(asked):
        room = seals.room(link.mtu, address.version) - OVERHEAD[6]
    value = int(asked.setting("mtu") or room)
    if value > room:
        raise Invalid(
            f"mtu {value} is more than the {room} that are left of {link.name}'s {link.mtu}: leave it out,"
            f" or use {room} or less"
        )
    least = _SMALLEST[6 if ipv6 else 4]
    if value < least:
        raise Invalid(
            f"mtu {value} is less than the {least} that the network's IP version asks for: raise {link.name}'s"
        )
    return value


def _underlay(text: str, host: Host, version: int | None = None) -> tuple[Interface, HostLink]:
    """This host's address on the underlay, and the link that has it. Raises `NotFound`.

    Without a version IPv4 comes first.
    """
    found = [(interface, link) for interface, link in _candidates(text, host) if version in (None, interface.version)]
    if not found:
        where = f"underlay {text}" if text else "no default route, so no underlay"
        raise NotFound(f"{where}: this host has no address there: give -o underlay= a link, address or subnet it has")
    return min(found, key=lambda each: each[0].version)


def _candidates(text: str, host: Host) -> Iterator[tuple[Interface, HostLink]]:
    devs = {text} if text else {route.dev for route in host.routes if not route.dst.prefixlen}
    subnet = None
    with suppress(ValueError):
        subnet = ip_network(text)
    for link in host.links:
        for interface in link.addresses:
            inside = link.name in devs if subnet is None else interface.ip in subnet
            if inside and not interface.ip.is_link_local and not interface.ip.is_loopback:
                yield interface, link


def _mac(net: Network) -> str:
    digest = hashlib.sha256(f"tunnel {net.id} {net.local}".encode()).digest()
    return bytes([0x02, *digest[:5]]).hex(":")
