"""What should be against what is: the plan of `berth reconcile`, read as findings."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from berth.doctor.facts import Facts
from berth.doctor.report import Finding, Severity
from berth.overlaid import Fdb, Neigh
from berth.plan import Del, Op, subject
from berth.state import NftPass, Sysctl

_MEND = "berth reconcile"
_FORWARDING = ("net.ipv4.ip_forward", "net.ipv6.conf.all.forwarding")
_SHOWN = 3  # operations that a message names


def drift(facts: Facts) -> Iterator[Finding]:
    """Something that should be there is not, or looks otherwise."""
    why = "a container may have no network, or not the one that was asked for"
    if facts.records.refusal:
        # What stands in the way is somebody else's, and only its owner can say whether it may go.
        yield Finding("drift", Severity.ERROR, facts.records.refusal, why, "see the message", command=False)
    if facts.records.interrupted:
        message = f"{facts.records.interrupted} change(s) were interrupted and are half done"
        yield Finding("drift", Severity.ERROR, message, why, _MEND, ours=True)
    ops = [op for op in facts.records.plan.ops if not isinstance(op, Del) and not _explained(op)]
    if ops:
        yield Finding("drift", Severity.ERROR, f"not as it should be: {few(ops)}", why, _MEND, ours=True)


def orphans(facts: Facts) -> Iterator[Finding]:
    """Something of Berth's is left that belongs to nobody."""
    why = "it holds addresses and names that others could have"
    for ep in facts.records.gone:
        where = f"its sandbox {ep.sandbox.path}" if ep.sandbox.path else "its container"
        message = f"endpoint {ep.name}: {where} is gone"
        yield Finding("orphans", Severity.WARNING, message, why, _MEND, ours=True)
    ops = [op for op in facts.records.plan.ops if isinstance(op, Del) and not _explained(op)]
    if ops and not facts.records.gone:  # else it is what those have left
        message = f"left behind, and nobody's: {few(ops)}"
        yield Finding("orphans", Severity.WARNING, message, why, _MEND, ours=True)


def ip_forward_off(facts: Facts) -> Iterator[Finding]:
    """The host does not route what a NAT network needs routed."""
    for op in facts.records.plan.ops:
        obj = subject(op)
        if isinstance(obj, Sysctl) and obj.name in _FORWARDING:
            why = "containers behind NAT reach the host and nothing beyond it"
            message = f"{obj.name} is off on this host"
            yield Finding("ip-forward-off", Severity.ERROR, message, why, f"sysctl -w {obj.name}=1")


def foreign_forward_pass(facts: Facts) -> Iterator[Finding]:
    """Another program's FORWARD chain drops what NAT networks need, and Berth's way through it is gone."""
    for op in facts.records.plan.ops:
        obj = subject(op)
        if isinstance(obj, NftPass) and not isinstance(op, Del):
            kind = "iptables-legacy" if obj.legacy else "table"
            message = f"chain {obj.chain} of {kind} {obj.family} filter drops what is for {obj.dev}"
            why = "containers behind NAT reach nothing beyond this host"
            yield Finding("foreign-forward-drop", Severity.ERROR, message, why, _MEND, ours=True)
            return


def _explained(op: Op) -> bool:
    """Whether another check says it better."""
    obj = subject(op)
    return isinstance(obj, NftPass | Fdb | Neigh) or (isinstance(obj, Sysctl) and obj.name in _FORWARDING)


def few(ops: Sequence[Op]) -> str:
    """Some operations in words, each in one line."""
    lines = [str(op).split("\n", 1)[0] for op in ops]
    more = f" and {len(lines) - _SHOWN} more" if len(lines) > _SHOWN else ""
    return "; ".join(lines[:_SHOWN]) + more
