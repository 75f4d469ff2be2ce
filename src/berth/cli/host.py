"""`berth host`: the hosts that share a store."""

from __future__ import annotations

import click

from berth.cli.output import engine, json_option, print_json, table


@click.group()
def host() -> None:
    """The hosts that share a store, and this one's key."""


@host.command(name="rotate-key")
@click.pass_context
def rotate_key(ctx: click.Context) -> None:
    """Give this host another key for encrypted networks; packets are lost until the others have heard of it."""
    with engine(ctx) as api:
        print(api.renew_key().public_key)


@host.command(name="ls")
@json_option
@click.pass_context
def list_hosts(ctx: click.Context, as_json: bool) -> None:
    """List the hosts that share the store; none where it is this host's alone."""
    with engine(ctx) as api:
        hosts = api.hosts()
    if as_json:
        print_json(
            [
                {
                    "id": each.id,
                    "name": each.name,
                    "underlay": [str(ip) for ip in each.underlay],
                    "public_key": each.public_key,
                    "since": each.since,
                }
                for each in hosts
            ]
        )
        return
    rows = [(each.id[:12], each.name, ", ".join(map(str, each.underlay)), each.since) for each in hosts]
    table(("ID", "NAME", "UNDERLAY", "SINCE"), rows)
