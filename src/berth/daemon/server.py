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

import uvicorn
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from berth import wire
from berth.daemon import member, proxy
from berth.daemon.app import app
from berth.daemon.overlay import Overlay
from berth.daemon.tidy import Tidy
from berth.daemon.worker import DEADLINE, Worker
from berth.engine.engine import Engine
from berth.errors import BerthError, Denied, Refused, Taken
from berth.seams import Notices
from berth.systemd import notify

_IDLE = 3600  # seconds: Docker keeps its connection, and would send a call to one that is being closed without body
_FIRST_FD = 3  # sd_listen_fds(3): SD_LISTEN_FDS_START
log = logging.getLogger("berth")


def serve(engine: Engine, path: Path, notices: Callable[[], Notices]) -> None:
    """Answer until SIGTERM or SIGINT, and mend the firewall when `notices` tell that it has changed.

    Raises `Taken`, `Denied` or `Refused` when the socket cannot be had.
    """
    # Not to stderr: of what a managed plugin says there, Docker makes errors in its own log.
    logging.basicConfig(format="%(message)s", level=logging.INFO, stream=sys.stdout)
    worker = Worker(engine.free)
    try:
        asyncio.run(_serve(engine, worker, path, notices))
    finally:
        worker.close(engine.close)


async def _serve(engine: Engine, worker: Worker, path: Path, notices: Callable[[], Notices]) -> None:
    tidy = Tidy(engine, worker)
    config = uvicorn.Config(
        app(engine, worker, tidy),
        http=_Protocol,
        loop="asyncio",
        ws="none",
        lifespan="off",
        log_config=None,
        access_log=False,
        server_header=False,
        timeout_graceful_shutdown=DEADLINE,
        timeout_keep_alive=_IDLE,
    )
    server = _Server(config)
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, server.leave)
    given = _given()
    listener = given or _listen(path)
    shared = (member.run(engine, worker), Overlay(engine, worker).run())
    chores = (tidy.run(), _watched(worker), proxy.keep(wire.proxy_lock()), *shared)
    background = [asyncio.create_task(chore) for chore in chores]
    log.info("listening on %s", listener.getsockname())
    notify("READY=1")  # what comes in waits in the listener until the server is up
    try:
        with _heeding(notices, tidy):
            await server.serve(sockets=[listener])
    finally:
        notify("STOPPING=1")
        for task in background:
            task.cancel()
        await asyncio.gather(*background, return_exceptions=True)
        if given is None:
            path.unlink(missing_ok=True)
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


class _Protocol(HttpToolsProtocol):
    def eof_received(self) -> bool:  # type: ignore[override]  # asyncio's own contract is a bool
        """Answer a client that has said all it has to say, and hang up then; uvicorn's own hangs up at once."""
        if self.cycle is None or self.cycle.response_complete:
            return False
        self.cycle.keep_alive = False
        return True


class _Server(uvicorn.Server):
    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Left to `leave`: uvicorn's own would end the process by the signal, before things are put away."""
        yield

    def leave(self) -> None:
        self.should_exit = True


async def _watched(worker: Worker) -> None:
    """Tell systemd's watchdog that verbs are still carried out, as often as it wants to hear."""
    microseconds = int(os.environ.get("WATCHDOG_USEC") or 0)
    while microseconds:
        with suppress(BerthError):
            await worker.run(lambda: None)
            notify("WATCHDOG=1")
        await asyncio.sleep(microseconds / 3e6)


def _given() -> socket.socket | None:
    """The socket that systemd holds for us (sd_listen_fds(3)): nobody waits in vain while the daemon is down."""
    if os.environ.get("LISTEN_PID") != str(os.getpid()) or os.environ.get("LISTEN_FDS") != "1":
        return None
    return socket.socket(fileno=_FIRST_FD)


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
