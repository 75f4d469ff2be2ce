"""What a lab consists of, in words. Nothing here touches the world.

A lab of its own:

    >>> card = Nic("eth0", "switch", (ip_interface("10.0.0.5/24"),))
    >>> Topology((Switch("switch"), Node("printer", (card,)))).cables[0].b[1]
    'printer-eth0'
"""

from __future__ import annotations

from dataclasses import dataclass
from ipaddress import IPv4Address, ip_address, ip_interface
from itertools import chain

from berth.errors import Invalid
from berth.model import Address, Interface

DOMAIN = "lab"  # the router's DNS knows every node as NAME.lab
MAX_HOSTS = 48  # .2 to .49: the laptop has .50


@dataclass(frozen=True, slots=True)
class Nic:
    """One network card."""

    name: str
    wire: str  # the switch it is plugged into, or a cable's name that exactly one other card shares
    addresses: tuple[Interface, ...] = ()
    mac: str | None = None  # None: the kernel's choice
    bridge: str | None = None  # a bridge over the card, which carries the addresses in its stead


@dataclass(frozen=True, slots=True)
class Node:
    """A machine: a network namespace with cards."""

    name: str
    nics: tuple[Nic, ...] = ()
    gateways: tuple[Address, ...] = ()  # next hops of its default routes

    @property
    def addresses(self) -> tuple[Interface, ...]:
        """The addresses that the machine is known by: those of its first card."""
        return self.nics[0].addresses if self.nics else ()


@dataclass(frozen=True, slots=True)
class Switch(Node):
    """A bridge in a namespace of its own; a port is called after the node and card that it leads to."""


@dataclass(frozen=True, slots=True)
class Host(Node):
    """A machine that Berth manages: it has a state and a run directory of its own."""


@dataclass(frozen=True, slots=True)
class Server(Node):
    """A machine that answers HTTP on port 80 with the source address it saw."""


@dataclass(frozen=True, slots=True)
class Leases:
    """The range that a router's DHCP server gives addresses from."""

    first: IPv4Address
    last: IPv4Address


@dataclass(frozen=True, slots=True)
class Router(Node):
    """A machine that forwards, and answers DNS on every card but its uplink."""

    uplink: str = ""  # the card towards the internet: what leaves there is masqueraded
    leases: Leases | None = None  # None: no DHCP

    @property
    def inside(self) -> tuple[Nic, ...]:
        """The cards on the LAN's side."""
        return tuple(nic for nic in self.nics if nic.name != self.uplink)


@dataclass(frozen=True, slots=True)
class Cable:
    """A veth pair: two ends, each a node and the name that the link has there."""

    a: tuple[Node, str]
    b: tuple[Node, str]
    mac_a: str | None = None
    mac_b: str | None = None


@dataclass(frozen=True, slots=True)
class Topology:
    """All nodes of a lab."""

    nodes: tuple[Node, ...]

    @property
    def hosts(self) -> tuple[Host, ...]:
        """The machines that Berth manages."""
        return tuple(node for node in self.nodes if isinstance(node, Host))

    @property
    def nameservers(self) -> tuple[Address, ...]:
        """Where names are asked for: every router's first address on its LAN."""
        return tuple(nic.addresses[0].ip for router in self.routers for nic in router.inside if nic.addresses)

    @property
    def routers(self) -> tuple[Router, ...]:
        """The machines that forward."""
        return tuple(node for node in self.nodes if isinstance(node, Router))

    @property
    def cables(self) -> tuple[Cable, ...]:
        """What connects the cards: one cable from each to its switch, or one between two cards."""
        switches = {node.name: node for node in self.nodes if isinstance(node, Switch)}
        direct: dict[str, list[tuple[Node, Nic]]] = {}
        cables = []
        for node, nic in chain.from_iterable(((node, nic) for nic in node.nics) for node in self.nodes):
            if switch := switches.get(nic.wire):
                cables.append(Cable((node, nic.name), (switch, f"{node.name}-{nic.name}"), nic.mac))
            else:
                direct.setdefault(nic.wire, []).append((node, nic))
        for wire, ends in direct.items():
            if len(ends) != 2:
                names = ", ".join(f"{node.name}/{nic.name}" for node, nic in ends)
                raise Invalid(f"wire {wire!r} is no switch and has {len(ends)} end(s), not two: {names}")
            (node, nic), (other, peer) = ends
            cables.append(Cable((node, nic.name), (other, peer.name), nic.mac, peer.mac))
        return tuple(cables)


def home(hosts: int = 1) -> Topology:
    """The default lab: 192.168.2.0/24 and fd00:2::/64 behind a home router, and an internet beyond it.

    The router is .1, `host` .2, `host2` .3 and so on, `laptop` .50; the router leases .200 to .250.
    """
    if not 1 <= hosts <= MAX_HOSTS:
        raise Invalid(f"{hosts} hosts: the lab has room for 1 to {MAX_HOSTS}")
    gateways = _addresses("192.168.2.1", "fd00:2::1")
    beyond = _addresses("203.0.113.10", "2001:db8::10")
    lan, wan = _card("lan0", 1), Nic("wan0", "wan", _interfaces("203.0.113.1/24", "2001:db8::1/64"))
    leases = Leases(IPv4Address("192.168.2.200"), IPv4Address("192.168.2.250"))
    return Topology(
        (
            Switch("switch"),
            Router("router", (lan, wan), beyond, uplink="wan0", leases=leases),
            *(
                Host("host" if i == 1 else f"host{i}", (_card("enp3s0", i + 1, "br0"),), gateways)
                for i in range(1, hosts + 1)
            ),
            Node("laptop", (_card("eth0", 50),), gateways),
            Server("internet", (Nic("eth0", "wan", _interfaces("203.0.113.10/24", "2001:db8::10/64")),)),
        )
    )


def _card(name: str, number: int, bridge: str | None = None) -> Nic:
    """A card on the default LAN; its number is the last part of all its addresses, as they are read."""
    addresses = _interfaces(f"192.168.2.{number}/24", f"fd00:2::{number}/64")
    return Nic(name, "switch", addresses, f"02:00:00:00:02:{number:02}", bridge)


def _interfaces(*texts: str) -> tuple[Interface, ...]:
    return tuple(ip_interface(text) for text in texts)


def _addresses(*texts: str) -> tuple[Address, ...]:
    return tuple(ip_address(text) for text in texts)
