"""What the doctor has to know of this host: read from the kernel, asked of the LAN, looked up in sandboxes.

What takes time to answer is asked at the same time, each by a thread of its own: setns(2) moves no other.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

from berth.doctor.facts import Facts, ForeignChain, Records, Unreached, is_cable, own_bridges
from berth.errors import BerthError
from berth.kernel import listeners, nft, nft_text, probes, read, sysctl, underlay
from berth.kernel.netlink import NETFILTER, Netlink
from berth.kernel.netns import inside
from berth.model import Address, Endpoint, Host, Placement, PortMapping

_PATIENCE = 1.2  # seconds that a next hop has to answer
_AT_ONCE = 16
_FORWARD = 2  # NF_INET_FORWARD
#: Chains that Berth makes its way through by itself, or that are told of its bridges.
_KNOWN = frozenset({("ip", "filter"), ("ip6", "filter"), ("inet", "firewalld")})
_ACCEPTING = re.compile(r'[io]ifname \{?\s*"?([^" }]+)"? .*\baccept\b')


def gather(records: Records) -> Facts:
    """The facts that every check rests on. Raises what `read.host` raises."""
    host = read.host()
    with ThreadPoolExecutor(_AT_ONCE) as pool:
        questions = _questions(records, host).items()
        asked = [(bridge, pool.submit(probes.who_has, bridge, wanted)) for bridge, wanted in questions]
        hops = [(ep, hop, pool.submit(_answers, ep, hop)) for ep, hop in _next_hops(records)]
        probed = pool.submit(underlay.probe, records.spanned.peers)
        heard = [(ep, pool.submit(_unheard, ep)) for ep in _publishing(records)]
        facts = Facts(records, host, strict=_strict(host), foreign=tuple(_foreign(records)))
        answers = {(bridge, ip): macs for bridge, told in asked for ip, macs in told.result().items()}
        unreached = tuple(Unreached(ep, hop) for ep, hop, answered in hops if not answered.result())
        unheard = tuple((ep, port) for ep, told in heard for port in told.result())
    found = replace(facts, answers=answers, unreached=unreached, unheard=unheard)
    return replace(found, probed=probed.result())


def _questions(records: Records, host: Host) -> dict[str, tuple[Address, ...]]:
    """Whose addresses are asked for, by bridge: the LANs' routers, those of containers, and the host's own."""
    asked = {link.name: [held.ip for held in link.addresses if not held.is_link_local] for link in own_bridges(host)}
    for net in records.flat:
        wanted = asked.setdefault(net.bridge, [])
        wanted += [pool.gateway for pool in net.pools if pool.gateway is not None]
        wanted += [held.ip for ep in records.of(net) for held in ep.addresses]
    return {bridge: tuple(dict.fromkeys(wanted)) for bridge, wanted in asked.items() if wanted}


def _next_hops(records: Records) -> Iterator[tuple[Endpoint, Address]]:
    """For each network, the routers of the endpoint that came last: what keeps one from them keeps all."""
    for net in records.networks:
        full = [ep for ep in records.of(net) if ep.placement is Placement.FULL]
        for version in full[-1].default_route if full else ():
            hop = next((p.gateway for p in net.pools if p.subnet.version == version and p.gateway is not None), None)
            if hop is not None:
                yield full[-1], hop


def _answers(ep: Endpoint, hop: Address) -> bool:
    """Whether a next hop answers an endpoint; True where that cannot be asked."""
    source = next((held.ip for held in ep.addresses if held.version == hop.version), None)
    try:
        with inside(ep.sandbox.path):
            return bool(probes.who_has(ep.ifname, (hop,), source=source, within=_PATIENCE, every=False))
    except (BerthError, OSError):
        return True


def _publishing(records: Records) -> Iterator[Endpoint]:
    gone = {ep.id for ep in records.gone}
    return (ep for ep in records.endpoints if ep.ports and ep.id not in gone and ep.placement is Placement.FULL)


def _unheard(ep: Endpoint) -> tuple[PortMapping, ...]:
    """The published ports that nobody in the sandbox waits on."""
    try:
        with inside(ep.sandbox.path):
            heard = {proto: listeners.listening(proto) for proto in ("tcp", "udp")}
    except BerthError:
        return ()
    return tuple(port for port in ep.ports if port.proto in heard and port.port not in heard[port.proto])


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
