"""The daemon's process: its socket, its signals, and what systemd wants to hear."""

from __future__ import annotations

import asyncio
import logging
import os
import signal
import socket
import stat
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from berth import wire
from berth.daemon import member, probed, proxy, served
from berth.daemon.app import app, routes
from berth.daemon.conflicts import Conflicts
from berth.daemon.events import Events
from berth.daemon.leases import Leases
from berth.daemon.look import Look, Sources
from berth.daemon.metrics import Metrics
from berth.daemon.names import Names
from berth.daemon.overlay import Overlay
from berth.daemon.page import Page
from berth.daemon.server_parts import Server, configure
from berth.daemon.tidy import Tidy
from berth.daemon.web_server import Web
from berth.daemon.worker import Worker
from berth.engine.engine import Engine
from berth.errors import BerthError, Denied, Refused, Taken
from berth.seams import MakeClients, Notices
from berth.systemd import notify

_FIRST_FD = 3  # sd_listen_fds(3): SD_LISTEN_FDS_START
log = logging.getLogger("berth")


def serve(
    engine: Engine,
    path: Path,
    notices: Callable[[], Notices],
    clients: MakeClients,
    events: Events,
    sources: Sources,
) -> None:
    """Answer until SIGTERM or SIGINT, mend the firewall when `notices` tell that it has changed, and keep leases.

    `events`: what the engine tells of its work; `sources`: where the page and the metrics look.

    Raises `Taken`, `Denied` or `Refused` when the socket cannot be had.
    """
    # Not to stderr: of what a managed plugin says there, Docker makes errors in its own log.
    logging.basicConfig(format="%(message)s", level=logging.INFO, stream=sys.stdout)
    worker = Worker(engine.free)
    try:
        asyncio.run(_serve(engine, worker, path, notices, clients, events, sources))
    finally:
        worker.close(engine.close)


async def _serve(
    engine: Engine,
    worker: Worker,
    path: Path,
    notices: Callable[[], Notices],
    clients: MakeClients,
    events: Events,
    sources: Sources,
) -> None:
    tidy, leases, names = Tidy(engine, worker), Leases(engine, worker, clients), Names(engine, worker)
    leased = wire.leases_path()
    metrics = Metrics()
    page = Page(Look(engine, worker, sources, events.nudge), events, metrics)
    api = routes(engine, worker, tidy, leases, names)
    web = Web([*page.routes(), *api])
    answered = [*api, *page.routes(), web.route()]
    server = Server(configure(app(engine, tidy, worker, leases, answered, str(leased))))
    events.begin()

    def leave() -> None:
        events.close()  # streams are answers that would never be finished
        server.leave()

    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, leave)
    given = _given()
    # An older unit of systemd's holds the daemon's own socket only.
    own = [] if len(given) > 1 else [leased] if given else [path, leased]
    listeners = [*given, *map(_listen, own)]
    services = (tidy.run(), leases.run(), names.run(), Conflicts(engine, worker).run(), served.run(engine, worker))
    shared = (member.run(engine, worker), Overlay(engine, worker, names.others_changed).run(), probed.run(engine))
    chores = (*services, *shared, _watched(worker), proxy.keep(wire.proxy_lock()))
    background = [asyncio.create_task(chore) for chore in chores]
    log.info("listening on %s", listeners[0].getsockname())
    notify("READY=1")  # what comes in waits in the listener until the server is up
    try:
        with _heeding(notices, tidy):
            await server.serve(sockets=listeners)
    finally:
        notify("STOPPING=1")
        events.close()
        await web.close()
        for task in background:
            task.cancel()
        await asyncio.gather(*background, return_exceptions=True)
        leases.close()
        for made in own:
            made.unlink(missing_ok=True)
        for listener in listeners:
            listener.close()


@contextmanager
def _heeding(notices: Callable[[], Notices], tidy: Tidy) -> Iterator[None]:
    """Have the firewall looked after whenever somebody else has changed it."""
    try:
        told = notices()
    except OSError as error:
        log.warning("cannot hear of changes to the firewall: %s: after a flush, run `berth reconcile`", error.strerror)
        yield
        return

    def heard() -> None:
        if told.pending():
            tidy.heal()

    loop = asyncio.get_running_loop()
    loop.add_reader(told.fileno(), heard)
    try:
        yield
    finally:
        loop.remove_reader(told.fileno())
        told.close()


async def _watched(worker: Worker) -> None:
    """Tell systemd's watchdog that verbs are still carried out, as often as it wants to hear."""
    microseconds = int(os.environ.get("WATCHDOG_USEC") or 0)
    while microseconds:
        with suppress(BerthError):
            await worker.run(lambda: None)
            notify("WATCHDOG=1")
        await asyncio.sleep(microseconds / 3e6)


def _given() -> list[socket.socket]:
    """The sockets that systemd holds for us (sd_listen_fds(3)): nobody waits in vain while the daemon is down."""
    if os.environ.get("LISTEN_PID") != str(os.getpid()) or os.environ.get("LISTEN_FDS") not in ("1", "2"):
        return []
    return [socket.socket(fileno=_FIRST_FD + number) for number in range(int(os.environ["LISTEN_FDS"]))]


def _listen(path: Path) -> socket.socket:
    """A socket for root alone."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True, mode=0o755)
        _clear(path)
        listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        before = os.umask(0o177)
        try:
            listener.bind(str(path))
        finally:
            os.umask(before)
        listener.listen(2048)
    except PermissionError:
        raise Denied(f"may not make {path}: run as root, or set BERTH_RUN") from None
    except OSError as error:
        raise Refused(f"cannot listen on {path}: {error.strerror or error}") from None
    return listener


def _clear(path: Path) -> None:
    """Remove the socket of a daemon that was killed. Raises `Taken` for one that lives."""
    try:
        if not stat.S_ISSOCK(path.lstat().st_mode):
            raise Taken(f"{path} is there and is no socket: move it away")
    except FileNotFoundError:
        return
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as connection:
        try:
            connection.connect(str(path))
        except ConnectionRefusedError:
            path.unlink(missing_ok=True)
        else:
            raise Taken(f"a daemon listens on {path} already: stop it first, or set BERTH_RUN")
