"""Networks and endpoints as the tests of stores need them."""

from __future__ import annotations

from ipaddress import ip_interface, ip_network

from berth import ipam
from berth.engine.parts import forget
from berth.model import Address, Endpoint, Network, Pool, Sandbox
from berth.seams import Store, Tx

SUBNET = ip_network("10.9.0.0/24")


def network(name: str = "web", *, scope: str = "global", subnet: str = "10.9.0.0/24", mtu: int = 1450) -> Network:
    return Network(f"{name:0>64}", name, "null", "", (Pool(ip_network(subnet)),), mtu, "", scope=scope)


def make(store: Store, net: Network) -> Network:
    """Save a network, as `berth network create` does."""
    with store.write(durable=True) as tx:
        tx.save_network(net)
        for pool in net.pools:
            ipam.reserve(pool, tx.ledger(net.id, pool))
    return net


def take(tx: Tx, net: Network, name: str, wanted: Address | None = None) -> Endpoint:
    """Give an endpoint an address, as `berth attach` does."""
    pool = net.pools[0]
    address = ipam.take(pool, tx.ledger(net.id, pool), wanted)
    at = ip_interface(f"{address}/{pool.subnet.prefixlen}")
    ep = Endpoint(f"id-{name}", net.id, name, Sandbox("", f"sandbox-{name}"), "", "eth0", "02:00:00:00:00:01", (at,))
    tx.save_endpoint(ep)
    return ep


def attach(store: Store, net: Network, name: str, wanted: Address | None = None) -> Endpoint:
    with store.write() as tx:
        return take(tx, net, name, wanted)


def detach(store: Store, identity: str) -> None:
    with store.write() as tx:
        forget(tx, identity)


def names(store: Store, net: Network) -> set[str]:
    with store.read() as tx:
        return {ep.name for ep in tx.endpoints(network=net.id)}


def taken(store: Store, net: Network) -> set[int]:
    """The numbers of the addresses that are taken, without the network's and the broadcast address."""
    subnet = net.pools[0].subnet
    with store.read() as tx:
        ledger = tx.ledger(net.id, net.pools[0])
        return {int(address) for address in subnet.hosts() if ledger.covering(int(address)) is not None}
