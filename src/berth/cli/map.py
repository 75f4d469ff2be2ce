"""`berth map`."""

from __future__ import annotations

import os
import socket
import sys
import time
from pathlib import Path

import click
import msgspec

from berth import wire
from berth.cli.output import engine, json_option, print_json
from berth.engine.everywhere import everywhere
from berth.errors import Refused
from berth.topology import Topology, build

_PAUSE = 1  # seconds between two looks


@click.command(name="map")
@click.option("--svg", "picture", metavar="FILE", help="Draw a picture into a file; - for standard output.")
@click.option("--watch", is_flag=True, help="Show it again whenever it has changed, until Ctrl-C.")
@json_option
@click.pass_context
def show_map(ctx: click.Context, picture: str | None, watch: bool, as_json: bool) -> None:
    """Show the whole network: routers, NICs, networks, endpoints, published ports."""
    if picture and as_json:
        raise click.UsageError("--svg and --json are two ways to show it: give one")
    if watch and not (picture or as_json or sys.stdout.isatty()):
        raise click.UsageError("--watch draws on a terminal, and this is none: add --svg FILE or --json")
    seen: Topology | None = None
    while True:
        found = _look(ctx)
        if found != seen:
            _show(found, picture, as_json=as_json, clear=watch and sys.stdout.isatty())
            seen = found
        if not watch:
            return
        time.sleep(_PAUSE)


def _look(ctx: click.Context) -> Topology:
    with engine(ctx) as api:
        seen = everywhere(api)
    return build(
        socket.gethostname(),
        wire.host(),
        seen.networks,
        seen.endpoints,
        elsewhere=seen.elsewhere,
        hosts=seen.hosts,
        neighbours=wire.neighbours(),
    )


def _show(found: Topology, picture: str | None, *, as_json: bool, clear: bool) -> None:
    if picture:
        from berth.topology import svg

        _write(picture, svg.draw(found))
    elif as_json:
        print_json(msgspec.to_builtins(found))
    else:
        from berth.topology import tree

        print("\x1b[2J\x1b[H" if clear else "", end="")
        print("\n".join(tree.lines(found)), flush=True)


def _write(picture: str, text: str) -> None:
    """Put the picture in its place at once, so that who shows it never sees half of it. Raises `Refused`."""
    if picture == "-":
        print(text, end="", flush=True)
        return
    new = Path(f"{picture}.{os.getpid()}.new")
    try:
        new.write_text(text)
        new.replace(picture)
    except OSError as error:
        new.unlink(missing_ok=True)
        raise Refused(f"cannot write {picture}: {error.strerror}: choose another file") from None
