"""Endpoints' guards (`NftGuard`) by hand-packed nfnetlink: one transaction each, and no process.

Source: include/uapi/linux/netfilter/nf_tables.h.
"""

from __future__ import annotations

import errno
import socket
import struct
from collections import Counter
from collections.abc import Callable, Iterator

from berth.guarded import ASKING, IDLE, PRIORITY, ROOM, NftGuard, Rule, RulePart
from berth.kernel import nft
from berth.kernel.netlink import APPEND, CREATE, EXCL, Message, Netlink, Refusal, attr, attrs, nest, string
from berth.kernel.netlink import text as text_attr
from berth.kernel.nft import be32, expression

_NEWTABLE, _DELTABLE, _NEWSET = 0xA00, 0xA02, 0xA09
_NEWCHAIN, _GETCHAIN, _NEWRULE, _GETRULE = 0xA03, 0xA04, 0xA06, 0xA07
_INGRESS, _EGRESS = 0, 1  # NF_NETDEV_*
_DROP, _ACCEPT = 0, 1
_EQ, _NEQ, _LTE, _GTE = 0, 1, 3, 5
_NETWORK, _TRANSPORT = 1, 2  # NFT_PAYLOAD_*_HEADER
_PROTOCOL, _L4PROTO = 1, 16  # NFT_META_*
_R = 8  # NFT_REG32_00: the first of sixteen words
_EVAL, _TIMEOUT = 0x20, 0x10  # NFT_SET_*
UNSUPPORTED = (
    "this kernel cannot hold frames against an allow list: that takes Linux 5.16 with CONFIG_NETFILTER_EGRESS;"
    " leave the option allow out"
)
_FRAGMENT = 44  # IPv6's fragment header

_ETHER = {"arp": 0x0806, "ip": 0x0800, "ip6": 0x86DD}
_NUMBERS = {"icmp": 1, "igmp": 2, "tcp": 6, "udp": 17, "icmpv6": 58, "sctp": 132}
_ADDRESSES = {"4": (12, 16, 1), "6": (8, 24, 4)}  # where source and destination stand, and the words that each takes
_TYPES = {"4": 7, "6": 8}  # nft's own number of the type of an address


def send(guard: NftGuard, *, replace: bool) -> Refusal | None:
    """Make a guard, or with `replace` one in place of the one there; what was refused."""
    old = [_remove(guard)] if replace else []
    for refusal in nft.transaction([*old, *_make(guard)]):
        if replace and (refusal.errno, refusal.index) == (errno.ENOENT, 0):
            return send(guard, replace=False)  # it went meanwhile
        return refusal
    return None


def delete(guard: NftGuard) -> Refusal | None:
    """Delete a guard; none there is no error."""
    return next((refusal for refusal in nft.transaction([_remove(guard)]) if refusal.errno != errno.ENOENT), None)


def read(nl: Netlink, wanted: Callable[[str], bool]) -> Iterator[NftGuard]:
    """The guards whose table is wanted, as they are: by the last rule's comment and the number of rules.

    A table under such a name with neither of a guard's chains is somebody else's.
    """
    there = {name for family, name in nft.tables(nl) if family == NftGuard.family and name.startswith(NftGuard.prefix)}
    there = {name for name in there if wanted(name)}
    if not there:
        return
    chains, stamps, rules = set[str](), dict[str, str](), Counter[str]()
    for data in nl.dump(_GETCHAIN, nft.generation(NftGuard.family)):
        found = attrs(data, 4)
        if string(found.get(3, b"")) in ("from", "to"):
            chains.add(string(found.get(1, b"")))
    for data in nl.dump(_GETRULE, nft.generation(NftGuard.family)):
        found = attrs(data, 4)
        table = string(found.get(1, b""))
        rules[table] += 1
        if stamp := nft.comment(found.get(7, b"")):
            stamps[table] = stamp
    for table in sorted(there):
        digest = f"{stamps.get(table, '')}/{rules[table]}" if table in chains else ""
        yield NftGuard(table.removeprefix(NftGuard.prefix), digest)


def supported() -> bool:
    """Whether this kernel shows nftables the frames that leave a link (Linux 5.16 with CONFIG_NETFILTER_EGRESS).

    Asked by a transaction that fails in any case, and of which nothing stays. Raises `Refusal` where it is not
    allowed.
    """
    probe = NftGuard("lo", "")
    table, chain = _table(probe), _chain(probe, "to", _EGRESS, _ACCEPT)
    missing = _remove(NftGuard("lo missing", ""))
    refused = {refusal.index: refusal for refusal in nft.transaction([table, chain, missing])}
    if any(refusal.errno in (errno.EPERM, errno.EACCES) for refusal in refused.values()):
        raise refused[min(refused)]
    return 1 not in refused


def _head(guard: NftGuard) -> bytes:
    return nft.generation(NftGuard.family) + text_attr(1, guard.table)


def _table(guard: NftGuard) -> Message:
    return Message(_NEWTABLE, CREATE | EXCL, _head(guard))


def _remove(guard: NftGuard) -> Message:
    return Message(_DELTABLE, 0, _head(guard))


def _make(guard: NftGuard) -> Iterator[Message]:
    yield _table(guard)
    yield _set(guard, "4")
    yield _set(guard, "6")
    yield _chain(guard, "from", _INGRESS, _ACCEPT)
    yield _chain(guard, "to", _EGRESS, _DROP)
    for rule in ASKING:
        yield _rule(guard, "from", _parts(rule))
    for rule in guard.rules:
        yield _rule(guard, "to", _parts(rule) + _verdict(_ACCEPT))
    text = guard.stamp.encode() + b"\0"
    yield _rule(guard, "to", _verdict(_DROP), attr(7, bytes([0, len(text)]) + text))


def _set(guard: NftGuard, version: str) -> Message:
    words = _ADDRESSES[version][2]
    types = 0
    for each in (_TYPES[version], _TYPES[version], 12, 13, 13):  # as nft numbers a concatenation
        types = types << 6 | each
    body = text_attr(2, f"answers{version}") + be32(3, _EVAL | _TIMEOUT) + be32(4, types)
    body += be32(5, 4 * (2 * words + 3)) + nest(9, be32(1, ROOM)) + be32(10, int(version))
    return Message(_NEWSET, CREATE | EXCL, _head(guard) + body + attr(11, struct.pack(">Q", IDLE * 1000)))


def _chain(guard: NftGuard, name: str, hook: int, policy: int) -> Message:
    place = nest(4, be32(1, hook) + be32(2, PRIORITY) + text_attr(3, guard.dev))
    return Message(
        _NEWCHAIN, CREATE | EXCL, _head(guard) + text_attr(3, name) + place + be32(5, policy) + text_attr(7, "filter")
    )


def _rule(guard: NftGuard, chain: str, expressions: bytes, more: bytes = b"") -> Message:
    return Message(_NEWRULE, CREATE | APPEND, _head(guard) + text_attr(2, chain) + nest(4, expressions) + more)


# --- the parts of a rule --------------------------------------------------------------------------------


def _parts(rule: Rule) -> bytes:
    return b"".join(_part(part) for part in rule)


def _part(part: RulePart) -> bytes:
    kind, value = part
    match kind:
        case "protocol":
            return _meta(_PROTOCOL, _R) + _cmp(_EQ, struct.pack(">H", _ETHER[value]))
        case "l4proto":
            return _meta(_L4PROTO, _R) + _cmp(_EQ, bytes([_NUMBERS[value]]))
        case "saddr":
            return _source(value)
        case "dport":
            return _payload(_TRANSPORT, 2, 2) + _range(value, 2)
        case "icmp" | "icmpv6":
            return _payload(_TRANSPORT, 0, 1) + _range(value, 1)
        case "later" if value == "4":
            return _payload(_NETWORK, 6, 2) + _masked(b"\x1f\xff") + _cmp(_NEQ, bytes(2))
        case "later":
            header = expression("exthdr", be32(1, _R) + attr(2, bytes([_FRAGMENT])) + be32(3, 2) + be32(4, 2))
            return header + _masked(b"\xff\xf8") + _cmp(_NEQ, bytes(2))
        case "begun":
            return _payload(_TRANSPORT, 13, 1) + _masked(b"\x12") + _cmp(_NEQ, b"\x02")  # SYN and ACK; SYN
        case "asks":
            return _conversation(value, turned=True) + _remember(value)
        case "answers":
            key = _conversation(value, turned=False)
            return key + expression("lookup", text_attr(1, f"answers{value}") + be32(2, _R)) + key + _remember(value)
    raise ValueError(f"no part of a rule: {kind}")


def _conversation(version: str, *, turned: bool) -> bytes:
    """The key of an answer: its source, destination, protocol and ports; `turned`: from what asks for it."""
    source, destination, words = _ADDRESSES[version]
    sport, dport = (2, 0) if turned else (0, 2)
    if turned:
        source, destination = destination, source
    at = _R + 2 * words
    return b"".join((
        _payload(_NETWORK, source, 4 * words),
        _payload(_NETWORK, destination, 4 * words, _R + words),
        _meta(_L4PROTO, at),
        _payload(_TRANSPORT, sport, 2, at + 1),
        _payload(_TRANSPORT, dport, 2, at + 2),
    ))  # fmt: skip


def _remember(version: str) -> bytes:
    """Keep the answer's key for another while. In a full set only what is in it already."""
    return expression("dynset", text_attr(1, f"answers{version}") + be32(3, 1) + be32(4, _R))


def _source(subnet: str) -> bytes:
    address, _, length = subnet.partition("/")
    family, version = (socket.AF_INET6, "6") if ":" in address else (socket.AF_INET, "4")
    packed = socket.inet_pton(family, address)
    bits = 8 * len(packed)
    loaded = _payload(_NETWORK, _ADDRESSES[version][0], len(packed))
    if int(length) < bits:
        loaded += _masked(((1 << bits) - (1 << bits - int(length))).to_bytes(len(packed), "big"))
    return loaded + _cmp(_EQ, packed)


def _range(value: str, size: int) -> bytes:
    first, _, last = value.partition("-")
    low, high = int(first).to_bytes(size, "big"), int(last or first).to_bytes(size, "big")
    return _cmp(_EQ, low) if low == high else _cmp(_GTE, low) + _cmp(_LTE, high)


def _meta(key: int, register: int) -> bytes:
    return expression("meta", be32(2, key) + be32(1, register))


def _payload(base: int, offset: int, size: int, register: int = _R) -> bytes:
    return expression("payload", be32(1, register) + be32(2, base) + be32(3, offset) + be32(4, size))


def _masked(mask: bytes) -> bytes:
    data = nest(4, attr(1, mask)) + nest(5, attr(1, bytes(len(mask))))
    return expression("bitwise", be32(1, _R) + be32(2, _R) + be32(3, len(mask)) + data)


def _cmp(how: int, data: bytes) -> bytes:
    return expression("cmp", be32(1, _R) + be32(2, how) + nest(3, attr(1, data)))


def _verdict(verdict: int) -> bytes:
    return expression("immediate", be32(1, 0) + nest(2, nest(2, be32(1, verdict))))
