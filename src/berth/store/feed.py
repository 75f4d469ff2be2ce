"""etcd's watch, by gRPC: a watch by the JSON gateway costs etcd three times as much for each host that listens.

Sources: gRPC over HTTP/2 (PROTOCOL-HTTP2.md of grpc), etcdserverpb/rpc.proto and mvccpb/kv.proto of etcd 3.4.
"""

from __future__ import annotations

import contextlib
import socket
import struct
from collections.abc import Iterable, Iterator
from typing import NamedTuple

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

from berth.store.gateway import Away, Compacted, Failing, Gateway, after, authority, reason
from berth.store.protobuf import Value, field, fields

PATH = "/etcdserverpb.Watch/Watch"
_HEAD = struct.Struct("!?I")  # of each message: whether it is compressed, and its length
_CHUNK = 65536
# Numbers of fields
_CREATE, _KEY, _END, _START = 1, 1, 2, 3  # in WatchRequest; in its WatchCreateRequest
_HEADER, _CANCELED, _COMPACTED, _REASON, _EVENTS = 1, 4, 5, 6, 11  # in WatchResponse
_REVISION = 3  # in ResponseHeader
_KIND, _PAIR = 1, 2  # in Event
_PAIR_KEY, _PAIR_REVISION, _PAIR_VALUE = 1, 3, 5  # in KeyValue


class Change(NamedTuple):
    """What became of a key."""

    key: bytes
    value: bytes
    revision: int  # of the change
    gone: bool


class News(NamedTuple):
    """One message of a watch."""

    revision: int  # of etcd, when it said so
    changes: tuple[Change, ...]


def watch(gateway: Gateway, prefix: bytes, revision: int, opened: list[socket.socket]) -> Iterator[News]:
    """What happens below a prefix from a revision on, without end. Takes the gateway's member, user and certificates.

    `opened` gets the socket, so that another thread can end the waiting by shutting it down.
    Raises `Compacted`, and `Away` when the member goes or does not want to.
    """
    try:
        with contextlib.closing(gateway.dial("h2")) as sock:
            _keep_alive(sock)
            opened[:] = [sock]
            for message in _messages(sock, gateway, asked(prefix, revision)):
                sock.settimeout(None)
                yield _news(message, gateway.where.url)
    except (OSError, H2Error, ValueError, Failing) as error:
        gateway.next()
        raise Away(f"etcd at {gateway.where.url} does not answer ({reason(error)})") from None


def asked(prefix: bytes, revision: int) -> bytes:
    """The message that asks for it; a revision of 0 is from now on."""
    create = field(_KEY, prefix) + field(_END, after(prefix)) + field(_START, revision)
    request = field(_CREATE, create)
    return _HEAD.pack(False, len(request)) + request


def _messages(sock: socket.socket, gateway: Gateway, request: bytes) -> Iterator[bytes]:
    """Ask, and give what is answered. Raises `Failing` when that ends."""
    link = H2Connection(H2Configuration(header_encoding="utf-8"))
    link.initiate_connection()
    stream = link.get_next_available_stream_id()
    link.send_headers(stream, _headers(gateway))
    link.send_data(stream, request)
    sock.sendall(link.data_to_send())
    held = bytearray()
    while data := sock.recv(_CHUNK):
        for event in link.receive_data(data):
            if isinstance(event, DataReceived):
                held += event.data
                link.acknowledge_received_data(event.flow_controlled_length, stream)
            else:
                _still(event)
        if answer := link.data_to_send():
            sock.sendall(answer)
        yield from _whole(held)
    raise Failing("the connection was closed")


def _headers(gateway: Gateway) -> Iterable[tuple[str, str]]:
    yield ":method", "POST"
    yield ":scheme", "https" if gateway.where.tls else "http"
    yield ":authority", authority(gateway.place)
    yield ":path", PATH
    yield "te", "trailers"
    yield "content-type", "application/grpc"
    if gateway.token:
        yield "token", gateway.token


def _still(event: Event) -> None:
    """Raises `Failing` where this is the end of the watch."""
    if isinstance(event, TrailersReceived | ResponseReceived):
        said = {str(name): str(value) for name, value in event.headers}
        if said.get(":status", "200") != "200":
            raise Failing(f"HTTP status {said[':status']}")
        if said.get("grpc-status", "0") != "0":
            raise Failing(said.get("grpc-message") or f"gRPC status {said['grpc-status']}")
    elif isinstance(event, StreamEnded | StreamReset | ConnectionTerminated):
        code = getattr(event, "error_code", None) or ErrorCodes.NO_ERROR
        raise Failing(f"the watch was ended, HTTP/2 code {int(code)}")


def _whole(held: bytearray) -> Iterator[bytes]:
    """Take the messages that have come whole. Raises `ValueError` for a compressed one: that was not asked for."""
    while len(held) >= _HEAD.size:
        compressed, size = _HEAD.unpack_from(held)
        if compressed:
            raise ValueError("gRPC: a compressed message")
        if len(held) < _HEAD.size + size:
            return
        message = bytes(held[_HEAD.size : _HEAD.size + size])
        del held[: _HEAD.size + size]
        yield message


def _news(message: bytes, url: str) -> News:
    changes, said = list[Change](), dict[int, Value]()
    for number, value in fields(message):
        if number == _EVENTS:
            changes.append(_change(_bytes(value)))
        else:
            said[number] = value
    if said.get(_CANCELED):
        if compacted := said.get(_COMPACTED):
            raise Compacted(f"etcd at {url} no longer keeps what came before revision {compacted!r}")
        raise Failing(_bytes(said.get(_REASON, b"")).decode(errors="replace") or "the watch was cancelled")
    header = dict(fields(_bytes(said.get(_HEADER, b""))))
    return News(_number(header.get(_REVISION, 0)), tuple(changes))


def _change(event: bytes) -> Change:
    said = dict(fields(event))
    pair = dict(fields(_bytes(said.get(_PAIR, b""))))
    return Change(
        _bytes(pair.get(_PAIR_KEY, b"")),
        _bytes(pair.get(_PAIR_VALUE, b"")),
        _number(pair.get(_PAIR_REVISION, 0)),
        gone=bool(said.get(_KIND, 0)),
    )


def _bytes(value: Value) -> bytes:
    if isinstance(value, int):
        raise ValueError("protobuf: a number in place of bytes")
    return value


def _number(value: Value) -> int:
    if isinstance(value, bytes):
        raise ValueError("protobuf: bytes in place of a number")
    return value


def _keep_alive(sock: socket.socket) -> None:
    """A watch may have nothing to say for days: so the kernel asks whether the member is still there."""
    for level, option, value in (
        (socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1),
        (socket.IPPROTO_TCP, socket.TCP_KEEPIDLE, 5),
        (socket.IPPROTO_TCP, socket.TCP_KEEPINTVL, 3),
        (socket.IPPROTO_TCP, socket.TCP_KEEPCNT, 3),
    ):
        with contextlib.suppress(OSError):
            sock.setsockopt(level, option, value)
