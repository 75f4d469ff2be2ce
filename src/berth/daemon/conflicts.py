"""Listening to the LANs: who else claims an endpoint's address, and which addresses are free for the next.

A claim of an endpoint's address is answered as RFC 5227 section 2.4 (b) has it: by one announcement, and no second
one within ten seconds. The other machine may go on all the same, so it is reported.
"""

from __future__ import annotations

import asyncio
import logging
import time
from functools import partial

from berth.daemon.attempt import attempt
from berth.daemon.worker import Worker
from berth.engine.engine import Engine
from berth.engine.recorded import Recorded
from berth.errors import BerthError
from berth.model import Address, Claim
from berth.seams import Watch

_TICK = 0.5  # seconds
_ROUND = 5.0  # seconds between two looks at which LANs and endpoints there are
_INTERVAL = 10.0  # seconds: RFC 5227's DEFEND_INTERVAL
_MOST = 1024  # addresses of which it is remembered when they were defended
log = logging.getLogger("berth")


class Conflicts:
    """Watches every LAN that an endpoint may be on."""

    def __init__(self, engine: Engine, worker: Worker) -> None:
        self._engine = engine
        self._worker = worker
        self._known = Recorded()  # the records that the next two are from
        self._lans: set[str] = set()  # bridges of the networks that are watched
        self._macs: dict[tuple[str, Address], set[str]] = {}  # of the endpoints that have an address
        self._watches: dict[str, Watch] = {}  # by bridge
        self._suspects: dict[tuple[str, Address], Claim] = {}  # not looked at yet
        self._defended: dict[tuple[str, Address], float] = {}  # when last
        self._deaf: set[str] = set()  # bridges that could not be listened to, as was said

    async def run(self) -> None:
        """Until cancelled."""
        looked = -_ROUND
        try:
            while True:
                if self._engine.vetted.used or time.monotonic() - looked >= _ROUND:
                    looked = time.monotonic()
                    await attempt(self._look())
                if self._suspects:
                    await attempt(self._judge())
                await asyncio.sleep(_TICK)
        finally:
            for dev in list(self._watches):
                self._close(dev)

    async def _look(self) -> None:
        """See which LANs there are, listen to them, and ask ahead for the addresses that are given next."""
        self._know(await self._worker.run(self._engine.recorded))
        self._listen(self._lans)
        self._engine.vetted.watched(self._watches.keys())
        for ahead in await self._worker.run(self._engine.candidates):
            await asyncio.to_thread(self._engine.vet, ahead)  # it waits for answers, and no verb shall

    def _know(self, records: Recorded) -> None:
        """Which LANs there are, and which endpoints on them."""
        if records.arranges_as(self._known):
            return
        lans = {net.id: net.bridge for net in records.networks if net.vets}
        macs: dict[tuple[str, Address], set[str]] = {}
        for ep in records.endpoints if lans else ():
            for interface in ep.addresses if ep.network in lans else ():
                macs.setdefault((lans[ep.network], interface.ip), set()).add(ep.mac)
        self._known, self._lans, self._macs = records, set(lans.values()), macs

    def _listen(self, devs: set[str]) -> None:
        for dev, watch in list(self._watches.items()):
            if dev not in devs or not watch.alive():
                self._close(dev)
        for dev in devs - self._watches.keys():
            try:
                self._watches[dev] = watch = self._engine.watch(dev)
            except (OSError, BerthError) as error:
                if dev not in self._deaf:
                    log.warning("cannot hear who claims addresses on %s: %s", dev, error)
                self._deaf.add(dev)
            else:
                self._deaf.discard(dev)
                asyncio.get_running_loop().add_reader(watch.fileno(), self._heard, dev)

    def _close(self, dev: str) -> None:
        """In a thread: the kernel waits some 16 ms."""
        watch = self._watches.pop(dev)
        self._engine.vetted.watched(self._watches.keys())
        loop = asyncio.get_running_loop()
        loop.remove_reader(watch.fileno())
        loop.run_in_executor(None, watch.close)

    def _heard(self, dev: str) -> None:
        for claim in self._watches[dev].claims():
            macs = self._macs.get((dev, claim.address))
            if macs is None:
                self._engine.vetted.claimed(dev, claim.address, claim.mac)
            elif claim.mac not in macs and not claim.probe and self._due(dev, claim.address):
                self._suspects[dev, claim.address] = claim

    def _due(self, dev: str, address: Address) -> bool:
        return time.monotonic() - self._defended.get((dev, address), -_INTERVAL) >= _INTERVAL

    async def _judge(self) -> None:
        """Look into the records whether a claim is about an endpoint that there still is; record, report, defend."""
        suspects, self._suspects = self._suspects, {}
        for dev in {dev for dev, _ in suspects} & self._watches.keys():
            claims = [claim for (at, _), claim in suspects.items() if at == dev]
            for ep, conflict in await self._worker.run(partial(self._engine.contested, dev, claims)):
                if dev in self._watches:
                    self._watches[dev].announce(conflict.address, ep.mac)
                self._note((dev, conflict.address))
                made = f" ({conflict.vendor})" if conflict.vendor else ""
                log.warning(
                    "address %s of endpoint %s is claimed by another machine on %s, with MAC %s%s: give one of the two"
                    " another address",
                    conflict.address,
                    ep.name,
                    dev,
                    conflict.mac,
                    made,
                )

    def _note(self, key: tuple[str, Address]) -> None:
        self._defended.pop(key, None)
        self._defended[key] = time.monotonic()
        if len(self._defended) > _MOST:
            del self._defended[next(iter(self._defended))]
