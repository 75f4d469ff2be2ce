"""Token bucket filters by rtnetlink, and tables that police a link by nfnetlink.

Sources: include/uapi/linux/{rtnetlink,pkt_sched}.h and net/sched/sch_tbf.c; netfilter/nf_tables.h (NFTA_LIMIT_*) and
net/netfilter/nft_limit.c.
"""

from __future__ import annotations

import struct
from collections.abc import Collection, Iterator

from berth.kernel import nft
from berth.kernel.netlink import APPEND, CREATE, EXCL, REPLACE, Message, Netlink, attr, attrs, items, nest, string
from berth.kernel.netlink import text as text_attr
from berth.kernel.rtnl import index, name_of
from berth.rates import NftRate, Shaped

_NEWQDISC, _DELQDISC, _GETQDISC = 36, 37, 38
_TCMSG = struct.Struct("=BxxxiIII")  # family, link, handle, parent, info
_ROOT = 0xFFFFFFFF
_KIND, _OPTIONS = 1, 2
_TBF = "tbf"
_PARMS, _RATE64, _BURST = 1, 4, 6
_RATESPEC = struct.Struct("=BBHhHI")  # cell_log, linklayer, overhead, cell_align, mpu, rate
_ETHERNET = 1  # the link layer; without one the kernel wants a table of times
_U32, _U64, _BE64 = struct.Struct("=I"), struct.Struct("=Q"), struct.Struct(">Q")
_MOST = 0xFFFFFFFF

_NEWTABLE, _DELTABLE, _NEWCHAIN, _NEWRULE, _GETRULE = 0, 2, 3, 6, 7
_TABLE, _CHAIN, _CHAIN_HOOK, _CHAIN_POLICY, _CHAIN_TYPE = 1, 3, 4, 5, 7
_HOOK_NUMBER, _HOOK_PRIORITY, _HOOK_DEVICE = 1, 2, 3
_RULE_CHAIN, _RULE_EXPRESSIONS = 2, 4
_LIMIT_RATE, _LIMIT_UNIT, _LIMIT_BURST, _LIMIT_TYPE, _LIMIT_FLAGS = 1, 2, 3, 4, 5
_BYTES, _OVER, _ACCEPT = 1, 1, 1

#: `drop`, as the kernel holds it: an immediate verdict of 0.
_DROP = nft.expression("immediate", nft.be32(1, 0) + nest(2, nest(2, nft.be32(1, 0))))


# --- shaping --------------------------------------------------------------------------------------------


def add_shape(nl: Netlink, shaped: Shaped) -> Message:
    """Give a link a token bucket filter, or the one it has another rate. Raises `NotFound`."""
    slow = _RATESPEC.pack(0, _ETHERNET, 0, 0, 0, min(shaped.rate, _MOST))
    parms = slow + bytes(_RATESPEC.size) + struct.pack("=III", shaped.limit, 0, 0)
    options = attr(_PARMS, parms) + attr(_BURST, _U32.pack(shaped.burst))
    if shaped.rate >= _MOST:
        options += attr(_RATE64, _U64.pack(shaped.rate))
    body = _tcmsg(nl, shaped) + text_attr(_KIND, _TBF) + nest(_OPTIONS, options)
    return Message(_NEWQDISC, CREATE | REPLACE, body)


def delete_shape(nl: Netlink, shaped: Shaped) -> Message:
    """Give a link its own queue back. Raises `NotFound`."""
    return Message(_DELQDISC, 0, _tcmsg(nl, shaped))


def _tcmsg(nl: Netlink, shaped: Shaped) -> bytes:
    return _TCMSG.pack(0, index(nl, shaped.dev), 0, _ROOT, 0)


def read_shapes(nl: Netlink, devs: Collection[str]) -> Iterator[Shaped]:
    """The token bucket filters of these links, out of a list of all queues."""
    for data in nl.dump(_GETQDISC, _TCMSG.pack(0, 0, 0, 0, 0)):
        if len(data) < _TCMSG.size:
            continue
        _, dev, _, parent, _ = _TCMSG.unpack_from(data)
        found = attrs(data, _TCMSG.size)
        if parent == _ROOT and string(found.get(_KIND, b"")) == _TBF and (name := name_of(dev)) in devs:
            options = attrs(found.get(_OPTIONS, b""))
            parms = options.get(_PARMS, b"")
            if len(parms) >= 2 * _RATESPEC.size + _U32.size:
                *_, rate = _RATESPEC.unpack_from(parms)
                rate = _U64.unpack(options[_RATE64])[0] if _RATE64 in options else rate
                (limit,) = _U32.unpack_from(parms, 2 * _RATESPEC.size)
                yield Shaped(name, rate, limit - rate // 20)  # see Shaped.limit


# --- policing -------------------------------------------------------------------------------------------


def add_rate(entry: NftRate) -> Iterator[Message]:
    """Make the table with its chain and rule."""
    head = nft.generation(entry.family) + text_attr(_TABLE, entry.table)
    yield _message(_NEWTABLE, CREATE | EXCL, head)
    place = nft.be32(_HOOK_NUMBER, 0) + nft.be32(_HOOK_PRIORITY, entry.priority) + text_attr(_HOOK_DEVICE, entry.dev)
    chain = text_attr(_CHAIN, entry.chain) + nest(_CHAIN_HOOK, place) + nft.be32(_CHAIN_POLICY, _ACCEPT)
    yield _message(_NEWCHAIN, CREATE | EXCL, head + chain + text_attr(_CHAIN_TYPE, "filter"))
    limit = (
        attr(_LIMIT_RATE, _BE64.pack(entry.rate))
        + attr(_LIMIT_UNIT, _BE64.pack(1))  # a second
        + nft.be32(_LIMIT_BURST, entry.burst)
        + nft.be32(_LIMIT_TYPE, _BYTES)
        + nft.be32(_LIMIT_FLAGS, _OVER)
    )
    rule = nest(_RULE_EXPRESSIONS, nft.expression("limit", limit) + _DROP)
    yield _message(_NEWRULE, CREATE | APPEND, head + text_attr(_RULE_CHAIN, entry.chain) + rule)


def delete_rate(entry: NftRate) -> Iterator[Message]:
    """Delete the table and all in it."""
    yield _message(_DELTABLE, 0, nft.generation(entry.family) + text_attr(_TABLE, entry.table))


def _message(kind: int, flags: int, body: bytes) -> Message:
    return Message(nft.SUBSYSTEM << 8 | kind, flags, body)


def read_rates(nl: Netlink) -> Iterator[NftRate]:
    """All tables that police a link. One that lacks its rule, or is no longer hooked to its link, has a rate of 0."""
    names = {name for family, name in nft.tables(nl) if NftRate.is_one(family, name)}
    if not names:
        return
    hooked = {(chain.table, chain.device) for chain in nft.base_chains(nl) if chain.family == NftRate.family}
    limits = {}
    for data in nl.dump(nft.SUBSYSTEM << 8 | _GETRULE, nft.generation(NftRate.family)):
        fields = attrs(data, 4)
        if (table := string(fields.get(_TABLE, b""))) in names:
            limits[table] = _limit(fields.get(_RULE_EXPRESSIONS, b""))
    for name in sorted(names):
        dev = name.removeprefix(NftRate.prefix)
        rate, burst = limits.get(name, (0, 0)) if (name, dev) in hooked else (0, 0)
        yield NftRate(dev, rate, burst)


def _limit(expressions: bytes) -> tuple[int, int]:
    """Rate and burst of a rule."""
    for _, raw in items(expressions):
        found = attrs(raw)
        if string(found.get(1, b"")) == "limit":
            limit = attrs(found.get(2, b""))
            rate, burst = limit.get(_LIMIT_RATE, b""), limit.get(_LIMIT_BURST, b"")
            return int.from_bytes(rate, "big"), int.from_bytes(burst, "big")
    return 0, 0
