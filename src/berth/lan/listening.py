"""Hearing the routers of LANs: one socket a bridge, for all that they say from then on."""

from __future__ import annotations

import asyncio
import contextlib
import os
import socket
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from math import inf

from berth.errors import BerthError, Refused
from berth.lan import advertised
from berth.lan.advertised import Link
from berth.lan.slaac import opened, received, solicit
from berth.model import Lease

_AT_ONCE = 64
_REPEAT = 1.0  # seconds between two questions, as long as nobody has answered; RFC 4861 says 4, and people wait
_QUESTIONS = 10  # then routers speak when they like
_QUIET = 2.0  # seconds for a router to answer where one was before
_BREATH = 0.05  # seconds between two looks at what is new, however much is said
_LOOK = 30.0  # seconds: the loop's own clock stands still while the machine sleeps


@dataclass(slots=True, eq=False)
class _Ear:
    """One bridge that is listened to."""

    raw: socket.socket
    index: int
    link: Link = field(default_factory=Link)
    heard: asyncio.Event = field(default_factory=asyncio.Event)
    asking: asyncio.Task[None] | None = None
    timer: asyncio.TimerHandle | None = None
    news: asyncio.TimerHandle | None = None
    trouble: str = ""


class Routers:
    """What the routers of every LAN say, in the running loop. `changed` hears of a bridge that something is new on."""

    def __init__(self, changed: Callable[[str], None]) -> None:
        self._changed = changed
        self._ears: dict[str, _Ear] = {}

    def link(self, dev: str) -> Link:
        """What is known of a LAN now; nothing of one that is not listened to."""
        ear = self._ears.get(dev)
        return Link() if ear is None else ear.link

    async def known(self, dev: str, timeout: float) -> Link:
        """What is known of a LAN once a router has spoken.

        Where all have gone they are asked anew, and a prefix of theirs that is still valid does after a while. Raises
        `Refused` where none speaks within `timeout` seconds; `NotFound` (no such bridge) and `Denied`.
        """
        ear = self.listen(dev)
        if not ear.heard.is_set() or ear.link.best(boot()) is None:
            left = ear.link.prefix(boot()) is not None
            self._ask(dev, ear)
            try:
                await asyncio.wait_for(ear.heard.wait(), min(timeout, _QUIET) if left else timeout)
            except TimeoutError:
                if left:
                    return ear.link
                trouble = ear.trouble or f"no IPv6 router answers on {dev} within {timeout:g} s"
                raise Refused(trouble) from None
        return ear.link

    def remember(self, lease: Lease) -> None:
        """Go on with what an earlier process knew of a LAN, and ask its routers anew. Raises as `known` does."""
        dev = lease.request.dev
        ear = self.listen(dev)
        ear.link = advertised.remember(ear.link, lease, boot(), time.time())
        self._ask(dev, ear)
        self._set_timer(dev, ear)

    def listen(self, dev: str) -> _Ear:
        """Hear a LAN from now on; anew where its bridge is another. Raises `NotFound` and `Denied`."""
        ear = self._ears.get(dev)
        if ear is not None and _index(dev) == ear.index:
            return ear
        raw = opened(dev)
        fresh = _Ear(raw, _index(dev))
        if ear is not None:
            fresh.link = ear.link
            self._shut(ear)
        self._ears[dev] = fresh
        asyncio.get_running_loop().add_reader(raw.fileno(), self._receive, dev, fresh)
        self._set_timer(dev, fresh)
        return fresh

    def close(self) -> None:
        """Hear no more."""
        for ear in self._ears.values():
            self._shut(ear)
        self._ears.clear()

    def _shut(self, ear: _Ear) -> None:
        asyncio.get_running_loop().remove_reader(ear.raw.fileno())
        ear.raw.close()
        if ear.asking is not None:
            ear.asking.cancel()
        for timer in (ear.timer, ear.news):
            if timer is not None:
                timer.cancel()

    def _ask(self, dev: str, ear: _Ear) -> None:
        if ear.asking is None or ear.asking.done():
            ear.heard.clear()
            ear.asking = asyncio.get_running_loop().create_task(self._question(dev, ear))

    async def _question(self, dev: str, ear: _Ear) -> None:
        for _ in range(_QUESTIONS):
            try:
                solicit(ear.raw, dev)
            except OSError as error:  # a link that has just come up has no address yet
                ear.trouble = f"{dev} asks no IPv6 router: {os.strerror(error.errno or 0)}; is it up?"
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(ear.heard.wait(), _REPEAT)
                return

    def _receive(self, dev: str, ear: _Ear) -> None:
        heard = False
        for _ in range(_AT_ONCE):
            try:
                said = received(ear.raw)
            except OSError:  # nothing more
                break
            if said is not None:
                ear.link, heard = advertised.hear(ear.link, said, boot()), True
        if heard:
            ear.heard.set()
            ear.trouble = ""
            if ear.news is None:
                ear.news = asyncio.get_running_loop().call_later(_BREATH, self._tell, dev, ear)

    def _tell(self, dev: str, ear: _Ear) -> None:
        ear.news = None
        self._set_timer(dev, ear)
        self._changed(dev)

    def _set_timer(self, dev: str, ear: _Ear) -> None:
        """Look again when something that was advertised ends, and now and again whether the bridge is another."""
        if ear.timer is not None:
            ear.timer.cancel()
        end = ear.link.next(boot())
        pause = _LOOK if end == inf else min(max(end - boot(), 0.0), _LOOK)
        ear.timer = asyncio.get_running_loop().call_later(pause, self._ring, dev, ear)

    def _ring(self, dev: str, ear: _Ear) -> None:
        if _index(dev) not in (ear.index, 0):
            try:
                ear = self.listen(dev)
                self._ask(dev, ear)
            except BerthError as error:
                ear.trouble = str(error)
        self._set_timer(dev, ear)
        self._changed(dev)


def boot() -> float:
    """Now, in seconds of CLOCK_BOOTTIME."""
    return time.clock_gettime(time.CLOCK_BOOTTIME)


def _index(dev: str) -> int:
    """0 for a link that is not there."""
    try:
        return socket.if_nametoindex(dev)
    except OSError:
        return 0
