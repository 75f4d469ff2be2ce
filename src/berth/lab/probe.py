"""What the demo measures with. It runs inside a node or a sandbox:

    python -m berth.lab.probe serve               answer HTTP on port 80 with the source address it saw
    python -m berth.lab.probe get HOST PORT       ask such a server; prints what it said
    python -m berth.lab.probe arp DEV ADDRESS     ask the whole LAN who has an address; prints every answer's MAC

Nothing is imported that a probe can do without: dozens of them are started in a demo of a few seconds.
"""

from __future__ import annotations

import socket
import struct
import sys
import time
from collections.abc import Callable, Sequence
from ipaddress import IPv4Address

LISTEN = 0.3  # seconds that answers to an ARP request are waited for
PATIENCE = 2  # seconds for an answer over TCP
READY = "ready"  # said by a server that listens

_ARP = 0x0806
_REQUEST, _REPLY = 1, 2
_BROADCAST = b"\xff" * 6
_LAYOUT = ">6s6sH HHBBH 6s4s6s4s"  # Ethernet II, then RFC 826


def serve() -> None:
    """Answer until killed."""
    from berth.lab.server import HttpServer  # slow to import, and the other probes need none of it

    server = HttpServer()
    print(READY, flush=True)
    server.serve_forever()


def get(host: str, port: str) -> None:
    """Print the body of a server's `/`."""
    with socket.create_connection((host, int(port)), timeout=PATIENCE) as connection:
        connection.sendall(b"GET / HTTP/1.0\r\n\r\n")
        answer = b"".join(iter(lambda: connection.recv(4096), b""))
    print(answer.partition(b"\r\n\r\n")[2].decode(), end="")


def arp(dev: str, address: str) -> None:
    """Print the MAC of every machine that answers for an address, this one aside: it does not hear itself.

    The request is a probe as in RFC 5227 section 2.1.1, from 0.0.0.0: nobody's ARP cache learns anything by it.
    """
    with socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(_ARP)) as raw:
        raw.bind((dev, _ARP))
        own, wanted = raw.getsockname()[4], IPv4Address(address).packed
        raw.send(
            struct.pack(_LAYOUT, _BROADCAST, own, _ARP, 1, 0x0800, 6, 4, _REQUEST, own, bytes(4), bytes(6), wanted)
        )
        until = time.monotonic() + LISTEN
        found = set()
        while (left := until - time.monotonic()) > 0:
            raw.settimeout(left)
            try:
                frame = raw.recv(2048)
            except TimeoutError:
                break
            *_, operation, sender, claimed, _, _ = struct.unpack_from(_LAYOUT, frame)
            if operation == _REPLY and claimed == wanted:
                found.add(sender.hex(":"))
    print("\n".join(sorted(found)))


_PROBES: dict[str, Callable[..., None]] = {"serve": serve, "get": get, "arp": arp}


def main(argv: Sequence[str]) -> None:
    """Run one probe; a network that does not answer is one line on standard error and exit code 1."""
    name, *arguments = argv
    try:
        _PROBES[name](*arguments)
    except OSError as error:
        sys.exit(f"{name}: {error}")


if __name__ == "__main__":
    main(sys.argv[1:])
