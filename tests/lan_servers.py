"""A LAN of a host and a server, each a network namespace, and the real servers that can run on it.

with lan() as home, dnsmasq(home, "10.77.0.50,10.77.0.99,60"):
    with inside(home.host): …   # br0 is the LAN's bridge, port u0 leads to the server's s0
"""

from __future__ import annotations

import json
import os
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from uuid import uuid4

BRIDGE, SERVER = "br0", "s0"
SERVER_IP, SERVER_IP6 = "10.77.0.1", "fd77::1"
_LOGS = "server.log"


@dataclass
class Lan:
    """The two namespaces, by their paths."""

    host: str
    server: str
    dir: Path
    running: list[subprocess.Popen[bytes]] = field(default_factory=list)

    def run(self, where: str, *command: str) -> str:
        """Run a command in a namespace."""
        return subprocess.run(
            ["nsenter", f"--net={where}", *command], check=True, capture_output=True, text=True
        ).stdout

    @property
    def log(self) -> str:
        """What the servers said."""
        return (self.dir / _LOGS).read_text() if (self.dir / _LOGS).exists() else ""


@contextmanager
def lan(directory: Path) -> Iterator[Lan]:
    """Two namespaces and a cable between them; everything is gone afterwards."""
    tag = uuid4().hex[:8]
    names = [f"bt-{tag}-host", f"bt-{tag}-server"]
    made = Lan(f"/run/netns/{names[0]}", f"/run/netns/{names[1]}", directory)
    try:
        for name in names:
            subprocess.run(["ip", "netns", "add", name], check=True)
        _cable(made, names[1])
        show = ("ip", "-6", "-o", "address", "show", "scope", "link", "dev")
        for where, dev in ((made.host, BRIDGE), (made.server, SERVER)):
            until(lambda where=where, dev=dev: "fe80" in made.run(where, *show, dev), f"{dev} is up")  # type: ignore[misc]
        yield made
    finally:
        for server in made.running:
            stop(server)
        for name in names:
            subprocess.run(["ip", "netns", "del", name], check=False, capture_output=True)


def _cable(made: Lan, peer: str) -> None:
    off = "net.ipv6.conf.default.accept_dad=0"
    for where in (made.host, made.server):
        made.run(where, "sysctl", "-qw", off)
        made.run(where, "ip", "link", "set", "lo", "up")
    host = ("ip", "link")
    made.run(made.host, *host, "add", BRIDGE, "type", "bridge", "forward_delay", "0", "mcast_snooping", "0")
    made.run(made.host, *host, "add", "u0", "type", "veth", "peer", "name", SERVER, "netns", peer)
    made.run(made.host, *host, "set", "u0", "master", BRIDGE, "up")
    made.run(made.server, *host, "set", SERVER, "up")
    made.run(made.host, *host, "set", BRIDGE, "up")
    made.run(made.server, "ip", "address", "add", f"{SERVER_IP}/24", "dev", SERVER)
    made.run(made.server, "ip", "address", "add", f"{SERVER_IP6}/64", "dev", SERVER, "nodad")


def start(
    home: Lan, *command: str, ready: Callable[[], bool] | None = None, env: dict[str, str] | None = None
) -> subprocess.Popen[bytes]:
    """Start a server in the server's namespace, and wait until it is ready."""
    with (home.dir / _LOGS).open("ab") as log:
        server = subprocess.Popen(
            ["nsenter", f"--net={home.server}", *command],
            stdout=log, stderr=log, stdin=subprocess.DEVNULL, env={**os.environ, **(env or {})},
        )  # fmt: skip
    home.running.append(server)
    until(lambda: server.poll() is not None or ready is None or ready(), f"{command[0]} is ready:\n{home.log}")
    assert server.poll() is None, home.log
    return server


def stop(server: subprocess.Popen[bytes]) -> None:
    """End a server of ours."""
    if server.poll() is None:
        server.terminate()
        try:
            server.wait(5)
        except subprocess.TimeoutExpired:
            server.kill()
            server.wait()


def until(true: Callable[[], bool], what: str, seconds: float = 10) -> None:
    """Wait for something."""
    end = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < end, f"not within {seconds:g} s: {what}"
        time.sleep(0.02)


def listens(home: Lan, port: int) -> bool:
    """Whether somebody has the UDP port in the server's namespace."""
    return bool(home.run(home.server, "ss", "-Hlun", f"sport = :{port}").strip())


@contextmanager
def dnsmasq(home: Lan, *options: str, leases: str = "leases") -> Iterator[subprocess.Popen[bytes]]:
    """dnsmasq with DHCP alone; `options` are its own, such as --dhcp-range=10.77.0.50,10.77.0.99,60."""
    ports = [547 if "::" in range_ else 67 for range_ in options if range_.startswith("--dhcp-range")]
    six = "--enable-ra" in options
    server = start(
        home, "dnsmasq", "--keep-in-foreground", "--conf-file=/dev/null", "--port=0", f"--interface={SERVER}",
        "--no-ping", "--log-dhcp", "--log-facility=-", "--user=root", "--pid-file=", "--dhcp-authoritative",
        f"--dhcp-leasefile={home.dir / leases}", *options,
        ready=lambda: six or all(listens(home, port) for port in ports),
    )  # fmt: skip
    try:
        yield server
    finally:
        stop(server)


@contextmanager
def kea(home: Lan, version: int, settings: dict[str, object]) -> Iterator[subprocess.Popen[bytes]]:
    """Kea's server of an IP version; `settings` go into its Dhcp4 or Dhcp6."""
    config: dict[str, object] = {
        "interfaces-config": {"interfaces": [SERVER]},
        "lease-database": {"type": "memfile", "persist": True, "name": str(home.dir / f"kea{version}.csv")},
        "loggers": [{"name": f"kea-dhcp{version}", "output_options": [{"output": "stdout"}], "severity": "INFO"}],
    }
    if version == 6:  # else it writes one below /var/lib
        config["server-id"] = {"type": "EN", "enterprise-id": 2495, "identifier": "0123456789", "persist": False}
    path = home.dir / f"kea{version}.json"
    path.write_text(json.dumps({f"Dhcp{version}": config | settings}))
    here = {"KEA_PIDFILE_DIR": str(home.dir), "KEA_LOCKFILE_DIR": str(home.dir)}
    started = f"DHCP{version}_STARTED"
    server = start(home, f"kea-dhcp{version}", "-c", str(path), env=here, ready=lambda: started in home.log)
    try:
        yield server
    finally:
        stop(server)


@contextmanager
def radvd(home: Lan, config: str) -> Iterator[subprocess.Popen[bytes]]:
    """radvd with what is given for the server's interface."""
    home.run(home.server, "sysctl", "-qw", "net.ipv6.conf.all.forwarding=1")
    path = home.dir / "radvd.conf"
    path.write_text(f"interface {SERVER} {{ AdvSendAdvert on; {config} }};\n")
    server = start(home, "radvd", "-n", "-m", "stderr", "-C", str(path), "-p", str(home.dir / "radvd.pid"))
    try:
        yield server
    finally:
        stop(server)
