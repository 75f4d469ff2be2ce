"""`berth web`."""

from __future__ import annotations

import click

from berth import rest, wire
from berth.cli.output import json_option, print_json


@click.command()
@click.option("--write", is_flag=True, help="Let the page create networks, attach, detach and publish.")
@click.option("--port", type=click.IntRange(0, 65535), default=0, help="Port on 127.0.0.1. [default: any]")
@json_option
def web(write: bool, port: int, as_json: bool) -> None:
    """Open the daemon's page on this host, and print a link to it.

    The link is a key: who has it sees all networks and, with --write, may change them. It is good until the daemon
    ends. The page is on the loopback interface only; from another machine: ssh -L PORT:127.0.0.1:PORT HOST
    """
    client = wire.daemon()
    try:
        link = client.web(rest.Web(write=write, port=port))
    finally:
        client.close()
    if as_json:
        print_json({"link": link})
    else:
        print(link)
