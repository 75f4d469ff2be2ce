"""Rules of Berth's in others' chains; see `NftPass`.

Written as iptables-nft would write `-i br0 -j ACCEPT`, so that it can still show the chain.
"""

from __future__ import annotations

import errno
import struct
from collections.abc import Iterator, Mapping

from berth.kernel.netlink import CREATE, NETFILTER, Message, Netlink, Refusal, attr, attrs, items, nest, string
from berth.kernel.netlink import text as text_attr
from berth.kernel.nft import be32, comment, expression, generation, transaction
from berth.state import MARK, NftPass

_NEWRULE, _GETRULE, _DELRULE, _GETCHAIN = 0xA06, 0xA07, 0xA08, 0xA04
_RULE_TABLE, _RULE_CHAIN, _RULE_HANDLE, _RULE_EXPRESSIONS, _RULE_USERDATA = 1, 2, 3, 4, 7
_META = {"in": 6, "out": 7}  # NFT_META_IIFNAME, NFT_META_OIFNAME
_ACCEPT = 1
_CHAIN_HOOK, _CHAIN_POLICY = 4, 5


#: (family, table, chain) of all chains that may be in the way.
PLACES = frozenset((family, NftPass.table, chain) for family in ("ip", "ip6") for chain in NftPass.chains)


def in_the_way(nl: Netlink, family: str) -> str:
    """The chain of a family that needs a rule for each bridge; "" for none.

    Docker's own for such rules where it is, whatever it does now: FORWARD looks there first. Else FORWARD, if it
    drops or rejects at its end what no rule has let through.
    """
    docker, forward = NftPass.chains
    try:
        nl.ask(_GETCHAIN, _place(family, docker, name=3))
        return docker
    except Refusal:
        pass
    try:
        chain = attrs(nl.ask(_GETCHAIN, _place(family, forward, name=3)), 4)
    except Refusal:
        return ""
    if _CHAIN_HOOK not in chain:
        return ""
    drops = chain.get(_CHAIN_POLICY) == bytes(4)
    return forward if drops or ends_with_a_stop(nl, family, NftPass.table, forward) else ""


def ends_with_a_stop(nl: Netlink, family: str, table: str, chain: str) -> bool:
    """Whether the last rule of a chain drops or rejects whatever comes to it."""
    rules = _rules(nl, family, chain, table)
    return bool(rules) and _stops_all(rules[-1])


def _stops_all(rule: Mapping[int, bytes]) -> bool:
    """Whether a rule drops or rejects whatever comes: it has no condition."""
    for _, raw in items(rule.get(_RULE_EXPRESSIONS, b"")):
        expression = attrs(raw)
        name, data = string(expression.get(1, b"")), attrs(expression.get(2, b""))
        if name == "immediate":
            return attrs(attrs(data.get(2, b"")).get(2, b"")).get(1) == bytes(4)  # NF_DROP
        if name == "reject" or (name == "target" and string(data.get(1, b"")) == "REJECT"):
            return True
        if name != "counter":
            return False
    return False


def _rules(nl: Netlink, family: str, chain: str, table: str = NftPass.table) -> list[Mapping[int, bytes]]:
    try:
        rules = [attrs(data, 4) for data in nl.dump(_GETRULE, _place(family, chain, table=table))]
    except Refusal:
        return []
    where = (table, chain)  # older kernels do not filter
    return [r for r in rules if (string(r.get(_RULE_TABLE, b"")), string(r.get(_RULE_CHAIN, b""))) == where]


def read(nl: Netlink, family: str) -> Iterator[tuple[NftPass, int]]:
    """Berth's rules in others' chains, with their handles."""
    for chain in NftPass.chains:
        for found in _rules(nl, family, chain):
            mark, _, rest = _comment(found).partition(MARK)
            direction, _, dev = rest.partition(" ")
            if not mark and direction in _META and dev:
                yield NftPass(family, dev, direction, chain), int.from_bytes(found[_RULE_HANDLE], "big")


def _comment(rule: Mapping[int, bytes]) -> str:
    """A rule's comment. After iptables-restore it is a match of iptables' own, a text of 256 bytes."""
    if text := comment(rule.get(_RULE_USERDATA, b"")):
        return text
    for _, raw in items(rule.get(_RULE_EXPRESSIONS, b"")):
        expression = attrs(raw)
        match = attrs(expression.get(2, b"")) if string(expression.get(1, b"")) == "match" else {}
        if string(match.get(1, b"")) == "comment":
            return string(match.get(3, b""))
    return ""


def add(entry: NftPass) -> None:
    """Put a rule before all others. Raises `Refusal`; a chain that is not there needs none."""
    body = _place(entry.family, entry.chain) + nest(_RULE_EXPRESSIONS, _expressions(entry))
    text = entry.comment.encode() + b"\0"
    body += attr(_RULE_USERDATA, bytes([0, len(text)]) + text)
    _send(Message(_NEWRULE, CREATE, body))


def delete(entry: NftPass) -> None:
    """Delete a rule, as often as it is there. Raises `Refusal`."""
    for there, handle in list(read(Netlink.kept(NETFILTER), entry.family)):
        if there == entry:
            _send(
                Message(_DELRULE, 0, _place(entry.family, entry.chain) + attr(_RULE_HANDLE, struct.pack(">Q", handle)))
            )


def _send(message: Message) -> None:
    for refusal in transaction([message]):
        if refusal.errno != errno.ENOENT:
            raise refusal


def _place(family: str, chain: str, name: int = _RULE_CHAIN, *, table: str = NftPass.table) -> bytes:
    return generation(family) + text_attr(_RULE_TABLE, table) + text_attr(name, chain)


def _expressions(entry: NftPass) -> bytes:
    name = entry.dev.encode().ljust(16, b"\0")
    return b"".join((
        expression("meta", be32(2, _META[entry.direction]) + be32(1, 1)),
        expression("cmp", be32(1, 1) + be32(2, 0) + nest(3, attr(1, name))),
        expression("counter", attr(1, bytes(8)) + attr(2, bytes(8))),
        expression("immediate", be32(1, 0) + nest(2, nest(2, be32(1, _ACCEPT)))),
    ))  # fmt: skip
