"""Work in the background, which nobody waits for: the log tells of what failed."""

from __future__ import annotations

import logging
from collections.abc import Awaitable
from typing import TypeVar

from berth.errors import BerthError

log = logging.getLogger("berth")
T = TypeVar("T")


async def attempt(work: Awaitable[T]) -> T | None:
    """What comes of some work; None where it failed, of which the log tells."""
    try:
        return await work
    except BerthError as error:
        log.warning("%s", error)
    except Exception:
        log.exception("in the background")
    return None
