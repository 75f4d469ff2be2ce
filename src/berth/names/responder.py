"""Claiming names on a LAN and answering for them (RFC 6762), on the bridge that the LAN is plugged into."""

from __future__ import annotations

import asyncio
import logging
import random
import socket
from collections.abc import Mapping, Sequence
from contextlib import suppress

from berth.model import Address
from berth.names import mdns
from berth.names.mdns import Claimed, Heard
from berth.names.message import AAAA, A

PORT = 5353
GROUPS = {socket.AF_INET: "224.0.0.251", socket.AF_INET6: "ff02::fb"}
_PROBES, _BETWEEN = 3, 0.25  # seconds (section 8.1)
_DEFERRED = 1.0  # seconds, for who claims the same at the same time and comes later in the order
_ANNOUNCEMENTS, _APART = 2, 1.0  # seconds (section 8.3)
_PATIENCE, _SLOWER = 10, 5.0  # after so many names that were taken, seconds before each other (section 8.1)
_AT_ONCE = 64
log = logging.getLogger("berth")

Wanted = Mapping[str, tuple[str, tuple[Address, ...]]]  # an endpoint's name and addresses, by its id


class _Claim:
    """A name that is wanted, on its way to being had."""

    def __init__(self, wanted: str, addresses: tuple[Address, ...]) -> None:
        self.wanted = wanted
        self.number = 1
        self.addresses = addresses
        self.ready = False  # nobody else has it
        self.lost = self.deferred = False
        self.contested = asyncio.Event()

    @property
    def claimed(self) -> Claimed:
        return Claimed(mdns.label(self.wanted, self.number), self.addresses)

    def begin(self) -> None:
        """Ask for it, once more."""
        self.ready = self.lost = self.deferred = False
        self.contested.clear()


class Responder:
    """Answers on one bridge until it is closed."""

    def __init__(self, sockets: Sequence[socket.socket]) -> None:
        """`sockets`: bound to port 5353 and the bridge, members of the group of their family."""
        self._sockets = sockets
        self._claims: dict[str, _Claim] = {}
        self._tasks: dict[str, asyncio.Task[None]] = {}
        self._loop = asyncio.get_running_loop()
        for each in sockets:
            self._loop.add_reader(each, self._heard, each)

    def show(self, wanted: Wanted) -> None:
        """Claim these names, and let go of all others."""
        for ident, claim in list(self._claims.items()):
            if wanted.get(ident) != (claim.wanted, claim.addresses):
                self._drop(ident, claim)
        for ident, (name, addresses) in wanted.items():
            if ident not in self._claims:
                claim = self._claims[ident] = _Claim(name, addresses)
                self._tasks[ident] = self._loop.create_task(self._have(claim))

    def close(self) -> None:
        """Say good-bye."""
        self.show({})
        for each in self._sockets:
            self._loop.remove_reader(each)
            each.close()

    def _drop(self, ident: str, claim: _Claim) -> None:
        self._tasks.pop(ident).cancel()
        del self._claims[ident]
        if claim.ready:
            self._say(mdns.announcement(claim.claimed, ttl=0))

    async def _have(self, claim: _Claim) -> None:
        """Ask whether a name is free, take it, and begin again whenever somebody else says that it is theirs."""
        await asyncio.sleep(random.uniform(0, _BETWEEN))
        while True:
            claim.begin()
            for _ in range(_PROBES):
                self._say(mdns.probe(claim.claimed))
                await asyncio.sleep(_BETWEEN)
                if claim.lost or claim.deferred:
                    break
            if claim.lost:
                taken = claim.claimed.name
                claim.number += 1
                log.warning("%s is somebody else's on this LAN: trying %s", taken, claim.claimed.name)
                await asyncio.sleep(_SLOWER if claim.number > _PATIENCE else 0)
            elif claim.deferred:
                await asyncio.sleep(_DEFERRED)
            else:
                claim.ready = True
                await self._announce(claim)
                await claim.contested.wait()

    async def _announce(self, claim: _Claim) -> None:
        for number in range(_ANNOUNCEMENTS):
            await asyncio.sleep(_APART if number else 0)
            if not claim.contested.is_set():
                self._say(mdns.announcement(claim.claimed))

    def _say(self, message: bytes) -> None:
        for each in self._sockets:
            self._send(each, message, (GROUPS[each.family], PORT))

    def _send(self, through: socket.socket, message: bytes, to: tuple[str, int]) -> None:
        with suppress(OSError):  # the bridge has no address of this family, or is down
            through.sendto(message, to)

    def _heard(self, through: socket.socket) -> None:
        for _ in range(_AT_ONCE):
            try:
                raw, sender = through.recvfrom(9000)  # the largest that may be sent (section 17)
            except OSError:
                return
            with suppress(ValueError):
                heard = mdns.read(raw)
                if heard.response:
                    self._compare(heard)
                else:
                    self._reply(heard, through, sender)

    def _compare(self, heard: Heard) -> None:
        """Heed who says that a name of ours is theirs (section 9)."""
        for claim in self._claims.values():
            own = claim.claimed
            if any(
                each.name == own.name and each.ttl and each.kind in (A, AAAA) and (each.kind, each.data) not in own.data
                for each in heard.records
            ):
                claim.lost = True
                claim.contested.set()

    def _reply(self, heard: Heard, through: socket.socket, sender: tuple[str, int]) -> None:
        self._yield(heard)
        legacy = sender[1] != PORT
        claims = [claim.claimed for claim in self._claims.values() if claim.ready]
        said = mdns.answered(heard, claims, legacy=legacy)
        if said is None:
            return
        alone = legacy or all(unicast for _, _, unicast in heard.questions)
        self._send(through, said, sender if alone else (GROUPS[through.family], PORT))

    def _yield(self, heard: Heard) -> None:
        """Wait for who asks for a name at the same time, and comes later in the order (section 8.2)."""
        for claim in self._claims.values():
            own = claim.claimed
            theirs = tuple(sorted((each.kind, each.data) for each in heard.records if each.name == own.name))
            if not claim.ready and theirs and any(name == own.name for name, _, _ in heard.questions):
                claim.deferred |= theirs > own.data
