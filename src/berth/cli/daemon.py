"""`berth daemon`."""

from __future__ import annotations

import click


@click.command()
@click.pass_context
def daemon(ctx: click.Context) -> None:
    """Answer Docker, and other `berth` commands, on $BERTH_RUN/berth.sock.

    The host and the records are put in order first. Containers do not need the daemon once they run: it may be
    stopped, killed and started again without a packet lost. It ends on SIGTERM, when it has answered what it was
    asked. Started by systemd, it takes over the socket that systemd holds.
    """
    from berth import wire
    from berth.daemon.events import Events
    from berth.daemon.look import Sources
    from berth.daemon.server import serve
    from berth.doctor.examination import findings

    events = Events()
    store = ctx.find_root().obj
    engine = wire.told_engine(events.tell, store)
    sources = Sources(wire.host, wire.traffic, wire.neighbours, lambda: findings(wire.examine(store)))
    serve(engine, wire.socket_path(), wire.notices, wire.lease_clients, events, sources)
