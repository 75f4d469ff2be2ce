"""What has happened: the events that the daemon tells, and the operations that they come from."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import msgspec


class Event(msgspec.Struct, frozen=True):
    """One thing that changed; the parts of an event of Docker's, flat (Docker API, GET /events)."""

    time: str  # RFC 3339, UTC
    type: str  # network | endpoint | host
    action: str  # create | remove | attach | detach | publish | readdress | lose | rename | reconcile | refresh | heal
    id: str  # of the network or endpoint; "" for the host
    name: str
    attributes: dict[str, str] = {}


@dataclass(frozen=True, slots=True)
class Operation:
    """One verb that was carried out or refused, with the time it took."""

    verb: str
    seconds: float
    error: str = ""  # "": it was carried out
    events: tuple[Event, ...] = ()


#: Who hears of operations; called in whatever thread carried them out, and must not wait.
Tell = Callable[[Operation], None]
