"""All addresses that the LANs themselves give, in one asyncio loop: by their DHCP servers, or as routers advertise.

What a container has by advertisements is a lease as well: a router's, which every advertisement prolongs. It is told
again only where something of it has changed, or half of its time is over.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from math import inf

from berth.errors import BerthError, Refused
from berth.lan import advertised
from berth.lan.advertised import FOREVER, Link
from berth.lan.dhcp.clients import Check, Clients
from berth.lan.dhcp6.asking import Information
from berth.lan.listening import Routers, boot
from berth.model import Address, Lease, LeaseRequest

_TRIES = 3  # addresses that somebody else has, before none is made (RFC 7217 section 6: IDGEN_RETRIES)
_SERVER = 3.0  # seconds for a DHCP server, where there is a prefix to go on without
_STATELESS = 2.0  # seconds for a DHCP server to say what goes with an address that it did not give
_FRESH = 3600.0  # seconds for which that holds; a day by RFC 8415 21.23, and who corrects a server waits for it
_PATIENCE = 10.0  # seconds for another address in place of one that is gone
_log = logging.getLogger("berth.lan")


@dataclass(slots=True, eq=False)
class _Entry:
    """One client that lives by advertisements."""

    request: LeaseRequest
    given: Lease | None = None  # in force, as the server gave it or as it was made
    lease: Lease | None = None  # the same with all that routers say, as it was told last
    counter: int = 0  # addresses that somebody else had
    busy: bool = False  # it is getting one now
    asks: bool = False  # the DHCP client goes on asking, after a loss
    work: asyncio.Task[None] | None = None


class LanClients:
    """See `seams.LeaseClients`, and `berth.lan.dhcp.Clients` for what the arguments are told."""

    def __init__(
        self, changed: Callable[[Lease], None], lost: Callable[[Lease, str], None], check: Check | None = None
    ) -> None:
        self._changed, self._lost, self._check = changed, lost, check
        self._dhcp = Clients(self._renewed, self._ended, check)
        self._routers = Routers(self._heard)
        self._entries: dict[str, _Entry] = {}
        self._told: dict[str, Information] = {}  # what servers say to who has an address already, by bridge
        self._asked: dict[str, float] = {}  # when they were asked last
        self._asking: dict[str, asyncio.Task[None]] = {}

    async def acquire(self, request: LeaseRequest, timeout: float = 10) -> Lease:
        """A lease. Raises `Refused` after `timeout` seconds, `Taken`, `NotFound` (no such bridge) and `Denied`."""
        if not request.auto:
            return await self._dhcp.acquire(request, timeout)
        held = self._entries.get(request.key)
        if held is not None and held.request == request and held.lease is not None:
            return held.lease
        await self.release(request.key, tell=False)
        entry = self._entries[request.key] = _Entry(request, busy=True)
        try:
            lease = await self._first(entry, timeout)
        except BaseException:
            if self._entries.get(request.key) is entry:
                await self.release(request.key)
            raise
        entry.busy = False
        return lease

    def resume(self, lease: Lease) -> None:
        """Go on with a lease that another process got. Raises `NotFound` (no such bridge) and `Denied`."""
        if not lease.request.auto:
            self._dhcp.resume(lease)
            return
        self._entries[lease.request.key] = _Entry(lease.request, lease, lease)
        if not lease.slaac:
            self._dhcp.resume(lease)
        self._routers.remember(lease)

    async def release(self, key: str, *, tell: bool = True) -> None:
        """Keep a lease no longer. `tell`: nor shall the server."""
        entry = self._entries.pop(key, None)
        if entry is not None and entry.work is not None:
            entry.work.cancel()
        await self._dhcp.release(key, tell=tell)

    def update(self, request: LeaseRequest) -> None:
        """Tell the server another hostname."""
        entry = self._entries.get(request.key)
        if entry is not None:
            entry.request = request
            entry.given = None if entry.given is None else replace(entry.given, request=request)
            entry.lease = None if entry.lease is None else replace(entry.lease, request=request)
        self._dhcp.update(request)

    def leases(self) -> Mapping[str, Lease]:
        """The leases in force, by their requests' keys."""
        own = {key: entry.lease for key, entry in self._entries.items() if entry.lease is not None}
        return {**self._dhcp.leases(), **own}

    def close(self) -> None:
        """Stop; the leases stay at their servers."""
        for entry in self._entries.values():
            if entry.work is not None:
                entry.work.cancel()
        for task in self._asking.values():
            task.cancel()
        self._entries.clear()
        self._dhcp.close()
        self._routers.close()

    # --- a first address, or another ---

    async def _first(self, entry: _Entry, timeout: float) -> Lease:
        """From a server where routers say so, and made of a prefix where they do not, or no server answers."""
        until = asyncio.get_running_loop().time() + timeout
        key, dev = entry.request.key, entry.request.dev
        entry.asks = False
        link = await self._routers.known(dev, timeout)
        left = until - asyncio.get_running_loop().time()
        other = link.prefix(boot())
        given = None
        if link.managed():
            try:
                given = await self._dhcp.acquire(entry.request, min(left, _SERVER) if other else left)
            except BerthError as error:  # or the host's own client has the port
                if other is None:
                    raise
                _log.warning("%s: an address of %s is made instead", error, other.subnet)
        if given is None:
            await self._dhcp.release(key, tell=False)
            rest = self._ask_rest(dev, link, entry.request.client_id)
            made, _ = await asyncio.gather(self._made(entry, link), rest)
            given = made
        if self._entries.get(key) is not entry:
            await self._dhcp.release(key)
            raise Refused(f"{key} was ended while it asked on {dev} for an IPv6 address")
        lease = self._complete(given)
        entry.given, entry.lease = given, lease
        return lease

    async def _made(self, entry: _Entry, link: Link) -> Lease:
        """An address that nobody has. Raises `Refused`."""
        request = entry.request
        while True:
            lease = advertised.make(request, link, None, entry.counter, boot(), time.time())
            address = lease.address.ip
            holder = await self._holder(request, address)
            if holder is None:
                return lease
            said = f"{address} is in use on the LAN of {request.dev} by the machine with MAC {holder}"
            entry.counter += 1
            if entry.counter > _TRIES:
                raise Refused(f"{said}, and so were others that were made: see who answers for every address there")
            _log.warning("%s: another is made", said)

    async def _holder(self, request: LeaseRequest, address: Address) -> str | None:
        """Who has an address that is to be used (RFC 4862 section 5.4)."""
        if self._check is None or request.conflict == "off":
            return None
        try:
            return await self._check(request, address, lambda: None)
        except BerthError as error:
            _log.warning("%s on %s is used unchecked: %s", address, request.dev, error)
        return None

    async def _ask_rest(self, dev: str, link: Link, client_id: bytes) -> None:
        """What a server says of name servers, where routers tell to ask it: once for all clients of a LAN."""
        if not link.other() or boot() - self._asked.get(dev, -inf) < _FRESH:
            return
        self._asked[dev] = boot()
        try:
            self._told[dev] = await self._dhcp.inform(dev, client_id, _STATELESS)
        except BerthError as error:
            del self._asked[dev]
            _log.warning("no name servers by DHCPv6: %s", error)

    def _complete(self, lease: Lease) -> Lease:
        dev = lease.request.dev
        told = self._told.get(dev) if lease.slaac else None
        return advertised.complete(lease, self._routers.link(dev), told, boot())

    # --- what happens later ---

    def _heard(self, dev: str) -> None:
        link = self._routers.link(dev)
        mine = [entry for entry in self._entries.values() if entry.request.dev == dev]
        for entry in mine:
            if not entry.busy:
                self._review(entry, link)
        made = [entry for entry in mine if entry.given is not None and entry.given.slaac]
        if made and link.other() and boot() - self._asked.get(dev, -inf) >= _FRESH and dev not in self._asking:
            self._asking[dev] = asyncio.get_running_loop().create_task(self._ask_again(dev, made[0].request.client_id))

    async def _ask_again(self, dev: str, client_id: bytes) -> None:
        before = self._told.get(dev)
        try:
            await self._ask_rest(dev, self._routers.link(dev), client_id)
            self._asked.setdefault(dev, boot())  # nobody answers: not with every advertisement
        finally:
            self._asking.pop(dev, None)
        if self._told.get(dev) != before:
            self._heard(dev)

    def _review(self, entry: _Entry, link: Link) -> None:
        """See whether what a client has still is what routers say."""
        given, request = entry.given, entry.request
        if given is not None and not given.slaac:
            self._tell(entry, given)
            return
        has = None if given is None else given.address.ip
        shared = link.prefix(boot(), request.subnets, has)
        if has is not None and shared is not None and has in shared.subnet:
            self._tell(entry, advertised.make(request, link, has, entry.counter, boot(), time.time()))
            return
        if given is not None and shared is None:
            self._end(entry, f"no router on {request.dev} advertises {given.address.network} any more")
        if shared is not None or (link.managed() and not entry.asks):
            self._begin(entry)

    def _begin(self, entry: _Entry) -> None:
        entry.busy = True
        entry.work = asyncio.get_running_loop().create_task(self._another(entry))

    async def _another(self, entry: _Entry) -> None:
        """An address in place of one that is gone, or that is not to be used any more."""
        try:
            lease = await self._first(entry, _PATIENCE)
        except BerthError as error:
            _log.warning("%s has no other IPv6 address: %s", entry.request.hostname or entry.request.mac, error)
        else:
            self._changed(lease)
        finally:
            entry.busy = False

    def _tell(self, entry: _Entry, given: Lease) -> None:
        """Pass on what is new."""
        old, new = entry.lease, self._complete(given)
        entry.given = given
        if old is None or _differs(old, new):
            entry.lease = new
            self._changed(new)

    def _end(self, entry: _Entry, why: str) -> None:
        over, entry.given, entry.lease = entry.lease, None, None
        if over is not None:
            self._lost(over, why)

    def _renewed(self, lease: Lease) -> None:
        """A DHCP server has prolonged, changed or given a lease."""
        entry = self._entries.get(lease.request.key)
        if entry is None:
            self._changed(lease)
        else:
            entry.given, entry.lease = lease, self._complete(lease)
            self._changed(entry.lease)

    def _ended(self, lease: Lease, why: str) -> None:
        """A DHCP lease is over: where there is a prefix, an address is made of it, else the server is asked on."""
        entry = self._entries.get(lease.request.key)
        if entry is None:
            self._lost(lease, why)
            return
        self._end(entry, why)
        entry.asks = True
        if self._routers.link(entry.request.dev).prefix(boot()) is not None and not entry.busy:
            self._begin(entry)


def _differs(old: Lease, new: Lease) -> bool:
    """Whether there is something to tell; several routers may advertise one prefix, and prolong it in turn."""
    same = replace(new, server=old.server, acquired=old.acquired, lifetime=old.lifetime)
    if same != old:
        return True
    return new.slaac and _left(old) < _left(new) / 2


def _left(lease: Lease) -> float:
    """How long a lease lasts yet, as it was told."""
    return inf if lease.lifetime == FOREVER else lease.acquired + lease.lifetime - time.time()
