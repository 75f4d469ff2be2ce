"""Calls by gRPC, to a real etcd and to what is none."""

from __future__ import annotations

import socket
import threading
import time

import pytest

from berth.errors import Refused
from berth.store.gateway import Away, Gateway, Members, after
from berth.store.rpc import GRANT, RANGE, TXN
from store.cluster import Cluster

_LARGE = 300_000  # bytes: HTTP/2 has room for 65,535 of them before it is told of more (RFC 9113 section 6.9.2)


def test_what_is_larger_than_there_is_room_for(etcd: Cluster, prefix: str) -> None:
    gateway, keys = Gateway(etcd.where), [f"{prefix}{number}".encode() for number in range(4)]
    values = [bytes([number + 1]) * _LARGE for number in range(4)]
    for pair in zip(keys, values, strict=True):
        gateway.call(TXN, {"success": [{"request_put": dict(zip(("key", "value"), pair, strict=True))}]})
    for _ in range(3):
        found = gateway.call(RANGE, {"key": prefix.encode(), "range_end": after(prefix.encode())})["kvs"]
        assert [(each["key"], each["value"]) for each in found] == list(zip(keys, values, strict=True))
    gateway.close()


def test_a_refusal_is_told_and_the_connection_goes_on(etcd: Cluster, prefix: str) -> None:
    gateway = Gateway(etcd.where)
    put = {"request_put": {"key": prefix.encode(), "value": b"x", "lease": 12345}}
    for _ in range(2):
        with pytest.raises(Refused, match="requested lease not found"):
            gateway.call(TXN, {"success": [put]})
    assert gateway.call(GRANT, {"TTL": 60})["TTL"] == 60
    gateway.close()


def test_a_member_that_ended_since_the_last_call_is_not_asked_in_vain(own_etcd: Cluster) -> None:
    gateway = Gateway(own_etcd.where)
    gateway.call(RANGE, {"key": b"a"})
    own_etcd.kill()
    own_etcd.start()
    own_etcd.ready()
    start = time.monotonic()
    gateway.call(RANGE, {"key": b"a"})
    assert time.monotonic() - start < 2, "it is known at once that the connection is gone"
    gateway.close()


@pytest.mark.parametrize(
    "answer",
    [
        b"HTTP/1.1 400 Bad Request\r\nContent-Length: 0\r\n\r\n",
        b"",
        b"\x00\x00\x00\x04\x00\x00\x00\x00\x00" + b"\xff" * 64,  # HTTP/2's settings, and nonsense
    ],
)
def test_what_is_no_etcd(answer: bytes) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        place = listener.getsockname()

        def serve() -> None:
            with listener.accept()[0] as client:
                client.recv(1000)
                client.sendall(answer)

        server = threading.Thread(target=serve)
        server.start()
        gateway = Gateway(Members((place,)))
        gateway._away = True  # as after a call that nobody answered: each is asked once
        with pytest.raises(Away, match="does not answer"):
            gateway.call(RANGE, {"key": b"a"})
        server.join()
        gateway.close()
