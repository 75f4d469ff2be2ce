"""`berth lease`."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from typing import Any

import click

from berth import schema
from berth.cli.output import engine, json_option, print_json, table
from berth.model import LeaseRecord


@click.group()
def lease() -> None:
    """List leases: addresses that the LAN's DHCP server has given, or that are made of what its routers advertise."""


@lease.command(name="ls")
@json_option
@click.pass_context
def list_leases(ctx: click.Context, as_json: bool) -> None:
    """List leases, and what is wrong with each."""
    with engine(ctx) as api:
        names = {ep.id: ep.name for ep in api.endpoints()}
        records = api.leases()
    if as_json:
        print_json([_json(record, names.get(record.endpoint, "")) for record in records])
        return
    head = ("ADDRESS", "ENDPOINT", "BRIDGE", "ROUTER", "DNS", "DOMAIN", "UNTIL", "STATE")
    table(head, [_row(record, names.get(record.endpoint, "")) for record in records])


def _row(record: LeaseRecord, name: str) -> tuple[str, ...]:
    lease = record.lease
    dns = " ".join(map(str, lease.dns))
    shown = (str(lease.address.ip), name or lease.request.hostname, lease.request.dev, str(lease.router or ""), dns)
    return (*shown, lease.domain, _until(record)[:19], record.trouble or "ok")


def _json(record: LeaseRecord, name: str) -> dict[str, Any]:
    raw: dict[str, Any] = json.loads(schema.dump_lease(record))
    return {**raw, "endpoint_name": name, "until": _until(record)}


def _until(record: LeaseRecord) -> str:
    return datetime.fromtimestamp(record.lease.acquired + record.lease.lifetime, UTC).isoformat(timespec="seconds")
