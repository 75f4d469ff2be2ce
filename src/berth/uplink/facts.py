"""What is known of a NIC before anything is decided about it."""

from __future__ import annotations

from dataclasses import dataclass, field

from berth.moved import MovedRoute
from berth.state import NOTHING, State, Sysctl

ETHERNET = 1  # ARPHRD_ETHER


@dataclass(frozen=True, slots=True)
class Nic:
    """A link of the host."""

    name: str
    kind: str  # "" of hardware
    type: int  # ARPHRD_*
    mac: str
    mtu: int  # bytes
    up: bool
    carrier: bool
    address_mode: int  # IN6_ADDR_GEN_MODE_*
    master: str = ""
    master_kind: str = ""
    wireless: bool = False
    over: tuple[tuple[str, str], ...] = ()  # links on top of it: (name, kind)


@dataclass(frozen=True, slots=True)
class Client:
    """A DHCP client of its own that serves a link."""

    program: str  # dhclient | dhcpcd | udhcpc
    pid: int
    argv: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Facts:
    """A NIC, what it carries, and who else has a hand in it."""

    nic: Nic
    bridge_there: str = ""  # what stands under the wanted bridge's name, in words; "": nothing
    bridge_ports: tuple[str, ...] = ()  # of the bridge that the NIC is a port of, other than the NIC
    carried: State = NOTHING  # by the NIC, or by its bridge
    settings: tuple[Sysctl, ...] = ()  # of the NIC, where they differ from what a new link is born with
    unmovable: tuple[str, ...] = ()  # what it carries in a way that cannot be moved, in words
    clients: tuple[Client, ...] = ()
    managers: tuple[str, ...] = ()  # running programs that manage the NIC: NetworkManager, systemd-networkd, …
    session: str = ""  # the address from which who asks is logged in through the NIC
    cloud: str = ""  # a cloud whose network knows only the MACs that it gave out
    dot1x: bool = False  # somebody authenticates the NIC to its switch
    answering: frozenset[str] = field(default_factory=frozenset)  # gateways that answer on the NIC

    @property
    def gateways(self) -> tuple[str, ...]:
        """The next hops of default routes."""
        routes = (noun for noun in self.carried if isinstance(noun, MovedRoute) and noun.dst.endswith("/0"))
        return tuple(sorted({route.via for route in routes if route.via}))
