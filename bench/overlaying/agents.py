"""Simulated hosts on a real etcd: each has a lease that it keeps, one endpoint, and a watch like a daemon's.

    python agents.py NETWORK HOST:PORT…

Told on stdin, a line each; each is answered by a line of JSON when it is done:
    grow N          have N of them
    deaf N          have N endpoints of hosts that do not watch, all on one lease
    change N RATE TAG   move N of their endpoints to hosts 10.TAG.…, each in a transaction, RATE a second at most
    burst N TAG     the same with a hundred in a transaction, as fast as etcd takes them
    heard           how many messages and bytes their watches have got since this was last asked, and the CPU time
What they hear they count and do not read: there is no kernel behind them. They yield to whoever wants the processor, as
their own would not be that of the hosts that are measured.
"""

from __future__ import annotations

import asyncio
import json
import os
import resource
import struct
import sys
import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import replace
from functools import partial
from ipaddress import ip_address, ip_interface, ip_network
from itertools import count

import msgspec
from hpack import Encoder

from berth import schema
from berth.errors import BerthError
from berth.model import Endpoint, HostRecord, Network, Sandbox
from berth.store import feed
from berth.store.etcd import Held
from berth.store.gateway import Gateway, Members
from berth.store.grpc import framed
from berth.store.rpc import GRANT, KEEP_ALIVE, RANGE, TXN, WATCH

_TTL, _BEAT = 60, 5  # seconds, as a daemon's
_YIELD = 19  # nice(2)
_WRITERS = 8
_AT_ONCE = 100  # operations; etcd takes 128 in a transaction
_HOSTS_AT_ONCE = 25
_FIRST = 2**14  # of the subnet's addresses
_FRAME = struct.Struct("!BHBBI")  # HTTP/2: length, type, flags, stream
_DATA, _HEADERS, _SETTINGS, _PING, _WINDOW = 0, 1, 4, 6, 8
_ANSWER, _END_HEADERS = 1, 4  # flags
_INITIAL_WINDOW, _ROOM = 4, 2**31 - 1  # a setting, bytes
_WATCH = (
    (":method", "POST"),
    (":scheme", "http"),
    (":authority", "etcd"),
    (":path", WATCH.path),
    ("te", "trailers"),
    ("content-type", "application/grpc"),
)


class Ear(asyncio.Protocol):
    """One watch, by gRPC as a daemon's: it counts.

    Of HTTP/2 (RFC 9113) it knows what keeps etcd talking: the h2 library for a thousand would take more than etcd does.
    """

    messages = 0
    size = 0

    def __init__(self, prefix: bytes) -> None:
        self._ask = framed(WATCH.asks.encode(feed.asked(prefix, 0)))
        self._held = bytearray()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Ask for the watch, and leave room for all that will ever come."""
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport
        transport.write(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n")
        self._send(_SETTINGS, 0, struct.pack("!HI", _INITIAL_WINDOW, _ROOM))
        self._send(_WINDOW, 0, struct.pack("!I", _ROOM - 65535))
        self._send(_HEADERS, _END_HEADERS, Encoder().encode(_WATCH), 1)
        self._send(_DATA, 0, self._ask, 1)

    def _send(self, kind: int, flags: int, payload: bytes, stream: int = 0) -> None:
        self._transport.write(_FRAME.pack(len(payload) >> 16, len(payload) & 0xFFFF, kind, flags, stream) + payload)

    def data_received(self, data: bytes) -> None:
        """Answer what wants an answer; each message begins a frame of its own."""
        self._held += data
        while len(self._held) >= _FRAME.size:
            high, low, kind, flags, _ = _FRAME.unpack_from(self._held)
            end = _FRAME.size + (high << 16 | low)
            if len(self._held) < end:
                return
            if kind == _DATA:
                Ear.messages += 1
                Ear.size += end
            elif kind in (_SETTINGS, _PING) and not flags & _ANSWER:
                self._send(kind, _ANSWER, bytes(self._held[_FRAME.size : end]) if kind == _PING else b"")
            del self._held[:end]

    def connection_lost(self, _: Exception | None) -> None:
        """Nobody would count any more."""
        sys.exit("agents: etcd has ended a watch")


class Agents:
    """All of them."""

    def __init__(self, net: Network, members: Sequence[tuple[str, int]]) -> None:
        self._net, self._members = net, tuple(members)
        self._first = ip_network(net.pools[0].subnet).network_address + _FIRST
        self._endpoints: list[Endpoint] = []
        self._leases: list[int] = []  # in the same order
        self._lock = threading.Lock()
        self._writers = [self._gateway(number) for number in range(_WRITERS)]
        self._pool = ThreadPoolExecutor(_WRITERS)
        threading.Thread(target=self._keep, daemon=True).start()

    async def grow(self, size: int) -> None:
        """Register hosts until there are so many."""
        new = range(len(self._endpoints), size)
        await self._register_all(new)
        for number in new:
            where = self._members[number % len(self._members)]
            await asyncio.get_running_loop().create_connection(lambda: Ear(b"/berth/seen/"), *where)

    def _gateway(self, number: int) -> Gateway:
        """A connection to one of the members, by turns."""
        return Gateway(Members((self._members[number % len(self._members)],)))

    async def deaf(self, size: int) -> None:
        """Have so many endpoints of hosts that hear nothing."""
        lease = self._grant(self._writers[0])
        await self._register_all(range(size), lease)

    def _grant(self, gateway: Gateway) -> int:
        return int(gateway.call(GRANT, {"TTL": _TTL})["ID"])

    async def _register_all(self, numbers: range, lease: int = 0) -> None:
        parts = [numbers[first : first + _HOSTS_AT_ONCE] for first in range(0, len(numbers), _HOSTS_AT_ONCE)]
        await self._spread([partial(self._register, numbers=part, lease=lease) for part in parts])
        found = sorted(zip(self._endpoints, self._leases, strict=True), key=lambda each: each[0].id)
        self._endpoints, self._leases = [ep for ep, _ in found], [lease for _, lease in found]

    def _register(self, gateway: Gateway, numbers: range, lease: int) -> None:
        found = [(self._endpoint(number), lease or self._grant(gateway)) for number in numbers]
        puts = []
        for ep, own in found:
            record = HostRecord(ep.host, ep.name, (ip_address(ep.vtep),), since="2026-01-01T00:00:00Z")
            puts += [
                _put(f"seen/host/{ep.host}", schema.dump(record), own),
                _put(f"seen/endpoint/{ep.network}/{ep.id}", schema.dump(ep), own),
                _put(f"name/{ep.network}/{ep.name}", ep.id.encode(), own),
                _put(f"held/{ep.network}/{ep.addresses[0].ip}", msgspec.json.encode(Held(ep.host, ep.id)), 0),
            ]
        gateway.call(TXN, {"success": puts})
        with self._lock:
            self._endpoints += [ep for ep, _ in found]
            self._leases += [own for _, own in found]

    def _endpoint(self, number: int) -> Endpoint:
        interface = ip_interface(f"{self._first + number}/{self._net.pools[0].subnet.prefixlen}")
        return Endpoint(
            id=f"{number:064x}",
            network=self._net.id,
            name=f"agent-{number}",
            sandbox=Sandbox(f"/run/netns/agent-{number}", f"netns:{number}"),
            link=f"bv{number:012x}",
            ifname="eth0",
            mac=self._net.mac_for("", (interface,)),
            addresses=(interface,),
            default_route=(4,),
            host=f"{number:016x}",
            vtep=_vtep(1, number),
        )

    async def change(self, size: int, rate: float, tag: int) -> float:
        """Move endpoints to another host each; the seconds that it took."""
        start = time.monotonic()
        times = [start + number / rate for number in range(size)]
        await self._spread([partial(self._move, numbers=[n], when=when, tag=tag) for n, when in enumerate(times)])
        return time.monotonic() - start

    async def burst(self, size: int, tag: int) -> float:
        """The same at once."""
        start = time.monotonic()
        parts = [range(first, min(first + _AT_ONCE, size)) for first in range(0, size, _AT_ONCE)]
        await self._spread([partial(self._move, numbers=part, when=0.0, tag=tag) for part in parts])
        return time.monotonic() - start

    def _move(self, gateway: Gateway, numbers: Sequence[int], when: float, tag: int) -> None:
        time.sleep(max(0, when - time.monotonic()))
        puts = []
        for number in numbers:
            ep = replace(self._endpoints[number % len(self._endpoints)], vtep=_vtep(tag, number))
            lease = self._leases[number % len(self._leases)]
            puts.append(_put(f"seen/endpoint/{ep.network}/{ep.id}", schema.dump(ep), lease))
        gateway.call(TXN, {"success": puts})

    async def _spread(self, work: Sequence[Callable[[Gateway], None]]) -> None:
        """Do it all, with so many writers, in order of the beginnings."""
        numbers = count()

        def some(gateway: Gateway) -> None:
            while (number := next(numbers)) < len(work):
                work[number](gateway)

        loop = asyncio.get_running_loop()
        await asyncio.gather(*(loop.run_in_executor(self._pool, some, gateway) for gateway in self._writers))

    def _keep(self) -> None:
        """Renew all leases, evenly over a beat, as their daemons would."""
        gateways = [self._gateway(number) for number in range(len(self._members))]
        while True:
            start, leases = time.monotonic(), sorted(set(self._leases))
            for number, lease in enumerate(leases):
                time.sleep(max(0, start + _BEAT * number / len(leases) - time.monotonic()))
                gateway = gateways[number % len(gateways)]
                with suppress(BerthError):  # a busy etcd: there will be a next time
                    gateway.call(KEEP_ALIVE, {"ID": lease})
            time.sleep(max(0.1, start + _BEAT - time.monotonic()))


def _vtep(tag: int, number: int) -> str:
    return f"10.{tag}.{number // 250}.{number % 250 + 1}"


def _put(key: str, data: bytes, lease: int) -> dict[str, object]:
    return {"request_put": {"key": f"/berth/{key}".encode(), "value": data, "lease": lease}}


async def main() -> None:
    """Do what is asked for until stdin ends."""
    network, *places = sys.argv[1:]
    members = [(host, int(port)) for host, _, port in (place.partition(":") for place in places)]
    os.nice(_YIELD)
    limit = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (limit, limit))
    gateway = Gateway(Members(tuple(members)))
    found = gateway.call(RANGE, {"key": f"/berth/seen/network/{network}".encode()})
    agents = Agents(schema.load_network(found["kvs"][0]["value"]), members)
    loop = asyncio.get_running_loop()
    while words := (await loop.run_in_executor(None, sys.stdin.readline)).split():
        said: object = None
        match words:
            case ["grow", size]:
                await agents.grow(int(size))
            case ["deaf", size]:
                await agents.deaf(int(size))
            case ["change", size, rate, tag]:
                said = await agents.change(int(size), float(rate), int(tag))
            case ["burst", size, tag]:
                said = await agents.burst(int(size), int(tag))
            case ["heard"]:
                said = [Ear.messages, Ear.size, time.process_time()]
                Ear.messages = Ear.size = 0
        print(json.dumps(said), flush=True)


if __name__ == "__main__":
    asyncio.run(main())
