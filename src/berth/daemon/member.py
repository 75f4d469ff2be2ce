"""What the daemon of one host among many does: keep its lease, register again, and free what dead hosts held."""

from __future__ import annotations

import asyncio
import logging
import socket

from berth.daemon.worker import Worker
from berth.engine.engine import Engine
from berth.errors import BerthError

_BEAT = 5  # seconds: a lease lasts for at least some of them
_AUDIT = 2  # beats
log = logging.getLogger("berth")


async def run(engine: Engine, worker: Worker, beat: float = _BEAT) -> None:
    """Go on until cancelled; return at once where the store is this host's alone."""
    known, count, told = False, 0, ""
    while True:
        try:
            there = await asyncio.to_thread(engine.keep)  # not in the worker: a verb may take longer than the lease
            if there is None:
                return
            if not (there and known):
                await _register(engine, worker)
                known = True
            if count % _AUDIT == 0:
                await _expire(engine, worker)
            count += 1
            told = ""
        except BerthError as error:
            if str(error) != told:  # etcd may be away for long
                log.warning("%s", error)
            told = str(error)
        except Exception:
            log.exception("in the background")
        await asyncio.sleep(beat)


async def _register(engine: Engine, worker: Worker) -> None:
    await worker.run(lambda: register(engine))


def register(engine: Engine) -> None:
    """Be seen by the others; the log tells whom that cost its address."""
    for ep in engine.register(socket.gethostname()):
        addresses = ", ".join(str(interface.ip) for interface in ep.addresses)
        log.warning(
            "endpoint %s: an address of its own (%s) went to another host while this one was gone, so it is detached:"
            " attach it again",
            ep.name,
            addresses,
        )


async def _expire(engine: Engine, worker: Worker) -> None:
    for identity in await worker.run(engine.expire):
        log.info("endpoint %s: its host is gone, its addresses are free again", identity[:12])
