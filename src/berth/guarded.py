"""The noun of an endpoint's guard: what stands at the host's end of its cable and lets in only what its list says.

A guard is a table of its own, so that it comes and goes as one. Its rules are written here as parts with a value
each, of which come both nft's language and the kernel's own (`kernel/guards.py`).
"""

from __future__ import annotations

from typing import ClassVar, TypeAlias

from berth.noun import MARK, Key, Noun

RulePart: TypeAlias = tuple[str, str]
Rule: TypeAlias = tuple[RulePart, ...]  # of a frame for which all parts hold, it is accepted

ROOM = 65536  # conversations of each IP version that one endpoint may have at a time
IDLE = 120  # seconds after which one is forgotten; RFC 4787 section 4.3: not less for UDP
PRIORITY = -10  # before the bypass, which sends a frame on from a hook of priority 0

#: What an endpoint begins without TCP. (TCP says itself which packets begin something, ICMP which are answers.)
ASKING: tuple[Rule, ...] = tuple(
    (("protocol", "ip" if version == "4" else "ip6"), ("l4proto", proto), ("asks", version))
    for version in "46"
    for proto in ("udp", "sctp")
)

_IP = {"4": "ip", "6": "ip6"}


def _key(version: str, to: str, by: str) -> str:
    ip, other = _IP[version], {"s": "d", "d": "s"}
    return f"{ip} {to}addr . {ip} {other[to]}addr . meta l4proto . th {by}port . th {other[by]}port"


def words(part: RulePart) -> str:
    """A part of a rule in nft's language."""
    kind, value = part
    match kind:
        case "protocol" | "l4proto":
            return f"meta {kind} {value}"
        case "saddr":
            return f"{'ip6' if ':' in value else 'ip'} saddr {value}"
        case "dport":
            return f"th dport {value}"
        case "icmp" | "icmpv6":
            return f"{kind} type {value}"
        case "later":  # a fragment that is not a packet's first, and so has no ports
            return "ip frag-off & 0x1fff != 0" if value == "4" else "frag frag-off != 0"
        case "begun":  # a TCP segment that begins no connection
            return "tcp flags & (syn | ack) != syn"
        case "asks":
            return f"update @answers{value} {{ {_key(value, 'd', 'd')} }}"
        case "answers":
            return f"{_key(value, 's', 's')} @answers{value} update @answers{value} {{ {_key(value, 's', 's')} }}"
    raise ValueError(f"no part of a rule: {kind}")


class NftGuard(Noun, frozen=True, tag=True, eq=False):
    """A table that sees what a cable brings out of its sandbox and, before it goes in, what is to go in.

    As with `NftTable`, rules cannot be read back as they were written: the last one's comment is a digest of them.
    """

    # After the cable, and before its inner end is up: an endpoint is never without its guard.
    rank: ClassVar[int] = 25
    family: ClassVar[str] = "netdev"
    prefix: ClassVar[str] = "berth_allow_"
    dev: str
    digest: str  # and the number of rules; "" in a table that somebody else made under the same name
    rules: tuple[Rule, ...] = ()  # what may go in; () in one that was read

    @property
    def table(self) -> str:
        """The table's name."""
        return self.prefix + self.dev

    @property
    def key(self) -> Key:
        return ("nft-guard", self.family, self.table)

    @property
    def owner(self) -> str | None:
        return MARK + self.digest if self.digest else ""

    @property
    def stamp(self) -> str:
        """The comment that it is known again by."""
        return self.digest.partition("/")[0]

    def __eq__(self, other: object) -> bool:
        return isinstance(other, NftGuard) and (self.key, self.digest) == (other.key, other.digest)

    def __ne__(self, other: object) -> bool:  # msgspec's own would compare identities
        return not self == other

    def __hash__(self) -> int:
        return hash((self.key, self.digest))

    def script(self) -> str:
        """The table in nft's language."""
        lines = [f"create table {self.family} {self.table}", f"table {self.family} {self.table} {{"]
        for version, kind in (("4", "ipv4_addr"), ("6", "ipv6_addr")):
            types = f"{kind} . {kind} . inet_proto . inet_service . inet_service"
            lines += [
                f"  set answers{version} {{ type {types}; size {ROOM}; flags dynamic,timeout; timeout {IDLE}s; }}"
            ]
        asking = [" ".join(map(words, rule)) for rule in ASKING]
        entering = [" ".join((*map(words, rule), "accept")) for rule in self.rules]
        entering.append(f'drop comment "{self.stamp}"')
        lines += self._chain("from", "ingress", "accept", asking) + self._chain("to", "egress", "drop", entering)
        return "\n".join([*lines, "}", ""])

    def _chain(self, name: str, hook: str, policy: str, rules: list[str]) -> list[str]:
        place = f'type filter hook {hook} device "{self.dev}" priority {PRIORITY}; policy {policy};'
        return [f"  chain {name} {{", f"    {place}", *(f"    {rule}" for rule in rules), "  }"]

    def describe(self) -> str:
        return f"nft '{self.script().strip()}'"

    def describe_removal(self) -> str:
        return f"nft delete table {self.family} {self.table}"

    def describe_change(self, old: Noun) -> str:
        return f"{old.describe_removal()} && {self.describe()}"
