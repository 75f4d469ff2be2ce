"""What the daemon of one host among many does: keep its lease, register again, and free what dead hosts held."""

from __future__ import annotations

import asyncio
import logging
import random
import socket
import time

from berth.daemon.worker import Worker
from berth.engine.engine import Engine
from berth.errors import BerthError

_BEAT = 5  # seconds: a lease lasts for at least some of them
_LOOK = 10  # seconds until somebody looks again for what dead hosts held
_EACH = 10  # hosts that do so each; of more, each does it less often, so that all together read no more
log = logging.getLogger("berth")


async def run(engine: Engine, worker: Worker, beat: float = _BEAT) -> None:
    """Go on until cancelled; return at once where the store is this host's alone."""
    known, due, told = False, 0.0, ""
    while True:
        try:
            there = await asyncio.to_thread(engine.keep)  # not in the worker: a verb may take longer than the lease
            if there is None:
                return
            if not (there and known):
                await _register(engine, worker)
                known = True
            if (now := time.monotonic()) >= due:
                await _expire(engine, worker)
                due = now + _pause(len(await worker.run(engine.hosts)))
            told = ""
        except BerthError as error:
            if str(error) != told:  # etcd may be away for long
                log.warning("%s", error)
            told = str(error)
        except Exception:
            log.exception("in the background")
        await asyncio.sleep(beat)


def _pause(hosts: int) -> float:
    """Seconds; of many hosts, some second is always somebody's."""
    return _LOOK if hosts <= _EACH else _LOOK * hosts / _EACH * random.uniform(0.5, 1.5)


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
