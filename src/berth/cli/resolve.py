"""`berth resolve`."""

from __future__ import annotations

import sys

import click

from berth.cli.output import engine, json_option, print_json
from berth.names.records import view


@click.command()
@click.argument("name")
@click.option("--network", help="As who is on this network sees it. [default: on all of them]")
@json_option
@click.pass_context
def resolve(ctx: click.Context, name: str, network: str | None, as_json: bool) -> None:
    """Say which addresses a name of an endpoint stands for.

    NAME is an endpoint's name, alias or short id, alone or with its network's name behind it: web.backend. Exits
    with 1 where there is none.
    """
    with engine(ctx) as api:
        networks = api.networks()
        asker = [net.id for net in networks] if network is None else [api.network(network).id]
        seen = view(asker, networks, api.endpoints())
    found = [str(address) for address in seen.addresses.get(name.lower().rstrip("."), ())]
    if as_json:
        print_json(found)
    elif found:
        print("\n".join(found))
    if not found:
        print(f"berth: no endpoint is called {name}: see `berth endpoint ls`", file=sys.stderr)
        sys.exit(1)
