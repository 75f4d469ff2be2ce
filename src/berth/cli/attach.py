"""`berth attach` and `berth detach`."""

from __future__ import annotations

import click

from berth import schema, spec
from berth.cli.output import PORT, dry_run_option, engine, json_option, print_json, print_plan, warn
from berth.cli.progress import waiting


@click.command()
@click.argument("network")
@click.argument("sandbox")
@click.option("--name", help="The endpoint's name. [default: after the sandbox]")
@click.option("--alias", "aliases", multiple=True, metavar="NAME",
              help="Another name; several endpoints may have the same.")  # fmt: skip
@click.option("--ip", "ips", multiple=True, metavar="IP", help="This address: one IPv4 and one IPv6 at most.")
@click.option("--mac", help="This MAC. [default: on a LAN always the same for the name, behind NAT for the address]")
@click.option("--ifname", help="The interface's name in the sandbox. [default: the first free of eth0, eth1, …]")
@click.option("-p", "--publish", "ports", multiple=True, metavar=PORT,
              help="Publish host ports (NAT networks).")  # fmt: skip
@click.option("--driver-opt", "options", multiple=True, metavar="KEY=VALUE",
              help="An option of this endpoint: ingress_rate=10mbit, egress_rate=…, gateway=false, …")  # fmt: skip
@dry_run_option
@json_option
@click.pass_context
def attach(
    ctx: click.Context,
    network: str,
    sandbox: str,
    name: str | None,
    aliases: tuple[str, ...],
    ips: tuple[str, ...],
    mac: str | None,
    ifname: str | None,
    ports: tuple[str, ...],
    options: tuple[str, ...],
    dry_run: bool,
    as_json: bool,
) -> None:
    """Plug a sandbox into a network.

    SANDBOX is a namespace's name as in `ip netns`, a path, pid:N or docker:NAME.
    """
    request = spec.attach_request(
        network=network,
        sandbox=sandbox,
        name=name,
        ips=ips,
        mac=mac,
        ifname=ifname,
        ports=ports,
        options=options,
        aliases=aliases,
    )
    with waiting(f"attaching {sandbox} to {network}"), engine(ctx) as api:
        outcome = api.attach(request, dry_run=dry_run)
    warn(outcome)
    ep = outcome.value
    if dry_run:
        print_plan(outcome.plan, as_json=as_json)
    elif as_json:
        print_json(schema.endpoint_json(ep, network))
    else:
        addresses = " ".join(str(address) for address in ep.addresses)
        print(f"{ep.name} {ep.ifname} {addresses} {ep.mac}".strip() if ep.ifname else ep.name)


@click.command()
@click.argument("network")
@click.argument("sandbox")
@dry_run_option
@json_option
@click.pass_context
def detach(ctx: click.Context, network: str, sandbox: str, dry_run: bool, as_json: bool) -> None:
    """Unplug a sandbox from a network; its addresses are free again.

    SANDBOX as for `berth attach`, or the endpoint's name.
    """
    with engine(ctx) as api:
        with waiting(f"detaching {sandbox} from {network}"):
            outcome = api.detach(network, sandbox, dry_run=dry_run)
        if dry_run:
            print_plan(outcome.plan, as_json=as_json)
        elif as_json:
            print_json([schema.endpoint_json(ep, network) for ep in outcome.value])
        else:
            print("\n".join(ep.name for ep in outcome.value))
