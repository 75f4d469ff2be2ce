"""Both ends of what is measured between two endpoints.

    python ends.py serve
    python ends.py ask ADDRESS BYTES QUESTIONS

`ask` prints JSON: how fast one connection takes the bytes (GB/s), and how long a question of one byte waits for its
answer on a connection that stands (the median, in microseconds). Both ends of that are on one processor: else it would
be measured which ones the scheduler has chosen.
"""

from __future__ import annotations

import json
import os
import signal
import socket
import statistics
import struct
import sys
import time

_PORT = 5001
_BLOCK = 1 << 18
_TAKE = struct.Struct("=Q")  # how many bytes are to be taken; 0: questions are to be answered
_PATIENCE = 60  # seconds
_ONE = {min(os.sched_getaffinity(0))}


def _serve() -> None:
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)
    with socket.create_server(("::", _PORT), family=socket.AF_INET6, dualstack_ipv6=True) as server:
        while True:
            connection, _ = server.accept()
            if not os.fork():
                _answer(connection)
                os._exit(0)
            connection.close()


def _answer(connection: socket.socket) -> None:
    connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    (size,) = _TAKE.unpack(connection.recv(_TAKE.size, socket.MSG_WAITALL))
    if not size:
        os.sched_setaffinity(0, _ONE)
        while asked := connection.recv(1):
            connection.send(asked)
        return
    scrap = bytearray(_BLOCK)
    while size > 0 and (came := connection.recv_into(scrap, _BLOCK, socket.MSG_TRUNC)):  # nothing is copied: tcp(7)
        size -= came
    connection.send(b".")


def _rate(address: str, size: int) -> float:
    with _connect(address) as client:
        block = memoryview(bytes(_BLOCK))
        left, start = size, time.perf_counter()
        client.sendall(_TAKE.pack(size))
        while left > 0:
            left -= client.send(block[: min(left, _BLOCK)])
        if client.recv(1) != b".":
            raise ConnectionError(f"{address} has not got it all")
        return size / (time.perf_counter() - start) / 1e9


def _wait(address: str, questions: int) -> float:
    os.sched_setaffinity(0, _ONE)
    with _connect(address) as client:
        client.sendall(_TAKE.pack(0))
        waits = []
        for _ in range(questions):
            start = time.perf_counter_ns()
            client.send(b"?")
            client.recv(1)
            waits.append((time.perf_counter_ns() - start) / 1e3)
        return statistics.median(waits)


def _connect(address: str) -> socket.socket:
    end = time.monotonic() + _PATIENCE
    while True:
        try:
            client = socket.create_connection((address, _PORT), _PATIENCE)
            break
        except ConnectionRefusedError:  # the other end is about to listen
            if time.monotonic() > end:
                raise
            time.sleep(0.05)
    client.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return client


def main() -> None:
    """Be one of the two."""
    match sys.argv[1:]:
        case ["serve"]:
            _serve()
        case ["ask", address, size, questions]:
            print(json.dumps({"GB/s": _rate(address, int(size)), "µs": _wait(address, int(questions))}))
        case _:
            sys.exit(__doc__)


if __name__ == "__main__":
    main()
