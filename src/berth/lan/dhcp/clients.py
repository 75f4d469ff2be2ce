"""All DHCP leases of one host, in one asyncio loop: the clock, the sockets and whoever waits for a lease."""

from __future__ import annotations

import asyncio
import contextlib
import heapq
import logging
import time
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field, replace
from functools import partial
from math import inf
from random import Random

from berth.errors import BerthError, Refused
from berth.lan.dhcp import machine
from berth.lan.dhcp.frames import Datagram
from berth.lan.dhcp.machine import Bound, Checked, Event, Gone, Heard, Now, Probe, Send, Stage
from berth.lan.dhcp.messages import Message
from berth.lan.dhcp.mux import Mux
from berth.lan.dhcp.speech import SPEECH
from berth.lan.dhcp6 import asking as asking6
from berth.lan.dhcp6.asking import Information
from berth.lan.dhcp6.mux import Mux6
from berth.model import Address, Lease, LeaseRequest

#: Asks a LAN who has an address; calls the last when the question is out.
Check = Callable[[LeaseRequest, Address, Callable[[], None]], Awaitable[str | None]]

_AT_ONCE = 2  # exchanges on one LAN: dnsmasq offers several clients the same address, and refuses all but one
_TURN = 0.3  # seconds that a slow or missing server may keep the others waiting
_AWAKE = 0.01  # seconds within which a machine that is awake says that it has an address
_REPEAT = 1.0  # seconds between two questions of `inform`
_LOOK = 30.0  # seconds: the loop's own clock stands still while the machine sleeps, the leases' does not
_log = logging.getLogger("berth.lan")


@dataclass(slots=True, eq=False)
class _Entry:
    """One client, and who waits for it."""

    client: machine.Client
    first: asyncio.Future[Lease] | None = None
    settled: asyncio.Event = field(default_factory=asyncio.Event)
    tasks: set[asyncio.Task[None]] = field(default_factory=set)


class Clients:
    """Asks for leases of either IP version, keeps them and gives them back; all in the thread of the running loop.

    `changed` is told of every prolonged, changed or regained lease, to be stored; `lost` of one that is over, whose
    address must not be used any more. The client then goes on asking, and `changed` has what it gets. `check` says who
    holds an address (a MAC; None: nobody) before it is used for the first time; who does is told to the server.
    """

    def __init__(
        self, changed: Callable[[Lease], None], lost: Callable[[Lease, str], None], check: Check | None = None
    ) -> None:
        self._changed, self._lost, self._check = changed, lost, check
        self._entries: dict[str, _Entry] = {}
        self._by_xid: dict[tuple[str, int, str], _Entry] = {}
        self._asked: dict[tuple[str, int, str], asyncio.Future[Message]] = {}
        self._leases: dict[str, Lease] = {}
        self._muxes: dict[tuple[str, int], Mux | Mux6] = {}
        self._gates: dict[tuple[str, int], asyncio.Semaphore] = {}
        self._heap: list[tuple[float, int, _Entry]] = []
        self._pushed = 0
        self._timer: asyncio.TimerHandle | None = None
        self._chance = Random()

    async def acquire(self, request: LeaseRequest, timeout: float = 10) -> Lease:
        """A lease, the one in force where the same is asked again.

        Raises `Refused` after `timeout` seconds, saying who did what; `NotFound` (no such bridge); `Denied`.
        """
        held = self._leases.get(request.key)
        if held is not None and held.request == request:
            return held
        self._mux(request)
        self._drop(request.key)
        entry = _Entry(machine.begin(request), asyncio.get_running_loop().create_future())
        self._entries[request.key] = entry
        try:
            async with asyncio.timeout(timeout):
                return await self._first(entry)
        except TimeoutError:
            trouble = entry.client.trouble or f"no DHCP server answers on {request.dev} within {timeout:g} s"
            raise Refused(trouble) from None
        except asyncio.CancelledError:
            task = asyncio.current_task()
            if task is not None and task.cancelling():
                raise
            raise Refused(f"the DHCP client of {request.key} was ended while it asked on {request.dev}") from None
        finally:
            if self._entries.get(request.key) is entry and request.key not in self._leases:
                self._farewell(entry)
                self._drop(request.key)

    def resume(self, lease: Lease) -> None:
        """Go on with a lease that another process acquired: it is in force until a server or its time says otherwise.

        Raises `NotFound` (no such bridge) and `Denied`.
        """
        self._mux(lease.request)
        self._drop(lease.request.key)
        entry = _Entry(machine.resume(lease, _now()))
        self._entries[lease.request.key] = entry
        self._leases[lease.request.key] = lease
        self._wake_later(entry)

    async def release(self, key: str, *, tell: bool = True) -> None:
        """End a lease; `tell` says so to the server, which else keeps it for this client until its time is over."""
        entry = self._entries.get(key)
        if entry is not None and tell:
            self._farewell(entry)
        self._drop(key)

    def update(self, request: LeaseRequest) -> None:
        """Say something else (a host name) of a client that is there: a renewal with it begins at once."""
        if (entry := self._entries.get(request.key)) is not None:
            if (held := self._leases.get(request.key)) is not None:
                self._leases[request.key] = replace(held, request=request)
            self._step(entry, machine.Changed(request))

    async def inform(self, dev: str, client_id: bytes, timeout: float = 10) -> Information:
        """What a DHCPv6 server says to who has an address from router advertisements (stateless DHCPv6).

        Raises `Refused` after `timeout` seconds, and what `acquire` does.
        """
        mux = self._mux(LeaseRequest("", dev, "", client_id, version=6))
        xid, answer = self._chance.getrandbits(24), asyncio.get_running_loop().create_future()
        place = dev, xid, client_id[5:].hex()
        self._asked[place] = answer
        try:
            async with asyncio.timeout(timeout):
                while not answer.done():
                    mux.send(Datagram(asking6.information(client_id[5:], xid), ""))
                    await asyncio.wait((answer,), timeout=_REPEAT)
                return asking6.informed(answer.result())
        except TimeoutError:
            raise Refused(f"no DHCPv6 server answers on {dev} within {timeout:g} s") from None
        finally:
            del self._asked[place]

    def leases(self) -> Mapping[str, Lease]:
        """The leases in force, by their requests' keys."""
        return self._leases

    def close(self) -> None:
        """Stop without a word to any server: the leases stay, for `resume`."""
        for key in list(self._entries):
            self._drop(key)
        for mux in self._muxes.values():
            mux.close()
        self._muxes.clear()
        if self._timer is not None:
            self._timer.cancel()

    async def _first(self, entry: _Entry) -> Lease:
        first = entry.first
        assert first is not None
        gate = self._gates.setdefault(_lan(entry.client.request), asyncio.Semaphore(_AT_ONCE))
        async with gate:
            if not first.done():
                self._step(entry, machine.Woken())
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(entry.settled.wait(), _TURN)
        return await first

    def _step(self, entry: _Entry, event: Event) -> None:
        """Let something happen to a client, and carry out what follows."""
        before = entry.client
        key = before.request.key
        entry.client, actions = machine.step(before, event, _now(), self._chance)
        self._index(entry, before)
        if entry.client.stage in (Stage.CHECKING, Stage.BOUND):
            entry.settled.set()
        if isinstance(event, machine.Woken) or entry.client.wake != before.wake:
            self._wake_later(entry)
        for action in actions:
            match action:
                case Send(datagram):
                    self._send(entry, datagram)
                case Probe(address):
                    task = asyncio.ensure_future(self._probe(entry, address))
                    entry.tasks.add(task)
                    task.add_done_callback(entry.tasks.discard)
                case Bound(lease):
                    self._leases[key] = lease
                    self._tell(entry, lease)
                case Gone(lease, reason):
                    self._leases.pop(key, None)
                    self._lost(lease, reason)

    def _send(self, entry: _Entry, datagram: Datagram) -> None:
        """Send; a bridge that is down or gone is a trouble like a server that is: the client tries again."""
        try:
            self._mux(entry.client.request).send(datagram)
        except BerthError as error:
            entry.client = replace(entry.client, trouble=str(error))

    def _tell(self, entry: _Entry, lease: Lease) -> None:
        if entry.first is None:
            self._changed(lease)
        elif not entry.first.done():
            entry.first.set_result(lease)
        entry.first = None

    async def _probe(self, entry: _Entry, address: Address) -> None:
        request = entry.client.request
        holder = None
        if self._check is not None and request.conflict != "off":
            try:
                holder = await self._asked_lan(self._check, entry, address)
            except BerthError as error:
                _log.warning("%s on %s is used unchecked: %s", address, request.dev, error)
        if self._entries.get(request.key) is entry:
            self._step(entry, Checked(address, holder))

    async def _asked_lan(self, check: Check, entry: _Entry, address: Address) -> str | None:
        """Who has an address; meanwhile the client hears that nobody awake has it, for who may use it early."""
        request, loop, sent = entry.client.request, asyncio.get_running_loop(), asyncio.Event()

        def out() -> None:
            loop.call_soon_threadsafe(sent.set)

        asking = asyncio.ensure_future(check(request, address, out))
        asked = asyncio.ensure_future(sent.wait())
        try:
            await asyncio.wait({asking, asked}, return_when=asyncio.FIRST_COMPLETED)
            if request.early and sent.is_set():
                await asyncio.wait({asking}, timeout=_AWAKE)
                if not asking.done() and self._entries.get(request.key) is entry:
                    self._step(entry, Checked(address, None, final=False))
            return await asking
        finally:
            asked.cancel()
            asking.cancel()

    def _farewell(self, entry: _Entry) -> None:
        if (datagram := machine.farewell(entry.client, self._chance)) is not None:
            self._send(entry, datagram)

    def _drop(self, key: str) -> None:
        self._leases.pop(key, None)
        entry = self._entries.pop(key, None)
        if entry is None:
            return
        self._by_xid.pop(_place(entry.client), None)
        for task in entry.tasks:
            task.cancel()
        entry.settled.set()
        if entry.first is not None:
            entry.first.cancel()

    def _mux(self, request: LeaseRequest) -> Mux | Mux6:
        lan = _lan(request)
        if lan not in self._muxes:
            self._muxes[lan] = (Mux6 if request.version == 6 else Mux)(request.dev, partial(self._heard, request.dev))
        return self._muxes[lan]

    def _heard(self, dev: str, message: Message, mac: str) -> None:
        place = dev, message.xid, message.mac
        if (entry := self._by_xid.get(place)) is not None:
            self._step(entry, Heard(message, mac))
        elif (answer := self._asked.get(place)) is not None and not answer.done():
            answer.set_result(message)

    def _index(self, entry: _Entry, before: machine.Client) -> None:
        if (old := _place(before)) != (new := _place(entry.client)):
            self._by_xid.pop(old, None)
            self._by_xid[new] = entry

    def _wake_later(self, entry: _Entry) -> None:
        """Put the client on the heap. What it stood there for before is left, and passed over when its time comes."""
        if entry.client.wake == inf:
            return
        self._pushed += 1
        heapq.heappush(self._heap, (entry.client.wake, self._pushed, entry))
        if self._heap[0][2] is entry:
            self._set_timer()

    def _set_timer(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        if self._heap:
            pause = min(max(self._heap[0][0] - _now().boot, 0.0), _LOOK)
            self._timer = asyncio.get_running_loop().call_later(pause, self._ring)

    def _ring(self) -> None:
        now = _now().boot
        try:
            while self._heap and self._heap[0][0] <= now:
                wake, _, entry = heapq.heappop(self._heap)
                current = self._entries.get(entry.client.request.key) is entry
                if current and entry.client.wake == wake:
                    self._step(entry, machine.Woken())
        finally:  # a listener that fails does not stop the clock of the others
            self._set_timer()


def _lan(request: LeaseRequest) -> tuple[str, int]:
    return request.dev, request.version


def _place(client: machine.Client) -> tuple[str, int, str]:
    """What tells a client's replies from all others'."""
    return client.request.dev, client.xid, SPEECH[client.request.version].place(client.request)


def _now() -> Now:
    return Now(time.clock_gettime(time.CLOCK_BOOTTIME), time.time())
