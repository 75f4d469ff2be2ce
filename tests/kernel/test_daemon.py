"""The daemon as a process: what it answers on its socket, whatever is said to it, and how it comes and goes."""

from __future__ import annotations

import http.client
import io
import json
import os
import re
import shlex
import signal
import socket
import stat
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import redirect_stderr, redirect_stdout, suppress
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

import pytest

from berth.cli.main import main

from .conftest import Host, sh
from .running import BERTH, until

pytestmark = pytest.mark.timeout(90)

PATIENCE = 20  # seconds for any answer
RUN = Path("/run/berth")
SOCKET = RUN / "berth.sock"
NET, EP = "a" * 64, "b" * 64
SUBNET = "10.88.0.0/24"


def connect(path: Path = SOCKET) -> socket.socket:
    connection = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    connection.settimeout(PATIENCE)
    connection.connect(str(path))
    return connection


class Daemon:
    """`berth daemon` in the namespaces of the test."""

    def __init__(self, state: Path) -> None:
        self.state = state
        self.log_file = state.parent / "log"
        self.processes: list[subprocess.Popen[bytes]] = []
        self._http: http.client.HTTPConnection | None = None

    def environment(self, **more: str) -> dict[str, str]:
        return {**os.environ, "BERTH_STATE": str(self.state), "BERTH_RUN": str(RUN), **more}

    def start(self, *before: str, **environment: str) -> subprocess.Popen[bytes]:
        """Start another one, and wait until it answers."""
        process = self.begin(*before, **environment)
        until(lambda: process.poll() is not None or self.listens())
        assert process.poll() is None, self.log()
        assert self.ask("/Plugin.Activate")[0] == 200
        return process

    def begin(self, *before: str, **environment: str) -> subprocess.Popen[bytes]:
        """Start another one."""
        self.hang_up()
        with self.log_file.open("ab") as log:
            argv = [*before, str(BERTH), "daemon"]
            process = subprocess.Popen(argv, env=self.environment(**environment), stdout=log, stderr=log)
        self.processes.append(process)
        return process

    def listens(self) -> bool:
        try:
            connect().close()
        except OSError:
            return False
        return True

    def log(self) -> str:
        return self.log_file.read_text()

    def stop(self, number: int = signal.SIGTERM) -> int:
        """End the last one that was started; its exit code."""
        self.hang_up()
        self.processes[-1].send_signal(number)
        return self.processes[-1].wait(PATIENCE)

    def end(self) -> None:
        self.hang_up()
        for process in self.processes:
            process.kill()
            process.wait()

    def hang_up(self) -> None:
        if self._http is not None:
            self._http.close()
            self._http = None

    def ask(self, path: str, body: Any = None, method: str = "POST") -> tuple[int, Any]:
        """An answer's status and JSON. A body that is no bytes is sent as JSON."""
        if self._http is None:
            self._http = http.client.HTTPConnection("berth")
            self._http.sock = connect()
        sent = body if isinstance(body, bytes) else b"" if body is None else json.dumps(body).encode()
        self._http.request(method, path, sent)
        return answer(self._http.getresponse())

    def __call__(self, name: str, **fields: Any) -> Any:
        """One of Docker's calls that must succeed; its answer."""
        status, said = self.ask(f"/{name}", fields)
        assert status == 200 and not said.get("Err") and not said.get("Error"), said
        return said

    def of(self, method: str, ident: str = EP, **more: Any) -> Any:
        return self(f"NetworkDriver.{method}", NetworkID=NET, EndpointID=ident, **more)

    def create(self) -> str:
        """All that Docker says to make a network; the pool's id."""
        pool = str(self("IpamDriver.RequestPool", AddressSpace="berth", Pool=SUBNET, SubPool="", V6=False)["PoolID"])
        options = {"RequestAddressType": "com.docker.network.gateway"}
        gateway = self("IpamDriver.RequestAddress", PoolID=pool, Address="", Options=options)["Address"]
        data = {"AddressSpace": "berth", "Pool": SUBNET, "Gateway": gateway}
        options = {"com.docker.network.enable_ipv6": False, "com.docker.network.generic": {}}  # type: ignore[dict-item]
        self("NetworkDriver.CreateNetwork", NetworkID=NET, Options=options, IPv4Data=[data], IPv6Data=[])
        return pool

    def plug(self, pool: str, ident: str = EP) -> Any:
        """All that Docker says for a container; the answer to Join."""
        address = self("IpamDriver.RequestAddress", PoolID=pool, Address="", Options=None)["Address"]
        interface = {"Address": address, "AddressIPv6": "", "MacAddress": ""}
        said = self.of("CreateEndpoint", ident, Interface=interface, Options={})
        assert re.fullmatch("(?:[0-9a-f]{2}:){5}[0-9a-f]{2}", said["Interface"]["MacAddress"])
        return self.of("Join", ident, SandboxKey="/var/run/docker/netns/0123456789ab", Options={})


def answer(response: http.client.HTTPResponse) -> tuple[int, Any]:
    """Status and JSON of an answer, which never shows the inside of the program."""
    body = response.read()
    assert b"Traceback" not in body and b"fault of Berth" not in body, body
    assert response.headers["Content-Type"] == "application/json", body
    return response.status, json.loads(body)


def refused(status: int, said: Any) -> str:
    """The text of a refusal that Docker's engine can read, in whatever protocol."""
    assert set(said) >= {"Err", "Error"} and said["Err"] == said["Error"] != "", said
    assert status in (200, 400, 404, 405, 408, 413), said
    return str(said["Err"])


def raw(*parts: bytes) -> bytes:
    """Send bytes, and hear all until the other side hangs up."""
    with connect() as connection:
        for part in parts:
            connection.sendall(part)
        return heard(connection)


def heard(connection: socket.socket) -> bytes:
    said = b""
    while part := connection.recv(65536):
        said += part
    return said


def request(path: str, body: bytes, *headers: str) -> bytes:
    head = [f"POST {path} HTTP/1.1", "Host: plugin.moby.localhost", f"Content-Length: {len(body)}", *headers, "", ""]
    return "\r\n".join(head).encode() + body


@pytest.fixture
def plan(host: Host, tmp_path: Path) -> Iterator[Daemon]:
    """A daemon that is not started yet."""
    daemon = Daemon(tmp_path / "state")
    yield daemon
    daemon.end()


@pytest.fixture
def daemon(plan: Daemon) -> Daemon:
    plan.start()
    return plan


def links(host: Host) -> set[str]:
    return {link["ifname"] for link in host.ip("link")}


# --- what it answers ------------------------------------------------------------------------------------


def test_activate_and_capabilities(daemon: Daemon) -> None:
    for body in (b"", b"{}\n", b"null"):
        assert daemon.ask("/Plugin.Activate", body) == (200, {"Implements": ["NetworkDriver", "IpamDriver"]})
        status, said = daemon.ask("/NetworkDriver.GetCapabilities", body)
        assert (status, said["Scope"]) == (200, "local")
        status, said = daemon.ask("/IpamDriver.GetDefaultAddressSpaces", body)
        assert status == 200 and said["LocalDefaultAddressSpace"]


def test_a_networks_and_an_endpoints_life(host: Host, daemon: Daemon) -> None:
    before = host.everything()
    pool = daemon.create()
    joined = daemon.plug(pool)
    inner = joined["InterfaceName"]["SrcName"]
    host.sandbox("c1")
    host.batch(f"link set {inner} netns c1 name eth0\n")
    host.batch("link set eth0 up\naddr add 10.88.0.2/24 dev eth0\n", ns="/run/netns/c1")
    sh("ping -c 1 -W 5 10.88.0.2")
    ports = {"com.docker.network.portmap": [{"Proto": 6, "Port": 80, "HostIP": "", "HostPort": 8080}]}
    assert daemon.of("ProgramExternalConnectivity", Options=ports) == {}
    assert "8080" in sh("nft list table inet berth")
    assert daemon.of("EndpointOperInfo")["Value"]
    for method in ("RevokeExternalConnectivity", "Leave", "DeleteEndpoint"):
        assert daemon.of(method) == {}
    for address in ("10.88.0.2", "10.88.0.1"):
        assert daemon("IpamDriver.ReleaseAddress", PoolID=pool, Address=address) == {}
    assert daemon("IpamDriver.ReleasePool", PoolID=pool) == {}
    assert daemon("NetworkDriver.DeleteNetwork", NetworkID=NET) == {}
    host.batch("netns del c1\n")
    until(lambda: host.everything() == before)  # retired cables are swept a little later


@pytest.mark.parametrize(
    "path", ["/nonsense", "/NetworkDriver.Nonsense", "/NetworkDriver.AllocateNetwork", "/v1/nonsense"]
)
def test_an_unknown_path(daemon: Daemon, path: str) -> None:
    status, said = daemon.ask(path, {})
    assert status == 404 and refused(status, said)


def test_another_method(daemon: Daemon) -> None:
    status, said = daemon.ask("/NetworkDriver.Join", method="GET")
    assert status == 405 and refused(status, said)


NEED_A_BODY = [
    "NetworkDriver.GwAllocCheck",
    *(f"NetworkDriver.{what}{thing}" for what in ("Create", "Delete") for thing in ("Network", "Endpoint")),
    *(f"NetworkDriver.{name}" for name in ("Join", "Leave", "EndpointOperInfo")),
    *(f"NetworkDriver.{name}ExternalConnectivity" for name in ("Program", "Revoke")),
    *(f"IpamDriver.{what}{thing}" for what in ("Request", "Release") for thing in ("Pool", "Address")),
]
WRONG = [
    b"", b"\n", b"{", b"[]", b"7", b'"x"', b"null", b"\xff\xfe", b'{"NetworkID": "\xff"}', b'{"NetworkID": "\\ud800"}',
    b'{"NetworkID": 7, "EndpointID": 7, "PoolID": 7, "Pool": 7, "Options": 7}',
    b'{"NetworkID": null, "EndpointID": null, "PoolID": null, "Pool": [], "Options": "x"}',
    b'{"NetworkID": "../../etc", "EndpointID": "../../etc", "PoolID": [], "Options": []}',
    b'{"Options": ' + b"[" * 100_000 + b"]" * 100_000 + b"}",
    b'{"NetworkID": "' + NET.encode() + b'", "EndpointID": "' + EP.encode() + b'", "PoolID": "x", "Options": {"a": '
    + b"[" * 100_000 + b"]" * 100_000 + b"}}",
]  # fmt: skip


@pytest.mark.parametrize("name", NEED_A_BODY)
def test_bodies_that_make_no_sense(daemon: Daemon, name: str) -> None:
    for body in WRONG:
        status, said = daemon.ask(f"/{name}", body)
        if status != 200 or said.get("Err") or not body.strip():
            assert refused(status, said).isprintable()
    assert "Traceback" not in daemon.log()


def test_what_was_never_there_may_be_undone(daemon: Daemon) -> None:
    for method in ("Leave", "DeleteEndpoint", "RevokeExternalConnectivity"):
        assert daemon.of(method) == {}
    assert daemon("NetworkDriver.DeleteNetwork", NetworkID=NET) == {}
    assert daemon("IpamDriver.ReleasePool", PoolID="nobody's") == {}
    assert daemon("IpamDriver.ReleaseAddress", PoolID="nobody's", Address="10.0.0.1") == {}


def test_what_is_not_there_cannot_be_used(daemon: Daemon) -> None:
    interface = {"Address": "10.88.0.2/24", "AddressIPv6": "", "MacAddress": ""}
    for name, fields in (
        ("NetworkDriver.CreateEndpoint", {"NetworkID": NET, "EndpointID": EP, "Interface": interface}),
        ("NetworkDriver.Join", {"NetworkID": NET, "EndpointID": EP, "SandboxKey": "x"}),
        ("NetworkDriver.ProgramExternalConnectivity", {"NetworkID": NET, "EndpointID": EP}),
        ("IpamDriver.RequestAddress", {"PoolID": "nobody's", "Address": ""}),
    ):
        status, said = daemon.ask(f"/{name}", fields)
        assert status == 200 and refused(status, said)


def test_calls_may_come_twice(host: Host, daemon: Daemon) -> None:
    pool = daemon.create()
    daemon.create()
    first = daemon.plug(pool)
    interface = {"Address": "10.88.0.2/24", "AddressIPv6": "", "MacAddress": ""}
    daemon.of("CreateEndpoint", Interface=interface, Options={})
    assert daemon.of("Join", SandboxKey="x", Options={}) == first
    for _ in range(2):
        daemon.of("Leave")
        daemon.of("DeleteEndpoint")
    for _ in range(2):
        daemon("IpamDriver.ReleasePool", PoolID=pool)
    for _ in range(2):
        daemon("NetworkDriver.DeleteNetwork", NetworkID=NET)
    until(lambda: links(host) == {"lo"})


ODD_SANDBOXES = ["/\0", "a\0b", "/" + "x" * 5000, "x" * 5000, "pid:0", "pid:" + "9" * 5000, "pid:\u0663", "docker:x",
                 "docker:x/../y", "../c1", "/etc/passwd", "/proc/self/fd/0", "\n", "\u20ac"]  # fmt: skip


@pytest.mark.parametrize("sandbox", ODD_SANDBOXES, ids=range(len(ODD_SANDBOXES)))
def test_odd_sandboxes(daemon: Daemon, sandbox: str) -> None:
    daemon.create()
    for method, path, body in (
        ("POST", "/v1/endpoints", {"network": NET, "sandbox": sandbox}),
        ("DELETE", f"/v1/endpoints?{urlencode({'network': NET, 'sandbox': sandbox})}", None),
    ):
        status, said = daemon.ask(path, body, method)
        assert status in (400, 404) and said["kind"] in ("Invalid", "NotFound"), said


def test_a_body_that_is_too_large(daemon: Daemon) -> None:
    said = b""
    with connect() as connection:
        with suppress(BrokenPipeError, ConnectionResetError):  # it need not listen to the end
            connection.sendall(request("/NetworkDriver.Join", b" " * 10_000_000))
        connection.settimeout(PATIENCE)
        said = connection.recv(65536)
    assert said.startswith(b"HTTP/1.1 413 ") and b'"Err":' in said
    assert daemon.ask("/Plugin.Activate")[0] == 200


def test_the_log_has_a_line_for_each_call(daemon: Daemon) -> None:
    for _ in range(3):
        daemon("IpamDriver.GetCapabilities")
    daemon.ask("/NetworkDriver.Join", b"")
    lines = daemon.log().splitlines()
    assert (
        len([line for line in lines if re.fullmatch(r"call=IpamDriver.GetCapabilities ms=\d+\.\d+ ok=true", line)]) == 3
    )
    assert len([line for line in lines if line.startswith("call=NetworkDriver.Join ms=") and " error=" in line]) == 1


# --- clients that are slow, odd or many -----------------------------------------------------------------


def test_a_client_that_stalls_holds_nobody_up(daemon: Daemon) -> None:
    whole = request("/NetworkDriver.Leave", json.dumps({"NetworkID": NET, "EndpointID": EP}).encode())
    with connect() as stalled, connect() as silent:
        stalled.sendall(whole[:-20])
        silent.sendall(b"POST /NetworkDriver.Lea")
        for _ in range(20):
            assert daemon.ask("/NetworkDriver.Leave", {"NetworkID": NET, "EndpointID": EP}) == (200, {})
        stalled.sendall(whole[-20:])
        said = b""
        while not said.endswith(b"{}"):
            said += stalled.recv(65536)
        assert said.startswith(b"HTTP/1.1 200 ")


def test_a_client_that_hangs_up_in_the_middle(daemon: Daemon) -> None:
    whole = request("/NetworkDriver.Leave", json.dumps({"NetworkID": NET, "EndpointID": EP}).encode())
    for length in range(0, len(whole), 7):
        with connect() as connection:
            connection.sendall(whole[:length])
    assert daemon.ask("/IpamDriver.GetCapabilities")[0] == 200
    assert "Traceback" not in daemon.log()


def test_a_client_that_says_it_has_no_more_to_say(daemon: Daemon) -> None:
    """`nc -N` and `socat` close their side after the request."""
    with connect() as connection:
        connection.sendall(request("/IpamDriver.GetCapabilities", b""))
        connection.shutdown(socket.SHUT_WR)
        assert heard(connection).startswith(b"HTTP/1.1 200 ")


def test_requests_one_behind_the_other(daemon: Daemon) -> None:
    several = [
        request("/Plugin.Activate", b""),
        request("/NetworkDriver.Leave", json.dumps({"NetworkID": NET, "EndpointID": EP}).encode()),
        request("/nowhere", b"{}"),
        request("/IpamDriver.GetCapabilities", b"", "Connection: close"),
    ]
    said = raw(b"".join(several))
    assert re.findall(rb"HTTP/1.1 (\d+) ", said) == [b"200", b"200", b"404", b"200"]
    assert b"RequiresMACAddress" in said.rpartition(b"\r\n\r\n")[2]


def test_a_body_in_chunks(daemon: Daemon) -> None:
    body = json.dumps({"NetworkID": NET, "EndpointID": EP}).encode()
    head = b"POST /NetworkDriver.Leave HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\nConnection: close\r\n\r\n"
    chunks = b"".join(b"1\r\n" + bytes([byte]) + b"\r\n" for byte in body)
    said = raw(head + chunks + b"0\r\n\r\n")
    assert said.startswith(b"HTTP/1.1 200 ") and said.endswith(b"{}")


@pytest.mark.parametrize(
    "said",
    [b"\r\n", b"nonsense\r\n\r\n", b"GET\r\n\r\n", b"POST / HTTP/9.9\r\n\r\n", bytes(range(256)), b"\x16\x03\x01" * 99],
)
def test_what_is_no_http(daemon: Daemon, said: bytes) -> None:
    with connect() as connection:
        connection.sendall(said)
        connection.shutdown(socket.SHUT_WR)
        assert b"Traceback" not in heard(connection)
    assert daemon.ask("/IpamDriver.GetCapabilities")[0] == 200
    assert "Traceback" not in daemon.log()


def test_five_hundred_at_once(host: Host, daemon: Daemon) -> None:
    pool = daemon.create()
    given: list[str] = []
    failed: list[Exception] = []

    def ask(number: int) -> None:
        try:
            connection = http.client.HTTPConnection("berth")
            connection.sock = connect()
            body = json.dumps({"PoolID": pool, "Address": "", "Options": None})
            connection.request("POST", "/IpamDriver.RequestAddress", body)
            status, said = answer(connection.getresponse())
            connection.close()
            assert status == 200
            given.append(said.get("Address") or said["Error"])
        except Exception as error:
            failed.append(error)

    threads = [threading.Thread(target=ask, args=(number,)) for number in range(500)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(PATIENCE * 2)
    assert failed == [] and len(given) == 500
    addresses = [text for text in given if text.endswith("/24")]
    assert len(addresses) == len(set(addresses)) == 253
    assert all("is full" in text for text in given if text not in addresses)


# --- coming and going -----------------------------------------------------------------------------------


def test_the_socket_is_roots_alone(daemon: Daemon) -> None:
    assert stat.S_IMODE(SOCKET.stat().st_mode) == 0o600


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_it_ends_when_told_to(daemon: Daemon, number: int) -> None:
    assert daemon.stop(number) == 0
    assert not SOCKET.exists()
    assert "Traceback" not in daemon.log()


def test_it_ends_though_clients_are_connected(daemon: Daemon) -> None:
    with connect() as idle, connect() as stalled:
        idle.sendall(request("/IpamDriver.GetCapabilities", b""))
        assert idle.recv(65536)
        stalled.sendall(b"POST /NetworkDriver.Leave HTTP/1.1\r\nHost: x\r\nContent-Length: 7\r\n\r\n{")
        assert daemon.stop() == 0
        said = stalled.recv(65536)
        assert said.startswith(b"HTTP/1.1 408 ") and b'"Err":' in said
    assert not SOCKET.exists()


def test_a_killed_daemons_socket_is_replaced(host: Host, daemon: Daemon) -> None:
    pool = daemon.create()
    joined = daemon.plug(pool)
    there = host.everything()
    assert daemon.stop(signal.SIGKILL) == -signal.SIGKILL
    assert SOCKET.exists()
    daemon.start()
    assert daemon.of("Join", SandboxKey="x", Options={}) == joined
    assert host.everything() == there
    assert daemon("IpamDriver.RequestAddress", PoolID=pool, Address="")["Address"] == "10.88.0.3/24"
    status, said = daemon.ask("/v1/networks", method="GET")
    assert (status, [net["id"] for net in said]) == (200, [NET])


def test_a_daemon_that_starts_puts_things_in_order(host: Host, daemon: Daemon) -> None:
    daemon.plug(daemon.create())
    daemon.stop(signal.SIGKILL)
    there = host.everything()
    sh("nft flush ruleset")
    daemon.start()
    until(lambda: host.everything() == there)


def test_a_second_daemon_is_refused(daemon: Daemon) -> None:
    second = subprocess.run(
        [BERTH, "daemon"], env=daemon.environment(), capture_output=True, text=True, timeout=PATIENCE, check=False
    )
    assert second.returncode == 2 and str(SOCKET) in second.stderr and len(second.stderr.splitlines()) == 1
    assert daemon.ask("/IpamDriver.GetCapabilities")[0] == 200


def test_a_file_in_the_sockets_place_is_left_alone(plan: Daemon) -> None:
    RUN.mkdir()
    SOCKET.write_text("mine")
    assert plan.begin().wait(PATIENCE) == 2
    assert SOCKET.read_text() == "mine"


def test_systemd_is_told(plan: Daemon) -> None:
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as listener:
        listener.settimeout(PATIENCE)
        listener.bind("/run/notify")
        plan.begin(NOTIFY_SOCKET="/run/notify", WATCHDOG_USEC="30000")
        heard = [listener.recv(100)]
        while heard.count(b"WATCHDOG=1") < 3:
            heard.append(listener.recv(100))
        assert heard.count(b"READY=1") == 1
        plan.processes[-1].send_signal(signal.SIGTERM)
        while (said := listener.recv(100)) != b"STOPPING=1":
            assert said == b"WATCHDOG=1"
        assert plan.processes[-1].wait(PATIENCE) == 0


def test_systemd_is_told_in_an_abstract_socket(plan: Daemon) -> None:
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as listener:
        listener.settimeout(PATIENCE)
        listener.bind("\0berth-test-notify")  # of this network namespace
        plan.begin(NOTIFY_SOCKET="@berth-test-notify")
        assert listener.recv(100) == b"READY=1"
        until(lambda: "carrying ports" in plan.log())  # the proxy, a child: what it is ready for is not the service
        assert plan.stop() == 0
        assert listener.recv(100) == b"STOPPING=1"
        listener.setblocking(False)
        with pytest.raises(BlockingIOError):
            listener.recv(100)


#: Does as systemd with a socket unit: the socket is descriptor 3 of the process, which is told so.
LAUNCHER = """
import os, sys
os.dup2(int(sys.argv[1]), 3)
os.environ.update(LISTEN_FDS="1", LISTEN_PID=str(os.getpid()))
os.execv(sys.argv[2], sys.argv[2:])
"""


def test_socket_activation(plan: Daemon) -> None:
    RUN.mkdir()
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as listener:
        listener.bind(str(SOCKET))
        listener.listen(64)
        early = [connect() for _ in range(5)]
        for connection in early:
            connection.sendall(request("/IpamDriver.GetCapabilities", b"", "Connection: close"))
        os.set_inheritable(listener.fileno(), True)
        for _ in range(2):
            with plan.log_file.open("ab") as log:
                argv = [sys.executable, "-c", LAUNCHER, str(listener.fileno()), str(BERTH), "daemon"]
                process = subprocess.Popen(argv, env=plan.environment(), stderr=log, pass_fds=(listener.fileno(),))
            plan.processes.append(process)
            for connection in early:
                assert heard(connection).startswith(b"HTTP/1.1 200 "), plan.log()
                connection.close()
            assert plan.stop() == 0
            assert SOCKET.exists()
            early = [connect()]
            early[0].sendall(request("/IpamDriver.GetCapabilities", b"", "Connection: close"))
        early[0].close()


# --- the command line -----------------------------------------------------------------------------------

_OWN = re.compile(
    r"\b[0-9a-f]{12}:[0-9a-f]{4,}|[0-9a-f]{64}|(?:brt|bv)[0-9a-f]{12}|\b[0-9a-f]{12}\b"
    r"|(?:[0-9a-f]{2}:){5}[0-9a-f]{2}|\d{4}-\d\d-\d\dT[\d:.]+Z"
)

SESSION = """
network create --subnet 10.77.0.0/24 --subnet fd77::/64 --label a=b --label c -o mtu=1400 --dry-run nat
network create --subnet 10.77.0.0/24 --subnet fd77::/64 --label a=b --label c -o mtu=1400 nat
network create --subnet 10.78.0.0/24 --ip-range 10.78.0.128/25 --aux-address n=10.78.0.200 --gateway 10.78.0.9 --json b
network create --subnet 10.77.0.0/24 other
network create --subnet 10.79.0.0/24 nat
network create --subnet 10.79.0.7/40 x
network create --driver flat -o parent=nosuch x
network create --driver nosuch x
network create --dry-run --json --subnet 10.80.0.0/24 --internal x
network ls
network ls --json
network inspect nat
network inspect nat b
network inspect nosuch
network inspect a?b=c
network inspect %2e
network inspect .
attach --dry-run nat c1 -p 8080:80
attach --dry-run --json nat c1
attach nat c1 -p 8080:80 -p [fd99::1]:53:53/udp -p 127.0.0.1:53:53/udp
attach nat c1
attach --json --ip 10.77.0.9 --ip fd77::9 --mac 02:00:00:00:00:07 --ifname lan0 --name web nat c2
attach nat c3
attach nat nosuch
attach nat pid:0
attach nat relative/path
attach nat /etc/passwd
attach nosuch c1
attach --ip 10.77.0.9 nat c3 --ifname e7
attach --ip 10.99.0.9 nat c3 --ifname e7
attach -p 8080:81 b c3
attach b c3
endpoint ls
endpoint ls --json
endpoint ls --network nat
endpoint ls --network nosuch
endpoint ls --network ''
port ls
port ls --json
port publish --dry-run c1 -p 9000-9009:9000-9009
port publish c1 -p 9000-9009:9000-9009 -p 81 -p 127.0.0.1::82/udp
port publish --json web -p 8090:80
port publish web -p 8080:80
port publish web -p x
port publish nosuch -p 80
port unpublish c1 -p 9005:9005
port unpublish c1 -p 9005:9005
port unpublish c1
port unpublish --dry-run --json c1 --all
port unpublish --json c1 -p 9000-9003:9000-9003
port ls
network rm nat
network rm --dry-run nosuch
network prune
detach --dry-run nat c1
detach --json nat web
detach nat nosuch
detach nosuch c1
detach nat c1
detach b c3
detach nat c3
reconcile
reconcile --json
network rm --dry-run nat
network rm --json nat
network rm b
network rm nat
""".strip().splitlines()


@pytest.fixture
def cli(plan: Daemon) -> Callable[..., subprocess.CompletedProcess[str]]:
    def run(line: str, *before: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [*before, BERTH, *shlex.split(line)],
            env=plan.environment(),
            capture_output=True,
            text=True,
            timeout=PATIENCE,
            check=False,
        )

    return run


def typed(line: str) -> tuple[int, str, str]:
    """What `berth` does in this process: its exit code, and what it prints."""
    out, err = io.StringIO(), io.StringIO()
    with redirect_stdout(out), redirect_stderr(err), pytest.raises(SystemExit) as ended:
        main(shlex.split(line))
        sys.exit(0)
    code = ended.value.code
    assert isinstance(code, int)
    return code, _OWN.sub("*", out.getvalue()), _OWN.sub("*", err.getvalue())


def both_ways(host: Host, plan: Daemon, lines: list[str]) -> tuple[list[tuple[int, str, str]], list[str]]:
    """What lines say without a daemon, and where it is not the same with one."""
    said: list[list[tuple[int, str, str]]] = []
    for served in (False, True):
        host.batch("netns add c1\nnetns add c2\nnetns add c3\n")
        if served:
            plan.start()
        said.append([typed(line) for line in lines])
        host.batch("netns del c1\nnetns del c2\nnetns del c3\n")
        until(lambda: links(host) == {"lo"})
        sh("nft flush ruleset; sysctl -q -w net.ipv4.ip_forward=0 net.ipv6.conf.all.forwarding=0")
    both = zip(lines, *said, strict=True)
    return said[0], [f"{line}\n  {one}\n  {other}" for line, one, other in both if one != other]


def test_the_command_line_says_the_same_with_the_daemon(
    host: Host, plan: Daemon, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in plan.environment().items():
        monkeypatch.setenv(name, value)
    said, different = both_ways(host, plan, SESSION)
    assert different == [], "\n".join(different)
    codes = [code for code, _, _ in said]
    assert {*codes} == {0, 2} and codes.count(0) > 20
    assert "POST /v1/endpoints" in plan.log() and "DELETE /v1/networks/{name}" in plan.log()


@pytest.mark.parametrize("name", ["a/b", "../endpoints", "/", "''", "x%2fy", "x?dry_run=true", "x#y"])
def test_the_command_line_refuses_strange_names_alike(
    host: Host, plan: Daemon, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    for key, value in plan.environment().items():
        monkeypatch.setenv(key, value)
    lines = [f"network inspect {name}", f"network rm {name}", f"endpoint ls --network {name}", f"attach {name} c1",
             f"attach x {name}", f"detach {name} c1"]  # fmt: skip
    said, different = both_ways(host, plan, lines)
    assert different == [], "\n".join(different)
    assert {code for code, _, _ in said} == {2}


def test_in_another_network_namespace_the_command_line_works_by_itself(
    host: Host, daemon: Daemon, cli: Callable[..., subprocess.CompletedProcess[str]]
) -> None:
    host.sandbox("c1")
    done = cli("network create --subnet 10.77.0.0/24 inner", "nsenter", "--net=/run/netns/c1")
    assert done.returncode == 0, done.stderr
    assert links(host) == {"lo"}
    assert any(link["ifname"].startswith("brt") for link in host.ip("link", ns="/run/netns/c1"))
    assert "/v1/networks" not in daemon.log()


def test_with_a_socket_that_nobody_listens_on_the_command_line_works_by_itself(
    host: Host, daemon: Daemon, cli: Callable[..., subprocess.CompletedProcess[str]]
) -> None:
    daemon.stop(signal.SIGKILL)
    assert SOCKET.exists()
    done = cli("network create --subnet 10.77.0.0/24 mine")
    assert done.returncode == 0, done.stderr
    assert len(links(host)) == 2


def test_docker_and_the_command_line_see_the_same(
    host: Host, daemon: Daemon, cli: Callable[..., subprocess.CompletedProcess[str]]
) -> None:
    daemon.plug(daemon.create())
    host.sandbox("c1")
    assert cli(f"attach {NET} c1").returncode == 0
    listed = json.loads(cli("endpoint ls --json").stdout)
    assert [entry["addresses"] for entry in listed] == [["10.88.0.2/24"], ["10.88.0.3/24"]]
    assert json.loads(cli(f"network inspect {NET}").stdout)[0]["Id"] == NET
