"""The skeleton of Berth's nftables: chains and rules that are the same however many containers there are.

Everything that differs per network or endpoint is an element of one of the sets and maps.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from functools import cache

from berth.state import NftTable

FAMILY, TABLE = "inet", "berth"

_SETS = (
    ("set bridges", "type ifname"),  # bridges of Berth's own
    ("set intra", "type ifname . ifname"),  # each of them paired with itself
    ("set apart", "type ifname . ifname"),  # the same, of those whose endpoints do not reach each other
    ("set internal", "type ifname"),  # those with no way in or out
    ("set allowed", "type ifname . ifname"),  # from the bridge of one network to another's
    ("set closed", "type ifname"),  # those whose endpoints do not reach the host's own services
    ("set masquerade4", "type ifname"),
    ("set masquerade6", "type ifname"),
    ("map port4", "type ipv4_addr . inet_proto . inet_service : ipv4_addr . inet_service"),
    ("map port6", "type ipv6_addr . inet_proto . inet_service : ipv6_addr . inet_service"),
    ("map anyport4", "type inet_proto . inet_service : ipv4_addr . inet_service"),
    ("map anyport6", "type inet_proto . inet_service : ipv6_addr . inet_service"),
    # Ranges of ports that keep their numbers; apart, because a look-up in a set of ranges costs more.
    ("map range4", "type ipv4_addr . inet_proto . inet_service : ipv4_addr; flags interval"),
    ("map range6", "type ipv6_addr . inet_proto . inet_service : ipv6_addr; flags interval"),
    ("map anyrange4", "type inet_proto . inet_service : ipv4_addr; flags interval"),
    ("map anyrange6", "type inet_proto . inet_service : ipv6_addr; flags interval"),
    # What the proxy is to pass on; no rule looks here. From an address and port, to an address, its port, and the last
    # of the host's where it is a range.
    ("map proxied4", "type ipv4_addr . inet_proto . inet_service : ipv4_addr . inet_service . inet_service"),
    ("map proxied6", "type ipv6_addr . inet_proto . inet_service : ipv6_addr . inet_service . inet_service"),
    ("map proxied64", "type ipv6_addr . inet_proto . inet_service : ipv4_addr . inet_service . inet_service"),
)

_PUBLISH_ONE = (
    "dnat ip to ip daddr . meta l4proto . th dport map @port4",
    "dnat ip6 to ip6 daddr . meta l4proto . th dport map @port6",
    "dnat ip to ip daddr . meta l4proto . th dport map @range4",
    "dnat ip6 to ip6 daddr . meta l4proto . th dport map @range6",
)
_PUBLISH_ANY = (
    "fib daddr type local dnat ip to meta l4proto . th dport map @anyport4",
    "fib daddr type local dnat ip6 to meta l4proto . th dport map @anyport6",
    "fib daddr type local dnat ip to meta l4proto . th dport map @anyrange4",
    "fib daddr type local dnat ip6 to meta l4proto . th dport map @anyrange6",
)

_CHAINS: tuple[tuple[str, str, tuple[str, ...]], ...] = (
    (
        "forward",
        "type filter hook forward priority filter; policy accept;",
        (
            "iifname . oifname @intra accept",
            "iifname @internal drop",
            "oifname @internal drop",
            "oifname @bridges ct state established,related accept",
            "oifname @bridges ct status dnat accept",
            "iifname . oifname @allowed accept",
            "oifname @bridges drop",
        ),
    ),
    (
        # Published ports do not come this way: they are translated before, and forwarded.
        "input",
        "type filter hook input priority filter; policy accept;",
        (
            "iifname @closed ct state established,related accept",
            # Who asks for the gateway's MAC (RFC 4861: neighbour solicitation and advertisement) is none of these.
            "iifname @closed icmpv6 type 135-136 accept",
            "iifname @closed drop",
        ),
    ),
    (
        # Bridges let 127.0.0.1 through, for the host's own packets to published ports; a container's must not pass.
        "loopback",
        "type filter hook prerouting priority raw; policy accept;",
        ("iifname @bridges ip daddr 127.0.0.0/8 drop", "iifname @bridges ip saddr 127.0.0.0/8 drop"),
    ),
    ("prerouting", "type nat hook prerouting priority dstnat; policy accept;", (*_PUBLISH_ONE, *_PUBLISH_ANY)),
    (
        "output",
        "type nat hook output priority -100; policy accept;",
        # ::1 cannot be translated to another machine; that is the proxy's job. And 127.0.0.53 is somebody's resolver.
        (
            "ip6 daddr ::1 return",
            *_PUBLISH_ONE,
            "ip daddr 127.0.0.0/8 ip daddr != 127.0.0.1 return",
            *_PUBLISH_ANY,
        ),
    ),
    (
        "postrouting",
        "type nat hook postrouting priority srcnat; policy accept;",
        (
            # The host by 127.0.0.1, which no answer could be sent to.
            "ip saddr 127.0.0.0/8 oifname @bridges masquerade",
            # An endpoint that reaches its own network through a published port: the answer must come back here.
            "ct status dnat iifname . oifname @intra masquerade",
            # The same where br_netfilter has led it back across the bridge, which does not say where it came in.
            "ct status dnat iif 0 oifname @bridges fib saddr type != local masquerade",
            "ct status dnat iifname . oifname @apart masquerade",
            "meta nfproto ipv4 iifname @masquerade4 oifname != @bridges masquerade",
            "meta nfproto ipv6 iifname @masquerade6 oifname != @bridges masquerade",
        ),
    ),
)


@cache
def inet() -> NftTable:
    """`table inet berth`: NAT, published ports and isolation between networks."""
    return table(FAMILY, TABLE, _SETS, _CHAINS)


def table(
    family: str, name: str, sets: Iterable[tuple[str, str]], chains: Iterable[tuple[str, str, tuple[str, ...]]]
) -> NftTable:
    """A table from (kind and name, type) of its sets and (name, hook, rules) of its chains."""
    lines = [f"  {kind} {{ {spec}; }}" for kind, spec in sets]
    count = 1
    for chain, hook, rules in chains:
        lines += [f"  chain {chain} {{", *([f"    {hook}"] if hook else []), *(f"    {rule}" for rule in rules), "  }"]
        count += len(rules)
    digest = hashlib.sha256("\n".join(lines).encode()).hexdigest()[:12]
    # Nothing jumps here: the comment tells which text this table was made from (see NftTable).
    lines += ["  chain stamp {", f'    return comment "{digest}"', "  }"]
    return NftTable(family, name, f"{digest}/{count}", "\n".join(lines) + "\n")
