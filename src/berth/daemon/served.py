"""Asking the DHCP servers of LANs that nobody has asked: those of Docker's networks, for which Docker waits."""

from __future__ import annotations

import asyncio
import logging
from functools import partial

from berth.daemon.attempt import attempt
from berth.daemon.worker import Worker
from berth.engine.engine import Engine

_ROUND = 5.0  # seconds
log = logging.getLogger("berth")


async def run(engine: Engine, worker: Worker) -> None:
    """Until cancelled."""
    while True:
        await attempt(_look(engine, worker))
        await asyncio.sleep(_ROUND)


async def _look(engine: Engine, worker: Worker) -> None:
    for net in await worker.run(engine.unexplored):
        found = await asyncio.to_thread(engine.served, net)
        for warning in await worker.run(partial(engine.learn, net.id, found)):
            log.warning("%s", warning)
