"""Asking a LAN who has addresses, by packet socket: every machine that answers, not only the one the kernel believes.

Asked from nobody's address a question leaves nothing in any cache (RFC 5227 section 2.1.1, RFC 4862 section 5.4.2).
"""

from __future__ import annotations

import random
import selectors
import socket
import time
from collections import defaultdict
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress

from berth.lan import frames
from berth.lan.packets import Packets
from berth.model import Address, Claim

#: Seconds to wait, from and to: before each question, and at the end.
Pace = Sequence[tuple[float, float]]
_BURST = 64  # questions between two looks at the answers


def who_has(
    dev: str,
    addresses: Sequence[Address],
    *,
    source: Address | None = None,
    within: float = 0.4,
    every: bool = True,
    via: Sequence[str] = (),
) -> Mapping[Address, frozenset[str]]:
    """The MACs of all that answer on a link for addresses, this host aside. Raises `Denied`.

    `source`: whom the answers are for; None: nobody. `within`: seconds. `every`: wait for a second machine as well.
    `via`: the ports of a bridge to ask by, in place of all: a broadcast to a thousand containers takes 4.6 ms.
    Nobody where there is no such link or it is down.
    """
    if not addresses:
        return {}
    try:
        packets = Packets(dev)
    except OSError:
        return {}
    try:
        with _ports(via) as ports:
            asking = Asking(packets, frozenset(addresses), source=source, ports=ports, heard=frames.answer)
            asking.run(((0, 0), (within, within)), every=every)
    finally:
        packets.close()
    return {address: frozenset(macs) for address, macs in asking.macs.items()}


@contextmanager
def _ports(names: Sequence[str]) -> Iterator[tuple[socket.socket, ...]]:
    """Sockets that send by links and hear nothing; none for a link that is gone."""
    opened: list[socket.socket] = []
    try:
        for name in names:
            one = socket.socket(socket.AF_PACKET, socket.SOCK_RAW | socket.SOCK_NONBLOCK, 0)
            opened.append(one)
            with suppress(OSError):
                one.bind((name, 0))
        yield tuple(opened)
    finally:
        for one in opened:
            one.close()


class Asking:
    """One question about several addresses, and what was answered so far, by MAC."""

    def __init__(
        self,
        packets: Packets,
        addresses: frozenset[Address],
        *,
        mine: Collection[str] = (),
        source: Address | None = None,
        ports: Sequence[socket.socket] = (),
        heard: Callable[[bytes], Claim | None] = frames.claim,
    ) -> None:
        """`mine`: whose answers do not count, beside the link's own. `heard`: what of a frame counts."""
        self.macs: defaultdict[Address, set[str]] = defaultdict(set)
        self._packets, self._addresses, self._ports = packets, addresses, ports
        self._mine, self._source, self._heard = {*mine, packets.mac}, source, heard

    def run(self, pace: Pace, *, every: bool = False, sent: Callable[[], None] = lambda: None) -> None:
        """Ask at a pace. `every`: until its end, also where each address has its answer. `sent`: once it is asked."""
        with selectors.DefaultSelector() as selector:
            selector.register(self._packets, selectors.EVENT_READ)
            for number, (low, high) in enumerate(pace):
                until = time.monotonic() + random.uniform(low, high)
                while (every or not self._complete) and (left := until - time.monotonic()) > 0:
                    if selector.select(left):
                        self._hear()
                if number < len(pace) - 1:
                    self._ask()
                if number == 0:
                    sent()
        self._hear()

    @property
    def _complete(self) -> bool:
        return self.macs.keys() == self._addresses

    def _ask(self) -> None:
        for number, address in enumerate(self._addresses - self.macs.keys(), 1):
            frame = frames.probe(address, self._packets.mac, self._source)
            for port in self._ports:
                with suppress(OSError):  # down, or full: who does not hear it does not answer
                    port.send(frame)
            if not self._ports:
                self._packets.send(frame)
            if number % _BURST == 0:
                self._hear()

    def _hear(self) -> None:
        for said in filter(None, map(self._heard, self._packets.take())):
            if said.address in self._addresses and said.mac not in self._mine:
                self.macs[said.address].add(said.mac)
