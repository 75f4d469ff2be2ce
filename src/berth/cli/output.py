"""How results are shown: tables for people, JSON for programs."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import click

from berth.plan import Plan
from berth.seams import Api, Outcome

json_option = click.option("--json", "as_json", is_flag=True, help="Print JSON.")
PORT = "[[IP:][HOST[-HOST]]:]CTR[-CTR][/udp]"  # a published port, as all commands take it
dry_run_option = click.option("--dry-run", is_flag=True, help="Print what would be done, as commands; change nothing.")


@contextmanager
def engine(ctx: click.Context) -> Iterator[Api]:
    """The engine for the length of a command."""
    from berth import wire

    api = wire.api(ctx.find_root().obj)
    try:
        yield api
    finally:
        api.close()


def print_json(value: Any) -> None:
    """Print a value as indented JSON."""
    print(json.dumps(value, indent=2, ensure_ascii=False))


def table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    """Print columns as wide as their widest cell."""
    cells = [tuple(head), *(tuple(row) for row in rows)]
    widths = [max(len(row[column]) for row in cells) for column in range(len(head))]
    for row in cells:
        print("   ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip())


def warn(outcome: Outcome[Any]) -> None:
    """Print warnings where they do not disturb a program's reading."""
    for warning in outcome.warnings:
        print(f"berth: warning: {warning}", file=sys.stderr)


def steps(plan: Plan) -> list[dict[str, str]]:
    """What would be done or was done, for a program: each operation as the command that a person would type."""
    return [{"op": str(op)[0], "command": str(op)[2:]} for op in plan.ops]


def print_plan(plan: Plan, *, as_json: bool) -> None:
    """Print what would be done."""
    if as_json:
        print_json(steps(plan))
    else:
        print(plan if plan else "nothing to change on this host")
