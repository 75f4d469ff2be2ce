"""The nouns of an overlay: a tunnel to other hosts, and what it knows of the endpoints there.

Sources: include/uapi/linux/{if_link,neighbour}.h; RFC 7348; bridge(8), ip-neighbour(8).
"""

from __future__ import annotations

from typing import ClassVar

from berth.noun import HOST, Key, Noun

OVERHEAD = {4: 50, 6: 70}  # bytes: the underlay's IP header, UDP 8, VXLAN 8, the inner Ethernet header 14


class Vxlan(Noun, frozen=True, tag=True):
    """A tunnel of Berth's own, as a port of a network's bridge: it learns nothing and floods nothing.

    Who is where is told by `Fdb`; who asks for an address is answered by the tunnel itself, from `Neigh`
    (`proxy`). What nobody has told it of is dropped.
    """

    rank: ClassVar[int] = 12  # after the bridge, before the cables
    name: str
    master: str
    vni: int
    local: str  # the host's own address on the underlay; its version is the underlay's
    port: int  # UDP
    mac: str
    mtu: int
    alias: str
    link: str = ""  # the only one that frames come and go by; "": any. With it, `local` is link-local

    @property
    def key(self) -> Key:
        return ("link", HOST, self.name)

    @property
    def owner(self) -> str | None:
        return self.alias

    @property
    def holders(self) -> tuple[Key, ...]:
        return (("dev", HOST, self.link),) if self.link else ()

    @property
    def holds(self) -> tuple[Key, ...]:
        return (("dev", HOST, self.name),)

    def remakes(self, old: Noun) -> bool:
        # The kernel changes none of these on a tunnel that is there.
        return not isinstance(old, Vxlan) or old._fixed() != self._fixed()

    def _fixed(self) -> tuple[int, str, int, str]:
        return self.vni, self.local, self.port, self.link

    def describe(self) -> str:
        return (
            f"ip link add {self.name} address {self.mac} mtu {self.mtu} master {self.master} type vxlan id {self.vni}"
            f" local {self.local}{f' dev {self.link}' if self.link else ''} dstport {self.port} nolearning proxy"
            f" && ip link set {self.name} alias {self.alias} addrgenmode none"
            f" && {self._as_port()} && ip link set {self.name} up"
        )

    def _as_port(self) -> str:
        return f"bridge link set dev {self.name} learning off flood off"

    def describe_removal(self) -> str:
        return f"ip link del {self.name}"

    def describe_change(self, old: Noun) -> str:
        if self.remakes(old):
            return f"{old.describe_removal()} && {self.describe()}"
        return (
            f"ip link set {self.name} master {self.master} address {self.mac} mtu {self.mtu} alias {self.alias}"
            f" && {self._as_port()} && ip link set {self.name} up"
        )


class Fdb(Noun, frozen=True, tag=True):
    """Where a MAC is: behind a tunnel at another host, or, with `dst` "", at that port of the bridge.

    Both are needed: the bridge would look for the MAC at every port, and the tunnel would not know the host.
    """

    rank: ClassVar[int] = 45
    dev: str
    mac: str
    dst: str = ""  # the other host's address on the underlay; "": the bridge's own entry
    own: bool = True  # the tunnel's entry rather than the bridge's
    via: str = ""  # the link that it is sent by, and no other; "": as the host's routes say

    @classmethod
    def of_bridge(cls, dev: str, mac: str) -> Fdb:
        """The bridge's entry: the MAC is behind that port."""
        return cls(dev, mac, own=False)

    @property
    def key(self) -> Key:
        return ("fdb", HOST, self.dev, self.mac, "self" if self.own else "master")

    @property
    def holders(self) -> tuple[Key, ...]:
        return (("dev", HOST, self.dev),)

    def _words(self) -> str:
        return f"{self.mac} dev {self.dev} " + (self._way() if self.own else "master")

    def _way(self) -> str:
        return f"dst {self.dst} {f'via {self.via} ' if self.via else ''}self"

    def describe(self) -> str:
        return f"bridge fdb replace {self._words()} {'permanent' if self.own else 'static'}"

    def describe_removal(self) -> str:
        return f"bridge fdb del {self._words()}"


class Neigh(Noun, frozen=True, tag=True):
    """The MAC of an address behind a tunnel, which the tunnel answers for (ARP, RFC 826; neighbour discovery)."""

    rank: ClassVar[int] = 46
    dev: str
    ip: str
    mac: str

    @property
    def key(self) -> Key:
        return ("neigh", HOST, self.dev, self.ip)

    @property
    def holders(self) -> tuple[Key, ...]:
        return (("dev", HOST, self.dev),)

    def describe(self) -> str:
        return f"ip neigh replace {self.ip} lladdr {self.mac} dev {self.dev} nud permanent"

    def describe_removal(self) -> str:
        return f"ip neigh del {self.ip} dev {self.dev}"
