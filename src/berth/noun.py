"""What all nouns of the kernel share.

An object's `key` is its identity as the kernel sees it. Its other fields are only what Berth sets.
"""

from __future__ import annotations

import shlex
from typing import ClassVar, TypeAlias

import msgspec

HOST = ""  # the namespace Berth was started in
MARK = "berth:"  # every link that Berth makes carries an alias with this prefix
UPLINK_MARK = MARK + "uplink-"  # of a bridge that carries the host's own addresses: no sweep removes it
MAIN_TABLE = 254

Key: TypeAlias = tuple[str, ...]


def ours(alias: str) -> bool:
    """Whether a link with this alias is part of a network of Berth's. A bridge that an uplink made is the host's."""
    return alias.startswith(MARK) and not alias.startswith(UPLINK_MARK)


def at(ns: str) -> str:
    """The words that bring a shell command into a namespace."""
    return f"nsenter --net={shlex.quote(ns)} " if ns else ""


class Noun(msgspec.Struct, frozen=True, tag=True):
    """What all kernel objects share."""

    rank: ClassVar[int] = 0  # order of creation; deletion is the reverse

    @property
    def sticky(self) -> bool:
        """Whether it is left alone when it is no longer wanted, as a setting of something else."""
        return False

    @property
    def in_the_way(self) -> bool:
        """Whether it goes before anything new comes, which it might overlap under another key."""
        return False

    @property
    def key(self) -> Key:
        """Identity as the kernel sees it."""
        raise NotImplementedError

    @property
    def turn(self) -> int:
        """Its own rank: the class', but for few."""
        return self.rank

    @property
    def order(self) -> Key:
        """Where it comes among others of its rank."""
        return self.key

    def met_by(self, there: Noun) -> bool:
        """Whether what is there under the key is as asked."""
        return self == there

    def remakes(self, old: Noun) -> bool:
        """Whether turning `old` into this takes a new object, with which all that the old one holds is lost."""
        return False

    def lets_go(self, old: Noun) -> bool:
        """Whether turning `old` into this takes something away, so that it comes among the deletions."""
        return False

    @property
    def owner(self) -> str | None:
        """The mark on the object; None where the kernel has no room for one."""
        return None

    @property
    def holders(self) -> tuple[Key, ...]:
        """What this object cannot outlive: the kernel removes it together with any of these."""
        return ()

    @property
    def holds(self) -> tuple[Key, ...]:
        """What vanishes together with this object, named as in `holders`."""
        return ()

    def describe(self) -> str:
        """The line a person would type to make it."""
        raise NotImplementedError

    def describe_removal(self) -> str:
        """The line a person would type to remove it."""
        raise NotImplementedError

    def describe_change(self, old: Noun) -> str:
        """The line a person would type to turn `old` into this."""
        return self.describe()
