"""The nouns that keep an endpoint to a rate: what it receives is shaped, what it sends is policed.

Both are on the cable's outer end, where the container cannot undo them and where they stay when Docker moves the inner
end away. What goes to the container waits in a queue of the host's for its turn. What comes from it has no queue there:
what is too much is dropped, and the sender slows down.
"""

from __future__ import annotations

from typing import ClassVar

from berth.noun import HOST, Key, Noun


class Shaped(Noun, frozen=True, tag=True):
    """That what a link of the host's sends waits in a token bucket filter (tc-tbf(8))."""

    rank: ClassVar[int] = 22  # behind its cable
    dev: str
    rate: int  # bytes a second
    burst: int  # bytes that may go at once

    @property
    def key(self) -> Key:
        return ("shaped", HOST, self.dev)

    @property
    def holders(self) -> tuple[Key, ...]:
        return (("dev", HOST, self.dev),)

    @property
    def limit(self) -> int:
        """The queue's length in bytes: 50 ms at that rate beside the burst.

        The kernel tells this number exactly and the burst as a time, so that the burst is known by it.
        """
        return self.burst + self.rate // 20

    def describe(self) -> str:
        return f"tc qdisc replace dev {self.dev} root tbf rate {self.rate * 8}bit burst {self.burst} limit {self.limit}"

    def describe_removal(self) -> str:
        return f"tc qdisc del dev {self.dev} root"


class NftRate(Noun, frozen=True, tag=True):
    """A table of its own for one link, which drops what the link receives beyond a rate.

    A table each, so that it comes and goes in one message, whoever else is limited.
    """

    rank: ClassVar[int] = 70
    family: ClassVar[str] = "netdev"
    prefix: ClassVar[str] = "berth_rate_"
    chain: ClassVar[str] = "rate"
    priority: ClassVar[int] = -10  # before the bypass, which sends frames on
    dev: str
    rate: int  # bytes a second; 0 in a table that lacks its rule, or its link
    burst: int  # bytes beyond what the kernel lets through at once: those of a second

    @property
    def key(self) -> Key:
        return ("nft-rate", self.family, self.table)

    @classmethod
    def is_one(cls, family: str, table: str) -> bool:
        """Whether a table is one of these, by its name."""
        return family == cls.family and table.startswith(cls.prefix)

    @property
    def table(self) -> str:
        """The table's name."""
        return self.prefix + self.dev

    def script(self) -> str:
        """The table in nft's language."""
        where = f"{self.family} {self.table}"
        hook = f'type filter hook ingress device "{self.dev}" priority {self.priority}; policy accept;'
        rule = f"limit rate over {self.rate} bytes/second burst {self.burst} bytes drop"
        return f"add table {where}; add chain {where} {self.chain} {{ {hook} }}; add rule {where} {self.chain} {rule}"

    def describe(self) -> str:
        return f"nft '{self.script()}'"

    def describe_removal(self) -> str:
        return f"nft delete table {self.family} {self.table}"

    def describe_change(self, old: Noun) -> str:
        return f"nft 'delete table {self.family} {self.table}; {self.script()}'"
