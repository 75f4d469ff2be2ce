"""Comparing what should exist with what exists.

>>> from berth.state import Addr
>>> want = frozenset({Addr(ns="", dev="br0", ip="10.0.0.1/24")})
>>> print(diff(want, frozenset()))
+ ip addr add 10.0.0.1/24 dev br0
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import TypeAlias

import msgspec

from berth.errors import Taken
from berth.state import MARK, Foreign, Key, Obj


class Add(msgspec.Struct, frozen=True, tag=True):
    """Make an object that is not there."""

    new: Obj

    def __str__(self) -> str:
        return f"+ {self.new.describe()}"


class Change(msgspec.Struct, frozen=True, tag=True):
    """Give an object other attributes."""

    old: Obj
    new: Obj

    def __str__(self) -> str:
        return f"~ {self.new.describe_change(self.old)}"


class Del(msgspec.Struct, frozen=True, tag=True):
    """Remove an object."""

    old: Obj

    def __str__(self) -> str:
        return f"- {self.old.describe_removal()}"


Op: TypeAlias = Add | Change | Del


def subject(op: Op) -> Obj:
    """The object an operation is about."""
    return op.old if isinstance(op, Del) else op.new


class Plan(msgspec.Struct, frozen=True):
    """Operations in the order in which they are sent."""

    ops: tuple[Op, ...] = ()

    def __bool__(self) -> bool:
        return bool(self.ops)

    def __str__(self) -> str:
        return "\n".join(map(str, self.ops))


def diff(want: Iterable[Obj], have: Iterable[Obj]) -> Plan:
    """What turns `have` into `want`.

    Adds and changes come first, by rank, then deletions by falling rank: in a move, the new default route is
    there before the old one goes. Only what may be in the way of something new goes before all that. Last made is
    first removed, so that after half of it the rest can be made again in its place. What the kernel removes together
    with a deleted object is not named again. A change that lets go of something takes its turn among the deletions.

    Raises `Taken` when an object of somebody else's stands under a wanted key.
    """
    there: Mapping[Key, Obj] = {obj.key: obj for obj in have}
    wanted = {obj.key: obj for obj in want}
    there = _without_lost(wanted, there)
    makes: list[tuple[int, Key, Op]] = []
    gone = [obj for key, obj in there.items() if key not in wanted and not obj.sticky and not _foreign(obj)]
    implied = {held for obj in gone for held in obj.holds}
    ends: list[tuple[int, Key, Del | Change]]
    ends = [(obj.turn, obj.order, Del(obj)) for obj in gone if implied.isdisjoint(obj.holders)]
    for key, new in wanted.items():
        old = there.get(key)
        if old is None:
            makes.append((new.turn, new.order, Add(new)))
        elif not new.met_by(old):
            _refuse_foreign(old)
            change = (new.turn, new.order, Change(old, new))
            if new.lets_go(old):
                ends.append(change)
            else:
                makes.append(change)
    makes.sort(key=lambda made: made[:2])
    ends.sort(key=lambda ended: ended[:2], reverse=True)
    early = [op for _, _, op in ends if op.old.in_the_way]
    return Plan((*early, *(op for _, _, op in makes), *(op for _, _, op in ends if not op.old.in_the_way)))


def _without_lost(wanted: Mapping[Key, Obj], there: Mapping[Key, Obj]) -> Mapping[Key, Obj]:
    """What is there but for what goes with an object that is made anew."""
    lost = {
        held
        for key, old in there.items()
        if key in wanted and not wanted[key].met_by(old) and wanted[key].remakes(old)
        for held in old.holds
    }
    return {key: obj for key, obj in there.items() if lost.isdisjoint(obj.holders)} if lost else there


def _foreign(obj: Obj) -> bool:
    """Whether somebody else made it; of what has no room for a mark nobody can say."""
    return obj.owner is not None and not obj.owner.startswith(MARK)


def _refuse_foreign(old: Obj) -> None:
    if not _foreign(old):
        return
    what = old.describe() if isinstance(old, Foreign) else f"table {' '.join(old.key[1:])}"
    raise Taken(f"{what} is already there and is not Berth's: remove or rename it, or choose another name")
