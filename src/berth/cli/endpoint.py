"""`berth endpoint` and `berth port`."""

from __future__ import annotations

import sys

import click

from berth import schema, spec
from berth.cli.output import PORT, dry_run_option, engine, json_option, print_json, print_plan, table, warn
from berth.model import Endpoint, PortChange, PortMapping


@click.group()
def endpoint() -> None:
    """List endpoints."""


@endpoint.command(name="ls")
@click.option("--network", help="Only those of this network.")
@json_option
@click.pass_context
def list_endpoints(ctx: click.Context, network: str | None, as_json: bool) -> None:
    """List endpoints."""
    with engine(ctx) as api:
        names = {net.id: net.name for net in api.networks()}
        endpoints = api.endpoints(network)
    if as_json:
        print_json([schema.endpoint_json(ep, names[ep.network]) for ep in endpoints])
        return
    rows = [
        (ep.id[:12], ep.name, names[ep.network], ep.ifname, ", ".join(map(str, ep.addresses)), ep.mac, ep.sandbox.path)
        for ep in endpoints
    ]
    table(("ID", "NAME", "NETWORK", "INTERFACE", "ADDRESSES", "MAC", "SANDBOX"), rows)
    for ep in endpoints:
        for conflict in ep.conflicts:
            made = f" ({conflict.vendor})" if conflict.vendor else ""
            print(
                f"berth: warning: {conflict.address} of {ep.name} is claimed by the machine with MAC {conflict.mac}"
                f"{made} too, last at {conflict.seen}",
                file=sys.stderr,
            )


@click.group()
def port() -> None:
    """List published ports, and publish and unpublish those of endpoints that are there."""


@port.command(name="ls")
@json_option
@click.pass_context
def list_ports(ctx: click.Context, as_json: bool) -> None:
    """List published ports."""
    with engine(ctx) as api:
        names = {net.id: net.name for net in api.networks()}
        found = [(ep, mapping) for ep in api.endpoints() for mapping in ep.ports]
    if as_json:
        print_json([_port_json(ep, mapping, names[ep.network]) for ep, mapping in found])
        return
    rows = [
        (str(m.host_ip or "*"), f"{m.host_port}/{m.proto}", str(m.port), ep.name, names[ep.network]) for ep, m in found
    ]
    table(("HOST ADDRESS", "HOST PORT", "PORT", "ENDPOINT", "NETWORK"), rows)


@port.command()
@click.argument("endpoint")
@click.option("-p", "--publish", "ports", multiple=True, required=True, metavar=PORT,
              help="A port; without HOST, on any free host port.")  # fmt: skip
@dry_run_option
@json_option
@click.pass_context
def publish(ctx: click.Context, endpoint: str, ports: tuple[str, ...], dry_run: bool, as_json: bool) -> None:
    """Publish more ports of an endpoint: all of them, or none.

    ENDPOINT is a name or id as `berth endpoint ls` shows it.
    """
    _change(ctx, spec.port_change(endpoint=endpoint, publish=ports), dry_run=dry_run, as_json=as_json)


@port.command()
@click.argument("endpoint")
@click.option("-p", "--publish", "ports", multiple=True, metavar=PORT, help="A port, as it was published.")
@click.option("--all", "everything", is_flag=True, help="All that the endpoint has.")
@dry_run_option
@json_option
@click.pass_context
def unpublish(
    ctx: click.Context, endpoint: str, ports: tuple[str, ...], everything: bool, dry_run: bool, as_json: bool
) -> None:
    """Take published ports of an endpoint back."""
    change = spec.port_change(endpoint=endpoint, unpublish=ports, everything=everything)
    _change(ctx, change, dry_run=dry_run, as_json=as_json)


def _change(ctx: click.Context, change: PortChange, *, dry_run: bool, as_json: bool) -> None:
    """Carry it out, and print what is published then."""
    with engine(ctx) as api:
        outcome = api.change_ports(change, dry_run=dry_run)
        names = {net.id: net.name for net in api.networks()}
    warn(outcome)
    ep = outcome.value
    if dry_run:
        print_plan(outcome.plan, as_json=as_json)
    elif as_json:
        print_json([_port_json(ep, mapping, names[ep.network]) for mapping in ep.ports])
    else:
        for mapping in ep.ports:
            print(f"{mapping.host_ip or '*'} {mapping.host_port} {mapping.port}/{mapping.proto}")


def _port_json(ep: Endpoint, mapping: PortMapping, network: str) -> dict[str, str | int]:
    return {
        "endpoint": ep.name,
        "network": network,
        "host_ip": str(mapping.host_ip or ""),
        "host_port": mapping.host_port,
        "port": mapping.port,
        "proto": mapping.proto,
    }
