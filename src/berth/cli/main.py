"""The `berth` command. Commands load only when they are called: starting costs as much as the work."""

from __future__ import annotations

import importlib
import os
import sys
from collections.abc import Sequence

import click

from berth import __version__
from berth.errors import BerthError, codes

#: Each command's module and object, and its line in the help.
COMMANDS: dict[str, tuple[str, str]] = {
    "network": ("berth.cli.network:network", "Create, list, inspect and remove networks."),
    "attach": ("berth.cli.attach:attach", "Plug a sandbox into a network."),
    "detach": ("berth.cli.attach:detach", "Unplug a sandbox from a network."),
    "endpoint": ("berth.cli.endpoint:endpoint", "List endpoints."),
    "port": ("berth.cli.endpoint:port", "Published ports."),
    "lease": ("berth.cli.lease:lease", "Addresses that the LAN's DHCP server has given."),
    "lan": ("berth.cli.lan:lan", "Look at the LAN behind a bridge."),
    "node": ("berth.cli.node:node", "The hosts that share a store."),
    "uplink": ("berth.cli.uplink:uplink", "Make a NIC of the host's a port of a bridge, and back."),
    "run": ("berth.cli.run:run", "Run a command in a fresh sandbox on a network."),
    "reconcile": ("berth.cli.reconcile:reconcile", "Put host and records in order after a crash or a reboot."),
    "resolve": ("berth.cli.resolve:resolve", "Say which addresses a name of an endpoint stands for."),
    "map": ("berth.cli.map:show_map", "Show the whole network as a tree or a picture."),
    "web": ("berth.cli.web:web", "Open the daemon's page, and print the link to it."),
    "events": ("berth.cli.events:events", "Follow what the daemon does."),
    "doctor": ("berth.cli.doctor:doctor", "Say what is wrong, why it matters, and what mends it."),
    "trace": ("berth.cli.trace:trace", "Follow one connection from a sandbox, and say who ends it."),
    "daemon": ("berth.cli.daemon:daemon", "Answer Docker and other berth commands on a Unix socket."),
    "proxy": ("berth.cli.proxy:proxy", "Carry what the firewall cannot take to a container, as from [::1]."),
    "install": ("berth.cli.install:install", "Write the files by which Docker and systemd find Berth."),
    "lab": ("berth.cli.lab:lab", "A virtual LAN to try everything on, without risk."),
    "completion": ("berth.cli.completion:completion", "Print the completion script for a shell."),
}

HELP = """Give containers an address and a cable on a real network.

A sandbox is a network namespace: a name as in `ip netns`, a path, pid:N or docker:NAME.

\b
A private network behind this host, and a container on it:
    berth network create backend
    ip netns add c1
    berth attach backend c1
\b
The LAN that bridge br0 is plugged into, and a container that is a member of it:
    berth network create --driver flat -o parent=br0 lan
    berth run --network lan -it -- bash
\b
See first what would be done:
    berth network create --dry-run backend
\b
No network at hand? Try it all on a virtual one:
    berth lab demo
"""


class Lazy(click.Group):
    """A group whose commands are imported when they are called."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        entry = COMMANDS.get(cmd_name)
        if entry is None:
            return None
        module, _, name = entry[0].partition(":")
        command = getattr(importlib.import_module(module), name)
        return command if isinstance(command, click.Command) else None

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        with formatter.section("Commands"):
            formatter.write_dl([(name, line) for name, (_, line) in COMMANDS.items()])


@click.group(cls=Lazy, help=HELP)
@click.version_option(__version__, prog_name="berth")
@click.option(
    "--store",
    metavar="URL",
    help="Where records are kept: sqlite:PATH, or for many hosts etcd://HOST:2379,… (etcds: with TLS)."
    " [default: $BERTH_STORE, else in $BERTH_STATE]",
)
@click.pass_context
def cli(ctx: click.Context, store: str | None) -> None:
    ctx.obj = store


def main(argv: Sequence[str] | None = None) -> None:
    """Run the command line and exit: 0 done, 1 failed, 2 bad usage or input."""
    try:
        cli.main(args=argv, prog_name="berth", standalone_mode=False)
    except click.exceptions.Exit as finished:
        sys.exit(finished.exit_code)
    except click.Abort:
        sys.exit(130)
    except click.ClickException as error:
        error.show()
        sys.exit(error.exit_code)
    except BerthError as error:
        print(f"berth: {error}", file=sys.stderr)
        sys.exit(codes(error).exit)
    except BrokenPipeError:  # `berth … | head`
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(141)
    except KeyboardInterrupt:
        sys.exit(130)
