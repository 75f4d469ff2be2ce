"""Docker on several hosts, and one network: each calls it by an id of its own, and all share its addresses.

Docker tells a driver neither a network's name nor, when it asks for addresses, what they are for. So the network is
known by its subnet; or by its name, where that is said to the IPAM driver (`--ipam-opt network=NAME`).
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from contextlib import suppress

from berth.engine import networks, peers
from berth.engine.parts import Parts
from berth.errors import Exhausted, Invalid, Refused, Taken
from berth.model import Ipam, Network, NetworkSpec, Pool, PoolRequest
from berth.plan import Plan
from berth.seams import Outcome, Tx


def pool(tx: Tx, asked: PoolRequest) -> Pool | None:
    """The pool of a network over several hosts that is meant.

    Raises `Taken` for a name and another subnet, and `Exhausted` for a name alone: of what it was not told, Docker
    asks for another one for ever where the host reaches it already, as it does here.
    """
    spanning = [net for net in tx.networks() if net.scope == "global"]
    named = next((net for net in spanning if asked.network and net.name == asked.network), None)
    if named is None:
        same = (asked.subnet, asked.ip_range)
        return next((p for net in spanning for p in net.pools if (p.subnet, p.ip_range) == same), None)
    for mine in named.pools:
        if mine.subnet.version == asked.version and asked.subnet is None:
            raise Exhausted(f"Docker wants the subnet of network {named.name} spelt out: add --subnet {mine.subnet}")
        if mine.subnet == asked.subnet:
            if asked.ip_range not in (None, mine.ip_range):
                raise Taken(f"network {named.name} has ip-range {mine.ip_range} on all hosts: give that, or none")
            return mine
    subnets = ", ".join(str(mine.subnet) for mine in named.pools)
    raise Taken(f"network {named.name} has {subnets} on all hosts, not {asked.subnet}: give that --subnet")


def join(parts: Parts, asked: NetworkSpec) -> Outcome[Network] | None:
    """Use a network that there is already for what this host's Docker wants to make; None: there is none.

    Raises `Taken` where the request contradicts it, and `NotFound` where this host has no address on its underlay.
    """
    if asked.driver != "overlay" or asked.ipam is not Ipam.POOL:
        return None
    with parts.changing():
        with parts.store.read() as tx:
            net = _meant(tx.networks(), asked)
        if net is None:
            return None
        _refuse_contradiction(net, asked)
        peers.made(parts, net, dry_run=False)
        with parts.store.write(durable=True) as tx:
            tx.join(net.id, asked.id)
    return Outcome(net, Plan())


def _meant(every: Iterable[Network], asked: NetworkSpec) -> Network | None:
    subnets = {*asked.subnets}
    spanning = (net for net in every if net.scope == "global")
    return next((net for net in spanning if {mine.subnet for mine in net.pools} == subnets), None)


def _refuse_contradiction(net: Network, asked: NetworkSpec) -> None:
    for key, mine in (("vni", net.vni), ("port", net.vxlan_port), ("mtu", net.mtu)):
        if asked.setting(key) not in (None, str(mine)):
            raise Taken(f"network {net.name} has {key}={mine} on all hosts, not {asked.setting(key)}: leave it out")
    gateways = {mine.gateway for mine in net.pools}
    for gateway in asked.gateways:
        if gateway not in gateways:
            raise Taken(f"network {net.name} has another gateway on all hosts than {gateway}: leave --gateway out")
    if asked.internal != net.internal:
        raise Invalid(f"network {net.name} is {'' if net.internal else 'not '}internal on all hosts: make it so here")


def leave(parts: Parts, ident: str) -> tuple[Network, bool] | None:
    """Have this host's Docker use a network no longer: that network, and whether it stays for others.

    None where the id is not one of Docker's for a network over several hosts.
    """
    with parts.changing():
        with parts.store.read() as tx:
            net = tx.network(ident)
            if net is None or net.scope == "local" or ident not in tx.joined():
                return None
        with parts.store.write(durable=True) as tx:
            used = tx.leave(net.id, ident)
            return net, used or net.ipam is Ipam.NETWORK or bool(tx.endpoints(network=net.id))


def known_to_docker(parts: Parts) -> Sequence[str]:
    """What this host's Docker calls the networks that it has from Berth."""
    with parts.store.read() as tx:
        found = [net.id for net in tx.networks() if net.scope == "local" and net.ipam is not Ipam.NETWORK]
        with suppress(Refused):
            found += tx.joined()
    return found


def remove(parts: Parts, name: str) -> Outcome[Network]:
    """Remove a network; one that other hosts' Dockers use is only left."""
    left = leave(parts, name)
    if left is None:
        return networks.remove(parts, name, dry_run=False)
    net, stays = left
    return Outcome(net, Plan()) if stays else networks.remove(parts, net.id, dry_run=False)
