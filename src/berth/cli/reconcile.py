"""`berth reconcile`."""

from __future__ import annotations

import sys
from contextlib import suppress

import click

from berth import wire
from berth.cli.output import engine, json_option, print_json, print_plan, steps
from berth.cli.progress import waiting
from berth.errors import Taken


@click.command()
@json_option
@click.pass_context
def reconcile(ctx: click.Context, as_json: bool) -> None:
    """Put host and records in order after a crash or a reboot.

    What was half done is finished or taken back, endpoints whose sandbox is gone are forgotten, missing links,
    addresses, routes and firewall entries are made again, and what carries Berth's mark but belongs to nobody
    is removed. Nothing without the mark is touched.
    """
    with suppress(Taken):  # somebody is at work on an uplink, and will put it right
        for nic, report in wire.uplinks().recover().items():
            print(f"{report.verb} of {nic} was taken back: {report.reason}", file=sys.stderr)
    with waiting("putting host and records in order"), engine(ctx) as api:
        outcome = api.reconcile()
    if as_json:
        print_json({"forgotten": list(outcome.value), "done": steps(outcome.plan)})
        return
    for line in outcome.value:
        print(line)
    if outcome.plan or not outcome.value:
        print_plan(outcome.plan, as_json=False)
