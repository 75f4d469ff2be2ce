"""`berth lan`."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

import click
import msgspec

from berth.cli.output import engine, json_option, print_json
from berth.cli.progress import waiting
from berth.model import Network

if TYPE_CHECKING:
    from berth.lan.discover import Found


@click.group()
def lan() -> None:
    """Look at the LAN behind a bridge."""


@lan.command()
@click.argument("bridge")
@json_option
@click.pass_context
def show(ctx: click.Context, bridge: str, as_json: bool) -> None:
    """Show the subnets, routers and DHCP servers of the LAN behind BRIDGE, and what is wrong with it.

    Takes up to five seconds. The DHCP servers are asked for an address that is never taken.
    """
    from berth import wire

    with waiting(f"listening to the LAN behind {bridge}"):
        found = wire.lan(bridge)
    with engine(ctx) as api:
        warnings = list(_warnings(found, [net for net in api.networks() if net.bridge == bridge]))
    if as_json:
        told: dict[str, Any] = msgspec.json.decode(msgspec.json.encode(found, enc_hook=str))
        print_json({**told, "warnings": warnings})
        return
    for line in _lines(found):
        print(line)
    for warning in warnings:
        click.echo(f"berth: warning: {warning}", err=True)


def _lines(found: Found) -> Iterator[str]:
    for address in found.addresses:
        yield f"subnet {address.network}, where this host is {address.ip}"
    for router in found.routers:
        known = [f"{mac} {made}".rstrip() for mac, made in zip(router.macs, router.vendors, strict=True)]
        yield f"router {router.address}, {' and '.join(known) or 'which does not answer'}"
    for offer in found.offers:
        leads = f", router {offer.router}" if offer.router else ""
        yield f"DHCP server {offer.server}, {offer.mac}: would lease {offer.address} of {offer.subnet}{leads}"
    if not found.offers:
        yield "no DHCP server answers"


def _warnings(found: Found, networks: Sequence[Network]) -> Iterator[str]:
    for router in found.routers:
        if len(router.macs) > 1:
            yield f"{len(router.macs)} machines answer for the router {router.address}: take it from all but one"
    if len(found.offers) > 1:
        yield f"{len(found.offers)} DHCP servers answer: leave one, or give each a range of its own"
    for net in networks:
        for pool in net.pools:
            for offer in found.offers:
                if pool.span.version == 4 and offer.address in pool.span:
                    yield (
                        f"DHCP server {offer.server} leases {offer.address}, which is in {pool.span} of network"
                        f" {net.name}: give the network an --ip-range of which the server leases nothing"
                    )
