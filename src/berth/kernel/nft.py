"""nftables: elements by hand-packed nfnetlink, tables by nft(8).

Elements come and go with every container: 7 microseconds each, many in one transaction, no process. Tables
with their chains and rules are written once in nft's own language, which people can read; only then a process
runs, never on the attach path.
Sources: include/uapi/linux/netfilter/nf_tables.h; libnftnl's user data layout for comments.
"""

from __future__ import annotations

import errno
import os
import socket
import struct
import subprocess
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from ipaddress import IPv6Address

from berth.errors import Denied, NotFound, Refused, Taken, Unsupported
from berth.flows import NftFlows
from berth.kernel.netlink import (
    APPEND,
    CREATE,
    EXCL,
    NETFILTER,
    ROUTE,
    Message,
    Netlink,
    Refusal,
    attr,
    attrs,
    items,
    nest,
    string,
)
from berth.kernel.netlink import text as text_attr
from berth.kernel.rtnl import index, name_of
from berth.plan import Add, Change
from berth.rates import NftRate
from berth.state import NftElement, NftGuard, NftHook, NftPass, NftTable, Part

SUBSYSTEM = 10
_BEGIN, _END = 0x10, 0x11
_GETTABLE, _DELTABLE, _NEWCHAIN, _GETCHAIN, _DELCHAIN, _NEWRULE, _GETRULE, _DELRULE, _GETSET = (
    1,
    2,
    3,
    4,
    5,
    6,
    7,
    8,
    10,
)
_NEWSETELEM, _GETSETELEM, _DELSETELEM = 12, 13, 14

_FAMILIES = {"inet": 1, "ip": 2, "netdev": 5, "bridge": 7, "ip6": 10}
FAMILY_NAMES = {number: name for name, number in _FAMILIES.items()}
_TABLE, _SET, _ELEMENTS = 1, 2, 3  # NFTA_SET_ELEM_LIST_*, and of rules and sets too
_CHAIN_NAME, _CHAIN_HOOK, _CHAIN_POLICY, _CHAIN_TYPE = 3, 4, 5, 7
_HOOK_NUMBER, _HOOK_PRIORITY, _HOOK_DEVICE = 1, 2, 3
_RULE_CHAIN, _RULE_EXPRESSIONS, _RULE_USERDATA = 2, 4, 7
_SET_NAME, _SET_KEY_TYPE, _SET_DATA_TYPE = 2, 4, 6
_LIST_ELEM, _ELEM_KEY, _ELEM_DATA, _ELEM_KEY_END, _DATA_VALUE = 1, 1, 2, 10, 1

#: nft's own numbers of data types; a concatenation is these, six bits each.
_TYPES = {4: "octets", 7: "ipv4", 8: "ipv6", 9: "mac", 12: "proto", 13: "port", 20: "ifindex", 41: "ifname"}
_SIZES = {"octets": 16, "ipv4": 4, "ipv6": 16, "mac": 6, "proto": 1, "port": 2, "ifindex": 4, "ifname": 16}
_PROTOCOLS = {"tcp": 6, "udp": 17, "sctp": 132}
_PROTOCOL_NAMES = {number: name for name, number in _PROTOCOLS.items()}

#: The chain that nothing jumps to; its rule's comment tells which text a table was made from.
_STAMP = "stamp"


def generation(family: str) -> bytes:
    """The head of every message."""
    return _generation(_FAMILIES[family])


def _generation(family: int, resource: int = 0) -> bytes:
    return struct.pack(">BBH", family, 0, resource)


def _type(kind: int) -> int:
    return SUBSYSTEM << 8 | kind


def encode_parts(parts: Sequence[Part]) -> bytes:
    """A key or value as the kernel holds it; in a concatenation every part is padded to four bytes."""
    packed = [_encode(kind, value) for kind, value in parts]
    if len(packed) == 1:
        return packed[0]
    return b"".join(data + b"\0" * (-len(data) & 3) for data in packed)


def _encode(kind: str, value: str) -> bytes:
    match kind:
        case "octets":  # 16 of them, as a number: what nft makes of a field that it has no name for
            return bytes.fromhex(value.removeprefix("0x"))
        case "ipv4":
            return socket.inet_pton(socket.AF_INET, value)
        case "ipv6":
            return socket.inet_pton(socket.AF_INET6, value)
        case "mac":
            return bytes.fromhex(value.replace(":", ""))
        case "proto":
            return bytes([_PROTOCOLS[value]])
        case "port":
            return int(value).to_bytes(2, "big")
        case "ifindex":
            return struct.pack("=I", _index(value))
        case "ifname":
            return value.encode().ljust(16, b"\0")
    raise ValueError(f"no nftables type {kind}")


def _index(name: str) -> int:
    return index(Netlink.kept(ROUTE), name)


def decode_parts(types: int, data: bytes) -> tuple[Part, ...]:
    """The reverse of `encode_parts`, by nft's type number; () for types that Berth does not use."""
    kinds = []
    while types:
        kinds.append(_TYPES.get(types & 0x3F, ""))
        types >>= 6
    parts: list[Part] = []
    offset = 0
    for kind in reversed(kinds):
        size = _SIZES.get(kind, 0)
        raw = data[offset : offset + size]
        if not size or len(raw) < size:
            return ()
        parts.append((kind, _decode(kind, raw)))
        offset += size + 3 & ~3
    return tuple(parts)


def _decode(kind: str, raw: bytes) -> str:
    match kind:
        case "octets":
            return f"0x{raw.hex()}"
        case "ipv4":
            return socket.inet_ntop(socket.AF_INET, raw)
        case "ipv6":
            return str(IPv6Address(raw))  # as the elements are written that it is compared with
        case "mac":
            return raw.hex(":")
        case "proto":
            return _PROTOCOL_NAMES.get(raw[0], str(raw[0]))
        case "port":
            return str(int.from_bytes(raw, "big"))
        case "ifindex":
            return name_of(struct.unpack("=I", raw)[0])
    return string(raw)


def _element_message(kind: int, flags: int, element: NftElement, body: bytes) -> Message:
    # One message an element: the kernel's refusal names a message.
    head = _generation(_FAMILIES[element.family]) + text_attr(_TABLE, element.table) + text_attr(_SET, element.set)
    return Message(_type(kind), flags, head + nest(_ELEMENTS, nest(_LIST_ELEM, body)))


def _element_key(element: NftElement) -> bytes:
    first, last = encode_parts(element.first), encode_parts(element.last)
    end = nest(_ELEM_KEY_END, attr(_DATA_VALUE, last)) if last != first else b""
    return nest(_ELEM_KEY, attr(_DATA_VALUE, first)) + end


def be32(kind: int, value: int) -> bytes:
    """An attribute that is a number; a verdict may be negative."""
    return attr(kind, struct.pack(">i", value))


def expression(name: str, data: bytes) -> bytes:
    """One of a rule's expressions."""
    return nest(1, text_attr(1, name) + nest(2, data))


def _hook_head(hook: NftHook) -> bytes:
    return _generation(_FAMILIES[NftHook.family]) + text_attr(_TABLE, hook.table)


def _hook_messages(hook: NftHook) -> Iterator[Message]:
    """A chain that sees what a link receives, and its one rule."""
    place = be32(_HOOK_NUMBER, 0) + be32(_HOOK_PRIORITY, 0) + text_attr(_HOOK_DEVICE, hook.dev)
    chain = text_attr(_CHAIN_NAME, hook.chain) + nest(_CHAIN_HOOK, place) + be32(_CHAIN_POLICY, 1)
    yield Message(_type(_NEWCHAIN), CREATE | EXCL, _hook_head(hook) + chain + text_attr(_CHAIN_TYPE, "filter"))
    yield from lead(hook)


def lead(hook: NftHook) -> Iterator[Message]:
    """The one rule of a hook that has none: an immediate verdict, to jump."""
    jump = expression("immediate", be32(1, 0) + nest(2, nest(2, be32(1, -3) + text_attr(2, hook.target))))
    rule = text_attr(_RULE_CHAIN, hook.chain) + nest(_RULE_EXPRESSIONS, jump)
    yield Message(_type(_NEWRULE), CREATE | APPEND, _hook_head(hook) + rule)


def mislead(hook: NftHook) -> Iterator[Message]:
    """Take the rules out of a hook."""
    yield Message(_type(_DELRULE), 0, _hook_head(hook) + text_attr(_RULE_CHAIN, hook.chain))


def _unhook_messages(hook: NftHook) -> Iterator[Message]:
    yield from mislead(hook)
    yield Message(_type(_DELCHAIN), 0, _hook_head(hook) + text_attr(_CHAIN_NAME, hook.chain))


def add_entry(entry: NftElement | NftHook) -> Iterator[Message]:
    """Add an element or a hook. Raises `NotFound` for a link that its value names."""
    if isinstance(entry, NftHook):
        yield from _hook_messages(entry)
        return
    data = nest(_ELEM_DATA, attr(_DATA_VALUE, encode_parts(entry.data))) if entry.data else b""
    yield _element_message(_NEWSETELEM, CREATE | EXCL, entry, _element_key(entry) + data)


def delete_entry(entry: NftElement | NftHook) -> Iterator[Message]:
    """Delete an element or a hook."""
    if isinstance(entry, NftHook):
        yield from _unhook_messages(entry)
        return
    # By its key alone: the link that its value names may be gone.
    yield _element_message(_DELSETELEM, 0, entry, _element_key(entry))


def delete_table(family: str, name: str) -> None:
    """Delete a table and all in it; none there is no error. Raises `Refusal`."""
    body = _generation(_FAMILIES[family]) + text_attr(_TABLE, name)
    for refusal in transaction([Message(_type(_DELTABLE), 0, body)]):
        if refusal.errno != errno.ENOENT:
            raise refusal


def transaction(requests: Sequence[Message], nl: Netlink | None = None) -> list[Refusal]:
    """Send requests, all or none of which take effect; what was refused. By the socket that is kept, or `nl`.

    More than the socket takes at once (net.core.wmem_max) are sent as two transactions, and so on.
    """
    if not requests:
        return []
    mark = _generation(0, SUBSYSTEM)
    nl = nl or Netlink.kept(NETFILTER)
    try:
        return nl.transaction(Message(_BEGIN, 0, mark), requests, Message(_END, 0, mark))
    except OSError as error:
        if error.errno != errno.EMSGSIZE or len(requests) == 1:
            raise
    half = len(requests) // 2
    if refused := transaction(requests[:half], nl):
        return refused
    return [Refusal(r.errno or 0, r.reason, r.index + half) for r in transaction(requests[half:], nl)]


def write_table(table: NftTable, *, replace: bool) -> None:
    """Make a table, or with `replace` give it new rules and keep its sets' elements.

    nft(8) dies with us (setpriv), so that no change arrives after a recovery has already read the kernel.
    Raises `Unsupported` when nft is missing, `Denied`, or `Refused` with nft's first line of complaint.
    """
    run(_table_script(table, replace=replace), f"table {table.family} {table.name}")


def write_together(made: Sequence[Add | Change]) -> None:
    """Make tables together with what is in them, and the ways past others, in one transaction.

    A table without its elements would masquerade nothing and isolate nobody. By nft(8), which dies with us. Raises
    as `write_table` does.
    """
    lines, members = list[str](), dict[str, list[str]]()
    for op in made:
        match op.new:
            case NftTable() as table:
                lines.append(_table_script(table, replace=isinstance(op, Change)))
            case NftElement() as entry:
                members.setdefault(f"{entry.family} {entry.table} {entry.set}", []).append(entry.member())
            case NftHook() as hook if isinstance(op, Change):
                lines.append(hook.new_way())
            case NftGuard() as guard:
                lines += [guard.describe_removal().removeprefix("nft ")] if isinstance(op, Change) else []
                lines.append(guard.script())
            case NftHook() | NftPass() | NftRate() as entry:
                lines.append(entry.script())
            case NftFlows() as fast:
                from berth.kernel import flows  # which needs this module

                lines += [fast.describe_removal().removeprefix("nft ")] if isinstance(op, Change) else []
                lines.append(flows.script(fast))
    # After the tables, and many to a command: nft looks through all of its commands for each.
    lines += [f"add element {where} {{ {', '.join(all_of)} }}" for where, all_of in members.items()]
    run("\n".join(lines) + "\n", "tables of Berth's")


def _table_script(table: NftTable, *, replace: bool) -> str:
    return _replacement(table) if replace else f"create table {table.family} {table.name}\n{table.script()}"


def run(script: str, what: str) -> None:
    """Carry out a script by nft(8), as one transaction. Raises as `write_table` does, and `NotFound`."""
    argv = ["setpriv", "--pdeathsig", "KILL", "nft", "-f", "-"]
    try:
        done = subprocess.run(argv, input=script, text=True, capture_output=True, check=False)
    except FileNotFoundError:
        raise Unsupported("setpriv is missing: install util-linux") from None
    if done.returncode == 127:
        raise Unsupported("nft is missing: install nftables (`apt-get install nftables`)")
    if done.returncode:
        complaint = (done.stderr.strip().splitlines() or ["no reason given"])[0]
        if os.strerror(errno.EPERM) in complaint:
            raise Denied(f"may not make {what}: run as root (CAP_NET_ADMIN)")
        if os.strerror(errno.EEXIST) in complaint:
            raise Taken(f"{what} is already there: see `nft list table …`, or `berth reconcile`")
        if os.strerror(errno.ENOENT) in complaint or os.strerror(errno.EOPNOTSUPP) in complaint:
            raise NotFound(f"nft found nothing to do this with: {what}: {complaint}")
        raise Refused(f"nft refused {what}: {complaint}")


def _replacement(table: NftTable) -> str:
    """The table in place of the one there, whose sets and hooks stay.

    Its chains go: one that is hooked elsewhere cannot be changed into another.
    """
    where = f"{table.family} {table.name}"
    nl = Netlink.kept(NETFILTER)
    chains = sorted(_chains(nl, table.family, table.name))
    ours = [f"delete chain {where} {chain}" for chain in chains if not chain.startswith(NftHook.prefix)]
    ways = _targets(nl, table.name) if table.family == NftHook.family else {}
    # One that leads to what is no more is changed with the hook.
    hooks = [f"add rule {where} {c} jump {to}" for c, to in ways.items() if f"chain {to} {{" in table.text]
    return "\n".join([f"add table {where}", f"flush table {where}", *ours, table.script(), *hooks, ""])


def _chains(nl: Netlink, family: str, table: str) -> Iterator[str]:
    for data in nl.dump(_type(_GETCHAIN), _generation(_FAMILIES[family])):
        fields = attrs(data, 4)
        if data and data[0] == _FAMILIES[family] and string(fields.get(_TABLE, b"")) == table:
            yield string(fields.get(_CHAIN_NAME, b""))


# --- reading --------------------------------------------------------------------------------------------


def read_table(nl: Netlink, family: str, name: str) -> NftTable | None:
    """The table as it is; None where there is none."""
    head = _generation(_FAMILIES[family]) + text_attr(_TABLE, name)
    try:
        nl.ask(_type(_GETTABLE), head)
    except Refusal:
        return None
    rules, stamp = 0, ""
    for data in nl.dump(_type(_GETRULE), head):
        found = attrs(data, 4)
        if string(found.get(_TABLE, b"")) != name or (data and data[0] != _FAMILIES[family]):
            continue  # older kernels do not filter
        chain = string(found.get(_RULE_CHAIN, b""))
        rules += not chain.startswith(NftHook.prefix)
        if chain == _STAMP:
            stamp = comment(found.get(_RULE_USERDATA, b""))
    # One that somebody has flushed has no rule left, but still the chain, and its sets.
    flushed = not rules and _STAMP in _chains(nl, family, name) and bool(_set_types(nl, family, name))
    return NftTable(family, name, f"{stamp}/{rules}" if stamp or flushed else "")


def marked(family: str, name: str) -> bool:
    """Whether a table is Berth's by its name."""
    if family in ("inet", "bridge"):
        return name == "berth" or NftFlows.is_one(family, name)
    return family == "netdev" and name.startswith("berth_")


def tables(nl: Netlink) -> Iterator[tuple[str, str]]:
    """(family, name) of all tables of the families that Berth uses."""
    for data in nl.dump(_type(_GETTABLE), _generation(0)):
        if data and data[0] in FAMILY_NAMES:
            yield FAMILY_NAMES[data[0]], string(attrs(data, 4).get(_TABLE, b""))


@dataclass(frozen=True, slots=True)
class BaseChain:
    """A chain that is hooked into the packets' way."""

    family: str
    table: str
    name: str
    hook: int
    device: str  # of a chain that sees one link only
    drops: bool  # by policy


def base_chains(nl: Netlink) -> list[BaseChain]:
    """All base chains of the families that Berth knows."""
    found = []
    for data in nl.dump(_type(_GETCHAIN), _generation(0)):
        fields = attrs(data, 4)
        if not data or data[0] not in FAMILY_NAMES or _CHAIN_HOOK not in fields:
            continue
        hook = attrs(fields[_CHAIN_HOOK])
        found.append(
            BaseChain(
                family=FAMILY_NAMES[data[0]],
                table=string(fields.get(_TABLE, b"")),
                name=string(fields.get(_CHAIN_NAME, b"")),
                hook=int.from_bytes(hook.get(_HOOK_NUMBER, b""), "big"),
                device=string(hook.get(_HOOK_DEVICE, b"")),
                drops=fields.get(_CHAIN_POLICY) == bytes(4),
            )
        )
    return found


def read_hooks(nl: Netlink, table: str) -> Iterator[NftHook]:
    """The hooks of a table of the netdev family."""
    ways = _targets(nl, table)
    for chain in base_chains(nl):
        if (chain.family, chain.table) == (NftHook.family, table) and chain.device:
            yield NftHook(table, chain.device, ways.get(chain.name, ""))


def _targets(nl: Netlink, table: str) -> dict[str, str]:
    """Where each hook of a netdev table leads to, by its chain; without those that have no rule, or more than one."""
    ways: dict[str, list[str]] = {}
    for data in nl.dump(_type(_GETRULE), _generation(_FAMILIES[NftHook.family]) + text_attr(_TABLE, table)):
        found = attrs(data, 4)
        chain = string(found.get(_RULE_CHAIN, b""))
        if string(found.get(_TABLE, b"")) == table and chain.startswith(NftHook.prefix):
            ways.setdefault(chain, []).append(_jump(found.get(_RULE_EXPRESSIONS, b"")))
    return {chain: targets[0] for chain, targets in ways.items() if len(targets) == 1 and targets[0]}


def _jump(expressions: bytes) -> str:
    """The chain that a rule of nothing but a jump leads to; "" for any other rule."""
    every = [attrs(raw) for _, raw in items(expressions)]
    if len(every) != 1 or string(every[0].get(1, b"")) != "immediate":
        return ""
    verdict = attrs(attrs(attrs(every[0].get(2, b"")).get(2, b"")).get(2, b""))
    return string(verdict.get(2, b""))


def comment(data: bytes) -> str:
    """The comment in a rule's user data: (type 0, length, text) records."""
    offset = 0
    while offset + 2 <= len(data):
        kind, length = data[offset], data[offset + 1]
        if kind == 0:
            return string(data[offset + 2 : offset + 2 + length])
        offset += 2 + length
    return ""


def _set_types(nl: Netlink, family: str, table: str) -> dict[str, tuple[int, int]]:
    """Key and data types of all sets of a table, by name."""
    types = {}
    head = _generation(_FAMILIES[family]) + text_attr(_TABLE, table)
    for data in nl.dump(_type(_GETSET), head):
        found = attrs(data, 4)
        name = string(found.get(_SET_NAME, b""))
        if string(found.get(_TABLE, b"")) == table and name:
            key = int.from_bytes(found.get(_SET_KEY_TYPE, b""), "big")
            types[name] = (key, int.from_bytes(found.get(_SET_DATA_TYPE, b""), "big"))
    return types


def _decode_match(types: int, fields: Mapping[int, bytes]) -> tuple[Part, ...]:
    """An element's key, in an interval set with the ranges in it."""
    first = decode_parts(types, attrs(fields.get(_ELEM_KEY, b"")).get(_DATA_VALUE, b""))
    if _ELEM_KEY_END not in fields:
        return first
    last = decode_parts(types, attrs(fields[_ELEM_KEY_END]).get(_DATA_VALUE, b""))
    return tuple(
        (kind, low if low == high else f"{low}-{high}") for (kind, low), (_, high) in zip(first, last, strict=True)
    )


def read_elements(nl: Netlink, family: str, table: str, only: Collection[str] = ()) -> Iterator[NftElement]:
    """All elements of all named sets and maps of a table, or of those that are named."""
    try:
        types = _set_types(nl, family, table)
    except Refusal:
        return  # no such table
    for name, (key_type, data_type) in types.items():
        if name.startswith("__") or (only and name not in only):
            continue  # anonymous ones are part of a rule
        head = _generation(_FAMILIES[family]) + text_attr(_TABLE, table) + text_attr(_SET, name)
        for data in nl.dump(_type(_GETSETELEM), head):
            for _, raw in items(attrs(data, 4).get(_ELEMENTS, b"")):
                fields = attrs(raw)
                match = _decode_match(key_type, fields)
                value = attrs(fields.get(_ELEM_DATA, b"")).get(_DATA_VALUE, b"")
                if match:
                    yield NftElement(family, table, name, match, decode_parts(data_type, value) if value else ())
