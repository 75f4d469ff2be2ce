"""The kernel's nouns: what can exist on a host, as values.

An object's `key` is its identity as the kernel sees it. Its other fields are only what Berth sets; what the
kernel makes by itself (connected routes, link-local addresses) is neither asked for nor read. Addresses are
text here, exactly as `ip` prints them, so that what was asked and what was read compare without a parser.

    >>> Addr(ns="", dev="br0", ip="192.168.2.2/24").describe()
    'ip addr add 192.168.2.2/24 dev br0 broadcast +'
"""

from __future__ import annotations

import shlex
from collections.abc import Iterable
from typing import ClassVar, TypeAlias

import msgspec

from berth.flows import NftFlows
from berth.guarded import NftGuard as NftGuard
from berth.moved import MovedAddr, MovedNeigh, MovedRoute, MovedRule, Port
from berth.moved import TextFile as TextFile
from berth.noun import HOST as HOST
from berth.noun import MAIN_TABLE as MAIN_TABLE
from berth.noun import MARK as MARK
from berth.noun import UPLINK_MARK as UPLINK_MARK
from berth.noun import Key as Key
from berth.noun import Noun as Noun
from berth.noun import at as at
from berth.noun import ours as ours
from berth.overlaid import Fdb, Neigh, Vxlan
from berth.ovs import OvsBridge, OvsPort, TxChecksums
from berth.rates import NftRate, Shaped
from berth.sealed import WireGuard, WireGuardPeer

Part: TypeAlias = tuple[str, str]  # (nftables type, value as nft prints it)
RANGED = ("ipv4", "ipv6", "port")  # the types that a range FIRST-LAST may be of


class Bridge(Noun, frozen=True, tag=True):
    """A bridge of Berth's own: STP off, no forward delay, MAC pinned.

    An unpinned bridge takes the lowest MAC of its ports and changes it when ports come and go.
    """

    rank: ClassVar[int] = 10
    name: str
    mac: str
    mtu: int
    alias: str

    @property
    def key(self) -> Key:
        return ("link", HOST, self.name)

    @property
    def owner(self) -> str | None:
        return self.alias

    @property
    def holds(self) -> tuple[Key, ...]:
        return (("dev", HOST, self.name),)

    @property
    def first_mtu(self) -> int:
        """What it is born with, to be changed at once: only then it keeps its MTU whatever is plugged in.

        Never less than the 68 bytes that the kernel asks for, nor more than the 65,535 that it allows.
        """
        return self.mtu + (1 if self.mtu < 1500 else -1)

    def describe(self) -> str:
        return (
            f"ip link add {self.name} address {self.mac} mtu {self.first_mtu} type bridge stp_state 0 forward_delay 0"
            f" && ip link set {self.name} up mtu {self.mtu} alias {self.alias}"
        )

    def describe_removal(self) -> str:
        return f"ip link del {self.name}"

    def describe_change(self, old: Noun) -> str:
        return (
            f"ip link set {self.name} type bridge stp_state 0"
            f" && ip link set {self.name} type bridge forward_delay 0"
            f" && ip link set {self.name} up address {self.mac} mtu {self.mtu} alias {self.alias}"
        )


class Veth(Noun, frozen=True, tag=True):
    """A cable: a veth pair. One creation, one deletion, so one object.

    The outer end is plugged into a bridge of the host, up. The inner end is born in the sandbox, down: its
    settings are written before it comes up (`LinkUp`).
    """

    rank: ClassVar[int] = 20
    name: str
    master: str  # "": plugged into nothing
    mtu: int
    alias: str
    ns: str  # where the inner end is
    inner: str
    mac: str  # the inner end's
    inner_mtu: int = 0  # of the inner end; 0: the same
    hairpin: bool = False  # the bridge may send back out of the outer end what came in by it
    isolated: bool = False  # the bridge passes nothing on between two such ports

    @property
    def key(self) -> Key:
        return ("link", HOST, self.name)

    @property
    def owner(self) -> str | None:
        return self.alias

    @property
    def holders(self) -> tuple[Key, ...]:
        # Not the bridge: deleting a bridge only unplugs its ports.
        return (("ns", self.ns),) if self.ns else ()

    @property
    def holds(self) -> tuple[Key, ...]:
        return (("dev", HOST, self.name), ("dev", self.ns, self.inner))

    def met_by(self, there: Noun) -> bool:
        if isinstance(there, Veth) and self.ns == HOST != there.ns:
            # Handed over: whoever it was handed to has moved the inner end into a sandbox, and may rename it there.
            there = msgspec.structs.replace(there, ns=HOST, inner=self.inner, mac=self.mac, inner_mtu=self.inner_mtu)
        return self == there

    def remakes(self, old: Noun) -> bool:
        # A link cannot be given another peer.
        return isinstance(old, Veth) and (old.ns, old.inner) != (self.ns, self.inner)

    @property
    def outer_mac(self) -> str:
        """The outer end's: high, since a bridge whose MAC is not pinned takes the lowest of its ports'."""
        return "fe" + self.mac[2:]

    def describe(self) -> str:
        plug = f" master {self.master}" if self.master else ""
        netns = f" netns {shlex.quote(self.ns)}" if self.ns else ""
        return (
            f"ip link add {self.name} up{plug} address {self.outer_mac} mtu {self.mtu} type veth"
            f" peer name {self.inner} address {self.mac} mtu {self.inner_mtu or self.mtu}{netns}"
            f" && ip link set {self.name} alias {self.alias} addrgenmode none"
            + (f" && {self._as_port()}" if self.hairpin or self.isolated else "")
        )

    def _as_port(self) -> str:
        hairpin, isolated = ("on" if on else "off" for on in (self.hairpin, self.isolated))
        return f"bridge link set dev {self.name} hairpin {hairpin} isolated {isolated}"

    def describe_removal(self) -> str:
        return f"ip link del {self.name}"

    def describe_change(self, old: Noun) -> str:
        if self.remakes(old):
            return f"{old.describe_removal()} && {self.describe()}"
        port = {"hairpin": self.hairpin, "isolated": self.isolated}
        if self.master and old != self and self == msgspec.structs.replace(old, **port):
            return self._as_port()
        plug = f"master {self.master}" if self.master else "nomaster"
        inner = f"{at(self.ns)}ip link set {self.inner} address {self.mac} mtu {self.inner_mtu or self.mtu}"
        last = f" && {self._as_port()}" if self.master else ""
        return f"ip link set {self.name} up {plug} mtu {self.mtu} alias {self.alias}{last} && {inner}"


class Sysctl(Noun, frozen=True, tag=True):
    """A setting of a network namespace, by its path under /proc/sys/net with dots."""

    rank: ClassVar[int] = 30
    ns: str
    name: str  # "net.ipv4.ip_forward"; a dot inside a link's name is written "/", as sysctl(8) does
    value: str

    @property
    def turn(self) -> int:
        # A link that comes up forgets the MTU that IPv6 had on it.
        return 41 if self.name.startswith("net.ipv6.conf.") and self.name.endswith(".mtu") else self.rank

    @property
    def sticky(self) -> bool:
        return True

    @property
    def key(self) -> Key:
        return ("sysctl", self.ns, self.name)

    def describe(self) -> str:
        return f"{at(self.ns)}sysctl -w {self.name}={self.value}"

    def describe_removal(self) -> str:
        return f"# {self.name} stays {self.value}"


class LinkUp(Noun, frozen=True, tag=True):
    """Whether a link that something else made is up."""

    rank: ClassVar[int] = 40
    ns: str
    dev: str
    up: bool = True

    @property
    def sticky(self) -> bool:
        return True

    @property
    def key(self) -> Key:
        return ("up", self.ns, self.dev)

    @property
    def holders(self) -> tuple[Key, ...]:
        return (("dev", self.ns, self.dev),)

    def describe(self) -> str:
        return f"{at(self.ns)}ip link set {self.dev} {'up' if self.up else 'down'}"

    def describe_removal(self) -> str:
        return f"# {self.dev} stays {'up' if self.up else 'down'}"


class Addr(Noun, frozen=True, tag=True):
    """An address on a link; IPv6 without duplicate address detection, so that it is usable at once."""

    rank: ClassVar[int] = 50
    ns: str
    dev: str
    ip: str  # "192.168.2.3/24"

    @property
    def key(self) -> Key:
        return ("addr", self.ns, self.dev, self.ip)

    @property
    def holders(self) -> tuple[Key, ...]:
        return (("dev", self.ns, self.dev),)

    def describe(self) -> str:
        address, _, length = self.ip.partition("/")
        extra = " nodad" if ":" in address else " broadcast +" if int(length) < 31 else ""
        return f"{at(self.ns)}ip addr add {self.ip} dev {self.dev}{extra}"

    def describe_removal(self) -> str:
        return f"{at(self.ns)}ip addr del {self.ip} dev {self.dev}"


class Route(Noun, frozen=True, tag=True):
    """A route in the main table. `metric` is never 0 for IPv6, where the kernel would make it 1024."""

    rank: ClassVar[int] = 60
    ns: str
    dst: str  # "0.0.0.0/0", "fd00::/64"
    dev: str
    via: str = ""  # "": the destination is on the link
    metric: int = 0

    @property
    def key(self) -> Key:
        return ("route", self.ns, self.dst, str(self.metric))

    @property
    def holders(self) -> tuple[Key, ...]:
        return (("dev", self.ns, self.dev),)

    def _words(self) -> str:
        via = f" via {self.via}" if self.via else ""
        metric = f" metric {self.metric}" if self.metric else ""
        return f"{self.dst}{via} dev {self.dev}{metric}"

    def describe(self) -> str:
        return f"{at(self.ns)}ip route add {self._words()} proto static"

    def describe_removal(self) -> str:
        return f"{at(self.ns)}ip route del {self._words()}"

    def describe_change(self, old: Noun) -> str:
        return f"{at(self.ns)}ip route replace {self._words()} proto static"


class NftTable(Noun, frozen=True, tag=True, eq=False):
    """A table with its chains, rules and empty sets: the part of the firewall that never changes per container.

    Rules cannot be read back as they were written, so a table is known by a digest: of the text it was made
    from, which the table itself carries in the comment of one rule, and of the number of rules it has.
    """

    rank: ClassVar[int] = 15
    family: str
    name: str
    digest: str  # "" in a table that somebody else made under the same name
    text: str = ""  # what stands between the table's braces; "" in a table that was read

    @property
    def key(self) -> Key:
        return ("nft-table", self.family, self.name)

    @property
    def owner(self) -> str | None:
        return MARK + self.digest if self.digest else ""

    @property
    def holds(self) -> tuple[Key, ...]:
        return (("in-table", self.family, self.name),)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, NftTable) and (self.key, self.digest) == (other.key, other.digest)

    def __ne__(self, other: object) -> bool:  # msgspec's own would compare identities
        return not self == other

    def __hash__(self) -> int:
        return hash((self.key, self.digest))

    def script(self) -> str:
        """The table in nft's language."""
        return f"table {self.family} {self.name} {{\n{self.text}}}\n"

    def describe(self) -> str:
        return f"nft '{self.script().strip()}'"

    def describe_removal(self) -> str:
        return f"nft delete table {self.family} {self.name}"

    def describe_change(self, old: Noun) -> str:
        return f"nft flush table {self.family} {self.name} && {self.describe()}"


class NftElement(Noun, frozen=True, tag=True):
    """An element of a set or map: the part of the firewall that follows networks and endpoints.

    In an interval set a part of the match may be a range, FIRST-LAST.
    """

    rank: ClassVar[int] = 25  # before the inner end of a cable comes up: nothing gets past what is checked here
    family: str
    table: str
    set: str
    match: tuple[Part, ...]
    data: tuple[Part, ...] = ()  # () in a set

    @property
    def key(self) -> Key:
        return ("nft-element", self.family, self.table, self.set, *(value for _, value in self.match))

    @property
    def holders(self) -> tuple[Key, ...]:
        return (("in-table", self.family, self.table),)

    @property
    def first(self) -> tuple[Part, ...]:
        """The lower end of a match."""
        return tuple((kind, value.partition("-")[0] if kind in RANGED else value) for kind, value in self.match)

    @property
    def last(self) -> tuple[Part, ...]:
        """The upper end of a match; the same as the lower where there is no range."""
        return tuple((kind, value.rpartition("-")[2] if kind in RANGED else value) for kind, value in self.match)

    @property
    def in_the_way(self) -> bool:
        return self.first != self.last  # the kernel refuses one that overlaps another

    def member(self) -> str:
        """The element in nft's language."""
        match = " . ".join(_quoted(part) for part in self.match)
        return match + (" : " + " . ".join(_quoted(part) for part in self.data) if self.data else "")

    def describe(self) -> str:
        return f"nft '{self._add()}'"

    def describe_removal(self) -> str:
        return f"nft '{self._delete()}'"

    def describe_change(self, old: Noun) -> str:
        assert isinstance(old, NftElement)
        return f"nft '{old._delete()}; {self._add()}'"

    def _add(self) -> str:
        return f"add element {self.family} {self.table} {self.set} {{ {self.member()} }}"

    def _delete(self) -> str:
        return f"delete element {self.family} {self.table} {self.set} {{ {self.member()} }}"


class NftHook(Noun, frozen=True, tag=True):
    """A chain that sees every frame that one link receives, and sends it through another chain of the table."""

    rank: ClassVar[int] = 25  # with the elements
    family: ClassVar[str] = "netdev"
    prefix: ClassVar[str] = "on-"
    table: str
    dev: str
    target: str = "lan"  # the chain's name; "" in a hook that was read and leads nowhere

    @property
    def key(self) -> Key:
        return ("nft-hook", self.family, self.table, self.dev)

    @property
    def holders(self) -> tuple[Key, ...]:
        # Not the link: since Linux 6.16 a chain outlives it, waiting for another of that name.
        return (("in-table", self.family, self.table),)

    @property
    def chain(self) -> str:
        """The chain's name."""
        return self.prefix + self.dev

    def describe(self) -> str:
        return f"nft '{self.script()}'"

    def script(self) -> str:
        """The chain and its rule in nft's language."""
        where = f"{self.family} {self.table} {self.chain}"
        hook = f'type filter hook ingress device "{self.dev}" priority 0; policy accept;'
        return f"add chain {where} {{ {hook} }}; add rule {where} jump {self.target}"

    def new_way(self) -> str:
        """Another target for the chain that is there, in nft's language."""
        where = f"{self.family} {self.table} {self.chain}"
        return f"flush chain {where}; add rule {where} jump {self.target}"

    def describe_change(self, old: Noun) -> str:
        return f"nft '{self.new_way()}'"

    def describe_removal(self) -> str:
        where = f"{self.family} {self.table} {self.chain}"
        return f"nft 'flush chain {where}; delete chain {where}'"


class NftPass(Noun, frozen=True, tag=True):
    """That a link's packets get through somebody else's chain.

    Where that chain is not, or stops nothing, they do, and nothing has to be there.
    """

    rank: ClassVar[int] = 75
    table: ClassVar[str] = "filter"
    chains: ClassVar[tuple[str, str]] = ("DOCKER-USER", "FORWARD")  # the second only where the first is not
    directions: ClassVar[tuple[str, str]] = ("in", "out")
    family: str  # ip, ip6
    dev: str
    direction: str
    chain: str = "DOCKER-USER"
    needless: bool = False  # read where no such chain is in the way
    legacy: bool = False  # in the tables of iptables-legacy, which nftables does not see

    @property
    def sticky(self) -> bool:
        return self.needless

    def met_by(self, there: Noun) -> bool:
        return isinstance(there, NftPass)

    @property
    def key(self) -> Key:
        legacy = ("legacy",) if self.legacy else ()
        return ("pass", HOST, self.family, self.dev, self.direction, self.chain, *legacy)

    @property
    def comment(self) -> str:
        """What the rule is known again by."""
        return f"{MARK}{self.direction} {self.dev}"

    def describe(self) -> str:
        if self.legacy:
            return f"{self._tool()} -I {self.chain} {shlex.join(self.rule())}"
        return f"nft '{self.script()}'"

    def script(self) -> str:
        """The rule in nft's language."""
        rule = f'{self.direction[0]}ifname "{self.dev}" counter accept comment "{self.comment}"'
        return f"insert rule {self.family} {self.table} {self.chain} {rule}"

    def rule(self) -> list[str]:
        """The rule in iptables' words."""
        return [f"-{self.direction[0]}", self.dev, "-m", "comment", "--comment", self.comment, "-j", "ACCEPT"]

    def describe_removal(self) -> str:
        # nft deletes by number only. iptables has two places for a comment and writes the one, but knows both.
        return f"{self._tool()} -D {self.chain} {shlex.join(self.rule())}"

    def _tool(self) -> str:
        return ("iptables" if self.family == "ip" else "ip6tables") + ("-legacy" if self.legacy else "")


class Zoned(Noun, frozen=True, tag=True):
    """That firewalld forwards a link's packets: the link is in a zone. Where firewalld is not, nothing has to be."""

    rank: ClassVar[int] = 76
    default: ClassVar[str] = "trusted"
    dev: str
    zone: str = "trusted"
    needless: bool = False  # read where firewalld is not, or where somebody else has chosen the zone

    @property
    def sticky(self) -> bool:
        return self.needless

    def met_by(self, there: Noun) -> bool:
        return isinstance(there, Zoned)

    @property
    def key(self) -> Key:
        return ("zone", HOST, self.dev)

    def describe(self) -> str:
        return f"firewall-cmd --zone={self.zone} --add-interface={self.dev}"

    def describe_removal(self) -> str:
        return f"firewall-cmd --zone={self.zone} --remove-interface={self.dev}"


class Foreign(Noun, frozen=True, tag=True):
    """Something under a key of ours that is not of our making. It is read, never asked for."""

    where: Key
    what: str

    @property
    def key(self) -> Key:
        return self.where

    @property
    def owner(self) -> str | None:
        return ""

    def describe(self) -> str:
        return self.what

    def describe_removal(self) -> str:
        return f"# {self.what} is not Berth's"


def _quoted(part: Part) -> str:
    kind, value = part
    return f'"{value}"' if kind in ("ifname", "ifindex") else value


Obj: TypeAlias = (
    Bridge
    | Veth
    | Sysctl
    | LinkUp
    | Addr
    | Route
    | NftTable
    | NftElement
    | NftHook
    | NftPass
    | NftRate
    | Shaped
    | Zoned
    | NftGuard
    | NftFlows
    | Port
    | MovedAddr
    | MovedRoute
    | MovedRule
    | MovedNeigh
    | TextFile
    | OvsBridge
    | OvsPort
    | TxChecksums
    | Vxlan
    | Fdb
    | Neigh
    | WireGuard
    | WireGuardPeer
    | Foreign
)
State: TypeAlias = frozenset[Obj]

NOTHING: State = frozenset()


def within(state: Iterable[Obj], keys: Iterable[Key]) -> State:
    """The objects under the given keys."""
    wanted = frozenset(keys)
    return frozenset(obj for obj in state if obj.key in wanted)


def keys(state: Iterable[Obj]) -> frozenset[Key]:
    """The keys of the objects."""
    return frozenset(obj.key for obj in state)
