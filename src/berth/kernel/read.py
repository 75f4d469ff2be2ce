"""Reading what exists, in the same nouns that are asked for.

What only uplinks or Open vSwitch need is loaded when it is asked for: every command starts by loading this module.
"""

from __future__ import annotations

import errno
import os
from collections import defaultdict
from collections.abc import Iterable, Iterator
from ipaddress import ip_address, ip_network

from msgspec.structs import replace

from berth import durable
from berth.errors import Denied, Invalid, NotFound
from berth.flows import NftFlows
from berth.kernel import firewalld, flows, guards, nft, offload, passes, rtnl, sysctl, xtables
from berth.kernel.netlink import NETFILTER, ROUTE, Netlink, Refusal
from berth.kernel.netns import inside, open_ns
from berth.kernel.obstacles import obstacles
from berth.model import Host, HostLink, HostRoute, Interface
from berth.overlaid import Vxlan
from berth.ovs import DATAPATH, KINDS
from berth.rates import NftRate
from berth.sealed import SEAL, SEAL_MARK, SEALS, WireGuard
from berth.seams import Scope
from berth.state import (
    HOST,
    MARK,
    Addr,
    Bridge,
    Foreign,
    Key,
    LinkUp,
    NftGuard,
    NftHook,
    NftPass,
    Obj,
    Route,
    State,
    Sysctl,
    TextFile,
    Veth,
    ours,
)

_MANY = 16  # links that are asked for one by one; more are picked from a list of all
_INSIDE = ("sysctl", "tx-checksums", "up", "addr", "route")  # what is read where it is


def read(scope: Scope) -> State:
    """The objects within a scope. A sandbox that is gone simply holds nothing."""
    by_ns: dict[str, set[Key]] = defaultdict(set)
    for key in scope.keys:
        by_ns[HOST if key[0].startswith("nft") else key[1]].add(key)
    found: set[Obj] = set(_links(scope, by_ns[HOST]))
    for ns, keys in by_ns.items():
        if not any(key[0] in _INSIDE for key in keys):
            continue
        try:
            with inside(ns):
                found |= set(_settings(ns, keys))
                with Netlink(ROUTE) as nl:
                    found |= set(_inside(nl, ns, keys))
        except (NotFound, Invalid):
            continue
    found |= set(_whereabouts(scope, by_ns[HOST], found))
    found |= set(_shapes(by_ns[HOST]))
    found |= set(_carried(scope, by_ns[HOST]))
    found |= set(_files(by_ns[HOST]))
    found |= set(_switches(scope, by_ns[HOST]))
    found |= set(_firewall(scope, by_ns[HOST]))
    found |= set(_passes(scope, by_ns[HOST]))
    found |= set(_guards(scope, by_ns[HOST]))
    return frozenset(found)


# --- links ----------------------------------------------------------------------------------------------


def _links(scope: Scope, keys: Iterable[Key]) -> Iterator[Obj]:
    """Bridges and cables: by name, and with `marked` all that carry the mark."""
    names = {key[2] for key in keys if key[0] == "link"}
    if not names and not scope.marked:
        return
    with Netlink(ROUTE) as nl:
        if scope.marked or len(names) > _MANY:
            every = list(rtnl.links(nl))
            chosen = [link for link in every if link.name in names or (scope.marked and ours(link.alias))]
            label = {link.index: link.name for link in every}
        else:
            chosen = [link for link in (rtnl.link(nl, name) for name in sorted(names)) if link is not None]
            label = {}
        peers = _Peers(nl, scope.namespaces)
        for link in chosen:
            if link.group != rtnl.RETIRED:
                yield _link_noun(nl, link, label, peers)


def _link_noun(nl: Netlink, link: rtnl.Link, label: dict[int, str], peers: _Peers) -> Obj:
    if link.alias.startswith(MARK) and link.kind == "bridge":
        # One that is down or has STP on is not what was asked: an MTU of 0 differs from any.
        return Bridge(link.name, link.mac, link.mtu if link.up and link.fresh else 0, link.alias)
    if link.alias.startswith(MARK) and link.kind == "veth":
        ns, inner, mac, mtu = peers.of(link)
        master = ""
        if link.master:
            master = label.get(link.master) or rtnl.name_of(link.master)
            master = "" if master == DATAPATH else master
        outer_mtu, inner_mtu = link.mtu if link.up else 0, mtu if mtu != link.mtu else 0
        cable = Veth(link.name, master, outer_mtu, link.alias, ns, inner, mac, inner_mtu)
        return replace(cable, hairpin=link.hairpin, isolated=link.isolated)
    if link.alias.startswith(SEAL_MARK) and link.kind in SEALS:
        from berth.kernel import wireguard

        return wireguard.read_device(link)
    if link.alias.startswith(MARK) and link.kind == "vxlan":
        from berth.kernel import overlaid

        return overlaid.read_vxlan(nl, link, label.get(link.master) or rtnl.name_of(link.master))
    kind = link.kind or "link"
    return Foreign(("link", HOST, link.name), f"a {kind} named {link.name}")


class _Peers:
    """Finds the inner ends of cables: which namespace the kernel's id means, and what its links are called."""

    def __init__(self, nl: Netlink, namespaces: Iterable[str]) -> None:
        self._by_id: dict[int, tuple[str, dict[int, rtnl.End]]] = {}
        for ns in sorted({HOST, *namespaces}):
            try:
                self._learn(nl, ns)
            except (NotFound, Invalid):
                continue

    def _learn(self, nl: Netlink, ns: str) -> None:
        if ns == HOST:
            self._by_id[-1] = (HOST, {})
            return
        fd = open_ns(ns)
        try:
            known_as = rtnl.nsid(nl, fd)
        finally:
            os.close(fd)
        if known_as >= 0:
            with inside(ns), Netlink(ROUTE) as there:
                self._by_id[known_as] = (ns, rtnl.ends(there))

    def of(self, link: rtnl.Link) -> tuple[str, str, str, int]:
        """(namespace, name, MAC, MTU) of a cable's inner end; "?" for one that is nowhere known."""
        ns, links = self._by_id.get(link.peer_nsid, ("?", {}))
        if ns == HOST and link.peer_nsid == -1:
            return HOST, *_local(link.peer)
        peer = links.get(link.peer)
        return (ns, peer.name, peer.mac, peer.mtu) if peer is not None else ("?", "?", "?", 0)


def _local(index: int) -> tuple[str, str, int]:
    name = rtnl.name_of(index)
    with Netlink(ROUTE) as nl:
        link = rtnl.link(nl, name) if name else None
    return (name, link.mac, link.mtu) if link is not None else ("?", "?", 0)


# --- inside a namespace ---------------------------------------------------------------------------------


def _settings(ns: str, keys: Iterable[Key]) -> Iterator[Obj]:
    for key in keys:
        if key[0] == "sysctl":
            value = sysctl.read(key[2])
            if value is not None:
                yield Sysctl(ns, key[2], value)
        if key[0] == "tx-checksums":
            yield offload.read(ns, key[2])


def _inside(nl: Netlink, ns: str, keys: set[Key]) -> Iterator[Obj]:
    kinds = {key[0] for key in keys}
    for key in keys:
        if key[0] == "up":
            up = rtnl.is_up(nl, key[2])
            if up is not None:
                yield LinkUp(ns, key[2], up)
    if "addr" in kinds:
        for index, ip in rtnl.addresses(nl):
            addr = Addr(ns, rtnl.name_of(index), str(ip))
            if addr.key in keys:
                yield addr
    if "route" in kinds:
        for entry in rtnl.routes(nl):
            if entry.from_kernel:
                continue
            route = Route(ns, entry.dst, rtnl.name_of(entry.index), entry.via, entry.metric)
            if route.key in keys:
                yield route if entry.index else Foreign(route.key, f"a route to {entry.dst} with several next hops")


def _whereabouts(scope: Scope, keys: Iterable[Key], found: Iterable[Obj]) -> Iterator[Obj]:
    """What tunnels know: all of it of the scope's, and with `marked` of all that were found; else what is asked for."""
    every = {*scope.tunnels, *(obj.name for obj in found if scope.marked and isinstance(obj, Vxlan | WireGuard))}
    asked = {key for key in keys if key[0] in ("fdb", "neigh", "seal-peer")}
    devs = every | {key[2] for key in asked}
    if devs:
        from berth.kernel import overlaid

        for entry in overlaid.read_entries(Netlink.kept(ROUTE), devs):
            if entry.dev in every or entry.key in asked:
                yield entry
    if seals := {dev for dev in devs if dev.startswith(SEAL)}:
        from berth.kernel import wireguard

        for peer in wireguard.read_peers(Netlink.kept(ROUTE), seals):
            if peer.dev in every or peer.key in asked:
                yield peer


def _shapes(keys: Iterable[Key]) -> Iterator[Obj]:
    devs = {key[2] for key in keys if key[0] == "shaped"}
    if devs:
        from berth.kernel import rates

        with Netlink(ROUTE) as nl:
            yield from rates.read_shapes(nl, devs)


def _files(keys: Iterable[Key]) -> Iterator[Obj]:
    for key in keys:
        if key[0] == "file" and (found := durable.read(key[2])) is not None:
            yield TextFile(key[2], *found)


def _carried(scope: Scope, keys: set[Key]) -> Iterator[Obj]:
    """Ports, and what links of the host carry: all of it of the scope's devices, of others what is asked for."""
    asked = {key for key in keys if key[0].startswith("moved-")}
    ports = {key[2] for key in keys if key[0] == "port"}
    if not (asked or ports or scope.devices):
        return
    from berth.kernel import moved

    with Netlink(ROUTE) as nl:
        yield from (port for dev in ports if (port := moved.port(nl, dev)) is not None)
        for noun in moved.read(nl) if asked or scope.devices else ():
            if noun.key in asked or not scope.devices.isdisjoint(noun.links):
                yield noun


def _switches(scope: Scope, keys: set[Key]) -> Iterator[Obj]:
    """Bridges and ports of Open vSwitch's."""
    asked = {key for key in keys if key[0].startswith("ovs-")}
    if asked or scope.marked:
        from berth.kernel import ovs

        yield from ovs.read(asked, marked=scope.marked)


def _firewall(scope: Scope, keys: Iterable[Key]) -> Iterator[Obj]:
    wanted = frozenset(keys)
    names = {key[1:3] for key in wanted if key[0].startswith("nft-") and key[0] != "nft-guard"}
    if not names and not scope.marked:
        return
    nl = Netlink.kept(NETFILTER)
    if scope.marked:
        names |= {(family, name) for family, name in nft.tables(nl) if nft.marked(family, name)}
        names = {name for name in names if not name[1].startswith(NftGuard.prefix)}
    policing = {pair for pair in names if NftRate.is_one(*pair)}
    if policing:
        from berth.kernel import rates

        yield from (entry for entry in rates.read_rates(nl) if scope.marked or entry.key in wanted)
    offloading = {pair for pair in names if NftFlows.is_one(*pair)}
    if offloading:
        yield from (entry for entry in flows.read(nl) if scope.marked or entry.key in wanted)
    for family, name in sorted(names - policing - offloading):
        try:
            table = nft.read_table(nl, family, name)
            entries: list[Obj] = [table, *nft.read_elements(nl, family, name)] if table is not None else []
        except Refusal as refusal:
            if refusal.errno != errno.ENOENT:
                raise
            continue  # it went while it was read
        if table is None:
            continue
        if family == NftHook.family:
            entries += nft.read_hooks(nl, name)
        every = scope.marked and nft.marked(family, name) and table.owner
        yield from (entry for entry in entries if every or entry.key in wanted)


def _guards(scope: Scope, keys: Iterable[Key]) -> Iterator[Obj]:
    """Endpoints' guards, each a table of its own."""
    tables = {key[2] for key in keys if key[0] == "nft-guard"}
    if tables or scope.marked:
        for guard in guards.read(Netlink.kept(NETFILTER), lambda name: scope.marked or name in tables):
            if guard.table in tables or guard.owner:
                yield guard


def _passes(scope: Scope, keys: Iterable[Key]) -> Iterator[Obj]:
    """Ways through others' chains; what is wanted of one that stops nothing is there already."""
    wanted = {key for key in keys if key[0] == "pass"}
    families = {key[2] for key in wanted} | ({"ip", "ip6"} if scope.marked else set())
    nl = Netlink.kept(NETFILTER)
    for family in sorted(families):
        lines = xtables.listed(family)
        there = {entry for entry, _ in passes.read(nl, family)} | {*xtables.ours(family, lines)}
        yield from (entry for entry in there if scope.marked or entry.key in wanted)
        in_the_way = {False: passes.in_the_way(nl, family), True: xtables.in_the_way(lines)}
        for _, _, of, dev, direction, chain, *kind in sorted(wanted - {entry.key for entry in there}):
            if of == family and chain != in_the_way[bool(kind)]:
                yield NftPass(family, dev, direction, chain, needless=True, legacy=bool(kind))
    if zoned := sorted(key[2] for key in keys if key[0] == "zone"):
        yield from firewalld.read(zoned)


# --- the host as a whole --------------------------------------------------------------------------------


def host() -> Host:
    """The host's links with their addresses, and its main routing table."""
    with Netlink(ROUTE) as nl:
        try:
            every = list(rtnl.links(nl))
            held: dict[int, list[Interface]] = defaultdict(list)
            for index, ip in rtnl.addresses(nl):
                held[index].append(ip)
            label = {link.index: link.name for link in every}
            links = tuple(
                HostLink(
                    name=link.name,
                    kind=link.kind,
                    mtu=link.mtu,
                    up=link.up,
                    master=label.get(link.master, ""),
                    alias=link.alias,
                    addresses=tuple(held[link.index]),
                    mac=link.mac,
                    carrier=link.carrier,
                    stp=link.stp,
                )
                for link in every
                if link.group != rtnl.RETIRED
            )
            if any(link.kind in KINDS for link in links):
                from berth.kernel import ovs

                links = ovs.with_switches(links)
            return Host(links, tuple(_host_routes(nl, label)), obstacles=obstacles())
        except Refusal as refusal:
            if refusal.errno == errno.EPERM:
                raise Denied("may not read the host's firewall: run as root (CAP_NET_ADMIN)") from None
            raise NotFound(f"cannot read the host's links and routes: {refusal.strerror}") from None


def _host_routes(nl: Netlink, label: dict[int, str]) -> Iterator[HostRoute]:
    for entry in rtnl.routes(nl):
        via = ip_address(entry.via) if entry.via else None
        yield HostRoute(ip_network(entry.dst), label.get(entry.index, ""), via, entry.metric, entry.from_ra)
