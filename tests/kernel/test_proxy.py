"""`berth proxy` with real sockets: TCP both ways to the end and to a reset, UDP, and the maps it follows."""

from __future__ import annotations

import hashlib
import resource
import signal
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest

from berth.model import Proxied
from berth.proxy import udp
from berth.proxy.context import context
from berth.proxy.udp import UdpListener

from .conftest import Host, sh
from .proxying import PATIENCE, RESET, Proxying, connect, echo, everything, listening, listens, refused, serving, until


@pytest.fixture
def proxy(host: Host, tmp_path: Path) -> Iterator[Proxying]:
    running = Proxying(tmp_path)
    try:
        yield running
    finally:
        running.clear()


# --- TCP ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("pipes", [True, False])
def test_everything_arrives_both_ways(proxy: Proxying, pipes: bool) -> None:
    """100 MB there and back, through pipes, and by copying where no pipe can be had."""
    if not pipes:  # the pool's one pipe is held by a client that does not read
        proxy.again("prlimit", "--nofile=100", "--")
    proxy.carry("tcp", "::1", "8080", "127.0.0.1", 80)
    proxy.carry("tcp", "::1", "8081", "127.0.0.1", 81)
    blocks = [hashlib.sha256(str(number).encode()).digest() * 32768 for number in range(100)]
    sent, came = hashlib.sha256(), hashlib.sha256()
    with serving("127.0.0.1", 80, echo), serving("127.0.0.1", 81, _flood), connect("::1", 8081):
        until(lambda: _idle(proxy))
        with connect("::1", 8080) as client:

            def send() -> None:
                for block in blocks:
                    sent.update(block)
                    client.sendall(block)
                client.shutdown(socket.SHUT_WR)

            sender = threading.Thread(target=send)
            sender.start()
            size = 0
            while data := client.recv(1 << 20):
                came.update(data)
                size += len(data)
            sender.join()
    assert size == 100 * 1024 * 1024 and came.digest() == sent.digest()


def _idle(proxy: Proxying) -> bool:
    """Whether it does nothing for a moment."""
    used = proxy.seconds()
    time.sleep(0.5)
    return proxy.seconds() == used


def _flood(connection: socket.socket) -> None:
    while True:
        connection.sendall(bytes(65536))


def test_a_client_that_has_said_all_still_hears(proxy: Proxying) -> None:
    def answer(connection: socket.socket) -> None:
        asked = everything(connection)  # which ends only if the end was passed on
        connection.sendall(b"you said " + asked)

    proxy.carry("tcp", "::1", "8080", "127.0.0.1", 80)
    with serving("127.0.0.1", 80, answer), connect("::1", 8080) as client:
        client.sendall(b"hello")
        client.shutdown(socket.SHUT_WR)
        assert everything(client) == b"you said hello"


def test_a_target_that_has_said_all_still_hears(proxy: Proxying) -> None:
    heard: list[bytes] = []
    done = threading.Event()

    def tell(connection: socket.socket) -> None:
        connection.sendall(b"welcome")
        connection.shutdown(socket.SHUT_WR)
        heard.append(everything(connection))
        done.set()

    proxy.carry("tcp", "127.0.0.1", "8080", "127.0.0.2", 80)
    with serving("127.0.0.2", 80, tell), connect("127.0.0.1", 8080) as client:
        assert everything(client) == b"welcome"
        client.sendall(b"thanks")
        client.shutdown(socket.SHUT_WR)
        assert done.wait(PATIENCE) and heard == [b"thanks"]
    until(lambda: proxy.sockets() == 1, "the connection is kept")


def test_a_reset_is_passed_on_both_ways(proxy: Proxying) -> None:
    proxy.carry("tcp", "::1", "8080", "127.0.0.1", 80)
    with listening("127.0.0.1", 80) as server:
        server.settimeout(PATIENCE)
        for end in ("client", "target"):
            client = connect("::1", 8080)
            target, _ = server.accept()
            target.settimeout(PATIENCE)
            client.sendall(b"x")
            assert target.recv(1) == b"x"
            ends, other = (client, target) if end == "client" else (target, client)
            ends.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET)
            ends.close()
            with other, pytest.raises(ConnectionResetError):
                other.recv(1)


@pytest.mark.parametrize("how", ["client resets", "target resets", "port withdrawn", "both say goodbye", "proxy ends"])
def test_a_busy_connection_ends_as_any_other(proxy: Proxying, how: str) -> None:
    """It is in the hands of another thread by then, which has no more rights than the first."""
    carried = proxy.carry("tcp", "::1", "8080", "127.0.0.1", 80)
    with listening("127.0.0.1", 80) as server:
        server.settimeout(PATIENCE)
        with connect("::1", 8080) as client, server.accept()[0] as target:
            target.settimeout(PATIENCE)
            until(lambda: _handed_over(proxy, target, client), "no thread but the first moves anything")
            rights = {status.read_text().split("CapEff:")[1].split()[0] for status in proxy.tasks()}
            assert rights == {f"{1 << 10 | 1 << 12:016x}"}
            if how == "both say goodbye":
                client.sendall(b"bye")
                client.shutdown(socket.SHUT_WR)
                assert everything(target) == b"bye"
                target.sendall(b"goodbye")
                target.shutdown(socket.SHUT_WR)
                assert everything(client) == b"goodbye"
            else:
                _end_by_force(proxy, carried, how, client, target)
    until(lambda: how == "proxy ends" or proxy.sockets() == (how != "port withdrawn"), "the connection is kept")


def _handed_over(proxy: Proxying, target: socket.socket, client: socket.socket) -> bool:
    """Whether there is more than one thread, when much has been moved."""
    much = bytes(32 << 20)
    sender = threading.Thread(target=target.sendall, args=(much,))
    sender.start()
    left = len(much)
    while left:
        left -= len(client.recv(min(left, 65536)))  # slower than it comes
    sender.join()
    return len(proxy.tasks()) > 1


def _end_by_force(proxy: Proxying, carried: Proxied, how: str, client: socket.socket, target: socket.socket) -> None:
    ended = {"client resets": client, "target resets": target}.get(how)
    if ended is not None:
        ended.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET)
        ended.close()
    elif how == "port withdrawn":
        proxy.drop(carried)
    else:
        proxy.process.terminate()
        assert proxy.process.wait(PATIENCE) == 0
    for side in (client, target):
        if side is not ended:
            with pytest.raises(ConnectionResetError):
                side.recv(1)


def test_what_was_said_before_a_reset_arrives(proxy: Proxying) -> None:
    """A server may answer and close before it has read all: its kernel resets the connection then."""
    proxy.carry("tcp", "::1", "8080", "127.0.0.1", 80)
    with listening("127.0.0.1", 80) as server:
        server.settimeout(PATIENCE)
        with connect("::1", 8080) as client:
            target, _ = server.accept()
            client.sendall(b"more than the server wants to know")
            target.recv(1)
            target.sendall(b"too much")
            target.close()
            assert client.recv(100) == b"too much"
            with pytest.raises(ConnectionResetError):
                client.recv(1)


def test_a_target_that_refuses(proxy: Proxying) -> None:
    proxy.carry("tcp", "::1", "8080", "127.0.0.1", 80)
    listens("::1", 8080)
    with pytest.raises(ConnectionResetError), connect("::1", 8080) as client:
        client.recv(1)
    with serving("127.0.0.1", 80, echo), connect("::1", 8080) as client:
        client.sendall(b"there now")
        assert client.recv(100) == b"there now"


def test_a_target_that_never_accepts(proxy: Proxying) -> None:
    """Its queue is full: clients wait in vain, and nobody else does; those who leave are forgotten."""
    proxy.carry("tcp", "::1", "8080", "127.0.0.1", 80)
    proxy.carry("tcp", "::1", "8081", "127.0.0.1", 81)
    with listening("127.0.0.1", 80, backlog=0), serving("127.0.0.1", 81, echo):
        waiting = [connect("::1", 8080) for _ in range(8)]
        with connect("::1", 8081) as client:
            client.sendall(b"served")
            assert client.recv(100) == b"served"
        for client in waiting:
            client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET)
            client.close()
        until(lambda: proxy.sockets() == 2, "clients that left are kept")


def test_clients_that_never_read(proxy: Proxying) -> None:
    """More of them than there are pipes: memory does not grow, nothing spins, and others are served."""
    proxy.carry("tcp", "::1", "8080", "127.0.0.1", 80)
    proxy.carry("tcp", "::1", "8081", "127.0.0.1", 81)
    with serving("127.0.0.1", 80, _flood), serving("127.0.0.1", 81, echo):
        with connect("::1", 8081) as client:
            before = proxy.rss()
            deaf = [connect("::1", 8080) for _ in range(200)]
            until(lambda: _idle(proxy), "it spins")
            assert proxy.rss() - before < 8 * 1024 * 1024
            client.sendall(b"and me")
            assert client.recv(100) == b"and me"
        with deaf[0] as one:
            read = sum(len(one.recv(1 << 20)) for _ in range(200))
            assert read > 1024 * 1024
        for one in deaf:
            one.close()


def test_at_the_limit_clients_wait(proxy: Proxying) -> None:
    proxy.again("prlimit", "--nofile=100", "--")
    proxy.carry("tcp", "::1", "8080", "127.0.0.1", 80)
    with serving("127.0.0.1", 80, echo):
        clients = [connect("::1", 8080) for _ in range(60)]
        for client in clients:
            client.sendall(b"x")
        served = [client for client in clients if _hears(client)]
        assert 20 <= len(served) < 50
        used = proxy.seconds()
        time.sleep(1)
        assert proxy.seconds() - used < 0.1, "it spins"
        for client in served:
            client.close()
        waiting = [client for client in clients if client not in served]
        for client in waiting:
            client.settimeout(PATIENCE)
            assert client.recv(1) == b"x"
            client.close()


def test_ten_thousand_connections(proxy: Proxying) -> None:
    """Held by one process; as many as the machine lets one process have descriptors for."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    number = min(10_000, (hard - 500) // 2)
    proxy.carry("tcp", "::1", "8080", "127.0.0.1", 80)
    held: list[socket.socket] = []
    server = listening("127.0.0.1", 80, backlog=1024)

    def answer() -> None:
        with suppress(OSError):
            while True:
                connection, _ = server.accept()
                held.append(connection)
                connection.sendall(connection.recv(1))

    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    answering = threading.Thread(target=answer, daemon=True)
    answering.start()
    try:
        for _ in range(number):
            client = connect("::1", 8080)
            held.append(client)
            client.sendall(b"x")
            assert client.recv(1) == b"x"
        assert proxy.sockets() == 1 + 2 * number
        assert proxy.rss() < 200 * 1024 * 1024 * number / 10_000
    finally:
        server.shutdown(socket.SHUT_RDWR)
        answering.join(PATIENCE)
        server.close()
        for one in held:
            one.close()
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    until(lambda: proxy.sockets() == 1, "connections are kept")


def _hears(client: socket.socket) -> bool:
    client.settimeout(0.3)
    try:
        return client.recv(1) == b"x"
    except TimeoutError:
        return False


# --- UDP ------------------------------------------------------------------------------------------------


def _udp_echo(ip: str, port: int) -> socket.socket:
    server = socket.socket(socket.AF_INET6 if ":" in ip else socket.AF_INET, socket.SOCK_DGRAM)
    server.bind((ip, port))
    server.settimeout(PATIENCE)
    return server


def _udp_client(ip: str, port: int) -> socket.socket:
    client = socket.socket(socket.AF_INET6 if ":" in ip else socket.AF_INET, socket.SOCK_DGRAM)
    client.connect((ip, port))
    client.settimeout(0.2)
    return client


def _asks(client: socket.socket, server: socket.socket, text: bytes) -> tuple[bytes, object]:
    """Have a client ask and the server answer: the answer, and whom the server saw. The first may be too early."""
    for _ in range(50):
        try:
            client.send(text)
            server.settimeout(0.2)
            asked, seen = server.recvfrom(65536)
            server.sendto(b"re: " + asked, seen)
            return client.recv(65536), seen
        except (TimeoutError, ConnectionRefusedError):
            continue
    raise AssertionError("no answer")


def test_each_client_gets_its_own_answers(proxy: Proxying) -> None:
    proxy.carry("udp", "::1", "5353", "127.0.0.1", 53)
    with _udp_echo("127.0.0.1", 53) as server:
        clients = [_udp_client("::1", 5353) for _ in range(5)]
        answers = [_asks(client, server, b"%d" % number) for number, client in enumerate(clients)]
        assert [answer for answer, _ in answers] == [b"re: %d" % number for number in range(5)]
        assert len({str(seen) for _, seen in answers}) == 5
        again = _asks(clients[0], server, b"again")
        assert again == (b"re: again", answers[0][1])  # the target sees the same client
        big = bytes(60_000)
        assert _asks(clients[1], server, big)[0] == b"re: " + big
        for client in clients:
            client.close()


@pytest.mark.parametrize(("any_", "asked"), [("0.0.0.0", "127.0.0.7"), ("::", "fd00::7")])
def test_answers_come_from_the_address_that_was_asked(proxy: Proxying, any_: str, asked: str) -> None:
    """The client's socket is connected: it takes nothing from another address."""
    sh("ip addr add fd00::7/128 dev lo nodad; ip addr add fd00::8/128 dev lo nodad")
    # The kernel makes the route a moment later; a client that has found none does not look again.
    until(lambda: "local fd00::7" in sh("ip -6 route show table local"))
    proxy.carry("udp", any_, "5353", "127.0.0.1", 53)
    with _udp_echo("127.0.0.1", 53) as server, _udp_client(asked, 5353) as client:
        assert _asks(client, server, b"who")[0] == b"re: who"


def test_a_target_that_is_not_there_yet(proxy: Proxying) -> None:
    proxy.carry("udp", "::1", "5353", "127.0.0.1", 53)
    with _udp_client("::1", 5353) as client:
        end = time.monotonic() + 1
        while time.monotonic() < end:  # refused by ICMP, over and over
            try:
                client.send(b"anybody?")
            except ConnectionRefusedError:  # the proxy itself was not there yet
                continue
            time.sleep(0.02)
        used = proxy.seconds()
        with _udp_echo("127.0.0.1", 53) as server:
            assert _asks(client, server, b"now")[0].startswith(b"re: ")
        assert proxy.seconds() - used < 1


@contextmanager
def _listener(descriptors: int) -> Iterator[UdpListener]:
    """A UDP port of this process, [::1]:5353, for 127.0.0.1:53."""
    means = context(descriptors)
    listener = UdpListener(means, ("::1", 5353), ("127.0.0.1", 53))
    running = threading.Thread(target=means.loop.run)
    running.start()
    try:
        yield listener
    finally:
        means.loop.stop()
        with _udp_client("::1", 5353) as client:
            client.send(b"wake up")
        running.join(PATIENCE)
        listener.close()


def test_silent_clients_are_forgotten(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(udp, "IDLE", 0.3)
    monkeypatch.setattr(udp, "_EXPIRY", 0.1)
    with _listener(1000) as listener, _udp_echo("127.0.0.1", 53) as server, _udp_client("::1", 5353) as client:
        _, first = _asks(client, server, b"one")
        assert len(listener._flows) == 1
        until(lambda: not listener._flows)
        answer, second = _asks(client, server, b"two")
        assert answer == b"re: two" and second != first


@pytest.mark.parametrize("short_of", ["clients of a port", "descriptors"])
def test_with_too_many_clients_the_most_silent_is_forgotten(monkeypatch: pytest.MonkeyPatch, short_of: str) -> None:
    if short_of == "clients of a port":
        monkeypatch.setattr(udp, "_MOST", 3)
    own = 32 + 2  # of the process, and one pipe
    with _listener(own + 3 if short_of == "descriptors" else 1000) as listener:
        with _udp_echo("127.0.0.1", 53) as server:
            clients = [_udp_client("::1", 5353) for _ in range(4)]
            for turn in (0, 1, 2, 0, 3):
                assert _asks(clients[turn], server, b"x")[0] == b"re: x"
            known = {flow.peer[1] for flow in listener._flows.values()}
            assert known == {clients[turn].getsockname()[1] for turn in (0, 2, 3)}
            assert _asks(clients[1], server, b"me again")[0] == b"re: me again"
            for client in clients:
                client.close()


# --- the maps -------------------------------------------------------------------------------------------


def test_ports_come_and_go_while_connections_stay(proxy: Proxying) -> None:
    kept = proxy.carry("tcp", "::1", "8080", "127.0.0.1", 80)
    with serving("127.0.0.1", 80, echo), connect("::1", 8080) as staying:
        other = proxy.carry("tcp", "::1", "8081", "127.0.0.1", 80)
        with connect("::1", 8081) as leaving:
            leaving.sendall(b"a")
            assert leaving.recv(1) == b"a"
            proxy.drop(other)
            with pytest.raises(ConnectionResetError):
                leaving.recv(1)
        until(lambda: refused("::1", 8081))
        staying.sendall(b"still here")
        assert staying.recv(100) == b"still here"
        proxy.carry("tcp", "::1", "8080", "127.0.0.1", 81, instead=kept)  # the same port, another target
        with pytest.raises(ConnectionResetError):
            staying.recv(1)
        with serving("127.0.0.1", 81, lambda connection: connection.sendall(b"the other")):
            with connect("::1", 8080) as client:
                assert everything(client) == b"the other"


def test_a_range_is_one_mapping(proxy: Proxying) -> None:
    proxy.carry("tcp", "127.0.0.1", "8000-8999", "127.0.0.2", 9000)
    with serving("127.0.0.2", 9999, echo), connect("127.0.0.1", 8999) as client:
        client.sendall(b"last")
        assert client.recv(100) == b"last"
    listens("127.0.0.1", 8000)
    assert refused("127.0.0.1", 9000)


def test_a_port_that_somebody_else_has(proxy: Proxying) -> None:
    with listening("::1", 8080):
        proxy.carry("tcp", "::1", "8080", "127.0.0.1", 80)
        until(lambda: "tcp [::1]:8080: Address already in use" in proxy.said())
        time.sleep(1.5)  # it has tried again
    with serving("127.0.0.1", 80, echo):
        until(lambda: "at last" in proxy.said())
        with connect("::1", 8080) as client:
            client.sendall(b"mine")
            assert client.recv(100) == b"mine"
    assert proxy.said().count("Address already in use") == 1


def test_a_killed_proxy_comes_back_with_all_ports(proxy: Proxying) -> None:
    proxy.carry("tcp", "::1", "8080", "127.0.0.1", 80)
    gone = proxy.carry("tcp", "::1", "8081", "127.0.0.1", 80)
    with serving("127.0.0.1", 80, echo):
        listens("::1", 8081)
        proxy.kill()
        proxy.drop(gone)
        proxy.carry("tcp", "::1", "8082", "127.0.0.1", 80)
        proxy.process = proxy.start()
        for port in (8080, 8082):
            with connect("::1", port) as client:
                client.sendall(b"back")
                assert client.recv(100) == b"back"
        assert refused("::1", 8081)


def test_a_second_one_takes_over(proxy: Proxying) -> None:
    proxy.carry("tcp", "::1", "8080", "127.0.0.1", 80)
    with serving("127.0.0.1", 80, echo):
        listens("::1", 8080)
        second = proxy.start()
        until(lambda: "another proxy is at work" in proxy.said())
        proxy.process.terminate()
        assert proxy.process.wait(PATIENCE) == 0
        with connect("::1", 8080) as client:
            client.sendall(b"taken over")
            assert client.recv(100) == b"taken over"
        second.terminate()
        assert second.wait(PATIENCE) == 0


def test_a_firewall_that_is_flushed_and_put_back_ends_nothing(proxy: Proxying) -> None:
    proxy.carry("tcp", "::1", "8080", "127.0.0.1", 80)
    with serving("127.0.0.1", 80, echo), connect("::1", 8080) as client:
        sh("nft flush ruleset")
        time.sleep(1.5)  # it has looked, more than once
        client.sendall(b"still here")
        assert client.recv(100) == b"still here"
        proxy.table()
        until(lambda: refused("::1", 8080))  # the maps are there, and empty
        with pytest.raises(ConnectionResetError):
            client.recv(1)
        proxy.carry("tcp", "::1", "8080", "127.0.0.1", 80)
        listens("::1", 8080)
        sh("nft flush ruleset")  # nobody puts it back
        until(lambda: refused("::1", 8080))


def test_it_looks_again_when_told_to(proxy: Proxying) -> None:
    proxy.carry("tcp", "::1", "8080", "127.0.0.1", 80)
    with serving("127.0.0.1", 80, echo), connect("::1", 8080) as client:
        proxy.process.send_signal(signal.SIGHUP)
        client.sendall(b"still here")
        assert client.recv(100) == b"still here"
        assert proxy.process.poll() is None


def test_it_keeps_two_rights_only(proxy: Proxying) -> None:
    proxy.carry("tcp", "::1", "80", "127.0.0.1", 81)  # a port below 1024 after the rights are gone
    listens("::1", 80)
    assert {proxy.status(name) for name in ("CapEff", "CapPrm")} == {f"{1 << 10 | 1 << 12:016x}"}
    assert proxy.status("NoNewPrivs") == "1"
