"""Answering at one place: its two sockets, served by the loop that made it."""

from __future__ import annotations

import asyncio
import socket
import struct
from collections.abc import Callable, Coroutine
from contextlib import suppress
from ipaddress import ip_address
from typing import Any

from berth.model import Subnet
from berth.names.message import NXDOMAIN, REFUSED, Query, Unreadable, answer, outcome, parse
from berth.names.records import View, told
from berth.names.upstream import Upstream

_AT_ONCE = 64  # datagrams a wake-up: others have their turn then
_CONNECTIONS = 32  # a place
_IDLE = 10  # seconds for a client's next query
_WHOLE = 65535

See = Callable[[], View]
Servers = Callable[[], tuple[str, ...]]


class Server:
    """Answers at one place until it is closed."""

    def __init__(
        self, sockets: tuple[socket.socket, socket.socket], see: See, servers: Servers, upstream: Upstream,
        sources: tuple[Subnet, ...],
    ) -> None:  # fmt: skip
        """`sockets`: UDP and TCP, bound; `see`: what who asks may know; `servers`: the host's own, for the rest."""
        self._datagrams, self._listening = sockets
        self._see = see
        self._servers = servers
        self._upstream = upstream
        self._sources = sources
        self._turn = 0
        self._tasks: set[asyncio.Task[None]] = set()
        self._connections = 0
        self._loop = asyncio.get_running_loop()
        self._loop.add_reader(self._datagrams, self._heard)
        self._loop.add_reader(self._listening, self._called)

    def close(self) -> None:
        """Let go of the sockets: they would keep a sandbox alive."""
        for listening in (self._datagrams, self._listening):
            self._loop.remove_reader(listening)
            listening.close()
        for task in self._tasks:
            task.cancel()

    def _heard(self) -> None:
        for _ in range(_AT_ONCE):
            try:
                data, client = self._datagrams.recvfrom(4096)
            except OSError:  # nothing left, or word of a client that is gone
                return
            if self._welcome(client[0]):
                self._take(data, client)

    def _take(self, data: bytes, client: tuple[str, int]) -> None:
        try:
            query = parse(data)
        except Unreadable as error:
            self._send(error.answer, client)
            return
        said = self._known(query, query.room)
        if said is None:
            self._begin(self._relay(query, client))
        else:
            self._send(said, client)

    def _known(self, query: Query, room: int) -> bytes | None:
        """What can be said at once."""
        seen = self._see()
        self._turn += 1
        said = told(seen, query, self._turn, room)
        if said is None and seen.upstream is None:
            return answer(query, (), code=NXDOMAIN if seen.ours(query.name) else REFUSED, ttl=0)
        return said

    async def _relay(self, query: Query, client: tuple[str, int]) -> None:
        self._send(await self._ask(query, stream=False, room=query.room), client)

    async def _ask(self, query: Query, *, stream: bool, room: int) -> bytes:
        seen = self._see()
        reply = await self._upstream.ask(query, seen.upstream or self._servers(), stream=stream, room=room)
        if outcome(reply) == REFUSED and seen.ours(query.name):
            return answer(query, (), code=NXDOMAIN, ttl=0)
        return reply

    def _send(self, data: bytes, client: tuple[str, int]) -> None:
        if data:
            with suppress(OSError):  # a client that is gone, or whose socket is full, asks again
                self._datagrams.sendto(data, client)

    def _welcome(self, client: str) -> bool:
        if not self._sources:
            return True
        address = ip_address(client.partition("%")[0])
        return any(address in subnet for subnet in self._sources)

    def _called(self) -> None:
        try:
            connection, client = self._listening.accept()
        except OSError:
            return
        if self._connections >= _CONNECTIONS or not self._welcome(client[0]):
            connection.close()
            return
        connection.setblocking(False)
        self._begin(self._converse(connection))

    def _begin(self, work: Coroutine[Any, Any, None]) -> None:
        task = self._loop.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _converse(self, connection: socket.socket) -> None:
        """Answer one client's queries, one after the other, each behind its length (RFC 1035 section 4.2.2)."""
        self._connections += 1
        try:
            reader, writer = await asyncio.open_connection(sock=connection)
            with suppress(OSError, TimeoutError, EOFError, Unreadable):
                while True:
                    async with asyncio.timeout(_IDLE):
                        (length,) = struct.unpack("!H", await reader.readexactly(2))
                        query = parse(await reader.readexactly(length))
                    said = self._known(query, _WHOLE)
                    if said is None:
                        said = await self._ask(query, stream=True, room=_WHOLE)
                    writer.write(struct.pack("!H", len(said)) + said)
                    async with asyncio.timeout(_IDLE):
                        await writer.drain()
            writer.close()
        finally:
            self._connections -= 1
            connection.close()
