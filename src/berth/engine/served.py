"""What the LAN's own DHCP servers give: asked when a network is made, and held against addresses of Berth's choice.

To ask takes up to 4.5 s, so nobody does while he holds the state lock, nor on the way of an attach.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace

from berth.engine.parts import Parts
from berth.errors import BerthError
from berth.model import Endpoint, Ipam, Network, NetworkSpec, Served
from berth.state import ours


def explored(parts: Parts, asked: NetworkSpec) -> NetworkSpec:
    """The same request with what the LAN's DHCP servers give, where it is about a LAN. Raises `Denied`.

    With conflict=off the LAN is asked nothing, unless there is no other way to know its subnet. Docker waits for its
    networks to be made, so that the daemon asks on behalf of those later.
    """
    bridge = asked.setting("bridge")
    if asked.served is not None or bridge is None or asked.ipam is not Ipam.NETWORK:
        return asked
    host = parts.kernel.host()
    link = host.link(bridge)
    try:
        flat = parts.choose(asked, host).name == "flat"
    except (BerthError, KeyError):
        return asked  # who makes it says why not
    if not flat or link is None:
        return asked
    reached = any(port.carrier and not ours(port.alias) for port in host.ports(bridge))
    lost = not asked.subnets and all(address.is_link_local for address in link.addresses)
    quiet = asked.setting("conflict") == "off" and not lost
    return asked if quiet or not reached else replace(asked, served=tuple(parts.lan.served(bridge)))


def unexplored(networks: Iterable[Network]) -> Sequence[Network]:
    """The LANs whose servers nobody has asked yet: Docker's networks, which are made while Docker waits."""
    return [net for net in networks if net.vets and net.served is None]


def learn(parts: Parts, identity: str, served: Sequence[Served]) -> Sequence[str]:
    """Record what a LAN's servers give; the warnings that follow."""
    with parts.changing(), parts.store.write() as tx:
        net = tx.network(identity)
        if net is None or net.served is not None:
            return ()
        net = replace(net, served=tuple(served))
        tx.save_network(net)
    return tuple(of_network(net))


def of_network(net: Network) -> Iterator[str]:
    """A warning for each pool that Berth and a server of the LAN's give addresses from."""
    for pool in net.pools:
        if net.source(pool.subnet.version) != "pool":
            continue
        for served in net.served or ():
            if served.reaches(pool.span):
                yield (
                    f"network {net.name} gives addresses of {pool.span}, and the DHCP server {served.server} leases"
                    f" {served}: give it an --ip-range of which the server leases nothing, or use -o addresses=dhcp"
                )


def of_endpoint(net: Network, ep: Endpoint) -> Iterator[str]:
    """A warning for each address that was not leased and that a server of the LAN's may lease to another machine."""
    for address in ep.addresses:
        if address.version in ep.learnt.versions:
            continue
        for served in net.served or ():
            if address.ip in served:
                yield (
                    f"{address.ip} of endpoint {ep.name} is among what the DHCP server {served.server} leases"
                    f" ({served}), and another machine may get it: choose an --ip outside, or reserve it at the server"
                )
