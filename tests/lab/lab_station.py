"""What the tests run inside a node or a sandbox, as a program:

    lab_station.py serve PORT              answer TCP and UDP with the address that asked
    lab_station.py ask tcp|udp HOST PORT   ask such a server; prints what it said, and fails after a second
    lab_station.py drain PORT              take in what is poured, and say how many bytes it was and in how many seconds
    lab_station.py pour HOST PORT BYTES    send as much to it; prints what it said
    lab_station.py keep HOST PORT N        N times, ask such a server something and wait for it; prints N
    lab_station.py echo PORT               send back what comes on TCP connections
    lab_station.py hold HOST PORT          keep one connection to such a server busy; prints a line for each answer
    lab_station.py segment FROM TO FLAGS BYTES
                                           send a TCP segment with these flags to port 80, in whatever state, so much
                                           of it (a multiple of 8) in a first fragment
    lab_station.py segments                print the flags of each that comes in, as it comes
    lab_station.py sniff DEV               print an announcement a line: IP and MAC, of gratuitous ARP and of
                                           unsolicited neighbour advertisements
    lab_station.py send DEV HEX…           send frames, in this order
    lab_station.py hear DEV                print a frame a line, in hexadecimal, without the tags of VLANs
    lab_station.py crowd NETWORK FIRST N   attach sandboxes crowdFIRST… to a network until it is full, N at most
    lab_station.py clear                   detach everything and remove every network

It prints "ready" where the test has to wait for it.
"""

from __future__ import annotations

import json
import selectors
import socket
import struct
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from ipaddress import ip_address

PATIENCE = 1  # seconds


def serve(port: str) -> None:
    """Answer until killed."""
    with selectors.DefaultSelector() as selector:
        for kind in (socket.SOCK_STREAM, socket.SOCK_DGRAM):
            listener = socket.socket(socket.AF_INET6, kind)
            listener.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0)
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            listener.bind(("::", int(port)))
            if kind == socket.SOCK_STREAM:
                listener.listen(64)
            selector.register(listener, selectors.EVENT_READ)
        print("ready", flush=True)
        while True:
            for key, _ in selector.select():
                assert isinstance(key.fileobj, socket.socket)
                _answer(key.fileobj)


def _answer(listener: socket.socket) -> None:
    if listener.type == socket.SOCK_DGRAM:
        _, peer = listener.recvfrom(2048)
        listener.sendto(_plain(peer[0]), peer)
        return
    connection, peer = listener.accept()
    with connection, suppress(OSError):
        connection.settimeout(PATIENCE)
        connection.recv(2048)  # to close with something unread would be a reset
        connection.sendall(_plain(peer[0]))


def _plain(text: str) -> bytes:
    address = ip_address(text)
    return str(getattr(address, "ipv4_mapped", None) or address).encode()


def ask(proto: str, host: str, port: str) -> None:
    """Ask once."""
    kind = {"tcp": socket.SOCK_STREAM, "udp": socket.SOCK_DGRAM}[proto]
    with socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET, kind) as asking:
        asking.settimeout(PATIENCE)
        asking.connect((host, int(port)))
        asking.send(b"?")
        print(asking.recv(2048).decode())


def drain(port: str) -> None:
    """Take connections in until killed, one after the other."""
    with socket.create_server(("", int(port)), family=socket.AF_INET6, dualstack_ipv6=True) as listener:
        print("ready", flush=True)
        while True:
            connection, _ = listener.accept()
            with connection:
                count = len(connection.recv(1 << 20))
                began = time.monotonic()
                while data := connection.recv(1 << 20):
                    count += len(data)
                connection.sendall(f"{count} {time.monotonic() - began}".encode())


def pour(host: str, port: str, count: str) -> None:
    """Send, and wait until all of it has arrived."""
    with socket.create_connection((host, int(port)), timeout=30) as connection:
        connection.sendall(bytes(int(count)))
        connection.shutdown(socket.SHUT_WR)
        print(connection.recv(2048).decode())


def keep(host: str, port: str, times: str) -> None:
    """Keep a connection busy, a few milliseconds between two questions."""
    with socket.create_connection((host, int(port)), 10) as connection:
        print("ready", flush=True)
        for _ in range(int(times)):
            connection.sendall(b"?")
            if connection.recv(1) != b"?":
                raise ConnectionResetError("it has ended")
            time.sleep(0.002)
    print(times, flush=True)


def echo(port: str) -> None:
    """Send back until killed."""
    with socket.create_server(("::", int(port)), family=socket.AF_INET6, dualstack_ipv6=True) as listener:
        print("ready", flush=True)
        while True:
            connection, _ = listener.accept()
            with connection, suppress(OSError):
                while data := connection.recv(2048):
                    connection.sendall(data)


def hold(host: str, port: str) -> None:
    """Ask by one connection until killed, or until no answer comes for a while."""
    with socket.create_connection((host, int(port)), timeout=5) as connection:
        print("ready", flush=True)
        while True:
            connection.sendall(b"?")
            assert connection.recv(1), "closed"
            print("answered", flush=True)
            time.sleep(0.02)


def segment(source: str, destination: str, flags: str, first: str) -> None:
    """Send one segment, as one packet or in two fragments."""
    head = struct.pack(">HHIIBBHHH", 7777, 80, 1, 1, 5 << 4, int(flags, 16), 1024, 0, 0)
    ends = ip_address(source).packed + ip_address(destination).packed
    words = struct.unpack(">16H", ends + struct.pack(">HH", socket.IPPROTO_TCP, len(head)) + head)
    total = sum(words)
    total = (total & 0xFFFF) + (total >> 16)
    checksum = ~((total & 0xFFFF) + (total >> 16)) & 0xFFFF
    whole = head[:16] + struct.pack(">H", checksum) + head[18:]
    identity = int(flags, 16) << 8 | int(first)  # else the rest of one joins the beginning of another
    with socket.socket(socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_RAW) as raw:
        for offset, part in ((0, whole[: int(first)]), (int(first), whole[int(first) :])):
            more = 0x2000 if part and not offset and len(part) < len(whole) else 0
            ip = struct.pack(">BBHHHBBH", 0x45, 0, 20 + len(part), identity, offset // 8 | more, 64, 6, 0) + ends
            if part:
                raw.sendto(ip + part, (destination, 0))


def segments() -> None:
    """Listen until killed."""
    with socket.socket(socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_TCP) as raw:
        print("ready", flush=True)
        while True:
            packet = raw.recv(2048)
            sport, dport = struct.unpack_from(">HH", packet, 20)
            if (sport, dport) == (7777, 80):
                print(f"0x{packet[33]:02x}", flush=True)


def sniff(dev: str) -> None:
    """Listen until killed."""
    with socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(3)) as raw:
        raw.bind((dev, 3))
        print("ready", flush=True)
        while True:
            if heard := _announcement(raw.recv(2048)):
                print(*heard, flush=True)


def _announcement(frame: bytes) -> tuple[str, str] | None:
    (kind,) = struct.unpack_from(">H", frame, 12)
    if kind == 0x0806:  # RFC 826; gratuitous: sender and target address are the same (RFC 5227 section 1.2)
        sender, own, _, target = struct.unpack_from(">6s4s6s4s", frame, 22)
        if own == target:
            return str(ip_address(own)), sender.hex(":")
    if kind == 0x86DD and frame[20] == 58 and frame[54] == 136:  # RFC 4861 section 4.4
        solicited, everybody = frame[58] & 0x40, frame[38:54] == ip_address("ff02::1").packed
        if everybody and not solicited:
            return str(ip_address(frame[62:78])), frame[80:86].hex(":")
    return None


def send(dev: str, *frames: str) -> None:
    """Send at a pace that every listener keeps up with."""
    with socket.socket(socket.AF_PACKET, socket.SOCK_RAW) as raw:
        raw.bind((dev, 0))
        for frame in frames:
            raw.send(bytes.fromhex(frame))
            time.sleep(0.002)


def hear(dev: str) -> None:
    """Listen until killed."""
    with socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(3)) as raw:
        raw.bind((dev, 3))
        print("ready", flush=True)
        while True:
            print(raw.recv(4096).hex(), flush=True)


def crowd(network: str, first: str, count: str) -> None:
    """Attach many by one process, and print the addresses that they got and what ended it."""
    from berth import wire
    from berth.errors import Exhausted
    from berth.model import AttachRequest

    api, given, end = wire.engine(), [], ""
    for number in range(int(first), int(first) + int(count)):
        try:
            ep = api.attach(AttachRequest(network, f"crowd{number}")).value
        except Exhausted as error:
            end = str(error)
            break
        given += [str(address.ip) for address in ep.addresses]
    api.close()
    print(json.dumps({"given": given, "end": end}))


def clear() -> None:
    """Leave no endpoint and no network."""
    from berth import wire

    api = wire.engine()
    for net in api.networks():
        for ep in api.endpoints(net.id):
            api.detach(net.id, ep.id)
        api.remove_network(net.id)
    api.close()


if __name__ == "__main__":
    verbs: dict[str, Callable[..., None]]
    verbs = {"serve": serve, "ask": ask, "drain": drain, "pour": pour, "echo": echo, "keep": keep, "hold": hold}
    verbs |= {"segment": segment, "segments": segments, "crowd": crowd, "clear": clear}
    verbs |= {"sniff": sniff, "send": send, "hear": hear}
    verbs[sys.argv[1]](*sys.argv[2:])
