"""`berth lan`."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import click
import msgspec

from berth.cli.output import engine, json_option, print_json
from berth.cli.progress import waiting
from berth.model import Network

if TYPE_CHECKING:
    from berth.lan.discover import Found
    from berth.lan.slaac import Advertised


@click.group()
def lan() -> None:
    """Look at the LAN behind a bridge."""


@lan.command()
@click.argument("bridge")
@json_option
@click.pass_context
def show(ctx: click.Context, bridge: str, as_json: bool) -> None:
    """Show the subnets, routers and DHCP servers of the LAN behind BRIDGE, and what is wrong with it.

    Takes up to six seconds. The DHCP servers are asked for an address that is never taken.
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
        span = next(str(served) for served in found.served if served.server == offer.server)
        yield f"DHCP server {offer.server}, {offer.mac}: would lease {span} of {offer.subnet}{leads}"
    if not found.offers:
        yield "no DHCP server answers"
    for each in found.routers6:
        yield f"IPv6 router {each.said.router}, {each.mac}: {_advertised(each.said)}"


def _advertised(said: Advertised) -> str:
    """What a router says of its link."""
    words = [f"prefix {prefix.subnet}" + ("" if prefix.autonomous else " (not for SLAAC)") for prefix in said.prefixes]
    words += ["addresses by DHCPv6"] if said.managed else ["the rest by DHCPv6"] if said.other else []
    words += [f"name server {server}" for server in said.dns]
    words.append(f"a way out for {said.lifetime} s" if said.lifetime else "no way out")
    return ", ".join(words)


def _warnings(found: Found, networks: Sequence[Network]) -> Iterator[str]:
    from berth.engine.served import of_network

    for router in found.routers:
        if len(router.macs) > 1:
            yield f"{len(router.macs)} machines answer for the router {router.address}: take it from all but one"
    known = {router.address for router in found.routers}
    for double in found.doubles:
        if double.address not in known:
            yield f"{len(double.macs)} machines have {double.address} ({' and '.join(double.macs)}): give one another"
    if len(found.offers) > 1:
        yield f"{len(found.offers)} DHCP servers answer: leave one, or give each a range of its own"
    for net in networks:
        yield from of_network(replace(net, served=found.served))
