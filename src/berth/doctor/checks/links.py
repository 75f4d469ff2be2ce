"""The LAN's bridge and what is plugged into it."""

from __future__ import annotations

from collections.abc import Iterator

from berth.doctor.facts import Facts
from berth.doctor.report import Finding, Severity


def bridge_no_uplink(facts: Facts) -> Iterator[Finding]:
    """Nothing but containers is plugged into the LAN's bridge."""
    for net in facts.records.flat:
        if facts.host.link(net.bridge) is None or facts.uplinks(net):
            continue
        there = [nic for nic in net.nics if facts.host.link(nic) is not None]
        plug = f"ip link set dev {there[0]} master {net.bridge}" if there else ""
        yield Finding(
            "bridge-no-uplink",
            Severity.ERROR,
            f"no NIC is plugged into {net.bridge} of network {net.name}",
            "its containers reach each other and nobody on the LAN",
            plug or f"plug the LAN's NIC into it: `ip link set dev NIC master {net.bridge}`",
            command=bool(plug),
        )


def no_carrier(facts: Facts) -> Iterator[Finding]:
    """No NIC of the LAN's bridge has a live cable."""
    for net in facts.records.flat:
        nics = facts.uplinks(net)
        if not nics or any(nic.up and nic.carrier for nic in nics):
            continue
        nic = next((each for each in nics if not each.up), nics[0])
        state = "has no carrier" if nic.up else "is down"
        yield Finding(
            "no-carrier",
            Severity.ERROR,
            f"{nic.name}, the NIC of {net.bridge}, {state}",
            f"containers of network {net.name} reach nobody on the LAN",
            f"look after the cable of {nic.name}, at both ends" if nic.up else f"ip link set dev {nic.name} up",
            command=not nic.up,
        )


def nic_addressed(facts: Facts) -> Iterator[Finding]:
    """A port of a bridge has addresses of its own."""
    bridges = {net.bridge for net in facts.records.flat}
    for link in facts.host.links:
        held = [address for address in link.addresses if not address.is_link_local]
        if link.master in bridges and held:
            yield Finding(
                "nic-addressed",
                Severity.ERROR,
                f"{link.name} is a port of {link.master} and still has {', '.join(map(str, held))}",
                "the host sends by the NIC and is answered by the bridge, so that answers are lost",
                " && ".join(f"ip address delete {address} dev {link.name}" for address in held),
            )


def mtu_mismatch(facts: Facts) -> Iterator[Finding]:
    """The NIC carries smaller packets than the bridge and its containers send."""
    for net in facts.records.flat:
        bridge = facts.host.link(net.bridge)
        for nic in facts.uplinks(net) if bridge is not None else ():
            sent = max(bridge.mtu, net.mtu) if bridge is not None else net.mtu
            if nic.mtu < sent:
                yield Finding(
                    "mtu-mismatch",
                    Severity.ERROR,
                    f"{nic.name} carries packets of {nic.mtu} bytes, network {net.name} sends up to {sent}",
                    "small packets arrive and large ones vanish: connections hang once data flows",
                    f"ip link set dev {nic.name} mtu {sent}",
                )


def stp_delay(facts: Facts) -> Iterator[Finding]:
    """Each new port of the LAN's bridge waits before it forwards."""
    for net in facts.records.flat:
        bridge = facts.host.link(net.bridge)
        if bridge is not None and bridge.stp:
            yield Finding(
                "stp-delay",
                Severity.WARNING,
                f"{net.bridge} of network {net.name} has the spanning tree protocol on",
                "a container that has just started reaches nobody for twice the forward delay",
                f"ip link set dev {net.bridge} type bridge stp_state 0",
            )
