"""gRPC over one kept HTTP/2 connection.

Source: PROTOCOL-HTTP2.md of grpc. etcd has a gateway for JSON, too: by it, a watch costs etcd three times as much for
each host that listens, and a call takes longer.
"""

from __future__ import annotations

import socket
import struct
from collections import deque
from collections.abc import Iterator
from urllib.parse import unquote

from h2.config import H2Configuration
from h2.connection import H2Connection
from h2.errors import ErrorCodes
from h2.events import (
    ConnectionTerminated,
    DataReceived,
    Event,
    ResponseReceived,
    StreamEnded,
    StreamReset,
    TrailersReceived,
)
from h2.exceptions import H2Error

_HEAD = struct.Struct("!?I")  # of each message: whether it is compressed, and its length
_CHUNK = 65536


def framed(message: bytes) -> bytes:
    """A message as it is sent."""
    return _HEAD.pack(False, len(message)) + message


class Status(Exception):
    """What was asked for is refused."""

    def __init__(self, code: int, text: str) -> None:
        super().__init__(text or f"gRPC status {code}")
        self.code = code


class Broken(Exception):
    """The connection is of no use any more."""


class Channel:
    """One connection, for one thread at a time, with one call after the other."""

    def __init__(self, sock: socket.socket, scheme: str, authority: str) -> None:
        """On a connected socket, which is closed with it."""
        self.sock = sock
        self._scheme, self._authority = scheme, authority
        self._http = H2Connection(H2Configuration(header_encoding="utf-8", validate_inbound_headers=False))
        self._http.initiate_connection()
        self._events: deque[Event] = deque()

    def close(self) -> None:
        """Hang up."""
        self.sock.close()

    def call(self, path: str, message: bytes, token: str = "") -> bytes:
        """Ask, and wait for the answer. Raises `Status`, and `OSError` or `Broken` where there is none."""
        answers = list(self.stream(path, message, token, more=False))
        if len(answers) != 1:
            raise Broken(f"{len(answers)} answers in place of one")
        return answers[0]

    def stream(self, path: str, message: bytes, token: str = "", *, more: bool = True) -> Iterator[bytes]:
        """Ask, and give the answers until they end; `more`: there might be more to ask, so that they do not.

        Raises as `call` does, and `ValueError` for a compressed answer: that was not asked for.
        """
        try:
            stream = self._http.get_next_available_stream_id()
            self._http.send_headers(stream, self._headers(path, token))
            self._send(stream, framed(message), more)
            yield from self._answers(stream)
        except H2Error as error:
            raise Broken(str(error) or type(error).__name__) from error

    def _headers(self, path: str, token: str) -> list[tuple[str, str]]:
        fixed = [
            *((":method", "POST"), (":scheme", self._scheme), (":authority", self._authority), (":path", path)),
            *(("te", "trailers"), ("content-type", "application/grpc")),
        ]
        return [*fixed, ("token", token)] if token else fixed

    def _send(self, stream: int, data: bytes, more: bool) -> None:
        """As much at a time as the other end has room for."""
        while data:
            size = min(len(data), self._http.local_flow_control_window(stream), self._http.max_outbound_frame_size)
            if size:
                self._http.send_data(stream, data[:size], end_stream=not more and size == len(data))
                data = data[size:]
            else:
                self._receive()
        self._flush()

    def _answers(self, stream: int) -> Iterator[bytes]:
        held = bytearray()
        while True:
            while self._events:
                event = self._events.popleft()
                if isinstance(event, ConnectionTerminated):
                    raise Broken(f"the other end goes, HTTP/2 code {int(event.error_code or 0)}")
                if getattr(event, "stream_id", None) != stream:
                    continue  # of the connection itself, or of an earlier call
                if isinstance(event, DataReceived):
                    held += event.data
                    yield from _whole(held)
                elif isinstance(event, StreamEnded):
                    return
                else:
                    _check(event)
            self._receive()

    def _receive(self) -> None:
        """Wait for something; what the other end is to be told of it goes with what is sent or waited for next."""
        self._flush()
        data = self.sock.recv(_CHUNK)
        if not data:
            raise Broken("the connection was closed")
        for event in self._http.receive_data(data):
            if isinstance(event, DataReceived):
                self._http.acknowledge_received_data(event.flow_controlled_length, event.stream_id)
            self._events.append(event)

    def _flush(self) -> None:
        if data := self._http.data_to_send():
            self.sock.sendall(data)


def _check(event: Event) -> None:
    """Raises `Status` or `Broken` where that is the end of a call."""
    if isinstance(event, TrailersReceived | ResponseReceived):
        said = {str(name): str(value) for name, value in event.headers}
        if said.get(":status", "200") != "200":
            raise Broken(f"HTTP status {said[':status']}")
        if (code := said.get("grpc-status", "0")) != "0":
            raise Status(int(code) if code.isdecimal() else 2, unquote(said.get("grpc-message", "")))
    elif isinstance(event, StreamReset):
        raise Broken(f"the call was ended, HTTP/2 code {int(event.error_code or ErrorCodes.NO_ERROR)}")


def _whole(held: bytearray) -> Iterator[bytes]:
    """Take the messages that have come whole."""
    while len(held) >= _HEAD.size:
        compressed, size = _HEAD.unpack_from(held)
        if compressed:
            raise ValueError("gRPC: a compressed message")
        if len(held) < _HEAD.size + size:
            return
        message = bytes(held[_HEAD.size : _HEAD.size + size])
        del held[: _HEAD.size + size]
        yield message
