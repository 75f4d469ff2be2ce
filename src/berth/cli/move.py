"""How the change of an uplink is shown: what goes where, for a person; every operation, for a program."""

from __future__ import annotations

import difflib
from collections.abc import Iterator
from typing import Any

from berth.cli.output import steps
from berth.engine.proposal import Proposal
from berth.moved import MovedAddr, MovedNeigh, MovedRoute, MovedRule, TextFile
from berth.plan import Add, Change, Del, subject

_WIDTH = 11  # of the column that says what a line is about


def show(proposal: Proposal) -> None:
    """Print what an adoption would do, as a diff that is read in ten seconds."""
    nic, bridge = proposal.facts.nic, proposal.bridge
    for risk in proposal.risks:
        print(risk)
    kind = "bridge" if proposal.datapath is None else "Open vSwitch bridge"
    _line("link", f"+ {kind} {bridge} with MAC {nic.mac}, MTU {nic.mtu}, STP off, forward delay 0")
    _line("link", f"~ {nic.name} becomes a port of {bridge}")
    for what, words in _moves(proposal, nic.name):
        _line(what, f"~ {words}   {nic.name} → {bridge}")
    for client in proposal.facts.clients:
        _line("dhcp", f"~ {client.program} (pid {client.pid}) asks on {bridge}, for the same lease")
    for line in _files(proposal):
        print(line)
    for note in proposal.persistence.notes:
        _line("note", note)


def _line(what: str, words: str) -> None:
    print(f"{what:{_WIDTH}}{words}")


def _moves(proposal: Proposal, source: str) -> Iterator[tuple[str, str]]:
    """What is carried from one link to the other: (what it is, in words)."""
    there = [obj for obj in proposal.before if isinstance(obj, MovedAddr | MovedRoute | MovedRule | MovedNeigh)]
    for obj in sorted(there, key=lambda obj: (obj.rank, obj.order)):
        words = obj.describe().split(" add ", 1)[-1].split(" replace ", 1)[-1]
        match obj:
            case MovedAddr():
                yield "address", words.replace(f" dev {source}", "")
            case MovedRoute():
                yield "route", words.replace(f" dev {source}", "")
            case MovedRule():
                yield "rule", words
            case MovedNeigh():
                yield "neighbour", words.replace(f" dev {source}", "")


def _files(proposal: Proposal) -> Iterator[str]:
    for op in proposal.plan.ops:
        new = op.new if isinstance(op, Add | Change) else None
        old = op.old if isinstance(op, Del | Change) else None
        if isinstance(new or old, TextFile):
            first, second = (file.text.splitlines() if isinstance(file, TextFile) else [] for file in (old, new))
            yield f"{'file':{_WIDTH}}{'~' if old and new else '+' if new else '-'} {subject(op).key[2]}"
            for line in list(difflib.unified_diff(first, second, n=0, lineterm=""))[2:]:
                if not line.startswith("@@"):
                    yield f"{'':{_WIDTH}}  {line}"


def document(proposal: Proposal) -> dict[str, Any]:
    """The change for a program: every operation as the command that a person would type."""
    ops = proposal.plan.ops
    return {
        "nic": proposal.facts.nic.name,
        "bridge": proposal.bridge,
        "persist": proposal.persistence.system,
        "risks": [{"name": risk.name, "message": risk.message, "blocks": risk.blocks} for risk in proposal.risks],
        "plan": steps(proposal.plan),
        "files": [subject(op).key[2] for op in ops if isinstance(subject(op), TextFile)],
        "reload": [list(argv) for argv in proposal.persistence.reload],
        "notes": list(proposal.persistence.notes),
    }
