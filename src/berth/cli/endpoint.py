"""`berth endpoint` and `berth port`."""

from __future__ import annotations

import click

from berth import schema
from berth.cli.output import engine, json_option, print_json, table


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


@click.group()
def port() -> None:
    """List published ports."""


@port.command(name="ls")
@json_option
@click.pass_context
def list_ports(ctx: click.Context, as_json: bool) -> None:
    """List published ports."""
    with engine(ctx) as api:
        names = {net.id: net.name for net in api.networks()}
        found = [(ep, mapping) for ep in api.endpoints() for mapping in ep.ports]
    if as_json:
        print_json([
            {"endpoint": ep.name, "network": names[ep.network], "host_ip": str(m.host_ip or ""),
             "host_port": m.host_port, "port": m.port, "proto": m.proto}
            for ep, m in found
        ])  # fmt: skip
        return
    rows = [
        (str(m.host_ip or "*"), f"{m.host_port}/{m.proto}", str(m.port), ep.name, names[ep.network]) for ep, m in found
    ]
    table(("HOST ADDRESS", "HOST PORT", "PORT", "ENDPOINT", "NETWORK"), rows)
