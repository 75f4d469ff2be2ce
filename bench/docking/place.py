"""Where it is measured: a lab host with a LAN for each size, and the networks of all ways side by side."""

from __future__ import annotations

from dataclasses import dataclass
from ipaddress import ip_interface
from typing import Any

from berth.lab.topology import Host, Nic, Node, Switch, Topology

BASE = "bridge"  # the ratios' base
#: The ways by their names in the results. A network's name begins with its way and sorts after "bridge", the one that
#: the traveller is at home on: its default route stays where it is, whatever it is connected to.
LABELS = {
    "flat": "Berth, flat",
    "nat": "Berth, NAT",
    BASE: "Docker's bridge",
    "macvlan": "Docker's macvlan",
}
BERTH = ("flat", "nat")


@dataclass(frozen=True, slots=True)
class Ground:
    """One network: the way it is made and how many containers stay on it. `number` makes its links and subnets."""

    way: str
    size: int
    number: int

    @property
    def name(self) -> str:
        """What Docker calls it."""
        return f"to-{self.way}-{self.size}"

    def creation(self) -> dict[str, Any]:
        """The body of `POST /networks/create`."""
        berth = self.way in BERTH
        net = f"10.{self.number}.{list(LABELS).index(self.way) * 32}"
        options = {"flat": {"parent": f"br{self.number}"}, "macvlan": {"parent": f"vlan{self.number}"}}
        return {
            "Name": self.name,
            "Driver": "berth" if berth else self.way,
            "IPAM": {
                "Driver": "berth" if berth else "default",
                "Config": [{"Subnet": f"{net}.0/19", "Gateway": f"{net}.1"}],
            },
            "Options": options.get(self.way, {}),
        }


def grounds(sizes: tuple[int, ...]) -> list[Ground]:
    """Every way at every size."""
    return [Ground(way, size, number) for number, size in enumerate(sizes, 1) for way in LABELS]


def topology(sizes: tuple[int, ...]) -> Topology:
    """A host with two cards for each size: one in a bridge, for the flat network, and one for macvlan.

    Docker allows one macvlan network a parent, and a card that is a bridge's port can be no parent at all. Each card
    has a switch of its own, so that what one network announces is not delivered to a hundred containers of another.
    """
    numbers = range(1, len(sizes) + 1)
    cards = []
    for number in numbers:
        cards += [Nic(f"lan{number}", f"lans{number}", (ip_interface(f"10.{number}.0.2/19"),), None, f"br{number}")]
        cards += [Nic(f"vlan{number}", f"vlans{number}")]
    router = Node("router", tuple(Nic(f"r{n}", f"lans{n}", (ip_interface(f"10.{n}.0.1/19"),)) for n in numbers))
    switches = [Switch(nic.wire) for nic in cards]
    return Topology((*switches, Host("host", tuple(cards)), router))
