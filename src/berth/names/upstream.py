"""Asking others for what Berth does not know, and remembering what they said for as long as they allow."""

from __future__ import annotations

import asyncio
import secrets
import struct
import time
from collections import OrderedDict
from collections.abc import Sequence
from contextlib import suppress

from berth.names.message import NXDOMAIN, SERVFAIL, Query, answer, answers, fitted, lives, outcome, truncated

PATIENCE = 2  # seconds for one server; clients wait for five
_IN_FLIGHT = 512
_REMEMBERED = 4096  # answers
_LONGEST = 3600  # seconds that an answer is remembered, whatever it says
_LONGEST_NO = 60  # seconds that a "no" is
_ASIDE = 10  # seconds that a server which did not answer is asked last
_PORT = 53


class Upstream:
    """The servers beyond; one for all who ask."""

    def __init__(self) -> None:
        self._flying = 0
        self._failed: dict[str, float] = {}
        self._cache: OrderedDict[tuple[tuple[str, ...], bytes], tuple[float, bytes, tuple[int, ...]]] = OrderedDict()

    async def ask(self, query: Query, servers: Sequence[str], *, stream: bool, room: int) -> bytes:
        """An answer of at most `room` bytes, by UDP, or by TCP for `stream`; "failed" where nobody gives one."""
        where = (tuple(servers), query.key)
        reply = self._remembered(where)
        if reply is None:
            reply = await self._fetch(query, servers, stream=stream)
            if reply is None:
                return answer(query, (), code=SERVFAIL, ttl=0)
            self._remember(where, query, reply)
        return fitted(query, reply, room)

    async def _fetch(self, query: Query, servers: Sequence[str], *, stream: bool) -> bytes | None:
        if self._flying >= _IN_FLIGHT:
            return None
        self._flying += 1
        try:
            now = time.monotonic()
            for server in sorted(servers, key=lambda each: self._failed.get(each, -_ASIDE) > now - _ASIDE):
                with suppress(OSError, TimeoutError, EOFError):
                    async with asyncio.timeout(PATIENCE):
                        reply = await (_by_stream if stream else _by_datagram)(query, server)
                    self._failed.pop(server, None)
                    if outcome(reply) != SERVFAIL or server == servers[-1]:
                        return reply
                    continue
                self._failed[server] = time.monotonic()
            return None
        finally:
            self._flying -= 1

    def _remembered(self, where: tuple[tuple[str, ...], bytes]) -> bytes | None:
        known = self._cache.get(where)
        if known is None:
            return None
        since, reply, offsets = known
        age = int(time.monotonic() - since)
        if any(struct.unpack_from("!I", reply, at)[0] <= age for at in offsets):
            del self._cache[where]
            return None
        self._cache.move_to_end(where)
        aged = bytearray(reply)
        for at in offsets:
            struct.pack_into("!I", aged, at, struct.unpack_from("!I", reply, at)[0] - age)
        return bytes(aged)

    def _remember(self, where: tuple[tuple[str, ...], bytes], query: Query, reply: bytes) -> None:
        """Keep an answer that says how long it holds."""
        if truncated(reply) or outcome(reply) not in (0, NXDOMAIN):
            return
        try:
            offsets = lives(query, reply)
        except ValueError:
            return
        if not offsets:
            return
        longest = _LONGEST if reply[6:8] != b"\0\0" else _LONGEST_NO
        bounded = bytearray(reply)
        for at in offsets:
            struct.pack_into("!I", bounded, at, min(longest, struct.unpack_from("!I", reply, at)[0]))
        self._cache[where] = (time.monotonic(), bytes(bounded), offsets)
        if len(self._cache) > _REMEMBERED:
            self._cache.popitem(last=False)


class _One(asyncio.DatagramProtocol):
    """Waits for the answer to one query, on a socket of its own: its port is as hard to guess as its id."""

    def __init__(self, query: Query, ident: bytes) -> None:
        self.reply: asyncio.Future[bytes] = asyncio.get_running_loop().create_future()
        self._query = query
        self._ident = ident

    def datagram_received(self, data: bytes, _: object) -> None:
        if not self.reply.done() and answers(self._query, self._ident, data):
            self.reply.set_result(data)

    def error_received(self, error: Exception) -> None:
        if not self.reply.done():
            self.reply.set_exception(error)


async def _by_datagram(query: Query, server: str) -> bytes:
    ident = secrets.token_bytes(2)
    loop = asyncio.get_running_loop()
    transport, one = await loop.create_datagram_endpoint(lambda: _One(query, ident), remote_addr=(server, _PORT))
    try:
        transport.sendto(query.onward(ident))
        return await one.reply
    finally:
        transport.close()


async def _by_stream(query: Query, server: str) -> bytes:
    ident = secrets.token_bytes(2)
    reader, writer = await asyncio.open_connection(server, _PORT)
    try:
        asked = query.onward(ident)
        writer.write(struct.pack("!H", len(asked)) + asked)
        (length,) = struct.unpack("!H", await reader.readexactly(2))
        reply = await reader.readexactly(length)
    finally:
        writer.close()
    if not answers(query, ident, reply):
        raise EOFError("it answered something else")
    return reply
