"""Hearing of what other hosts change, without a gap: from the revision after the last one that was heard."""

from __future__ import annotations

import contextlib
import logging
import socket
import threading
import time
from collections.abc import Callable, Sequence

from berth import schema
from berth.errors import BerthError
from berth.seams import Heard, Turn
from berth.store.feed import Change, watch
from berth.store.gateway import Compacted, Gateway
from berth.store.rpc import RANGE

_PAUSE = 0.2  # seconds between two tries
log = logging.getLogger("berth")


class Watcher:
    """A thread that tells what changes, until it is stopped."""

    def __init__(self, gateway: Gateway, prefix: str, changed: Callable[[Heard], None]) -> None:
        self._gateway = gateway
        self._prefix = f"{prefix}seen/"
        self._changed = changed
        self._stopped = threading.Event()
        self._opened: list[socket.socket] = []
        self._next = 0  # the revision to go on from; 0: not known
        self.networks = 0  # goes on whenever the networks may be others than before
        self.heard = (0.0, 0)  # when etcd last told of something (seconds since 1970), and its revision then
        self._thread = threading.Thread(target=self._run, name="watch", daemon=True)
        self._thread.start()

    def stop(self) -> None:
        """End the thread; nothing is told any more afterwards."""
        self._stopped.set()
        for sock in list(self._opened):
            with contextlib.suppress(OSError):  # it is closed already
                sock.shutdown(socket.SHUT_RDWR)
        if threading.current_thread() is not self._thread:
            self._thread.join()

    def _run(self) -> None:
        told = ""
        while not self._stopped.is_set():
            try:
                self._resume()
                for news in watch(self._gateway, self._prefix.encode(), self._next, self._opened):
                    told = ""
                    if self._stopped.is_set():
                        break
                    self.heard = time.time(), news.revision
                    self._hear(news.changes)
            except Compacted:
                self._next = 0
            except BerthError as error:
                if str(error) != told and not self._stopped.is_set():
                    log.warning("%s", error)
                told = str(error)
            self._stopped.wait(_PAUSE)
        self._gateway.close()

    def _resume(self) -> None:
        """Go on from where it was; where that cannot be, from now, and anything may have changed.

        Revisions go back when etcd was made anew, or from a copy.
        """
        now = self._gateway.call(RANGE, {"key": self._prefix.encode()})["header"]["revision"]
        self.networks += 1
        if self._next == 0 or self._next > now + 1:
            self._next = now + 1
            self._changed(Heard())

    def _hear(self, changes: Sequence[Change]) -> None:
        hosts, made, turns = False, set[str](), dict[str, Turn]()
        for change in changes:
            kind, _, rest = change.key.decode()[len(self._prefix) :].partition("/")
            self._next = max(self._next, change.revision + 1)
            network, _, identity = rest.partition("/")
            match kind:
                case "host":
                    hosts = True
                case "network":
                    made.add(network)
                    self.networks += 1
                case "endpoint":
                    ep = None if change.gone else schema.load_endpoint(change.value)
                    turns[identity] = Turn(network, identity, ep)
        if hosts or made or turns:
            self._changed(Heard(self._next - 1, hosts, frozenset(made), tuple(turns.values())))
