"""Driving the kernel to a recorded state, whatever it looks like now."""

from __future__ import annotations

from berth.errors import Refused
from berth.plan import Op, Plan, diff
from berth.seams import Kernel, Scope
from berth.state import Obj, State, Veth, keys

_ROUNDS = 4  # the kernel's own cascades were never seen to need more than two


def reach(kernel: Kernel, want: State, scope: Scope) -> Plan:
    """Read, compare, send, until nothing is left to do; what was done.

    Inverse steps would be wrong: the kernel drops things that no operation named, and goes on after a message
    that it refused. Raises what `diff` and `Kernel.send` raise, and `Refused` if the state will not hold.
    """
    done: list[Op] = []
    for _ in range(_ROUNDS):
        plan = diff(want, kernel.read(scope))
        if not plan:
            return Plan(tuple(done))
        kernel.send(plan)
        done += plan.ops
    left = str(plan.ops[0])[2:].split("\n", 1)[0]
    raise Refused(f"something keeps undoing `{left}`: is another network manager at work?")


def scope_of(*states: State) -> Scope:
    """What has to be read to compare with any of the states."""
    every: frozenset[Obj] = frozenset().union(*states)
    namespaces = frozenset(obj.ns for obj in every if isinstance(obj, Veth))
    return Scope(keys(every), namespaces=namespaces)
