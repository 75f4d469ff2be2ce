"""`berth doctor`."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

import click

from berth import spec, wire
from berth.cli.output import engine, json_option, print_json, print_plan, steps
from berth.cli.progress import waiting
from berth.doctor.examination import CHECKS, findings
from berth.doctor.report import Finding
from berth.errors import Invalid


@click.command()
@click.option("--fix", is_flag=True, help="Mend what is Berth's to mend, after showing it.")
@click.option("--yes", is_flag=True, help="With --fix: do not ask.")
@click.option("--only", multiple=True, metavar="CHECK", type=click.Choice(list(CHECKS)), help="This check; repeatable.")
@click.option(
    "--internet",
    multiple=True,
    metavar="IP",
    help="Whom containers should reach by ping, if this host does; repeatable. By default the host's name servers that"
    " are on the internet, else 1.1.1.1 and 2606:4700:4700::1111.",
)
@json_option
@click.pass_context
def doctor(
    ctx: click.Context, fix: bool, yes: bool, only: tuple[str, ...], internet: tuple[str, ...], as_json: bool
) -> None:
    """Say what is wrong with this host's networks, why it matters, and the exact command that mends it.

    Nothing is changed without --fix, and with it only what Berth itself has made. Exit code 1 where anything is
    found.
    """
    beyond = tuple(spec.parse_address(each, "--internet") for each in internet) or wire.internet()
    with waiting("looking at this host and its sandboxes"):
        facts = wire.examine(ctx.find_root().obj, beyond)
    found = findings(facts, only)
    done: list[dict[str, str]] = []
    if fix and any(each.ours for each in found):
        if not as_json:
            print_plan(facts.records.plan, as_json=False)
        _consent(yes=yes)
        with engine(ctx) as api:
            done = steps(api.reconcile().plan)
        found = findings(wire.examine(ctx.find_root().obj, beyond), only)
    if as_json:
        print_json({"done": done, "findings": _json(found)} if fix else _json(found))
    else:
        _show(found)
    sys.exit(1 if found else 0)


def _consent(*, yes: bool) -> None:
    """Ask the person at the terminal. Raises `Invalid` where there is none, and aborts on a no."""
    if yes:
        return
    if not sys.stdin.isatty():
        raise Invalid("--fix changes this host and there is no terminal to ask at: add --yes")
    click.confirm("berth: do that?", abort=True, err=True)


def _json(found: Sequence[Finding]) -> list[dict[str, Any]]:
    return [asdict(each) for each in found]


def _show(found: Sequence[Finding]) -> None:
    for each in found:
        print(f"{each.severity}: {each.check}: {each.message}")
        print(f"  why: {each.why}")
        print(f"  fix: {each.fix}")
    if not found:
        print("nothing wrong was found")
