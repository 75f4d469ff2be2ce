"""What the doctor has to know of networks over several hosts."""

from __future__ import annotations

from dataclasses import replace
from ipaddress import ip_address

from berth.doctor.facts import Peer, Spanned
from berth.engine import peers
from berth.engine.parts import Parts
from berth.errors import Refused
from berth.model import Network
from berth.overlaid import OVERHEAD
from berth.seams import Tx


def examine(parts: Parts) -> Spanned:
    """Hosts, and what tunnels lead to; nothing while nobody can be asked. Changes nothing."""
    if parts.shared is None:
        return Spanned()
    with parts.store.read() as tx:
        try:
            nodes = tuple(tx.nodes())
        except Refused:
            return Spanned()
        networks = [net for net in tx.networks() if net.scope == "global"]
        host = parts.facts(*networks)
        why = {net.id: parts.spanning.misfit(net, host) for net in networks}
        names = {node.host.id: node.host.name for node in nodes}
        found: dict[tuple[str, int], Peer] = {}
        for net in networks:
            # What is encrypted goes by link-local addresses, which cannot be asked from outside of them.
            if not net.encrypt and not why[net.id]:
                _add(parts, tx, parts.spanning.placed(net, host), names, found)
    return Spanned(tuple(found.values()), tuple(filter(None, why.values())), nodes)


def _add(parts: Parts, tx: Tx, net: Network, names: dict[str, str], found: dict[tuple[str, int], Peer]) -> None:
    size = net.mtu + OVERHEAD[net.underlay_version]
    for ep in peers.elsewhere(parts, tx, net) if net.local else ():
        if ep.vtep in ("", net.local):
            continue
        name = names.get(ep.host) or ep.host[:12]
        new = Peer(name, ip_address(net.local), ip_address(ep.vtep), net.vxlan_port, size, (net.name,))
        old = found.setdefault((ep.vtep, net.vxlan_port), new)
        together = tuple(dict.fromkeys((*old.networks, net.name)))
        found[ep.vtep, net.vxlan_port] = replace(old, size=max(old.size, size), networks=together)
