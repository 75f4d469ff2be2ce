"""The noun of a network's fast path: which links' packets may take it.

A connection that is under way is handed over to a flow table; its packets are then sent on where they come in, with
their addresses translated, and see neither routing nor any program's FORWARD chain again.
Sources: Documentation/networking/nf_flowtable.rst; nft(8), "FLOWTABLES".
"""

from __future__ import annotations

from collections.abc import Collection
from typing import ClassVar

from berth.noun import Key, Noun


class NftFlows(Noun, frozen=True, tag=True):
    """A table of its own for one bridge, with a flow table between it and the links that lead outside.

    A link that is not there takes no part and lacks nothing: what is read names it as if it did.
    """

    rank: ClassVar[int] = 70
    family: ClassVar[str] = "inet"
    prefix: ClassVar[str] = "berth_flows_"
    chain: ClassVar[str] = "fast"
    priority: ClassVar[int] = 200  # behind every program's own chains: what these drop is never handed over
    bridge: str
    links: tuple[str, ...]  # sorted; () in a table that lacks its rules

    @property
    def key(self) -> Key:
        return ("nft-flows", self.family, self.table)

    @classmethod
    def is_one(cls, family: str, table: str) -> bool:
        """Whether a table is one of these, by its name."""
        return family == cls.family and table.startswith(cls.prefix)

    @property
    def table(self) -> str:
        """The table's name."""
        return self.prefix + self.bridge

    def script(self, there: Collection[str] | None = None) -> str:
        """The table in nft's language, with those of its links that are `there`; None: with all.

        The comment tells which were asked for.
        """
        where = f"{self.family} {self.table}"
        present = [link for link in (self.bridge, *self.links) if there is None or link in there]
        names = ", ".join(f'"{link}"' for link in present)
        links = ", ".join(f'"{link}"' for link in self.links)
        under_way = "meta l4proto { tcp, udp } ct state established flow add @fast"
        return (
            f"add table {where}; "
            f"add flowtable {where} fast {{ hook ingress priority 0; devices = {{ {names} }}; }}; "
            f"add chain {where} {self.chain} {{ type filter hook forward priority {self.priority}; policy accept; }}; "
            f'add rule {where} {self.chain} iifname "{self.bridge}" oifname {{ {links} }} {under_way}'
            f' comment "{" ".join(self.links)}"; '
            f'add rule {where} {self.chain} oifname "{self.bridge}" iifname {{ {links} }} {under_way}'
        )

    def describe(self) -> str:
        return f"nft '{self.script()}'"

    def describe_removal(self) -> str:
        return f"nft delete table {self.family} {self.table}"

    def describe_change(self, old: Noun) -> str:
        return f"nft 'delete table {self.family} {self.table}; {self.script()}'"
