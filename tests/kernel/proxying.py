"""`berth proxy` in the namespaces of a test, and servers for it to lead to."""

from __future__ import annotations

import os
import socket
import struct
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from ipaddress import ip_address
from pathlib import Path

from berth.firewall import proxy, tables
from berth.model import Proxied

from .conftest import sh

BERTH = Path(sys.executable).parent / "berth"
PATIENCE = 15  # seconds for what should take a moment
RESET = struct.pack("ii", 1, 0)


def until(what: Callable[[], bool], why: str = "it did not come to be") -> None:
    """Wait for something to be so."""
    end = time.monotonic() + PATIENCE
    while not what():
        assert time.monotonic() < end, why
        time.sleep(0.02)


class Proxying:
    """A proxy, the firewall's maps that it follows, and what it said."""

    def __init__(self, run: Path) -> None:
        self.log = run / "log"
        self._environment = {**os.environ, "BERTH_RUN": str(run)}
        self._started: list[subprocess.Popen[bytes]] = []
        self.table()
        self.process = self.start()

    def table(self) -> None:
        """Make Berth's table."""
        subprocess.run(["nft", "-f", "-"], input=tables.inet().script(), text=True, check=True)

    def start(self, *before: str) -> subprocess.Popen[bytes]:
        """Another proxy; `before`: words before the command."""
        with self.log.open("ab") as log:
            process = subprocess.Popen([*before, str(BERTH), "proxy"], env=self._environment, stderr=log)
        self._started.append(process)
        return process

    def again(self, *before: str) -> None:
        """End the proxy and start it anew."""
        self.kill()
        self.process = self.start(*before)

    def kill(self) -> None:
        """As the kernel might."""
        self.process.kill()
        self.process.wait()

    def clear(self) -> None:
        """End all that was started."""
        for process in self._started:
            process.kill()
            process.wait()

    def carry(self, proto: str, ip: str, ports: str, target: str, port: int, instead: Proxied | None = None) -> Proxied:
        """Say what is to be carried, as the engine does: in one transaction."""
        first, _, last = ports.partition("-")
        proxied = Proxied(ip_address(ip), proto, int(first), int(last or first), ip_address(target), port)
        element = proxy.element(proxied)
        sh(element.describe() if instead is None else element.describe_change(proxy.element(instead)))
        return proxied

    def drop(self, proxied: Proxied) -> None:
        """Say that it is not to be carried any more."""
        sh(proxy.element(proxied).describe_removal())

    def said(self) -> str:
        """What it has logged."""
        return self.log.read_text()

    def status(self, name: str) -> str:
        """A line of /proc/PID/status."""
        lines = Path(f"/proc/{self.process.pid}/status").read_text().splitlines()
        return next(line.split(":", 1)[1].strip() for line in lines if line.startswith(f"{name}:"))

    def tasks(self) -> list[Path]:
        """The status of each of its threads."""
        return list(Path(f"/proc/{self.process.pid}/task").glob("*/status"))

    def rss(self) -> int:
        """Bytes of memory."""
        return int(self.status("VmRSS").split()[0]) * 1024

    def sockets(self) -> int:
        """How many it has open, listeners and connections, beside those by which it hears of signals and changes."""
        here = Path(f"/proc/{self.process.pid}/fd")
        found = 0
        for name in os.listdir(here):
            with suppress(FileNotFoundError):  # closed meanwhile
                found += os.readlink(here / name).startswith("socket:")
        return found - 3

    def seconds(self) -> float:
        """Of CPU time that it has used."""
        fields = Path(f"/proc/{self.process.pid}/stat").read_text().rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def family(ip: str) -> socket.AddressFamily:
    """Of an address."""
    return socket.AF_INET6 if ":" in ip else socket.AF_INET


def listening(ip: str, port: int, backlog: int = 128) -> socket.socket:
    """A TCP server that nobody works for yet."""
    return socket.create_server((ip, port), family=family(ip), backlog=backlog)


@contextmanager
def serving(ip: str, port: int, work: Callable[[socket.socket], None]) -> Iterator[socket.socket]:
    """A TCP server that has a thread do the work for each connection. All threads end with the block.

    One that goes on would keep the test from leaving its namespaces (setns(2)).
    """
    server = listening(ip, port)
    connections: list[socket.socket] = []
    threads: list[threading.Thread] = []

    def each(connection: socket.socket) -> None:
        with connection, suppress(OSError):
            connection.settimeout(PATIENCE)
            work(connection)

    def accept() -> None:
        with suppress(OSError):
            while True:
                connections.append(server.accept()[0])
                threads.append(threading.Thread(target=each, args=connections[-1:]))
                threads[-1].start()

    accepting = threading.Thread(target=accept)
    accepting.start()
    try:
        yield server
    finally:
        server.shutdown(socket.SHUT_RDWR)  # ends `accept`
        accepting.join()
        server.close()
        for connection in connections:
            with suppress(OSError):  # it has ended
                connection.shutdown(socket.SHUT_RDWR)
        for thread in threads:
            thread.join()


def echo(connection: socket.socket) -> None:
    """Say everything again, until the end."""
    while data := connection.recv(65536):
        connection.sendall(data)


def everything(connection: socket.socket) -> bytes:
    """All that comes until the end."""
    found = bytearray()
    while data := connection.recv(65536):
        found += data
    return bytes(found)


def connect(ip: str, port: int) -> socket.socket:
    """A client, once somebody listens."""
    end = time.monotonic() + PATIENCE
    while True:
        client = socket.socket(family(ip))
        client.settimeout(PATIENCE)
        try:
            client.connect((ip, port))
        except ConnectionRefusedError:
            client.close()
            assert time.monotonic() < end, f"nobody listens on {ip} {port}"
            time.sleep(0.02)
        else:
            return client


def refused(ip: str, port: int) -> bool:
    """Whether nobody listens."""
    with socket.socket(family(ip)) as client:
        client.settimeout(PATIENCE)
        try:
            client.connect((ip, port))
        except ConnectionRefusedError:
            return True
        except ConnectionResetError:  # somebody does, but the target did not
            return False
    return False


def listens(ip: str, port: int) -> None:
    """Wait until somebody listens."""
    until(lambda: not refused(ip, port), f"nobody listens on {ip} {port}")
