"""What the doctor has to know of this host: read from the kernel, asked of the LAN, looked up in sandboxes.

What takes time to answer is asked at the same time, each by a thread of its own: setns(2) moves no other.
"""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from ipaddress import IPv4Address, IPv4Network

from berth.doctor.facts import Facts, ForeignChain, Keeping, Overlap, Records, Unreached, is_cable, own_bridges
from berth.kernel import docker, inquiries, neighbours, nft, nft_text, read, sysctl, underlay
from berth.kernel.netlink import NETFILTER, ROUTE, Netlink
from berth.model import Address, Endpoint, Host, PortMapping
from berth.seams import WhoHas

_AT_ONCE = 24
_FORWARD = 2  # NF_INET_FORWARD
#: Chains that Berth makes its way through by itself, or that are told of its bridges.
_KNOWN = frozenset({("ip", "filter"), ("ip6", "filter"), ("inet", "firewalld")})
_ACCEPTING = re.compile(r'[io]ifname \{?\s*"?([^" }]+)"? .*\baccept\b')
_NEIGHBOURS = 3  # of the host's on a LAN, of which one is asked by containers


@dataclass(frozen=True, slots=True)
class Ways:
    """How to ask what this module cannot, and what for."""

    who_has: WhoHas
    #: An address of a range that a DHCP server behind a bridge offers, and that server.
    offered: Callable[[str, IPv4Network, Collection[IPv4Address]], tuple[IPv4Address, IPv4Address] | None]
    keeping: Callable[[Sequence[tuple[str, str]]], Sequence[Keeping]]  # of NICs with their bridges
    daemon: bool = False  # it runs, and answers for names
    internet: tuple[Address, ...] = ()  # whom containers should reach, if the host does


def gather(records: Records, ways: Ways) -> Facts:
    """The facts that every check rests on. Raises what `read.host` raises."""
    host = read.host()
    facts = Facts(records, host, strict=_strict(host), foreign=tuple(_foreign(records)), now=time.time())
    with ThreadPoolExecutor(_AT_ONCE) as pool:
        asked = {question: pool.submit(ways.who_has, *question, via=via) for question, via in _questions(facts)}
        probed = pool.submit(underlay.probe, records.spanned.peers)
        offered = [
            (net, pool.submit(ways.offered, net.bridge, *span)) for net in records.flat for span in records.ranges(net)
        ]
        lost = pool.submit(_unreached, facts, ways, pool)
        deaf = [
            pool.submit(inquiries.deaf, ep, server, daemon=ways.daemon)
            for ep, server in inquiries.resolvers(records, daemon=ways.daemon)
        ]
        unheard = pool.submit(_unheard, records)
        nics = [(link.name, net.bridge) for net in records.flat for link in facts.uplinks(net)]
        return replace(
            facts,
            keeping=tuple(ways.keeping(tuple(dict.fromkeys(nics)))) if nics else (),
            docker=docker.backends() if records.networks else (),
            answers={(dev, ip): macs for (dev, _), told in asked.items() for ip, macs in told.result().items()},
            overlaps=tuple(Overlap(net, *each) for net, told in offered if (each := told.result()) is not None),
            deaf=tuple(
                each for each in (told.result() for told in deaf) if each is not None and _plugged(each.endpoint)
            ),
            unheard=tuple(each for each in unheard.result() if _plugged(each[0])),
            unreached=tuple(each for each in lost.result() if _plugged(each.endpoint)),
            probed=probed.result(),
        )


def followed(facts: Facts, who_has: WhoHas) -> Facts:
    """The same, with what does not answer followed on its way: the first of it, since one at a time can be.

    Not while drift is looked for: the table that asks for the trace would be somebody's that there is nobody for.
    """
    if not facts.unreached:
        return facts
    first, *others = facts.unreached
    net = next(net for net in facts.records.networks if net.id == first.endpoint.network)
    halt = inquiries.halt(net, first.endpoint, first.address, who_has)
    return replace(facts, unreached=(replace(first, halt=halt), *others))


def _plugged(ep: Endpoint) -> bool:
    """Whether an endpoint's cable is there: one that was detached meanwhile answers nothing, and lacks nothing."""
    return Netlink.kept(ROUTE).index(ep.link) is not None


# --- the LAN ---


def _questions(facts: Facts) -> Iterator[tuple[tuple[str, tuple[Address, ...]], tuple[str, ...]]]:
    """Whose addresses are asked for on which bridge, and by which of its ports: () for all.

    The host's own and routers' are asked for everywhere. Containers' only where others than containers are: each
    question would go to each of them.
    """
    common = {
        link.name: [held.ip for held in link.addresses if not held.is_link_local] for link in own_bridges(facts.host)
    }
    for net in facts.records.flat:
        common.setdefault(net.bridge, []).extend(pool.gateway for pool in net.pools if pool.gateway is not None)
    for bridge, wanted in common.items():
        if wanted:
            yield (bridge, tuple(dict.fromkeys(wanted))), ()
    for net in facts.records.flat:
        ports = tuple(link.name for link in facts.uplinks(net))
        theirs = tuple(held.ip for ep in facts.records.of(net) for held in ep.addresses)
        if theirs and ports:
            yield (net.bridge, theirs), ports


def _known(facts: Facts, who_has: WhoHas) -> Mapping[str, Sequence[Address]]:
    """Machines of the LANs that answer the host, by bridge."""
    own = {held.ip for ep in facts.records.endpoints for held in ep.addresses}
    own |= {pool.gateway for net in facts.records.networks for pool in net.pools if pool.gateway is not None}
    own |= {route.via for route in facts.host.routes if route.via is not None}
    near: dict[str, list[Address]] = {net.bridge: [] for net in facts.records.flat}
    for each in neighbours.known():
        ip = each.address
        if each.dev in near and not (ip in own or ip.is_multicast or ip.is_link_local or each.router):
            near[each.dev] = [*near[each.dev], ip][:_NEIGHBOURS]
    return {dev: tuple(who_has(dev, ips, every=False)) for dev, ips in near.items() if ips}


# --- sandboxes ---


def _unreached(facts: Facts, ways: Ways, pool: ThreadPoolExecutor) -> list[Unreached]:
    """Routers, peers and the internet, as far as they do not answer; of whom they do not answer, one thing each."""
    records = facts.records
    hops = [(ep, ip, "router", pool.submit(_answers, ways, ep, ip)) for ep, ip in inquiries.next_hops(records)]
    hosts = {ip: pool.submit(inquiries.pings, "", ip) for ip in ways.internet}
    out = [
        (ep, ip, "internet", pool.submit(inquiries.pings, ep.sandbox.path, ip))
        for ep, ip in inquiries.beyond(records, ways.internet)
    ]
    near = [
        (ep, ip, "peer", pool.submit(_answers, ways, ep, ip))
        for ep, ip in inquiries.peers(records, _known(facts, ways.who_has))
    ]
    missed = [Unreached(ep, ip, kind) for ep, ip, kind, told in (*hops, *near) if not told.result()]
    silent = {(each.endpoint.id, each.address.version) for each in missed if each.kind == "router"}
    again = [  # what the host reaches: one packet may be lost
        (ep, ip, kind, pool.submit(inquiries.pings, ep.sandbox.path, ip))
        for ep, ip, kind, told in out
        if not told.result() and hosts[ip].result()
    ]
    beyond = [Unreached(ep, ip, kind) for ep, ip, kind, told in again if not told.result()]
    return [*missed, *(each for each in beyond if (each.endpoint.id, each.address.version) not in silent)]


def _answers(ways: Ways, ep: Endpoint, address: Address) -> bool:
    return inquiries.answers(ways.who_has, ep, address)


def _unheard(records: Records) -> tuple[tuple[Endpoint, PortMapping], ...]:
    """Published ports that nobody hears: one thread for all, since each look is short."""
    return tuple((ep, port) for ep in inquiries.publishing(records) for port in inquiries.unheard(ep))


# --- the host ---


def _strict(host: Host) -> frozenset[str]:
    """The links whose reverse path filter is strict: the larger of two settings counts (ip-sysctl.rst)."""
    every = sysctl.read("net.ipv4.conf.all.rp_filter") or "0"
    names = (link.name for link in host.links if not is_cable(link))
    own = ((name, sysctl.read(f"net.ipv4.conf.{name.replace('.', '/')}.rp_filter") or "0") for name in names)
    return frozenset(name for name, value in own if max(int(value), int(every)) == 1)


def _foreign(records: Records) -> Iterator[ForeignChain]:
    """The FORWARD chains of others that drop by policy, where anything is routed through them."""
    if not any(net.nat and not net.internal for net in records.networks):
        return
    for chain in nft.base_chains(Netlink.kept(NETFILTER)):
        theirs = not nft.marked(chain.family, chain.table) and (chain.family, chain.table) not in _KNOWN
        if theirs and chain.hook == _FORWARD and chain.drops and chain.family in ("ip", "ip6", "inet"):
            yield ForeignChain(chain.family, chain.table, chain.name, frozenset(_let_through(chain)))


def _let_through(chain: nft.BaseChain) -> Iterable[str]:
    """The links that a chain accepts by name."""
    return _ACCEPTING.findall(nft_text.listed(chain.family, chain.table, chain.name))
