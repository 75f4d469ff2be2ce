"""`berth proxy`."""

from __future__ import annotations

import click


@click.command()
def proxy() -> None:
    """Carry TCP and UDP to containers where no rule of the firewall can: one process for all ports.

    It reads which from the maps of Berth's firewall (`nft list table inet berth`: proxied4, proxied6, proxied64), and
    follows them as they change. Connections through it end with it. A second one waits until the first has ended.
    SIGHUP has it look again; it ends on SIGTERM. `berth daemon` starts one by itself where there is none.
    """
    from berth import wire
    from berth.proxy.server import serve

    serve(wire.proxy_lock(), wire.proxied, lambda: wire.notices(steady=False))
