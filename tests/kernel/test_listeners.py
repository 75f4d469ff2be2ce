"""Published ports and the host's own programs: nobody's port is taken away, least of all sshd's."""

from __future__ import annotations

import os
import socket
from collections.abc import Iterator
from contextlib import ExitStack
from ipaddress import ip_address
from pathlib import Path

import pytest

from berth import spec, wire
from berth.engine.engine import Engine
from berth.errors import Taken
from berth.kernel import listeners
from berth.kernel.listeners import listener
from berth.model import PortMapping

from .conftest import Host

ME = f"(pid {os.getpid()})"


@pytest.fixture
def here(host: Host) -> Iterator[ExitStack]:
    """A host with two addresses, on which sockets are open until the test ends."""
    host.batch(
        "link set lo up\naddr add 10.5.0.1/24 dev lo\naddr add 10.5.0.2/24 dev lo\naddr add fd05::1/64 dev lo nodad\n"
    )
    with ExitStack() as sockets:
        yield sockets


def listen(sockets: ExitStack, address: str, port: int = 8080, proto: str = "tcp") -> socket.socket:
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    kind = socket.SOCK_STREAM if proto == "tcp" else socket.SOCK_DGRAM
    one = sockets.enter_context(socket.socket(family, kind))
    one.bind((address, port))
    if proto == "tcp":
        one.listen()
    return one


def wanted(host_ip: str | None = None, proto: str = "tcp") -> PortMapping:
    return PortMapping(None if host_ip is None else ip_address(host_ip), 8080, 80, proto)


def test_nobody_listens(here: ExitStack) -> None:
    listen(here, "0.0.0.0", 8081)
    assert listener(wanted()) is None
    assert listener(wanted(proto="udp")) is None
    assert listener(wanted(proto="sctp")) is None


@pytest.mark.parametrize("proto", ["tcp", "udp"])
@pytest.mark.parametrize(
    ("at", "host_ip", "meets"),
    [
        ("0.0.0.0", None, True),
        ("0.0.0.0", "10.5.0.1", True),
        ("0.0.0.0", "0.0.0.0", True),
        ("0.0.0.0", "fd05::1", False),
        ("10.5.0.1", None, True),
        ("10.5.0.1", "0.0.0.0", True),
        ("10.5.0.1", "10.5.0.1", True),
        ("10.5.0.1", "10.5.0.2", False),
        ("127.0.0.1", None, True),
        ("127.0.0.1", "127.0.0.1", True),
        ("127.0.0.1", "10.5.0.1", False),
        ("127.0.0.53", "127.0.0.53", True),
        ("127.0.0.53", "0.0.0.0", False),
        ("::", None, True),
        ("::", "10.5.0.1", True),
        ("::", "fd05::1", True),
        ("fd05::1", None, True),
        ("fd05::1", "10.5.0.1", False),
        ("fd05::1", "fd05::1", True),
        ("::1", None, False),
    ],
)
def test_who_listens(here: ExitStack, proto: str, at: str, host_ip: str | None, meets: bool) -> None:
    listen(here, at, proto=proto)
    said = listener(wanted(host_ip, proto))
    assert (said is not None and ME in said) is meets


def test_a_client_is_no_listener(here: ExitStack) -> None:
    server = listen(here, "10.5.0.1", 9000)
    for kind in (socket.SOCK_STREAM, socket.SOCK_DGRAM):
        client = here.enter_context(socket.socket(type=kind))
        client.bind(("10.5.0.2", 8080))
        client.connect(server.getsockname())
    assert listener(wanted()) is None
    assert listener(wanted(proto="udp")) is None


@pytest.fixture
def engine(host: Host, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Engine]:
    monkeypatch.setenv("BERTH_STATE", str(tmp_path))
    engine = wire.engine()
    engine.create_network(spec.network_spec(name="nat", subnets=["10.77.0.0/24"]))
    host.sandbox("c1")
    yield engine
    engine.close()


def test_a_port_that_somebody_listens_on_is_not_published(here: ExitStack, engine: Engine) -> None:
    one = listen(here, "0.0.0.0")
    asked = spec.attach_request(network="nat", sandbox="c1", ports=["8080:80"])
    with pytest.raises(Taken, match=r"host port 8080/tcp is in use by .* choose another, or end that first"):
        engine.attach(asked)
    assert engine.endpoints() == []
    one.close()
    assert engine.attach(asked).value.ports == asked.ports


def test_a_socket_that_closes_while_its_owner_is_looked_for_is_nobodys(
    here: ExitStack, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As the proxy's do, a moment after their port was taken back."""
    server = here.enter_context(socket.create_server(("10.5.0.1", 8080)))
    monkeypatch.setattr(listeners, "_process", lambda inode: server.close())
    assert listener(PortMapping(ip_address("10.5.0.1"), 8080, 80)) is None
    monkeypatch.undo()
    server = here.enter_context(socket.create_server(("10.5.0.1", 8080)))
    monkeypatch.setattr(listeners, "_process", lambda inode: None)
    assert listener(PortMapping(ip_address("10.5.0.1"), 8080, 80)) == "another process"
