"""The proxy's process: who says what it does, its signals, and its one lock."""

from __future__ import annotations

import fcntl
import logging
import os
import signal
import socket
import sys
import time
from collections.abc import Callable
from pathlib import Path
from select import EPOLLIN

from berth.errors import Denied, Refused
from berth.firewall.proxy import NAME
from berth.model import Proxied
from berth.proxy.accept import Acceptor
from berth.proxy.context import Context, context, raise_limit
from berth.proxy.ports import Ports
from berth.proxy.rights import give_up
from berth.seams import Notices
from berth.systemd import notify

_RETRY = 1.0  # seconds until a port that somebody else has is tried again
_BREATH = 0.02  # seconds between a change and a look
_PATIENCE = 5.0  # seconds for which the table may be gone, and all goes on
log = logging.getLogger("berth.proxy")


def serve(lock: Path, proxied: Callable[[], frozenset[Proxied] | None], notices: Callable[[], Notices]) -> None:
    """Carry what is to be carried, until SIGTERM or SIGINT. Waits while somebody else holds the lock.

    `proxied`: what is to be carried now; None while nobody can say. `notices` tell when to ask again.
    Raises `Denied` or `Refused` where the lock cannot be had, or the firewall may not be read.
    """
    logging.basicConfig(format="%(message)s", level=logging.INFO, stream=sys.stderr)
    try:
        lock.parent.mkdir(parents=True, exist_ok=True, mode=0o755)
        held = _alone(lock)
        Path("/proc/self/comm").write_text(NAME)  # by which who lists sockets knows whose they are
        proxy = Proxy(context(raise_limit()), proxied, notices())
    except PermissionError:
        raise Denied("may not read the firewall (CAP_NET_ADMIN), or not write $BERTH_RUN: run as root") from None
    except OSError as error:
        raise Refused(f"cannot begin: {error.filename or 'nftables'}: {error.strerror or error}") from None
    give_up()
    try:
        proxy.run()
    finally:
        notify("STOPPING=1")
        os.close(held)


def _alone(path: Path) -> int:
    """A lock that is freed with this process; waits for it. The file says who holds it."""
    lock = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        log.info("another proxy is at work: waiting until it ends")
        notify("READY=1\nSTATUS=waiting for another proxy to end")
        fcntl.flock(lock, fcntl.LOCK_EX)
    os.ftruncate(lock, 0)
    os.write(lock, f"{os.getpid()}\n".encode())
    return lock


class Proxy:
    """All ports, as they are asked for."""

    def __init__(self, means: Context, proxied: Callable[[], frozenset[Proxied] | None], notices: Notices) -> None:
        self._context = means
        self._proxied = proxied
        self._notices = notices
        self._acceptor = Acceptor(means)
        self._ports: dict[Proxied, Ports] = {}
        self._unopened: set[Proxied] = set()  # whose ports are not all had yet
        self._retrying = False
        self._looking = False
        self._unknown_since: float | None = None
        means.loop.watch(notices.fileno(), self, EPOLLIN)

    def run(self) -> None:
        """Carry, until a signal says to stop."""
        with _Signals(self) as signals:
            self._context.loop.watch(signals.fileno(), signals, EPOLLIN)
            self.look()
            self._open()
            log.info("carrying ports: %d mappings", len(self._ports))
            notify("READY=1\nSTATUS=")
            self._context.loop.run()
        for ports in self._ports.values():
            ports.close()
        if self._context.movers is not None:
            self._context.movers.stop()

    def stop(self) -> None:
        """Let `run` return."""
        self._context.loop.stop()

    def ready(self, fd: int, events: int) -> None:
        """See `Handler`: something has changed. What changes together is looked at together."""
        if self._notices.pending():
            self._look_in(_BREATH)

    def _look_in(self, seconds: float) -> None:
        if not self._looking:
            self._looking = True
            self._context.loop.after(seconds, self.look)

    def look(self) -> None:
        """Ask what is to be carried, and see to it.

        While a firewall is being flushed and put back nobody knows, and everything goes on as it is.
        """
        self._looking = False
        try:
            wanted = self._proxied()
        except OSError as error:
            log.warning("cannot read the firewall: %s: trying again", error.strerror or error)
            self._look_in(_RETRY)
            return
        if wanted is not None:
            self._unknown_since = None
            self._follow(wanted)
        elif self._ports:
            now = time.monotonic()
            self._unknown_since = self._unknown_since or now
            if now - self._unknown_since < _PATIENCE:
                self._look_in(_RETRY)
            else:
                self._follow(frozenset())

    def _follow(self, wanted: frozenset[Proxied]) -> None:
        """All that ends does so before anything begins: it may be in its way."""
        for gone in self._ports.keys() - wanted:
            self._ports.pop(gone).close()
        for new in wanted - self._ports.keys():
            self._ports[new] = Ports(self._context, self._acceptor, new)
            self._unopened.add(new)
        self._context.loop.turn(self._open)

    def _open(self) -> None:
        """Listen where it does not yet."""
        wanted = [ports for each in self._unopened if (ports := self._ports.get(each)) is not None]
        self._unopened = {ports.proxied for ports in wanted if not ports.open()}
        if self._unopened and not self._retrying:
            self._retrying = True
            self._context.loop.after(_RETRY, self._retry)

    def _retry(self) -> None:
        self._retrying = False
        self._open()


class _Signals:
    """Signals as events of the loop (signal.set_wakeup_fd)."""

    def __init__(self, proxy: Proxy) -> None:
        self._proxy = proxy
        self._heard, self._told = socket.socketpair()
        self._heard.setblocking(False)
        self._told.setblocking(False)

    def fileno(self) -> int:
        return self._heard.fileno()

    def __enter__(self) -> _Signals:
        signal.set_wakeup_fd(self._told.fileno(), warn_on_full_buffer=False)
        for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
            signal.signal(number, lambda *_: None)
        return self

    def __exit__(self, *_: object) -> None:
        signal.set_wakeup_fd(-1)

    def ready(self, fd: int, events: int) -> None:
        """See `Handler`."""
        numbers = set(self._heard.recv(64))
        if numbers & {signal.SIGTERM, signal.SIGINT}:
            self._proxy.stop()
        elif signal.SIGHUP in numbers:
            self._proxy.look()
