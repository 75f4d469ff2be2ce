"""What is known of the addresses of LANs: which are free, and which somebody else holds.

Nothing of it is kept: who holds an address is asked again after a restart.
"""

from __future__ import annotations

import time
from collections.abc import Collection, Iterable, Mapping

from berth.model import Address

_UNWATCHED = 2.0  # seconds between asking and using, as RFC 5227 has them (ANNOUNCE_WAIT)
_WATCHED = 600.0  # seconds for which nobody claiming an address, on a LAN that is listened to, means that it is free
_STALE = 300.0  # seconds after which a free address is asked for again, ahead of its use
_HELD = 60.0  # seconds for which a held address is not asked for again


class Vetted:
    """The addresses by bridge. Any thread may ask and tell: each step is one operation of a dictionary."""

    def __init__(self) -> None:
        self._free: dict[tuple[str, Address], float] = {}  # since when
        self._held: dict[tuple[str, Address], tuple[float, str]] = {}  # since when, and by which MAC
        self._given: dict[tuple[str, Address], float] = {}  # when: the endpoint that has it answers itself
        self._watched: dict[str, float] = {}  # since when
        self.lans = False  # whether there is any LAN to ask
        self.used = True  # whether an address was taken since candidates were vetted ahead

    def free(self, dev: str, address: Address, within: float | None = None) -> bool:
        """Whether nobody had the address lately, and nobody has claimed it since."""
        asked, now = self._free.get((dev, address)), time.monotonic()
        if asked is None:
            return False
        since = self._watched.get(dev)
        return now - asked < (_UNWATCHED if since is None or since > asked else within or _WATCHED)

    def stale(self, dev: str, address: Address) -> bool:
        """Whether to ask for a candidate ahead of its use."""
        return not self.free(dev, address, _STALE) and self.holder(dev, address) is None

    def holder(self, dev: str, address: Address) -> str | None:
        """The MAC of who held an address a moment ago."""
        found = self._held.get((dev, address))
        return None if found is None or time.monotonic() - found[0] >= _HELD else found[1]

    def held(self, dev: str) -> frozenset[Address]:
        """The addresses of a LAN that others held a moment ago."""
        return frozenset(
            address for bridge, address in list(self._held) if bridge == dev and self.holder(dev, address) is not None
        )

    def given(self, dev: str, addresses: Iterable[Address]) -> None:
        """Endpoints get addresses: from now on it is they who answer and claim them."""
        for address in addresses:
            self._given[dev, address] = time.monotonic()
            self._free.pop((dev, address), None)
            self._held.pop((dev, address), None)

    def asked(self, dev: str, addresses: Iterable[Address], holders: Mapping[Address, str], began: float) -> None:
        """What came of asking, which began then (by the monotonic clock)."""
        now = time.monotonic()
        for address in addresses:
            if self._given.get((dev, address), 0.0) > began:
                continue
            if address in holders:
                self._free.pop((dev, address), None)
                self._held[dev, address] = (now, holders[address])
            else:
                self._free[dev, address] = now
                self._held.pop((dev, address), None)

    def claimed(self, dev: str, address: Address, mac: str) -> None:
        """Somebody has claimed an address. Of those that nobody asked for, there is nothing to remember."""
        if self._free.pop((dev, address), None) is not None or (dev, address) in self._held:
            self._held[dev, address] = (time.monotonic(), mac)

    def watched(self, devs: Collection[str]) -> None:
        """Which LANs are listened to; the others are no more."""
        now = time.monotonic()
        for dev in [dev for dev in self._watched if dev not in devs]:
            del self._watched[dev]
        for dev in devs:
            self._watched.setdefault(dev, now)
        self._forget(now)

    def _forget(self, now: float) -> None:
        for key in [key for key, since in list(self._free.items()) if now - since > _WATCHED]:
            self._free.pop(key, None)
        for key in [key for key, since in list(self._given.items()) if now - since > _HELD]:
            self._given.pop(key, None)
        for key in [key for key, (since, _) in list(self._held.items()) if now - since > _HELD]:
            self._held.pop(key, None)
