"""A way past other programs' FORWARD chains, for the frames of Berth's own flat endpoints only.

With br_netfilter, frames that cross a bridge pass the host's FORWARD chains, and no rule of ours can undo
another's drop. But a frame can be passed on before the bridge sees it: where it comes in, an `ingress` hook
sends it straight out of the link that its destination is behind. Nobody's rules or settings are touched, and
frames between other members of the bridge go the way they always went.

Left out: multicast from the LAN to the containers other than IPv6 neighbour discovery (mDNS, say) still goes
through the bridge, and so through whatever drops there.
"""

from __future__ import annotations

from collections.abc import Iterator

from berth.model import Endpoint, Network
from berth.state import NftElement, NftHook

SETS = (
    ("map cables", "type ether_addr : iface_index"),  # an endpoint's MAC -> its cable
    ("map solicited", "type ether_addr : iface_index"),  # the multicast MAC of its IPv6 neighbour solicitations
)
_IP = ("ether type != { ip, ip6 } return",)
_TO_ENDPOINTS = ("fwd to ether daddr map @cables", "dup to ether daddr map @solicited")


def from_lan() -> tuple[str, ...]:
    """The rules for what comes in by the LAN's NICs."""
    return (*_IP, *_TO_ENDPOINTS)


def from_endpoint(net: Network) -> tuple[str, ...]:
    """The rules for what an endpoint sends."""
    to_lan: tuple[str, ...] = ()
    if len(net.nics) == 1:  # with several, only the bridge knows where a MAC is
        nic = net.nics[0]
        to_lan = (
            f'meta pkttype {{ broadcast, multicast }} dup to "{nic}"',
            "meta pkttype { broadcast, multicast } return",
            f"ether daddr {net.bridge_mac} return",  # for the host itself
            f'fwd to "{nic}"',
        )
    return (*_IP, *(_TO_ENDPOINTS if net.icc else ()), *to_lan)


def elements(ep: Endpoint, table: str) -> Iterator[NftElement]:
    """Where the endpoint is."""
    yield _element(table, "cables", ep.mac, ep.link)
    for interface in ep.addresses:
        if interface.version == 6:  # RFC 4291 section 2.7.1, RFC 2464 section 7
            mac = (b"\x33\x33\xff" + interface.ip.packed[-3:]).hex(":")
            yield _element(table, "solicited", mac, ep.link)


def _element(table: str, which: str, mac: str, link: str) -> NftElement:
    return NftElement(NftHook.family, table, which, (("mac", mac),), (("ifindex", link),))
