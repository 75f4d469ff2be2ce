"""Who may begin a conversation with an endpoint that has an allow list.

Its guard stands at the host's end of its cable, so it sees every way in alike: from a neighbour on the bridge, from
the LAN, through the bypass, from the host, and what came to a published port, under the endpoint's own port and with
the client's address. It keeps what it must remember by itself: kernels without connection tracking for bridges are
common, and a flat network's frames pass no other.

TCP needs no memory: nothing begins without a SYN, and segments that begin nothing are let in, for their receiver to
judge. So a connection outlives a guard that is made anew, however long it is idle. An echo reply begins nothing
either. UDP and SCTP are let in as answers to what the endpoint sent, from just there.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator

from berth.guarded import ASKING, NftGuard, Rule, words
from berth.model import Admission, Endpoint, Network
from berth.spec import allow_list
from berth.state import State

_ICMP = {4: ("ip", "icmp"), 6: ("ip6", "icmpv6")}

#: What no list keeps out, for nothing works without it.
_ALWAYS: tuple[Rule, ...] = (
    (("protocol", "arp"),),
    (("l4proto", "tcp"), ("begun", "")),
    (("protocol", "ip"), ("answers", "4")),
    (("protocol", "ip6"), ("answers", "6")),
    # The rest of a packet whose first fragment has to get in too, without which it is worth nothing.
    (("protocol", "ip"), ("later", "4")),
    (("protocol", "ip6"), ("later", "6")),
    (("protocol", "ip"), ("l4proto", "igmp")),
    # Echo replies, unreachable (with "fragmentation needed"), time exceeded and bad parameters: RFC 792.
    *((("protocol", "ip"), ("l4proto", "icmp"), ("icmp", kinds)) for kinds in ("0", "3", "11-12")),
    # Errors, echo replies, who is interested in a group, router and neighbour discovery: RFC 4443, 2710, 4861.
    *((("protocol", "ip6"), ("l4proto", "icmpv6"), ("icmpv6", kinds)) for kinds in ("1-4", "129-130", "133-136")),
)


def listed(net: Network, ep: Endpoint) -> str:
    """The allow list that holds for an endpoint, its own or else its network's; "" for none: everything gets in."""
    return dict(ep.options).get("allow", net.allow)


def for_endpoint(net: Network, ep: Endpoint) -> State:
    """The guard of an endpoint that has an allow list."""
    text = listed(net, ep)
    return frozenset({guard(ep.link, allow_list(text))}) if text else frozenset()


def guard(dev: str, allowed: tuple[Admission, ...]) -> NftGuard:
    """The guard at a link of the host's."""
    rules = (*_ALWAYS, *(rule for admission in allowed for rule in _rules(admission)))
    text = "\n".join(" ".join(map(words, rule)) for rule in (*ASKING, *rules))
    digest = hashlib.sha256(text.encode()).hexdigest()[:12]
    return NftGuard(dev, f"{digest}/{len(ASKING) + len(rules) + 1}", rules)


def _rules(allowed: Admission) -> Iterator[Rule]:
    source = allowed.source
    if source is None and allowed.proto not in ("any", "icmp"):  # for both IP versions at once
        yield (("l4proto", allowed.proto), *_ports(allowed))
        return
    for version in (4, 6) if source is None else (source.version,):
        ip, icmp = _ICMP[version]
        rule: Rule = (("protocol", ip),)
        if source is not None and source.prefixlen:
            rule += (("saddr", str(source)),)
        if allowed.proto != "any":
            rule += (("l4proto", icmp if allowed.proto == "icmp" else allowed.proto), *_ports(allowed))
        yield rule


def _ports(allowed: Admission) -> Rule:
    if allowed.ports is None:
        return ()
    first, last = allowed.ports
    return (("dport", str(first) if first == last else f"{first}-{last}"),)
