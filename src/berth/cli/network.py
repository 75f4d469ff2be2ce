"""`berth network`."""

from __future__ import annotations

import click

from berth import schema, spec
from berth.cli.output import dry_run_option, engine, json_option, print_json, print_plan, table, warn
from berth.cli.progress import waiting
from berth.model import Ipam


@click.group()
def network() -> None:
    """Create, list, inspect and remove networks."""


def _options_help() -> str:
    lines = [f"    {name:<14} {option.help}" for name, option in spec.OPTIONS.items()]
    return "\b\n" + "\n".join(lines)


CREATE_HELP = f"""Create a network.

A bridge network is private: the host routes and masquerades for it. A flat network is the LAN itself: name the
bridge that carries it, and containers become its members, with the LAN's own router as their gateway. A bridge
network on a bridge that carries the LAN's address is a flat network.

\b
    berth network create backend
    berth network create --subnet 10.20.0.0/24 --ipv6 backend
    berth network create --driver flat -o parent=br0 --ip-range 192.168.2.128/26 lan

Options for -o, by these names or Docker's long ones:

{_options_help()}
"""


@network.command(help=CREATE_HELP)
@click.argument("name")
@click.option("--driver", "-d", default="bridge", show_default=True, help="bridge, flat, overlay, host or null.")
@click.option("--subnet", "subnets", multiple=True, metavar="CIDR", help="A subnet; one or more.")
@click.option("--ip-range", "ip_ranges", multiple=True, metavar="CIDR", help="Give addresses only from this part.")
@click.option("--gateway", "gateways", multiple=True, metavar="IP", help="The containers' router.")
@click.option("--aux-address", "aux", multiple=True, metavar="NAME=IP", help="An address that is never given.")
@click.option("--ipv6", is_flag=True, help="IPv6 too; a private subnet is made when none is given.")
@click.option("--internal", is_flag=True, help="No way out of the network, and none in.")
@click.option("--label", "labels", multiple=True, metavar="K=V", help="A label, for you.")
@click.option("-o", "--opt", "options", multiple=True, metavar="K=V", help="A driver option; see below.")
@dry_run_option
@json_option
@click.pass_context
def create(
    ctx: click.Context,
    name: str,
    driver: str,
    subnets: tuple[str, ...],
    ip_ranges: tuple[str, ...],
    gateways: tuple[str, ...],
    aux: tuple[str, ...],
    ipv6: bool,
    internal: bool,
    labels: tuple[str, ...],
    options: tuple[str, ...],
    dry_run: bool,
    as_json: bool,
) -> None:
    asked = spec.network_spec(
        name=name,
        driver=driver,
        subnets=subnets,
        ip_ranges=ip_ranges,
        gateways=gateways,
        aux=aux,
        ipv6=ipv6,
        internal=internal,
        labels=labels,
        options=options,
    )
    with waiting(f"making network {name}"), engine(ctx) as api:
        outcome = api.create_network(api.explored(asked), dry_run=dry_run)
    warn(outcome)
    if dry_run:
        print_plan(outcome.plan, as_json=as_json)
    elif as_json:
        print_json(schema.docker_network(outcome.value, []))
    else:
        print(outcome.value.id)


@network.command(name="ls")
@json_option
@click.pass_context
def list_networks(ctx: click.Context, as_json: bool) -> None:
    """List networks."""
    with engine(ctx) as api:
        nets = api.networks()
        count = {net.id: 0 for net in nets}
        for ep in api.endpoints():
            count[ep.network] += 1
    if as_json:
        print_json([schema.docker_network(net, []) for net in nets])
        return
    rows = [
        (net.id[:12], net.name, net.driver, net.bridge, ", ".join(str(pool.subnet) for pool in net.pools),
         ", ".join(str(pool.gateway) for pool in net.pools if pool.gateway is not None), str(count[net.id]))
        for net in nets
    ]  # fmt: skip
    table(("ID", "NAME", "DRIVER", "BRIDGE", "SUBNETS", "GATEWAY", "ENDPOINTS"), rows)


@network.command()
@click.argument("names", nargs=-1, required=True, metavar="NAME...")
@json_option
@click.pass_context
def inspect(ctx: click.Context, names: tuple[str, ...], as_json: bool) -> None:
    """Show networks in full, in the shape of Docker's API."""
    with engine(ctx) as api:
        nets = [api.network(name) for name in names]
        print_json([schema.docker_network(net, list(api.endpoints(net.id))) for net in nets])


@network.command(name="rm")
@click.argument("names", nargs=-1, required=True, metavar="NAME...")
@dry_run_option
@json_option
@click.pass_context
def remove(ctx: click.Context, names: tuple[str, ...], dry_run: bool, as_json: bool) -> None:
    """Remove networks that nothing is attached to."""
    with engine(ctx) as api:
        for name in names:
            outcome = api.remove_network(name, dry_run=dry_run)
            if dry_run:
                print_plan(outcome.plan, as_json=as_json)
            elif not as_json:
                print(name)
    if as_json and not dry_run:
        print_json(list(names))


@network.command()
@json_option
@click.pass_context
def prune(ctx: click.Context, as_json: bool) -> None:
    """Remove all networks that nothing is attached to, but for Docker's."""
    removed = []
    with waiting("removing unused networks"), engine(ctx) as api:
        used = {ep.network for ep in api.endpoints()}
        for net in api.networks():
            if net.id not in used and net.ipam is Ipam.NETWORK:
                api.remove_network(net.id)
                removed.append(net.name)
    if as_json:
        print_json(removed)
    else:
        print("\n".join(removed) if removed else "no unused network")
