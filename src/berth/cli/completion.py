"""`berth completion`."""

from __future__ import annotations

import click
from click.shell_completion import get_completion_class


@click.command()
@click.argument("shell", type=click.Choice(["bash", "zsh", "fish"]))
@click.pass_context
def completion(ctx: click.Context, shell: str) -> None:
    """Print the completion script for a shell.

    \b
    bash:  berth completion bash > /etc/bash_completion.d/berth
    zsh:   berth completion zsh > "${fpath[1]}/_berth"
    fish:  berth completion fish > ~/.config/fish/completions/berth.fish
    """
    kind = get_completion_class(shell)
    assert kind is not None  # the choices above are click's own
    print(kind(ctx.find_root().command, {}, "berth", "_BERTH_COMPLETE").source())
