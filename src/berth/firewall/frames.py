"""What is done with the frames of a flat network before the LAN's switch sees them: one table a network.

Its chains: `lan` for what comes in by a NIC, `endpoint` for what endpoints send, and before that `guarded`, which
drops what is not theirs to send. Each link has a hook that leads to its chain.
"""

from __future__ import annotations

from berth.firewall import bypass, spoofing
from berth.firewall.tables import table
from berth.model import Endpoint, Network
from berth.state import NOTHING, NftElement, NftHook, NftTable, State

_ENDPOINT, _LAN = "endpoint", "lan"
#: Endpoints that do not reach each other. Their bridge keeps them apart; but a router could bring a packet back.
_APART = (
    ("set apart", "type ether_addr"),
    ("set apart4", "type ipv4_addr"),
    ("set apart6", "type ipv6_addr"),
)
_KEEP_APART = ("ether daddr @apart drop", "ip daddr @apart4 drop", "ip6 daddr @apart6 drop")


def _name(net: Network) -> str:
    return f"berth_{net.id[:12]}"


def for_network(net: Network) -> State:
    """The table, and the hooks of the NICs where they have a part in it."""
    text = _skeleton(net)
    if text is None:
        return NOTHING
    return frozenset({text, *(NftHook(_name(net), nic, _LAN) for nic in net.nics if net.bypass)})


def _skeleton(net: Network) -> NftTable | None:
    sets: list[tuple[str, str]] = []
    chains: list[tuple[str, str, tuple[str, ...]]] = []
    if net.bypass:
        sets += bypass.SETS
        chains.append((_LAN, "", bypass.from_lan()))
    if not net.icc:
        sets += _APART
    if sets:
        rules = (*(() if net.icc else _KEEP_APART), *(bypass.from_endpoint(net) if net.bypass else ()))
        chains.append((_ENDPOINT, "", rules))
    if net.guarded:
        then = _ENDPOINT if sets else ""
        sets += spoofing.SETS
        chains += spoofing.chains(then)
    return table(NftHook.family, _name(net), sets, chains) if sets else None


def for_endpoint(net: Network, ep: Endpoint) -> State:
    """The hook of the endpoint's cable, and what the rules have to know of it."""
    name, objects = _name(net), set[NftElement | NftHook]()
    if spoofing.guards(net, ep):
        objects |= {NftHook(name, ep.link, spoofing.CHAIN), *spoofing.elements(net, ep, name)}
    elif net.bypass or not net.icc:
        objects.add(NftHook(name, ep.link, _ENDPOINT))
    if net.bypass:
        objects.update(bypass.elements(ep, name))
    if not net.icc:
        objects.add(NftElement(NftHook.family, name, "apart", (("mac", ep.mac),)))
        for address in (interface.ip for interface in ep.addresses):
            match = ((f"ipv{address.version}", str(address)),)
            objects.add(NftElement(NftHook.family, name, f"apart{address.version}", match))
    return frozenset(objects)
