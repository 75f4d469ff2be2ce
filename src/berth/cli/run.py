"""`berth run`."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Any

import click

from berth import spec
from berth.cli.output import PORT, engine
from berth.errors import Invalid
from berth.kernel.netns import sandbox
from berth.model import AttachRequest
from berth.run import Mode, RunRequest, network_word
from berth.run import run as run_command


@click.command(context_settings={"allow_interspersed_args": False})
@click.option("--network", required=True, metavar="NAME|host|none|container:NAME",
              help="Network to be on; host: the host's own; none: a loopback only; container: that of an endpoint"
              " (by name or id) or of a sandbox.")  # fmt: skip
@click.option("--name", help="The endpoint's and container's name. [default: a short random id]")
@click.option("--hostname", help="The hostname inside. [default: the name; on network host, the host's]")
@click.option("--alias", "aliases", multiple=True, metavar="NAME",
              help="Another name; several endpoints may have the same.")  # fmt: skip
@click.option("--ip", "ips", multiple=True, metavar="IP", help="This address: one IPv4 and one IPv6 at most.")
@click.option("--mac", help="This MAC. [default: on a LAN always the same for the name, behind NAT for the address]")
@click.option("-p", "--publish", "ports", multiple=True, metavar=PORT,
              help="Publish host ports (NAT networks).")  # fmt: skip
@click.option("-P", "--publish-all", is_flag=True, help="Publish what --expose names, on any free host ports.")
@click.option("--expose", "exposed", multiple=True, metavar="PORT[-PORT][/PROTO]", help="A port for -P.")
@click.option("--driver-opt", "options", multiple=True, metavar="KEY=VALUE",
              help="An option of this endpoint: ingress_rate=10mbit, egress_rate=…, gateway=false, …")  # fmt: skip
@click.option("--rootfs", type=click.Path(path_type=Path), metavar="DIR",
              help="Run a container with this root file system, by crun or runc. [default: a plain process that sees"
              " the host's files]")  # fmt: skip
@click.option("-i", "--interactive", is_flag=True, help="Let CMD read this command's input. [default: /dev/null]")
@click.option("-t", "--tty", is_flag=True, help="Give CMD a terminal of its own.")
@click.option("--rm", "remove", is_flag=True,
              help="With --rootfs: forget the container when it ends, which `crun list` shows otherwise. Of a plain"
              " process nothing is ever kept.")  # fmt: skip
@click.argument("command", metavar="CMD...", nargs=-1, required=True, type=click.UNPROCESSED)
@click.pass_context
def run(
    ctx: click.Context,
    network: str,
    name: str | None,
    hostname: str | None,
    aliases: tuple[str, ...],
    ips: tuple[str, ...],
    mac: str | None,
    ports: tuple[str, ...],
    publish_all: bool,
    exposed: tuple[str, ...],
    options: tuple[str, ...],
    rootfs: Path | None,
    interactive: bool,
    tty: bool,
    remove: bool,
    command: tuple[str, ...],
) -> None:
    """Run a command in a fresh sandbox on a network.

    CMD gets a network, a hostname, an /etc/resolv.conf, an /etc/hosts and processes of its own. When it ends, or
    this command is ended, even by SIGKILL, nothing of the sandbox is left. What stands behind CMD belongs to CMD.

    \b
    A shell that is a member of the LAN, with an address of its own:
        berth run --network lan -it -- bash
    \b
    A web server of a root file system in a directory, published on the host's port 8080:
        berth run --network backend --name web -p 8080:80 --rootfs ./alpine --rm -- httpd -f

    \b
    See what another endpoint sees, with the tools of this host:
        berth run --network container:web -- ss -tln

    SIGTERM, SIGINT, SIGHUP, SIGQUIT, SIGUSR1 and SIGUSR2 are passed on to CMD. Exits as CMD does; with 128 and
    the signal's number when one killed CMD; with 127 when there is no such command and 126 when it cannot be run.
    """
    mode, word = network_word(network)
    request = RunRequest(
        command=command,
        mode=mode,
        attach=_attach(
            mode,
            word,
            name=name,
            ips=ips,
            mac=mac,
            ports=ports,
            expose=_exposed(exposed, publish_all),
            options=options,
            aliases=aliases,
        ),
        join=word if mode is Mode.JOIN else "",
        name=None if name is None else spec.endpoint_name(name),
        hostname=hostname,
        rootfs=rootfs,
        interactive=interactive,
        terminal=tty,
        remove=remove,
    )
    with engine(ctx) as api:
        code = run_command(api, request, find=sandbox, bundles=_run_directory() / "bundles", warn=_warn)
    sys.exit(code)


def _exposed(exposed: tuple[str, ...], publish_all: bool) -> tuple[str, ...]:
    if publish_all and not exposed:
        raise Invalid("-P has nothing to publish: a root file system does not say its ports; name them with --expose")
    if exposed and not publish_all:
        raise Invalid("--expose alone opens nothing: add -P to publish its ports, or publish one with -p")
    return exposed


def _attach(mode: Mode, network: str, *, name: str | None, **asked: Any) -> AttachRequest | None:
    """`asked`: what `spec.attach_request` takes."""
    if mode is Mode.NETWORK:
        # The sandbox is not born yet: this process stands in for it.
        return spec.attach_request(network=network, sandbox=f"pid:{os.getpid()}", name=name, **asked)
    if any(asked.values()):
        raise Invalid(
            "only a network can give an address, a MAC, a port, an alias or an option: leave --ip, --mac, -p, -P,"
            " --alias and --driver-opt out"
        )
    return None


def _run_directory() -> Path:
    return Path(os.environ.get("BERTH_RUN") or "/run/berth").absolute()


def _warn(text: str) -> None:
    print(f"berth: warning: {text}", file=sys.stderr)
