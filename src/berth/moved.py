"""The nouns of a move: what a NIC carries, in full detail, so that a bridge can carry it instead, and back.

Unlike the nouns of networks and endpoints they are the operator's, not Berth's: whatever the kernel tells of an
address, a route, a rule or a neighbour is kept, so that a restored one is the same to the last flag. Only lifetimes
are not compared: they run.
"""

from __future__ import annotations

import shlex
from typing import ClassVar, TypeAlias

import msgspec

from berth.noun import HOST, MAIN_TABLE, Key, Noun

FOREVER = 0xFFFF_FFFF  # seconds, of a lifetime
KERNEL, STATIC, RA = 2, 4, 9  # RTPROT_KERNEL, RTPROT_STATIC, RTPROT_RA (linux/rtnetlink.h)
FROM_ROUTER = 2  # IFAPROT_KERNEL_RA (linux/if_addr.h): an address that a router's advertisement has made
_SCOPES = {0: "global", 200: "site", 253: "link", 254: "host"}
_ADDR_FLAGS = {0x02: "nodad", 0x10: "home", 0x100: "mngtmpaddr", 0x200: "noprefixroute", 0x400: "autojoin"}
_PROTOCOLS = {2: "kernel", 3: "boot", 4: "static", 9: "ra", 16: "dhcp"}
_ONLINK = 4  # RTNH_F_ONLINK
_PREFERENCES = {1: "high", 3: "low"}  # RFC 4191

Raw: TypeAlias = tuple[tuple[int, str], ...]  # attributes that are carried as they are: (type, content in hexadecimal)


class Port(Noun, frozen=True, tag=True):
    """Whether a link that somebody else made is a port of a bridge, and how it makes its link-local address."""

    rank: ClassVar[int] = 45
    dev: str
    master: str  # "": of none
    address_mode: int  # IN6_ADDR_GEN_MODE_*: 0 from the MAC, 1 none, …

    @property
    def sticky(self) -> bool:
        return True

    @property
    def key(self) -> Key:
        return ("port", HOST, self.dev)

    @property
    def turn(self) -> int:
        # Into a bridge when that has the addresses, without which a loose rp_filter drops what comes in by it.
        return 52 if self.master else self.rank

    def lets_go(self, old: Noun) -> bool:
        # While it is a port, what comes in reaches the host by the bridge, and what goes out may go by either: so all
        # that the bridge carried is on the link, and nothing on the bridge, before it leaves.
        return isinstance(old, Port) and bool(old.master) and not self.master

    def describe(self) -> str:
        modes = ("eui64", "none", "stable_secret", "random")
        plug = f"master {self.master}" if self.master else "nomaster"
        return f"ip link set {self.dev} {plug} addrgenmode {modes[self.address_mode % 4]}"

    def describe_removal(self) -> str:
        return f"# {self.dev} stays where it is"


class OnLink(Noun, frozen=True):
    """What a link of the host carries.

    The kernel would remove it together with the link; it is removed by name, and before, so that nothing leads there
    any more when the link goes (no `holders`).
    """

    @property
    def links(self) -> tuple[str, ...]:
        """The links it names."""
        raise NotImplementedError


class MovedAddr(OnLink, frozen=True, tag=True):
    """An address of the host's own."""

    rank: ClassVar[int] = 50
    dev: str
    ip: str  # "192.168.2.2/24"
    peer: str = ""  # the other end's, of a point-to-point address
    broadcast: str = ""
    label: str = ""
    scope: int = 0
    flags: int = 0  # IFA_F_*, those that can be set
    metric: int = 0  # of the route that goes with it
    protocol: int = 0  # IFAPROT_*: who made it
    valid: int = FOREVER  # seconds
    preferred: int = FOREVER  # seconds
    place: int = 0  # in the kernel's list; in IPv4 the first of a subnet is its primary address

    @property
    def links(self) -> tuple[str, ...]:
        return (self.dev,)

    @property
    def key(self) -> Key:
        return ("moved-addr", HOST, self.dev, self.ip, self.peer)

    @property
    def order(self) -> Key:
        # The kernel appends IPv4 addresses to its list, and puts IPv6 ones in front.
        place = -self.place if ":" in self.ip else self.place
        return ("moved-addr", HOST, self.dev, f"{place + 1_000_000:07}", self.ip, self.peer)

    def met_by(self, there: Noun) -> bool:
        return isinstance(there, MovedAddr) and _still(self) == _still(there)

    def describe(self) -> str:
        return f"ip addr add {self._words()} dev {self.dev}"

    def describe_removal(self) -> str:
        peer = f" peer {self.peer}" if self.peer else ""
        return f"ip addr del {self.ip}{peer} dev {self.dev}"

    def describe_change(self, old: Noun) -> str:
        return f"ip addr replace {self._words()} dev {self.dev}"

    def _words(self) -> str:
        words = [self.ip]
        words += ["peer", self.peer] if self.peer else []
        words += ["broadcast", self.broadcast] if self.broadcast else []
        words += ["label", self.label] if self.label and self.label != self.dev else []
        words += ["scope", _SCOPES.get(self.scope, str(self.scope))] if self.scope else []
        words += ["metric", str(self.metric)] if self.metric else []
        words += [word for bit, word in _ADDR_FLAGS.items() if self.flags & bit]
        if self.valid != FOREVER:
            words += ["valid_lft", str(self.valid), "preferred_lft", str(self.preferred)]
        return " ".join(words)


def _still(addr: MovedAddr) -> MovedAddr:
    """Without what runs (the lifetimes, all but whether there are any) or follows from the others (the place)."""
    valid = FOREVER if addr.valid == FOREVER else 0
    return msgspec.structs.replace(addr, valid=valid, preferred=0, place=0)


class Hop(msgspec.Struct, frozen=True):
    """One of several next hops of a route."""

    dev: str
    flags: int
    weight: int  # rtnh_hops: one less than what `ip` calls the weight
    via: str = ""
    attributes: Raw = ()

    def __str__(self) -> str:
        via = f" via {self.via}" if self.via else ""
        onlink = " onlink" if self.flags & _ONLINK else ""
        return f"nexthop{via} dev {self.dev} weight {self.weight + 1}{onlink}"


class MovedRoute(OnLink, frozen=True, tag=True):
    """A route of the host's own, of any table."""

    rank: ClassVar[int] = 60
    family: int  # AF_INET, AF_INET6
    dst: str  # "0.0.0.0/0"
    dev: str
    via: str = ""
    table: int = MAIN_TABLE
    metric: int = 0
    source: str = ""  # the address that packets are sent from, unless the sender chose one
    src: str = ""  # only packets from here (IPv6)
    protocol: int = STATIC
    scope: int = 0
    tos: int = 0
    flags: int = 0  # RTNH_F_ONLINK
    preference: int = 0  # of the router (RFC 4191): 0 medium, 1 high, 3 low
    expires: int = 0  # seconds; 0: never
    hops: tuple[Hop, ...] = ()
    attributes: Raw = ()

    @property
    def links(self) -> tuple[str, ...]:
        return (self.dev, *(hop.dev for hop in self.hops))

    @property
    def key(self) -> Key:
        # IPv4 knows one route of a metric to a destination; IPv6 one for each next hop.
        place = () if ":" not in self.dst else (self.dev, self.via)
        return ("moved-route", HOST, str(self.table), self.dst, self.src, str(self.tos), str(self.metric), *place)

    @property
    def order(self) -> Key:
        return (
            "moved-route",
            "1" if self.via or self.hops else "0",
            *self.key,
        )  # routers are found by what is on the link

    def met_by(self, there: Noun) -> bool:
        if not isinstance(there, MovedRoute):
            return False
        return self == msgspec.structs.replace(there, expires=self.expires)

    def describe(self) -> str:
        return f"ip route add {self._words()}"

    def describe_removal(self) -> str:
        return f"ip route del {self._words()}"

    def describe_change(self, old: Noun) -> str:
        return f"ip route replace {self._words()}"

    def _words(self) -> str:
        words = ["default" if self.dst.endswith("/0") else self.dst]
        words += ["from", self.src] if self.src else []
        words += ["tos", hex(self.tos)] if self.tos else []
        words += ["via", *(["inet6"] if (":" in self.via) != (":" in self.dst) else []), self.via] if self.via else []
        words += ["dev", self.dev] if not self.hops else []
        words += ["table", str(self.table)] if self.table != MAIN_TABLE else []
        words += ["proto", _PROTOCOLS.get(self.protocol, str(self.protocol))]
        words += ["scope", _SCOPES.get(self.scope, str(self.scope))] if self.scope else []
        words += ["metric", str(self.metric)] if self.metric else []
        words += ["src", self.source] if self.source else []
        words += ["onlink"] if self.flags & _ONLINK else []
        words += ["pref", _PREFERENCES[self.preference]] if self.preference in _PREFERENCES else []
        words += ["expires", str(self.expires)] if self.expires else []
        return " ".join([*words, *map(str, self.hops)])


class MovedRule(OnLink, frozen=True, tag=True):
    """A routing rule that names a NIC."""

    rank: ClassVar[int] = 65
    family: int
    header: str  # struct fib_rule_hdr, in hexadecimal
    priority: int
    iif: str = ""
    oif: str = ""
    attributes: Raw = ()

    @property
    def links(self) -> tuple[str, ...]:
        return (self.iif, self.oif)

    @property
    def key(self) -> Key:
        rest = ",".join(f"{kind}={value}" for kind, value in self.attributes)
        return ("moved-rule", HOST, str(self.family), self.header, str(self.priority), self.iif, self.oif, rest)

    def describe(self) -> str:
        return f"ip {self._family()}rule add {self._words()}"

    def describe_removal(self) -> str:
        return f"ip {self._family()}rule del {self._words()}"

    def _family(self) -> str:
        return "-6 " if self.family == 10 else ""

    def _words(self) -> str:
        words = [f"pref {self.priority}"]
        words += [f"iif {self.iif}"] if self.iif else []
        words += [f"oif {self.oif}"] if self.oif else []
        table = dict(self.attributes).get(15)  # FRA_TABLE
        words += [f"lookup {int.from_bytes(bytes.fromhex(table), 'little')}"] if table else []
        return " ".join(words)


class MovedNeigh(OnLink, frozen=True, tag=True):
    """A neighbour that the operator has set by hand, or an address that the host answers for as a proxy."""

    rank: ClassVar[int] = 55
    dev: str
    ip: str
    mac: str = ""  # "" of a proxy entry
    router: bool = False

    @property
    def links(self) -> tuple[str, ...]:
        return (self.dev,)

    @property
    def key(self) -> Key:
        return ("moved-neigh", HOST, self.dev, self.ip, "" if self.mac else "proxy")

    def _words(self) -> str:
        if not self.mac:
            return f"proxy {self.ip} dev {self.dev}"
        return f"{self.ip} lladdr {self.mac} dev {self.dev} nud permanent{' router' if self.router else ''}"

    def describe(self) -> str:
        return f"ip neigh replace {self._words()}"

    def describe_removal(self) -> str:
        return f"ip neigh del {'' if self.mac else 'proxy '}{self.ip} dev {self.dev}"


class TextFile(Noun, frozen=True, tag=True):
    """A file of the host's configuration, root's."""

    rank: ClassVar[int] = 90
    path: str
    text: str
    mode: int = 0o644

    @property
    def key(self) -> Key:
        return ("file", HOST, self.path)

    def describe(self) -> str:
        return f"install -m {self.mode:o} /dev/stdin {shlex.quote(self.path)}   # {len(self.text.splitlines())} lines"

    def describe_removal(self) -> str:
        return f"rm {shlex.quote(self.path)}"

    def describe_change(self, old: Noun) -> str:
        return f"install -m {self.mode:o} /dev/stdin {shlex.quote(self.path)}   # changed"


Moved: TypeAlias = MovedAddr | MovedRoute | MovedRule | MovedNeigh
