"""Answers other hosts' doctors, who ask whether their tunnels' packets get here; see `kernel.underlay`."""

from __future__ import annotations

import asyncio
import logging

from berth import wire
from berth.engine.engine import Engine

log = logging.getLogger("berth")


async def run(engine: Engine) -> None:
    """Until cancelled; at once where no other host sees the store."""
    if engine.shared is None:
        return
    try:
        ears = wire.underlay_responders()
    except OSError as error:
        log.warning("cannot answer other hosts' doctors: %s", error.strerror)
        return
    loop = asyncio.get_running_loop()
    for ear in ears:
        loop.add_reader(ear.fileno(), wire.answer_underlay, ear)
    try:
        await asyncio.Event().wait()
    finally:
        for ear in ears:
            loop.remove_reader(ear.fileno())
            ear.close()
