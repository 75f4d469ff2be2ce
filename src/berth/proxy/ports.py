"""The ports of one mapping: their listeners, and those that could not be had yet."""

from __future__ import annotations

import logging

from berth.model import Proxied
from berth.proxy.accept import Acceptor, TcpListener
from berth.proxy.context import Context
from berth.proxy.udp import UdpListener

_DESCRIPTORS = 1  # of a listener
log = logging.getLogger("berth.proxy")


class Ports:
    """What one mapping asks for."""

    def __init__(self, context: Context, acceptor: Acceptor, proxied: Proxied) -> None:
        self.proxied = proxied
        self._context = context
        self._acceptor = acceptor
        self._open: list[TcpListener | UdpListener] = []
        self._missing = list(range(proxied.first, proxied.last + 1))
        self._told = False

    def open(self) -> bool:
        """Listen wherever it does not yet; whether it does now everywhere. Logs why not, once."""
        missing = []
        reason = ""
        for number in self._missing:
            try:
                self._open.append(self._listen(number))
            except OSError as error:
                missing.append(number)
                reason = reason or f"{error.strerror or error}"
        self._missing = missing
        if missing and not self._told:
            more = f" (and {len(missing) - 1} more of its ports)" if len(missing) > 1 else ""
            log.warning("cannot listen on %s: %s%s: trying again", self._name(missing[0]), reason, more)
        elif self._told and not missing:
            log.warning("listening on %s at last", self._name(self.proxied.first))
        self._told = bool(missing)
        return not missing

    def close(self) -> None:
        """End all of them, with their connections."""
        for listener in self._open:
            listener.close()
            self._context.loop.turn(self._give)
        self._open = []

    def _listen(self, number: int) -> TcpListener | UdpListener:
        here = str(self.proxied.listen), number
        target = str(self.proxied.target), self.proxied.port + number - self.proxied.first
        if not self._context.room.take(_DESCRIPTORS):
            raise OSError("no descriptors left: raise LimitNOFILE")
        try:
            if self.proxied.proto == "udp":
                return UdpListener(self._context, here, target)
            return TcpListener(self._context, self._acceptor, here, target)
        except OSError:
            self._context.room.give(_DESCRIPTORS)
            raise

    def _give(self) -> None:
        self._context.room.give(_DESCRIPTORS)

    def _name(self, number: int) -> str:
        listen = self.proxied.listen
        ip = f"[{listen}]" if listen.version == 6 else str(listen)
        return f"{self.proxied.proto} {ip}:{number}"
