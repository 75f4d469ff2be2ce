"""`berth proxy`."""

from __future__ import annotations

import click


@click.command()
def proxy() -> None:
    """Carry TCP and UDP to containers where no rule of the firewall can: one process for all ports.

    It reads which from the files in $BERTH_RUN/proxy, and follows them as they change. Connections through it end
    with it. A second one waits until the first has ended. SIGHUP has it read all files again; it ends on SIGTERM.
    """
    from berth.proxied import directory
    from berth.proxy.server import serve

    serve(directory())
