"""`berth uplink`: a NIC of the host's joins a bridge, and leaves it."""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import Any

import click

from berth import spec, wire
from berth.cli import move
from berth.cli.output import dry_run_option, json_option, print_json, print_plan, table
from berth.engine.proposal import Proposal, Status
from berth.uplink.record import Adopted, Record

SYSTEMS = ("auto", "none", "ifcfg", "networkmanager", "networkd", "netplan", "ifupdown")

_Function = Callable[..., None]


@click.group()
def uplink() -> None:
    """Make a NIC of the host's a port of a bridge, without losing the host.

    \b
    See what would change and what may go wrong:    berth uplink plan eth0
    Do it; back by itself after 60 s without word:  berth uplink adopt eth0 --confirm-within 60
    Logged in again? Then keep it:                  berth uplink confirm eth0
    Undo it:                                        berth uplink release eth0
    """


def _how(function: _Function) -> _Function:
    """The options of `plan` and `adopt`."""
    for option in (
        click.option("--bridge", default="br0", show_default=True, help="The new bridge's name."),
        click.option(
            "--persist",
            type=click.Choice(SYSTEMS),
            default="auto",
            show_default=True,
            help="The system whose files keep it over a reboot.",
        ),
        click.option(
            "--switch",
            type=click.Choice(["bridge", "ovs"]),
            default="bridge",
            show_default=True,
            help="The kernel's bridge, or Open vSwitch.",
        ),
    ):
        function = option(function)
    return function


confirm_option = click.option(
    "--confirm-within",
    metavar="SECONDS",
    type=click.IntRange(1, 3600),
    default=None,
    help="Put everything back unless `berth uplink confirm` comes within this time.",
)


@uplink.command()
@click.argument("nic")
@_how
@json_option
def plan(nic: str, bridge: str, persist: str, switch: str, as_json: bool) -> None:
    """Show what `adopt` would change, and what may go wrong. Changes nothing."""
    proposal = wire.uplinks().plan(spec.link_name(nic), spec.link_name(bridge), persist=persist, switch=switch)
    if as_json:
        print_json(move.document(proposal))
    else:
        move.show(proposal)


@uplink.command()
@click.argument("nic")
@_how
@confirm_option
@dry_run_option
@json_option
def adopt(
    nic: str, bridge: str, persist: str, switch: str, confirm_within: int | None, dry_run: bool, as_json: bool
) -> None:
    """Make NIC a port of a new bridge, which takes its MAC, its addresses and its routes.

    The gateway must answer afterwards, or everything is put back; also when this command is ended or its terminal
    hangs up.
    """
    uplinks = wire.uplinks()
    if dry_run:
        proposal = uplinks.plan(spec.link_name(nic), spec.link_name(bridge), persist=persist, switch=switch)
        print_plan(proposal.plan, as_json=as_json)
        return
    proposal = uplinks.adopt(
        spec.link_name(nic),
        spec.link_name(bridge),
        confirm_within=confirm_within or 0,
        persist=persist,
        switch=switch,
        waiting=_waiting(nic),
    )
    _done(proposal, "adopted", as_json=as_json)


@uplink.command()
@click.argument("nic")
@confirm_option
@dry_run_option
@json_option
def release(nic: str, confirm_within: int | None, dry_run: bool, as_json: bool) -> None:
    """Undo `adopt`: the NIC carries again what the bridge carries now, and the files are as they were."""
    uplinks = wire.uplinks()
    if dry_run:
        print_plan(uplinks.plan_release(spec.link_name(nic)).plan, as_json=as_json)
        return
    proposal = uplinks.release(spec.link_name(nic), confirm_within=confirm_within or 0, waiting=_waiting(nic))
    _done(proposal, "released", as_json=as_json)


@uplink.command()
@click.argument("nic")
@json_option
def confirm(nic: str, as_json: bool) -> None:
    """Keep the change that waits for it."""
    record = wire.uplinks().confirm(spec.link_name(nic))
    bridge = record.adopted.bridge if record.adopted else ""
    if as_json:
        print_json({"nic": nic, "bridge": bridge, "adopted": bool(bridge)})
    else:
        print(f"kept: {nic} is a port of {bridge}" if bridge else f"kept: {nic} is by itself again")


@uplink.command()
@json_option
def recover(as_json: bool) -> None:
    """Put back what an interrupted change has left; the guard does that by itself."""
    reports = wire.uplinks().recover()
    if as_json:
        print_json({nic: report.reason for nic, report in reports.items()})
        return
    for nic, report in reports.items():
        print(f"{report.verb} of {nic} was taken back: {report.reason}")
    if not reports:
        print("nothing to put back")


@uplink.command()
@click.argument("nic", required=False)
@json_option
def status(nic: str | None, as_json: bool) -> None:
    """Show how a NIC stands, or all that Berth has adopted."""
    every = wire.uplinks().status(spec.link_name(nic) if nic else None)
    if as_json:
        print_json([_status(one) for one in every])
        return
    table(("NIC", "BRIDGE", "SINCE", "KEPT BY", "STATE"), [_row(one) for one in every])
    for one in every:
        if one.record.report:
            report = one.record.report
            print(f"{one.record.nic}: {report.verb} was taken back at {report.when}: {report.reason}")
        if one.record.checkpoint and one.record.checkpoint.phase == "stuck":
            print(f"{one.record.nic}: not all could be put back: mend what is said above, then `berth uplink recover`")


# --- showing --------------------------------------------------------------------------------------------


def _shown(record: Record) -> Adopted | None:
    """What is adopted, or is being so."""
    return record.adopted or (record.checkpoint.adopted if record.checkpoint else None)


def _state(one: Status) -> str:
    cp = one.record.checkpoint
    if cp is None:
        return "adopted" if one.in_effect else "not in effect" if one.record.adopted else "by itself"
    return f"{cp.verb}: {f'{one.seconds_left} s left to confirm' if cp.phase == 'waiting' else cp.phase}"


def _row(one: Status) -> tuple[str, ...]:
    shown = _shown(one.record)
    about = (shown.bridge, shown.since, shown.system) if shown else ("-", "-", "-")
    return (one.record.nic, *about, _state(one))


def _status(one: Status) -> dict[str, Any]:
    record, shown = one.record, _shown(one.record)
    return {
        "nic": record.nic,
        "adopted": record.adopted is not None,
        "bridge": shown.bridge if shown else None,
        "since": shown.since if shown else None,
        "persist": shown.system if shown else None,
        "switch": record.adopted.switch if record.adopted else None,
        "state": _state(one),
        "in_effect": one.in_effect,
        "pending": record.checkpoint.verb if record.checkpoint else None,
        "seconds_left": one.seconds_left or None,
        "report": record.report.reason if record.report else None,
    }


def _done(proposal: Proposal, what: str, *, as_json: bool) -> None:
    if as_json:
        print_json(move.document(proposal) | {"done": what})
        return
    nic, bridge = proposal.facts.nic.name, proposal.bridge
    print(f"{nic} is a port of {bridge}" if what == "adopted" else f"{nic} is by itself again; {bridge} is gone")
    for note in proposal.persistence.notes:
        print(note)


def _waiting(nic: str) -> Callable[[int], None]:
    def say(seconds: int) -> None:
        print(f"berth: done; keep it within {seconds} s with `berth uplink confirm {nic}`", file=sys.stderr, flush=True)

    return say
