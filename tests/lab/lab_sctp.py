"""SCTP's first two packets, by raw sockets, as a program; the kernel need have no SCTP of its own:

    lab_sctp.py serve PORT       answer an INIT with an INIT ACK whose cookie is the address that asked
    lab_sctp.py ask HOST PORT    send an INIT; prints the cookie of the answer, and fails after a second

What has a wrong checksum, or a tag that is not the asker's, is not heard. Source: RFC 9260 sections 3 and 6.8.
"""

from __future__ import annotations

import random
import selectors
import socket
import struct
import sys
from ipaddress import ip_address

SCTP, INIT, INIT_ACK, COOKIE = 132, 1, 2, 7
HEADER, CHUNK, BODY = struct.Struct(">HHI"), struct.Struct(">BBH"), struct.Struct(">IIHHI")
PATIENCE = 1  # seconds
TAG = 0x5EED5EED


def checksum(data: bytes) -> bytes:
    """CRC32c, as it is put into a packet."""
    value = 0xFFFFFFFF
    for byte in data:
        value ^= byte
        for _ in range(8):
            value = value >> 1 ^ (0x82F63B78 if value & 1 else 0)
    return struct.pack("<I", value ^ 0xFFFFFFFF)


def packet(ports: tuple[int, int], tag: int, kind: int, own: int, cookie: bytes = b"") -> bytes:
    """A packet of one chunk, INIT or INIT ACK."""
    body = BODY.pack(own, 65536, 1, 1, 1)
    if cookie:
        body += struct.pack(">HH", COOKIE, 4 + len(cookie)) + cookie
    chunk = CHUNK.pack(kind, 0, CHUNK.size + len(body)) + body
    chunk += bytes(-len(chunk) % 4)
    head = HEADER.pack(*ports, tag)
    return head + checksum(head + bytes(4) + chunk) + chunk


def heard(data: bytes, family: int) -> tuple[int, int, int, int, bytes] | None:
    """(source port, destination port, tag, kind, chunk's body) of a packet that is sound."""
    if family == socket.AF_INET:
        data = data[(data[0] & 15) * 4 :]
    if len(data) < 12 + CHUNK.size + BODY.size or checksum(data[:8] + bytes(4) + data[12:]) != data[8:12]:
        return None
    kind, _, length = CHUNK.unpack_from(data, 12)
    return *HEADER.unpack_from(data), kind, data[12 + CHUNK.size : 12 + length]


def serve(port: str) -> None:
    """Answer until killed."""
    with selectors.DefaultSelector() as selector:
        for family in (socket.AF_INET, socket.AF_INET6):
            selector.register(socket.socket(family, socket.SOCK_RAW, SCTP), selectors.EVENT_READ)
        print("ready", flush=True)
        while True:
            for key, _ in selector.select():
                assert isinstance(key.fileobj, socket.socket)
                data, peer = key.fileobj.recvfrom(2048)
                sound = heard(data, key.fileobj.family)
                if sound is None or sound[1] != int(port) or sound[3] != INIT:
                    continue
                theirs, ours, _, _, body = sound
                (tag,) = struct.unpack_from(">I", body)
                answer = packet((ours, theirs), tag, INIT_ACK, 7, str(ip_address(peer[0])).encode())
                key.fileobj.sendto(answer, (peer[0], 0))


def ask(host: str, port: str) -> None:
    """Ask once."""
    own = random.randrange(49152, 65536)  # a second INIT from a port belongs to the first one's connection
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with socket.socket(family, socket.SOCK_RAW, SCTP) as asking:
        asking.settimeout(PATIENCE)
        asking.connect((host, 0))  # only what comes from there is heard
        asking.send(packet((own, int(port)), 0, INIT, TAG))
        while True:
            sound = heard(asking.recv(2048), family)
            if sound is not None and sound[:4] == (int(port), own, TAG, INIT_ACK):
                kind, length = struct.unpack_from(">HH", sound[4], BODY.size)
                assert kind == COOKIE
                print(sound[4][BODY.size + 4 : BODY.size + length].decode())
                return


if __name__ == "__main__":
    if sys.argv[1] == "serve":
        serve(sys.argv[2])
    else:
        ask(*sys.argv[2:])
