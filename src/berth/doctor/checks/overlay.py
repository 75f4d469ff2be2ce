"""Networks over several hosts: what the kernel knows of the others, and whether its packets get there."""

from __future__ import annotations

from collections.abc import Iterator

from berth.doctor.checks.state import few
from berth.doctor.facts import Facts, Probed
from berth.doctor.report import Finding, Severity
from berth.model import HostRoute
from berth.overlaid import Fdb, Neigh
from berth.plan import Del, subject


def entries(facts: Facts) -> Iterator[Finding]:
    """A tunnel knows something of other hosts' endpoints that is not so, or does not know what is."""
    ops = [op for op in facts.records.plan.ops if isinstance(subject(op), Fdb | Neigh)]
    stale = [op for op in ops if isinstance(op, Del)]
    for what, some in (("stale", stale), ("missing or wrong", [op for op in ops if op not in stale])):
        if some:
            yield Finding(
                "overlay-entries",
                Severity.ERROR,
                f"forwarding or neighbour entries about other hosts are {what}: {few(some)}",
                "packets go to a host where the container is not, or nowhere",
                "berth reconcile",
                ours=True,
            )


def port_blocked(facts: Facts) -> Iterator[Finding]:
    """A host's tunnels cannot be reached."""
    for each in facts.probed:
        if not each.largest:
            peer = each.peer
            yield Finding(
                "overlay-port-blocked",
                Severity.ERROR,
                f"node {peer.node} does not answer at {peer.address}, UDP port {peer.port}",
                f"containers of network {', '.join(peer.networks)} here and there do not reach each other",
                f"open UDP port {peer.port} on {peer.node} for {peer.local}, here for what goes there, and on the way;"
                " or see whether its `berth daemon` runs",
                command=False,
            )


def mtu_black_hole(facts: Facts) -> Iterator[Finding]:
    """Large packets to another host vanish on the way."""
    for each in facts.probed:
        if 0 < each.largest < each.size:
            way = _way(facts, each)
            yield Finding(
                "overlay-mtu",
                Severity.ERROR,
                f"of the packets to node {each.peer.node} ({each.peer.address}), those of {each.largest} bytes arrive"
                f" and those of {each.size} do not",
                f"connections of network {', '.join(each.peer.networks)} hang as soon as much is sent",
                # Then the kernel knows, and says so to who sends more.
                way or f"make the way to {each.peer.address} carry {each.size} bytes",
                command=bool(way),
            )


def _way(facts: Facts, each: Probed) -> str:
    """The command that tells the kernel how much the way to a peer carries."""
    address = each.peer.address
    ways = [way for way in facts.host.routes if way.dst.version == address.version and address in way.dst]
    best = max(ways, key=lambda way: (way.dst.prefixlen, -way.metric), default=None)
    if best is None:
        return ""
    return f"ip route replace {address} {_by(best)} mtu lock {each.largest}"


def _by(route: HostRoute) -> str:
    return f"via {route.via} dev {route.dev}" if route.via is not None else f"dev {route.dev}"


def misfit(facts: Facts) -> Iterator[Finding]:
    """A network cannot be on this host, as its subnet is something else here."""
    for why in facts.records.spanned.misfits:
        yield Finding(
            "overlay-subnet-taken",
            Severity.WARNING,
            f"{why}: it is left out here",
            "no container of this host can be on that network, nor reach it",
            "make the network anew with another --subnet, or renumber what is there",
            command=False,
        )


def other_version(facts: Facts) -> Iterator[Finding]:
    """Hosts that share a store run different versions of Berth."""
    there = [node for node in facts.records.spanned.nodes if node.state != "dead"]
    versions = sorted({node.host.version for node in there})
    if len(versions) > 1:
        told = "; ".join(
            f"{version or 'an older one'} on {', '.join(n.host.name for n in there if n.host.version == version)}"
            for version in versions
        )
        yield Finding(
            "node-version",
            Severity.WARNING,
            f"nodes run different versions of Berth: {told}",
            "what one writes another may not understand",
            "install the same version on all nodes",
            command=False,
        )
