"""Both ends of what is measured: a server in a container's place, and clients of the host's."""

from __future__ import annotations

import os
import resource
import selectors
import signal
import socket
import struct
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress

BLOCK = 1 << 18  # bytes, of one call
_ASK = struct.Struct("=cQ")  # what a client wants: "d" bytes, "u" take bytes, "e" echo
_PATIENCE = 60
_RESET = struct.pack("ii", 1, 0)


@contextmanager
def in_process(work: Callable[[], None]) -> Iterator[int]:
    """Work done in a process of its own, until the block ends."""
    pid = os.fork()
    if not pid:
        try:
            work()
        finally:
            os._exit(1)
    try:
        yield pid
    finally:
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)


def serve(server: socket.socket) -> None:
    """Do for each connection what it asks; each that moves much has a process of its own."""
    resource.setrlimit(resource.RLIMIT_NOFILE, (resource.getrlimit(resource.RLIMIT_NOFILE)[1],) * 2)
    signal.signal(signal.SIGCHLD, _reap)
    waiting = selectors.DefaultSelector()
    waiting.register(server, selectors.EVENT_READ)
    while True:
        for key, _ in waiting.select():
            connection = key.fileobj
            assert isinstance(connection, socket.socket)
            if connection is server:
                waiting.register(server.accept()[0], selectors.EVENT_READ)
            elif not _answer(connection):
                waiting.unregister(connection)
                connection.close()


def _reap(*_: object) -> None:
    """Take note of children that have ended: their CPU time is the server's then."""
    with suppress(ChildProcessError):
        while os.waitpid(-1, os.WNOHANG)[0]:
            pass


def _answer(connection: socket.socket) -> bool:
    """Whether the connection stays."""
    try:
        asked = connection.recv(_ASK.size)
        if len(asked) < _ASK.size:
            return False
        kind, size = _ASK.unpack(asked)
        if kind == b"e":
            connection.send(b"!")
            return True
    except OSError:
        return False
    if not os.fork():
        try:
            send(connection, size) if kind == b"d" else take(connection, size)
            connection.shutdown(socket.SHUT_WR)
        finally:
            os._exit(0)
    return False


def send(connection: socket.socket, size: int) -> None:
    """Send so many bytes."""
    data = memoryview(bytes(BLOCK))
    while size > 0:
        size -= connection.send(data[: min(size, BLOCK)])


def take(connection: socket.socket, size: int) -> None:
    """Receive so many bytes. Raises `ConnectionError` if there are fewer."""
    data = bytearray(BLOCK)
    while size > 0:
        came = connection.recv_into(data)
        if not came:
            raise ConnectionError("the connection ended too early")
        size -= came


def move(port: int, kind: str, size: int, streams: int) -> float:
    """Seconds that so many bytes take through so many connections at once, one process each."""
    start = time.perf_counter()
    clients = []
    for _ in range(streams):
        pid = os.fork()
        if not pid:
            status = 1
            try:
                _move(port, kind, size // streams)
                status = 0
            finally:
                os._exit(status)
        clients.append(pid)
    if any(os.waitpid(pid, 0)[1] for pid in clients):
        raise ConnectionError(f"bytes were lost on port {port}")
    return time.perf_counter() - start


def _move(port: int, kind: str, size: int) -> None:
    with _connect(port) as client:
        client.sendall(_ASK.pack(kind.encode(), size))
        if kind == "d":
            take(client, size)
        else:
            send(client, size)
        client.recv(1)  # its end


def ask(port: int, times: int) -> float:
    """Seconds that so many connections take, one after the other, each with a question and an answer."""
    question = _ASK.pack(b"e", 0)
    start = time.perf_counter()
    for _ in range(times):
        with _connect(port) as client:
            client.sendall(question)
            client.recv(1)
            client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET)  # none waits behind it
    return time.perf_counter() - start


def hold(port: int, number: int) -> list[socket.socket]:
    """So many connections that have had an answer and say nothing more."""
    held: list[socket.socket] = []
    for _ in range(number):
        client = _connect(port)
        client.sendall(_ASK.pack(b"e", 0))
        if client.recv(1) != b"!":
            raise ConnectionError(f"connection {len(held)} of port {port} was not served")
        held.append(client)
    return held


def _connect(port: int) -> socket.socket:
    client = socket.socket(socket.AF_INET6)
    client.settimeout(_PATIENCE)
    client.connect(("::1", port))
    return client
