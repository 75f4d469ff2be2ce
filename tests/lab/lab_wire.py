"""Both ends of a TCP connection that never rests: `lab_wire.py serve`, `lab_wire.py talk ADDRESS`.

The talker sends a byte every 5 ms and waits for its echo. When its input ends it prints the longest time between two
echoes, in seconds, and how many there were; it fails if the connection was lost.
"""

from __future__ import annotations

import select
import socket
import sys
import time

PORT = 7007


def serve() -> None:
    with socket.create_server(("", PORT)) as listening:
        print("ready", flush=True)
        connection, _ = listening.accept()
        with connection:
            connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            while data := connection.recv(4096):
                connection.sendall(data)


def talk(address: str) -> None:
    with socket.create_connection((address, PORT), timeout=20) as connection:
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        print("ready", flush=True)
        longest, count, last = 0.0, 0, time.monotonic()
        while not select.select([sys.stdin], [], [], 0.005)[0]:
            connection.sendall(b".")
            assert connection.recv(1) == b"."
            now = time.monotonic()
            longest, count, last = max(longest, now - last), count + 1, now
        print(longest, count)


if __name__ == "__main__":
    serve() if sys.argv[1] == "serve" else talk(sys.argv[2])
