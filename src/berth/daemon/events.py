"""The hub of events: the engine tells it what was done, and whoever follows hears of it."""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from collections.abc import AsyncIterator, Callable
from itertools import count

import msgspec

from berth.daemon.logged import line
from berth.events import Event, Operation

_REMEMBERED = 1000  # events, for who asks what has been
_BEHIND = 1000  # events that a follower may be late before it is let go
_ALIVE = 15  # seconds between comments on a silent stream, by which both ends learn that the other is there
NUDGE = Event("", "host", "nudge", "", "")  # nothing that happened: what is shown may have changed all the same
log = logging.getLogger("berth")
_encode = msgspec.json.encode


class Events:
    """What has happened lately, and who follows it. `tell` may be called from any thread, also before the loop runs."""

    def __init__(self) -> None:
        self._past: deque[tuple[int, Event]] = deque(maxlen=_REMEMBERED)
        self._numbers = count(1)
        self._followers: dict[asyncio.Queue[tuple[int, Event] | None], None] = {}
        self._loop: asyncio.AbstractEventLoop | None = None
        self._closed = False
        self.listeners: list[Callable[[Operation], None]] = []

    def begin(self) -> None:
        """Tell followers of this thread's loop from now on."""
        self._loop = asyncio.get_running_loop()

    def tell(self, operation: Operation) -> None:
        """Log an operation, and pass its events on."""
        if operation.events or operation.error or operation.seconds > 1:
            log.info("%s", _line(operation))
        for listener in self.listeners:
            listener(operation)
        for event in operation.events:
            if warnings := event.attributes.get("warnings"):
                log.warning("%s", warnings)  # Docker has no place for them
            entry = (next(self._numbers), event)
            self._past.append(entry)
            if self._loop is not None and not self._loop.is_closed():
                self._loop.call_soon_threadsafe(self._deliver, entry)

    def _deliver(self, entry: tuple[int, Event]) -> None:
        for queue in list(self._followers):
            if queue.qsize() >= _BEHIND:
                self._end(queue)
            else:
                queue.put_nowait(entry)

    def _end(self, queue: asyncio.Queue[tuple[int, Event] | None]) -> None:
        self._followers.pop(queue, None)
        queue.put_nowait(None)

    def nudge(self) -> None:
        """Have followers look again, though nothing was done; from the loop's own thread."""
        for queue in self._followers:
            queue.put_nowait((0, NUDGE))

    def close(self) -> None:
        """End all streams: a daemon that leaves waits for its answers to be finished."""
        self._closed = True
        for queue in list(self._followers):
            self._end(queue)

    async def follow(self, since: str = "", after: int = 0) -> AsyncIterator[tuple[int, Event] | None]:
        """Events with their numbers; None every now and then where nothing happens.

        `since`: what is remembered from this time on (RFC 3339, UTC) comes first; `after`: what came after the event
        of that number.
        """
        queue: asyncio.Queue[tuple[int, Event] | None] = asyncio.Queue()
        if self._closed:
            return
        if since or after:
            for entry in list(self._past):
                if (after and entry[0] > after) or (since and entry[1].time >= since):
                    queue.put_nowait(entry)
        self._followers[queue] = None
        try:
            while True:
                try:
                    async with asyncio.timeout(_ALIVE):
                        entry_or_end = await queue.get()
                except TimeoutError:
                    yield None
                    continue
                if entry_or_end is None:
                    return
                yield entry_or_end
        finally:
            self._followers.pop(queue, None)


def frame(kind: str, data: bytes, number: int | None = None) -> bytes:
    """One event of a stream (WHATWG HTML, server-sent events). `data` has no line break."""
    head = b"" if number is None else b"id: %d\n" % number
    return head + b"event: %s\ndata: %s\n\n" % (kind.encode(), data)


async def stream(events: Events, since: str, after: int) -> AsyncIterator[bytes]:
    """The events as a stream's bytes, beginning with a comment, so that the client's answer begins at once."""
    yield b": berth\n\n"
    async for entry in events.follow(since, after):
        if entry is None or entry[1] is NUDGE:
            yield b": alive\n\n"
        else:
            yield frame("event", _encode(entry[1]), entry[0])


def _line(operation: Operation) -> str:
    about = tuple((event.type, event.name or event.id[:12] or "this") for event in operation.events[:3])
    return line("op", operation.verb, operation.seconds, error=operation.error, about=about)
