"""The proxy's process: the files that say what it does, its signals, and its one lock."""

from __future__ import annotations

import fcntl
import logging
import os
import signal
import socket
import sys
from contextlib import suppress
from pathlib import Path
from select import EPOLLIN

from berth.errors import Denied, Invalid, Refused
from berth.proxied import Proxied, parse
from berth.proxy.accept import Acceptor
from berth.proxy.context import Context, context, raise_limit
from berth.proxy.ports import Ports
from berth.proxy.rights import give_up
from berth.proxy.watch import Watch
from berth.systemd import notify

_RETRY = 1.0  # seconds until a port that somebody else has is tried again
_LONGEST = 256  # bytes of a file: more than any of them has
log = logging.getLogger("berth.proxy")


def serve(directory: Path) -> None:
    """Carry what the files in a directory say, until SIGTERM or SIGINT. Waits while another one does.

    Raises `Denied` or `Refused` when the directory cannot be used.
    """
    logging.basicConfig(format="%(message)s", level=logging.INFO, stream=sys.stderr)
    try:
        directory.mkdir(parents=True, exist_ok=True, mode=0o755)
        lock = _alone(directory.with_suffix(".lock"))
        proxy = Proxy(context(raise_limit()), directory)
    except PermissionError:
        raise Denied(f"may not use {directory}: run as root, or set BERTH_RUN") from None
    except OSError as error:
        raise Refused(f"cannot use {directory}: {error.strerror or error}") from None
    give_up()
    try:
        proxy.run()
    finally:
        notify("STOPPING=1")
        os.close(lock)


def _alone(path: Path) -> int:
    """A lock that is freed with this process; waits for it."""
    lock = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        log.info("another proxy is at work for %s: waiting until it ends", path.with_suffix(""))
        notify("READY=1\nSTATUS=waiting for another proxy to end")
        fcntl.flock(lock, fcntl.LOCK_EX)
    return lock


class Proxy:
    """All ports, as the files say."""

    def __init__(self, means: Context, directory: Path) -> None:
        """Raises `OSError` when the directory cannot be watched."""
        self._context = means
        self._directory = directory
        self._acceptor = Acceptor(means)
        self._ports: dict[str, Ports] = {}
        self._bad: set[str] = set()
        self._unopened: set[str] = set()  # files whose ports are not all had yet
        self._retrying = False
        self._watch = Watch(str(directory))
        means.loop.watch(self._watch.fd, self, EPOLLIN)

    def run(self) -> None:
        """Carry, until a signal says to stop."""
        with _Signals(self) as signals:
            self._context.loop.watch(signals.fileno(), signals, EPOLLIN)
            self.reread()
            self._open()
            log.info("carrying %d ports of %s", len(self._ports), self._directory)
            notify("READY=1\nSTATUS=")
            self._context.loop.run()
        for ports in self._ports.values():
            ports.close()

    def stop(self) -> None:
        """Let `run` return."""
        self._context.loop.stop()

    def ready(self, fd: int, events: int) -> None:
        """See `Handler`: files have changed."""
        names, lost = self._watch.changed()
        if lost:
            self.reread()
        else:
            self._follow(names)

    def reread(self) -> None:
        """Read all files again. If the directory is gone, nothing is asked for; it is made anew."""
        with suppress(OSError):
            self._directory.mkdir(parents=True, exist_ok=True, mode=0o755)
        try:
            watch = Watch(str(self._directory))
            there = set(os.listdir(self._directory))
        except OSError as error:
            log.warning("cannot read %s: %s: trying again", self._directory, error.strerror)
            self._context.loop.after(_RETRY, self.reread)
            return
        self._context.loop.forget(self._watch.fd)
        self._watch.close()
        self._watch = watch
        self._context.loop.watch(watch.fd, self, EPOLLIN)
        self._follow(there | self._ports.keys())

    def _follow(self, names: set[str]) -> None:
        """Do what these files say now. All that ends does so before anything begins: it may be in its way."""
        for name in names:
            proxied = self._read(name)
            ports = self._ports.get(name)
            if ports is not None and ports.proxied != proxied:
                ports.close()
                del self._ports[name]
            if proxied is not None and name not in self._ports:
                self._ports[name] = Ports(self._context, self._acceptor, proxied)
                self._unopened.add(name)
        self._context.loop.turn(self._open)

    def _open(self) -> None:
        """Listen where it does not yet."""
        wanted = [ports for name in self._unopened if (ports := self._ports.get(name)) is not None]
        self._unopened = {ports.proxied.name for ports in wanted if not ports.open()}
        if self._unopened and not self._retrying:
            self._retrying = True
            self._context.loop.after(_RETRY, self._retry)

    def _retry(self) -> None:
        self._retrying = False
        self._open()

    def _read(self, name: str) -> Proxied | None:
        """What a file says; None if it is not there, not for us, or says nothing of use."""
        if name.startswith("."):  # a draft
            return None
        try:
            with open(self._directory / name, "rb") as file:
                proxied = parse(name, file.read(_LONGEST).decode("ascii", "replace"))
        except FileNotFoundError:
            self._bad.discard(name)
            return None
        except (OSError, Invalid) as error:
            if name not in self._bad:
                self._bad.add(name)
                log.warning("%s", error)
            return None
        self._bad.discard(name)
        return proxied


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
            self._proxy.reread()
