"""`berth trace`."""

from __future__ import annotations

import sys
from dataclasses import asdict
from typing import Any

import click

from berth import wire
from berth.cli.output import json_option, print_json
from berth.cli.progress import waiting
from berth.doctor.journey import Journey, Verdict, verdict
from berth.doctor.target import parse


@click.command()
@click.argument("source", metavar="SRC")
@click.argument("destination", metavar="DST[:PORT[/udp]]")
@json_option
@click.pass_context
def trace(ctx: click.Context, source: str, destination: str, as_json: bool) -> None:
    """Follow one connection from a sandbox, and say who ends it.

    SRC is an endpoint by name, id or sandbox; DST an address, [IPv6]:PORT where it has a port. One real probe is sent
    and watched through nftables; nothing is left behind. Exit code 1 where it does not arrive.
    """
    target = parse(destination)
    with waiting(f"following a probe from {source} to {destination}"):
        seen = wire.trace(ctx.find_root().obj, source, target)
    told = verdict(seen)
    if as_json:
        print_json(_json(seen, told))
    else:
        _show(seen, told)
    sys.exit(0 if told.arrived else 1)


def _json(seen: Journey, told: Verdict) -> dict[str, Any]:
    return {
        "endpoint": seen.endpoint.name,
        "network": seen.network.name,
        "target": str(seen.target),
        "source": str(seen.source) if seen.source else None,
        "next_hop": str(seen.next_hop) if seen.next_hop else None,
        "answer": str(seen.answer),
        "steps": [asdict(step) for step in seen.steps],
        "culprit": told.culprit,
        "message": told.message,
    }


def _show(seen: Journey, told: Verdict) -> None:
    print(
        f"{seen.endpoint.name} ({seen.source or 'no source address'}) to {seen.target} by {seen.next_hop or 'no route'}"
    )
    print(f"  cable {seen.endpoint.link} into {seen.network.bridge}")
    for step in seen.steps:
        print(f"  {step.place}: {step.rule}: {step.verdict}")
    print(f"{'arrived' if told.arrived else told.culprit}: {told.message}")
