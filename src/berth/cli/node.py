"""`berth node`: the hosts that share a store."""

from __future__ import annotations

import time
from dataclasses import asdict

import click

from berth.cli.output import engine, json_option, print_json, table
from berth.model import Node

_LOOK = 0.5  # seconds


@click.group()
def node() -> None:
    """List the hosts that share a store, take them out of use, and forget them."""


@node.command(name="ls")
@json_option
@click.pass_context
def list_nodes(ctx: click.Context, as_json: bool) -> None:
    """List the hosts that share the store; none where it is this host's alone.

    A node is up, drained (it takes no new endpoints) or dead (its daemon is silent).
    """
    with engine(ctx) as api:
        nodes = api.nodes()
    if as_json:
        print_json([{**asdict(each), "host": _host(each)} for each in nodes])
        return
    table(("ID", "NAME", "ADDRESS", "STATE", "ENDPOINTS", "VERSION"), [_row(each) for each in nodes])


def _host(each: Node) -> dict[str, object]:
    return {**asdict(each.host), "underlay": [str(ip) for ip in each.host.underlay]}


def _row(each: Node) -> tuple[str, ...]:
    host, state = each.host, each.state
    if state == "dead":
        state += f" since {each.dead_since}" if each.dead_since else ""
        state += ", drained" if each.drained else ""
    return (host.id[:12], host.name, ", ".join(map(str, host.underlay)), state, str(each.endpoints), host.version)


@node.command()
@click.argument("name")
@click.option("--wait", is_flag=True, help="Return when the last endpoint is detached.")
@click.pass_context
def drain(ctx: click.Context, name: str, wait: bool) -> None:
    """Let a node take no new endpoints of networks over several hosts; those that it has stay.

    NAME is a node's name, id or address. Networks of its own go on as before.
    """
    with engine(ctx) as api:
        left = api.drain(name)
        while wait and left.endpoints:
            time.sleep(_LOOK)
            left = next((each for each in api.nodes() if each.host.id == left.host.id), Node(left.host, "dead"))
    print(f"{name} is drained" + (f": {left.endpoints} endpoints are left" if left.endpoints else ""))


@node.command()
@click.argument("name")
@click.pass_context
def undrain(ctx: click.Context, name: str) -> None:
    """Let a drained node take endpoints again."""
    with engine(ctx) as api:
        api.drain(name, on=False)
    print(f"{name} takes endpoints again")


@node.command()
@click.argument("name")
@click.option("-f", "--force", is_flag=True, help="Also one that still seems alive: it must be dead, or drained soon.")
@click.pass_context
def rm(ctx: click.Context, name: str, force: bool) -> None:
    """Forget a node, and free its endpoints' addresses without waiting for the grace time.

    One that lives after all registers again, with those of its addresses that nobody else has got by then.
    """
    with engine(ctx) as api:
        freed = api.remove_node(name, force=force)
    print(f"{name} is removed: {len(freed)} endpoints freed")


@node.command(name="rotate-key")
@click.pass_context
def rotate_key(ctx: click.Context) -> None:
    """Give this host another key for encrypted networks; packets are lost until the others have heard of it."""
    with engine(ctx) as api:
        print(api.renew_key().public_key)
