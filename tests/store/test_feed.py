"""A watch by gRPC, from a real etcd."""

from __future__ import annotations

import socket
import threading
from itertools import islice

import pytest

from berth.store.feed import Change, watch
from berth.store.gateway import Away, Compacted, Gateway, Members
from berth.store.rpc import TXN
from store.cluster import Cluster

_MANY, _SIZE = 300, 4000  # changes, bytes: many times what HTTP/2 sends before it is told that there is room


def _put(gateway: Gateway, key: str, value: bytes) -> int:
    put = {"request_put": {"key": key.encode(), "value": value}}
    return int(gateway.call(TXN, {"success": [put]})["header"]["revision"])


def test_every_change_comes_once_and_in_order(etcd: Cluster, prefix: str) -> None:
    gateway, listening = Gateway(etcd.where), Gateway(etcd.where)
    wanted = []
    for number in range(_MANY):
        key, value = f"{prefix}{number}", bytes([number % 251]) * _SIZE
        wanted.append(Change(key.encode(), value, _put(gateway, key, value), gone=False))
    told = gateway.call(TXN, {"success": [{"request_delete_range": {"key": f"{prefix}0".encode()}}]})
    wanted.append(Change(f"{prefix}0".encode(), b"", told["header"]["revision"], gone=True))
    news = watch(listening, prefix.encode(), wanted[0].revision, [])
    heard = (change for each in news for change in each.changes)
    assert list(islice(heard, len(wanted))) == wanted
    _put(gateway, f"{prefix}later", b"x")
    assert next(heard).value == b"x"
    gateway.close()
    listening.close()


def test_from_what_is_compacted(own_etcd: Cluster) -> None:
    gateway = Gateway(own_etcd.where)
    for number in range(5):
        last = _put(gateway, "/a", b"%d" % number)
    own_etcd.ctl("compact", str(last))
    with pytest.raises(Compacted, match=str(last)):
        list(watch(gateway, b"/a", 2, []))
    gateway.close()


def test_who_hangs_up_ends_it(etcd: Cluster, prefix: str) -> None:
    gateway = Gateway(etcd.where)
    opened: list[socket.socket] = []
    news = watch(gateway, prefix.encode(), 0, opened)
    assert next(news).changes == ()
    threading.Timer(0.2, lambda: opened[0].shutdown(socket.SHUT_RDWR)).start()
    with pytest.raises(Away):
        next(news)
    gateway.close()


def test_no_http2_is_no_etcd() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        place = listener.getsockname()

        def answer() -> None:
            with listener.accept()[0] as client:
                client.recv(1000)
                client.sendall(b"HTTP/1.1 400 Bad Request\r\nContent-Length: 0\r\n\r\n")

        threading.Thread(target=answer, daemon=True).start()
        gateway = Gateway(Members((place,)))
        with pytest.raises(Away, match="does not answer"):
            next(watch(gateway, b"/", 0, []))
        gateway.close()
