"""Networks' flow tables: written by nft(8), read by nfnetlink.

Sources: include/uapi/linux/netfilter/nf_tables.h (NFTA_FLOWTABLE_*), net/netfilter/nf_tables_api.c.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator

from berth.errors import NotFound, Unsupported
from berth.flows import NftFlows
from berth.kernel import nft
from berth.kernel.netlink import ROUTE, Netlink, attrs, items, string

_GETRULE, _GETFLOWTABLE = 7, 23
_TABLE = 1  # of rules and flow tables
_RULE_USERDATA = 7
_FLOWTABLE_HOOK, _HOOK_DEVICES = 3, 3


def script(flows: NftFlows) -> str:
    """The table in nft's language, with those of its links that are there."""
    nl = Netlink.kept(ROUTE)
    return flows.script([link for link in (flows.bridge, *flows.links) if nl.index(link) is not None])


def write(flows: NftFlows, *, replace: bool) -> None:
    """Make the table, or make it anew: what was under way goes the long way until its next packet.

    Raises `Unsupported` where the kernel has no flow tables, else as `nft.run` does.
    """
    gone = f"delete table {flows.family} {flows.table}; " if replace else ""
    try:
        nft.run(gone + script(flows), f"table {flows.table}")
    except NotFound:
        raise Unsupported(
            "this kernel has no flow tables (it lacks nf_flow_table_inet, nft_flow_offload): leave offload out"
        ) from None


def read(nl: Netlink) -> Iterator[NftFlows]:
    """All networks' flow tables."""
    names = {name for family, name in nft.tables(nl) if NftFlows.is_one(family, name)}
    if not names:
        return
    hooked: dict[str, set[str]] = defaultdict(set)
    comments: dict[str, list[str]] = defaultdict(list)
    head = nft.generation(NftFlows.family)
    for data in nl.dump(nft.SUBSYSTEM << 8 | _GETFLOWTABLE, head):
        fields = attrs(data, 4)
        devices = items(attrs(fields.get(_FLOWTABLE_HOOK, b"")).get(_HOOK_DEVICES, b""))
        hooked[string(fields.get(_TABLE, b""))] |= {string(raw) for _, raw in devices}
    for data in nl.dump(nft.SUBSYSTEM << 8 | _GETRULE, head):
        fields = attrs(data, 4)
        if (table := string(fields.get(_TABLE, b""))) in names:
            comments[table].append(nft.comment(fields.get(_RULE_USERDATA, b"")))
    route = Netlink.kept(ROUTE)
    for name in sorted(names):
        bridge = name.removeprefix(NftFlows.prefix)
        asked = " ".join(comments[name]).split() if len(comments[name]) == 2 else []
        lacking = [link for link in (bridge, *asked) if link not in hooked[name] and route.index(link) is not None]
        yield NftFlows(bridge, () if bridge in lacking else tuple(link for link in asked if link not in lacking))
