"""What stands in the way of packets: filters of the host's, next hops that do not answer, ports that nobody hears."""

from __future__ import annotations

from collections.abc import Iterator

from berth.doctor.facts import Facts, Unreached
from berth.doctor.report import Finding, Severity
from berth.model import Network


def foreign_forward_drop(facts: Facts) -> Iterator[Finding]:
    """Another program's FORWARD chain drops what crosses the LAN's bridge."""
    for net in facts.records.flat:
        if facts.host.obstacles and not net.bypass:
            asked = net.bypass_asked
            yield Finding(
                "foreign-forward-drop",
                Severity.ERROR,
                f"frames of network {net.name} are stopped by {' and '.join(facts.host.obstacles)}",
                "with br_netfilter, what only crosses the bridge passes that chain: containers reach nobody",
                "sysctl -w net.bridge.bridge-nf-call-iptables=0 net.bridge.bridge-nf-call-ip6tables=0"
                if asked
                else "berth reconcile",
                ours=not asked,
            )


def foreign_forward_policy(facts: Facts) -> Iterator[Finding]:
    """Another program's FORWARD chain drops what the host routes for a NAT network."""
    for net in facts.records.networks:
        for chain in facts.foreign if net.nat and not net.internal else ():
            if net.bridge in chain.lets:
                continue
            place = f"{chain.family} {chain.table} {chain.name}"
            yield Finding(
                "foreign-forward-drop",
                Severity.ERROR,
                f"the policy of chain {place} drops what is from and for {net.bridge} of network {net.name}",
                "containers behind NAT reach nothing beyond this host",
                " && ".join(f"nft insert rule {place} {way} {net.bridge} accept" for way in ("iifname", "oifname")),
            )


def rp_filter(facts: Facts) -> Iterator[Finding]:
    """A way into this host drops what would be answered by another way."""
    every = (route for route in facts.host.routes if route.dst.version == 4 and not route.dst.prefixlen)
    defaults = sorted(every, key=lambda route: route.metric)  # IPv6 has no such filter
    for route in defaults[1:]:
        best = defaults[0].dev
        if route.dev != best and route.dev in facts.strict:
            yield Finding(
                "rp-filter",
                Severity.WARNING,
                f"{route.dev} drops what comes from beyond its router: rp_filter is 1, and the way back is {best}",
                "ports that are published there answer nobody from outside",
                f"sysctl -w net.ipv4.conf.{route.dev.replace('.', '/')}.rp_filter=2",
            )


def port_nobody_listens(facts: Facts) -> Iterator[Finding]:
    """A published port leads to a container that does not listen there."""
    for ep, port in facts.unheard:
        shown = f"{port.host_port}:{port.port}" + ("" if port.proto == "tcp" else f"/{port.proto}")
        host = "" if port.host_ip is None else f"[{port.host_ip}]:" if port.host_ip.version == 6 else f"{port.host_ip}:"
        yield Finding(
            "port-nobody-listens",
            Severity.NOTE,
            f"port {port.host_port}/{port.proto} is published to {port.port} of {ep.name}, where nobody listens",
            "who connects is refused",
            f"berth port unpublish {ep.name} -p {host}{shown}",
        )


def reach_router(facts: Facts) -> Iterator[Finding]:
    """A container's question for its router is not answered."""
    why = "the container reaches nothing beyond its own network"
    for missed in _missed(facts, "router"):
        yield _not_reached(facts, missed, f"gets no answer from its router {missed.address}", why)


def reach_peer(facts: Facts) -> Iterator[Finding]:
    """A container's question for a machine of its network, which is there, is not answered."""
    for missed in _missed(facts, "peer"):
        yield _not_reached(
            facts, missed, f"gets no answer from {missed.address} on its network", "it reaches some and not others"
        )


def reach_internet(facts: Facts) -> Iterator[Finding]:
    """The host reaches an address of the internet, and a container does not."""
    why = "the container has no way out, though the host has"
    for missed in _missed(facts, "internet"):
        yield _not_reached(facts, missed, f"gets no answer from {missed.address}, which answers this host", why)


def _missed(facts: Facts, kind: str) -> Iterator[Unreached]:
    return (missed for missed in facts.unreached if missed.kind == kind)


def _not_reached(facts: Facts, missed: Unreached, what: str, why: str) -> Finding:
    net = next(net for net in facts.records.networks if net.id == missed.endpoint.network)
    return Finding(
        f"reach-{missed.kind}",
        Severity.ERROR,
        f"{missed.endpoint.name} of network {net.name} {what}: {missed.halt or _hop(facts, net, missed)}",
        why,
        f"berth trace {missed.endpoint.name} {missed.address}",
        command=False,
    )


def _hop(facts: Facts, net: Network, missed: Unreached) -> str:
    """As far as the question can have come."""
    cable, bridge = facts.host.link(missed.endpoint.link), facts.host.link(net.bridge)
    if cable is None or not cable.up:
        return f"its cable {missed.endpoint.link} is {'gone' if cable is None else 'down'}"
    if cable.master != net.bridge and net.switch == "bridge":
        return f"its cable {cable.name} is not plugged into {net.bridge}"
    if bridge is None or not bridge.up:
        return f"bridge {net.bridge} is {'gone' if bridge is None else 'down'}"
    if net.driver == "flat":
        return f"its question leaves {net.bridge} by {', '.join(nic.name for nic in facts.uplinks(net)) or 'no NIC'}"
    return f"it was asked on {net.bridge}"
