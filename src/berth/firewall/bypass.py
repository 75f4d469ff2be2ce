"""A way past other programs' FORWARD chains, for the frames of Berth's own flat endpoints only.

With br_netfilter, frames that cross a bridge pass the host's FORWARD chains, and no rule of ours can undo
another's drop. But a frame can be passed on before the bridge sees it: where it comes in, an `ingress` hook
sends it straight out of the link that its destination is behind. Nobody's rules or settings are touched, and
frames between other members of the bridge go the way they always went.

Left out: multicast from the LAN to the containers other than IPv6 neighbour discovery (mDNS, say) still goes
through the bridge, and so through whatever drops there.
"""

from __future__ import annotations

from berth.firewall.tables import table
from berth.model import Endpoint, Network
from berth.state import NftElement, NftHook, NftTable, State

_SETS = (
    ("map cables", "type ether_addr : iface_index"),  # an endpoint's MAC -> its cable
    ("map solicited", "type ether_addr : iface_index"),  # the multicast MAC of its IPv6 neighbour solicitations
)


def _name(net: Network) -> str:
    return f"berth_{net.id[:12]}"


def _skeleton(net: Network) -> NftTable:
    to_lan: tuple[str, ...] = ()
    if len(net.nics) == 1:  # with several, only the bridge knows where a MAC is
        nic = net.nics[0]
        to_lan = (
            f'iifname "{nic}" return',
            f'meta pkttype {{ broadcast, multicast }} dup to "{nic}"',
            "meta pkttype { broadcast, multicast } return",
            f"ether daddr {net.bridge_mac} return",  # for the host itself
            f'fwd to "{nic}"',
        )
    rules = (
        "ether type != { ip, ip6 } return",
        "fwd to ether daddr map @cables",
        "dup to ether daddr map @solicited",
        *to_lan,
    )
    return table(NftHook.family, _name(net), _SETS, ((NftHook.target, "", rules),))


def for_network(net: Network) -> State:
    """The table, and the LAN's side of the way."""
    return frozenset({_skeleton(net), *(NftHook(_name(net), nic) for nic in net.nics)})


def for_endpoint(net: Network, ep: Endpoint) -> State:
    """The endpoint's side of the way."""
    name = _name(net)
    objects: set[NftElement | NftHook] = {NftHook(name, ep.link), _element(name, "cables", ep.mac, ep.link)}
    for interface in ep.addresses:
        if interface.version == 6:  # RFC 4291 section 2.7.1, RFC 2464 section 7
            mac = (b"\x33\x33\xff" + interface.ip.packed[-3:]).hex(":")
            objects.add(_element(name, "solicited", mac, ep.link))
    return frozenset(objects)


def _element(name: str, which: str, mac: str, link: str) -> NftElement:
    return NftElement(NftHook.family, name, which, (("mac", mac),), (("ifindex", link),))
