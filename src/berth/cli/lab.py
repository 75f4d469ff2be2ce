"""`berth lab`: a virtual LAN to try Berth in, without risk to the machine.

From the first command to the last:

    berth lab up
    berth lab exec host -- berth network create --driver flat -o bridge=br0 lan
    berth lab down
"""

from __future__ import annotations

import json
import signal
import sys
from dataclasses import asdict
from typing import NoReturn

import click

from berth.lab.enter import become
from berth.lab.record import Records

# Some imports are inside the functions: `exec` runs before every command in a lab, and needs few of them.

_NAME = "lab"  # of the lab when none is given
_ENDINGS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


@click.group()
def lab() -> None:
    """A virtual LAN of network namespaces: a router, a switch, hosts, a laptop and an internet."""


@lab.command()
@click.option("--hosts", default=1, show_default=True, help="Hosts on the LAN.")
@click.option("--json", "as_json", is_flag=True, help="Print the lab as JSON.")
@click.argument("name", default=_NAME)
def up(hosts: int, as_json: bool, name: str) -> None:
    """Start a lab; it lives until `berth lab down`."""
    from berth.lab.life import up as start_detached
    from berth.lab.topology import home

    running = start_detached(Records(), name, home(hosts))
    if as_json:
        click.echo(json.dumps(asdict(running)))
    else:
        option = "" if name == _NAME else f"--lab {name} "
        click.echo(f"lab {name} is up: {', '.join(running.nodes)}; enter it by: berth lab exec {option}host -- sh")


@lab.command(name="exec", context_settings={"ignore_unknown_options": True, "allow_interspersed_args": False})
@click.option("--lab", "name", default=_NAME, show_default=True, help="The lab's name.")
@click.argument("node")
@click.argument("command", nargs=-1, required=True, type=click.UNPROCESSED)
def execute(name: str, node: str, command: tuple[str, ...]) -> None:
    """Run a command in a node of the lab, or in a namespace made there; its exit code is the result."""
    argv = command[1:] if command[0] == "--" else command
    become(Records().running(name), node, argv)


@lab.command()
@click.argument("name", default=_NAME)
def down(name: str) -> None:
    """End a lab: its processes, its namespaces and its files."""
    from berth.lab.life import stop

    stop(Records(), name)


@lab.command()
def demo() -> None:
    """See it work: a flat and a NAT network on a virtual LAN, proven by real packets.

    Takes a few seconds, needs no root where user namespaces are allowed, and leaves nothing behind. Exits 0 only
    if every proof held.
    """
    from berth.lab.demo import demo as show
    from berth.lab.screen import Screen

    for number in _ENDINGS:
        signal.signal(number, _end)
    sys.exit(0 if show(Screen()) else 1)


def _end(number: int, _: object) -> NoReturn:
    """Clean up and exit; who is in a hurry and asks twice does not disturb that."""
    for each in _ENDINGS:
        signal.signal(each, signal.SIG_IGN)
    sys.exit(128 + number)
