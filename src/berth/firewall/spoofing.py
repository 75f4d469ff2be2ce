"""What an endpoint of a LAN may send: frames of its own MAC and its own addresses, and nothing that others trust.

The rules are looked at where a frame comes out of the endpoint's cable, before a bridge, an Open vSwitch or the
bypass takes it. Whatever cannot be told for certain is dropped: frames that are neither IP nor ARP (802.1Q and what
bridges say to each other among them), IPv6 whose upper-layer header is hidden behind fragments.
Sources: RFC 826 and 5227 (ARP), RFC 4861 and 4862 (neighbour discovery), RFC 6980 and 7112 (fragments), RFC 7113 (how
router advertisements get round such rules), RFC 2131 and 8415 (DHCP).
"""

from __future__ import annotations

from collections.abc import Iterator
from ipaddress import IPv6Address

from berth.model import Endpoint, Network
from berth.state import NftElement, NftHook, Part

CHAIN = "guarded"
SETS = (
    ("set macs", "type ifname . ether_addr"),  # cable and MAC of each endpoint
    ("set own4", "type ifname . ipv4_addr"),  # cable and addresses
    ("set own6", "type ifname . ipv6_addr"),
    # The same, for the field of a message that nft has no name for; it makes a number of that.
    ("set about6", "typeof iifname . @th,64,128"),
    ("set dhcp", "type ifname"),  # cables of who may be a DHCP server
    ("set ra", "type ifname"),  # cables of who may be an IPv6 router
)

_ARP = (
    "arp htype != 1 drop",
    "arp ptype != ip drop",
    "arp hlen != 6 drop",
    "arp plen != 4 drop",
    "iifname . arp saddr ether != @macs drop",
    "iifname . arp saddr ip @own4 return",
    "arp saddr ip 0.0.0.0 iifname . arp daddr ip @own4 return",  # a probe of its own address
    "drop",
)
_IP4 = (
    # A client takes an offer from whatever port it comes.
    "iifname != @dhcp udp sport 67 drop",
    "iifname != @dhcp udp dport 68 drop",
    "iifname . ip saddr @own4 return",
    "ip saddr 0.0.0.0 ip daddr 255.255.255.255 udp sport 68 udp dport 67 return",  # who asks for an address has none
    "ip saddr 0.0.0.0 ip protocol igmp return",
    "drop",
)
_IP6 = (
    "meta l4proto icmpv6 jump in-icmp6",
    "iifname != @dhcp udp sport 547 drop",
    "iifname != @dhcp udp dport 546 drop",
    # The second half is true of all but packets whose upper-layer header cannot be found.
    "iifname . ip6 saddr @own6 meta l4proto != 255 return",
    "ip6 saddr :: meta l4proto icmpv6 return",
    "drop",
)
_ICMP6 = (
    "iifname != @ra icmpv6 type { 134, 137 } drop",
    "icmpv6 type 133-137 exthdr frag exists drop",
    # Who has no address yet: looks for routers, asks whether its own is free, and joins groups.
    "ip6 saddr :: icmpv6 type != { 131, 132, 133, 135, 143 } drop",
    "ip6 saddr :: icmpv6 type 135 iifname . @th,64,128 != @about6 drop",
    "icmpv6 type 136 iifname . @th,64,128 != @about6 drop",
    "icmpv6 type != 255 return",  # the type can be read
    "frag frag-off != 0 return",  # a later fragment, of which the first was looked at
    "drop",
)


def chains(then: str) -> tuple[tuple[str, str, tuple[str, ...]], ...]:
    """The chains, of which the last is `CHAIN`. What is let through goes on to the chain `then`; "": to the switch."""
    rules = (
        "iifname . ether saddr != @macs drop",
        "ether type != { ip, ip6, arp } drop",
        "ether type vmap { ip : jump in-ip4, ip6 : jump in-ip6, arp : jump in-arp }",
        *((f"goto {then}",) if then else ()),
    )
    parts = (("in-arp", _ARP), ("in-ip4", _IP4), ("in-icmp6", _ICMP6), ("in-ip6", _IP6), (CHAIN, rules))
    return tuple((name, "", text) for name, text in parts)


def guards(net: Network, ep: Endpoint) -> bool:
    """Whether what the endpoint sends is checked."""
    return net.guarded and ep.option("antispoof") != "false"


def elements(net: Network, ep: Endpoint, table: str) -> Iterator[NftElement]:
    """Who is behind the endpoint's cable, and what it may be for the LAN."""
    cable: Part = ("ifname", ep.link)

    def member(which: str, *more: Part) -> NftElement:
        return NftElement(NftHook.family, table, which, (cable, *more))

    yield member("macs", ("mac", ep.mac))
    for address in (*(interface.ip for interface in ep.addresses), link_local(ep.mac)):
        yield member(f"own{address.version}", (f"ipv{address.version}", str(address)))
        if address.version == 6:
            yield member("about6", ("octets", f"0x{address.packed.hex()}"))
    for service in {*net.services, *filter(None, (ep.option("allow_services") or "").split(","))}:
        yield member(service)


def link_local(mac: str) -> IPv6Address:
    """The address that a host makes of its MAC (RFC 4291 appendix A)."""
    raw = bytes.fromhex(mac.replace(":", ""))
    return IPv6Address(b"\xfe\x80".ljust(8, b"\0") + bytes([raw[0] ^ 2]) + raw[1:3] + b"\xff\xfe" + raw[3:])
