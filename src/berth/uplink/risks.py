"""What stands in the way of a move, or may go wrong with it."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from berth.moved import MovedAddr
from berth.uplink.facts import ETHERNET, Facts


@dataclass(frozen=True, slots=True)
class Risk:
    """One thing to know before a move."""

    name: str  # stable, in kebab-case
    message: str
    blocks: bool = False  # the move is refused

    def __str__(self) -> str:
        return f"{'refused' if self.blocks else 'risk'}: {self.message}"


def risks(facts: Facts, bridge: str) -> tuple[Risk, ...]:
    """All that is known to stand in the way, what is refused first."""
    found = [*_of_the_link(facts), *_of_the_bridge(facts, bridge), *_of_the_lan(facts), *_of_others(facts)]
    return tuple(sorted(found, key=lambda risk: not risk.blocks))


def _of_the_link(facts: Facts) -> Iterator[Risk]:
    nic = facts.nic
    if nic.kind == "bridge":
        yield Risk("is-a-bridge", f"{nic.name} is a bridge itself: use it as it is, `-o parent={nic.name}`", True)
    elif nic.wireless:
        yield Risk("wireless", f"{nic.name} is a Wi-Fi NIC: access points drop frames of other MACs; use a cable", True)
    elif nic.type != ETHERNET:
        yield Risk("not-ethernet", f"{nic.name} is no Ethernet link: a bridge cannot have it as a port", True)
    if nic.master:
        what = f"is a port of {nic.master_kind or 'link'} {nic.master}"
        yield Risk("has-a-master", f"{nic.name} {what}: take that, or unplug {nic.name} first", True)
    if not nic.up:
        yield Risk("down", f"{nic.name} is down: `ip link set {nic.name} up`, and see that it has its address", True)
    elif not nic.carrier:
        yield Risk("no-carrier", f"{nic.name} has no carrier: is the cable plugged in at both ends?", True)
    for name, kind in nic.over:
        if kind in ("macvlan", "macvtap", "ipvlan"):
            yield Risk("in-use", f"{kind} {name} sits on {nic.name}, which can then be no port: delete it first", True)
        elif kind == "vlan":
            yield Risk("vlan", f"VLAN {name} stays on {nic.name}: its frames do not cross the bridge")


def _of_the_bridge(facts: Facts, bridge: str) -> Iterator[Risk]:
    if facts.bridge_there:
        yield Risk("name-taken", f"{bridge} is taken by {facts.bridge_there}: choose another with --bridge", True)
    for what in facts.unmovable:
        yield Risk("unmovable", what, True)


def _of_the_lan(facts: Facts) -> Iterator[Risk]:
    nic = facts.nic
    if not any(isinstance(noun, MovedAddr) for noun in facts.carried):
        yield Risk("no-address", f"{nic.name} carries no address: nothing is moved but the NIC")
    if not facts.gateways:
        yield Risk("no-gateway", f"no default route goes through {nic.name}: only the cable can be checked afterwards")
    for gateway in facts.gateways:
        if gateway not in facts.answering:
            yield Risk("silent-gateway", f"gateway {gateway} does not answer on {nic.name} as it is: cannot be checked")
    if facts.cloud:
        yield Risk("mac-filter", f"a machine of {facts.cloud}: its network drops frames of MACs that it did not give")
    if facts.dot1x:
        yield Risk("802.1x", f"{nic.name} is authenticated by 802.1X: the switch may refuse other MACs behind it")


def _of_others(facts: Facts) -> Iterator[Risk]:
    nic = facts.nic
    if facts.session:
        yield Risk("session", f"you are logged in from {facts.session} through {nic.name}: use --confirm-within 60")
    for manager in facts.managers:
        if manager == "dhcpcd":
            why = "it would ask for the address again there: give it one NIC (`dhcpcd eth1`), or use another manager"
            yield Risk("dhcpcd", f"a dhcpcd serves {nic.name} and all other NICs, and {why}", True)
            continue
        yield Risk("managed", f"{manager} manages {nic.name}: it is told of the bridge, unless --persist none")
    for client in facts.clients:
        yield Risk("dhcp-client", f"{client.program} (pid {client.pid}) leases {nic.name}'s address: it moves along")
