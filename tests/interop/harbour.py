"""A lab's host with Docker and Berth on it, and what the tests ask of all three."""

from __future__ import annotations

import json
import re
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from berth.lab.session import Inside, Session

from .engines import Dockerd, EngineError

ROUTER, HOST, LAPTOP, INTERNET = "192.168.2.1", "192.168.2.2", "192.168.2.50", "203.0.113.10"
ROUTER6, LAPTOP6, INTERNET6 = "fd00:2::1", "fd00:2::50", "2001:db8::10"
LAN = ("--subnet=192.168.2.0/24", "-o", "parent=br0")
OURS = ("-d", "berth", "--ipam-driver", "berth")
ALWAYS = ("sh", "-c", "trap exit TERM; while :; do sleep 1 & wait; done")  # ends at once when it is told to

#: The post's command, with Berth as the driver and for the addresses.
POST = (
    *("--driver=berth", "--ipam-driver=berth", "--ip-range=192.168.2.0/24", "--subnet=192.168.2.0/24"),
    *("--aux-address=ip1=192.168.2.10", "-o", "com.docker.network.bridge.name=br0"),
)

_ACTIVATE = """
import os, select, socket, sys
held = socket.socket(socket.AF_UNIX)
held.bind(sys.argv[1])
held.listen(100)
select.select([held], [], [])
assert held.fileno() == 3
os.set_inheritable(3, True)
os.execvpe("berth", ["berth", "daemon"], os.environ | {"LISTEN_PID": str(os.getpid()), "LISTEN_FDS": "1"})
"""


class Berthd:
    """A `berth daemon` on a lab's host."""

    def __init__(self, lab: Session, docker: Path, node: str = "host", store: str = "") -> None:
        self.lab, self.node = lab, node
        self._variables = {"DOCKER_HOST": f"unix://{docker}"} | ({"BERTH_STORE": store} if store else {})
        self.socket = lab.work / node / "run/berth.sock"
        self._log = lab.work / node / "daemon.log"
        self._process: Inside | None = None

    def start(self) -> None:
        """Start it, and wait until it listens."""
        with self._log.open("ab") as log:
            self._process = self.lab.popen(self.node, ["berth", "daemon"], stdout=log, stderr=log, env=self._variables)
        until(lambda: self.socket.exists() and self.lab.berth("network", "ls", host=self.node).returncode == 0)

    def activate(self) -> None:
        """Hold its socket, as systemd would, and start it when somebody connects."""
        with self._log.open("ab") as log:
            self._process = self.lab.popen(
                self.node, ["python3", "-c", _ACTIVATE, str(self.socket)], stdout=log, stderr=log, env=self._variables
            )
        until(self.socket.exists)

    @contextmanager
    def held_up(self) -> Iterator[None]:
        """Somebody else holds Berth's lock: no verb gets any further."""
        lock = self.lab.work / self.node / "state/berth.lock"
        with self.lab.popen(
            self.node, ["flock", str(lock), "sh", "-c", "echo held; exec sleep 600"], stdout=-1
        ) as held:
            assert held.stdout is not None and held.stdout.readline() == b"held\n"
            yield
            self.lab.run(self.node, ["pkill", "--full", "^sleep 600$"], check=True)

    def stop(self) -> None:
        """Have it end by itself."""
        assert self._process is not None
        self._process.terminate()
        assert self._process.wait(30) == 0, self.log()

    def kill9(self) -> None:
        """Kill it."""
        assert self._process is not None
        self._process.kill()
        self._process.wait()

    def log(self) -> str:
        """What it has said."""
        return self._log.read_text()


class Harbour:
    """Docker and Berth on one host."""

    def __init__(self, lab: Session, kind: str, *, node: str = "host", store: str = "", **options: Any) -> None:
        """`store`: of the hosts that share one; else the daemon has its own."""
        self.lab, self.node = lab, node
        self.engine = Dockerd(lab, kind, node=node, **options)
        self.berthd = Berthd(lab, self.engine.socket, node, store)

    def __enter__(self) -> Self:
        until(lambda: not self.sh("ip -6 address show tentative"))
        self.berthd.start()
        self.engine.__enter__()
        self.engine.plugin("berth.spec", f"unix://{self.berthd.socket}\n")
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if error is not None:
            error.add_note(f"the log of berth:\n{self.berthd.log()[-4000:]}")
        self.engine.__exit__(kind, error, trace)
        self.berthd.kill9()

    # --- docker ---

    def docker(self, *args: str, **options: Any) -> str:
        """What `docker …` prints, which must succeed."""
        return self.engine.docker(*args, **options).strip()

    def refused(self, *args: str) -> str:
        """Why `docker …` is refused."""
        try:
            said = self.engine.docker(*args)
        except EngineError as error:
            return str(error)
        raise AssertionError(f"docker {' '.join(args)} went through: {said}")

    def network(self, name: str, *args: str) -> str:
        """Make a network with Berth as the driver and for the addresses."""
        return self.docker("network", "create", *OURS, *args, name)

    def start(self, name: str, network: str, *args: str, command: Sequence[str] = ALWAYS) -> str:
        """Start a container that stays; its IPv4 address on the network."""
        self.docker("run", "-d", "--init", "--name", name, "--network", network, *args, "bb", *command)
        return self.address(name, network)

    def serve(self, name: str, network: str, *args: str) -> str:
        """Start a web server that says its own name."""
        script = f"echo {name} > /tmp/index.html; exec httpd -f -h /tmp -p 80"
        return self.start(name, network, *args, command=("sh", "-c", script))

    def inside(self, name: str, *argv: str, check: bool = True) -> str:
        """What a command prints in a container."""
        return self.engine.docker("exec", name, *argv, check=check).strip()

    def attached(self, name: str, network: str) -> dict[str, Any]:
        """What Docker knows of a container on a network."""
        (found,) = json.loads(self.docker("inspect", name))
        settings: dict[str, Any] = found["NetworkSettings"]["Networks"][network]
        return settings

    def address(self, name: str, network: str) -> str:
        """A container's IPv4 address on a network."""
        return str(self.attached(name, network)["IPAddress"])

    def inspected(self, network: str) -> dict[str, Any]:
        """What Docker knows of a network."""
        (found,) = json.loads(self.docker("network", "inspect", network))
        return dict(found)

    # --- berth and the kernel ---

    def berth(self, *args: str) -> Any:
        """What `berth … --json` says on the host."""
        done = self.lab.berth(*args, "--json", host=self.node, check=True)
        return json.loads(done.stdout)

    def sh(self, script: str, node: str = "") -> str:
        """What a shell prints in a node for a script that must succeed; on the host where none is named."""
        return self.lab.run(node or self.node, ["sh", "-ec", script], check=True).stdout.strip()

    def reaches(self, node: str, address: str) -> bool:
        """Whether a node gets an answer to a ping."""
        return self.lab.run(node, ["ping", "-n", "-c1", "-W2", address]).returncode == 0

    def asks(self, node: str, address: str, port: int = 80) -> str:
        """What a web server says to a node; "" for none that answers."""
        url = f"http://{address}:{port}/"
        return self.lab.run(node, ["timeout", "5", "busybox", "wget", "-q", "-O-", url]).stdout.strip()

    def look(self) -> list[str]:
        """What of Berth and the LAN a person sees on the host: links, addresses, routes, rules, records."""
        links = [line for line in self.sh("ip -o link").splitlines() if not re.search(r"\bdocker0\b|veth", line)]
        shown = [re.sub(r"^\d+: |@if\d+| (qdisc|state|mode|group|qlen) \S+|<.*?>", "", line) for line in links]
        for what in ("ip -o address", "ip route show table all", "ip -6 route show table all"):
            shown += [line for line in self.sh(what).splitlines() if not re.search("docker0|veth", line)]
        for entry in ("network", "endpoint", "port"):
            shown += [json.dumps(found) for found in self.berth(entry, "ls")]
        nft = self.sh("nft list tables | grep -E ' berth' | grep -v steady || true; iptables -S DOCKER-USER || true")
        # Where a host forwards IPv6 it also listens to its networks' anycast addresses, and it goes on forwarding.
        passing = re.compile("expires|^anycast|^multicast")
        return sorted(" ".join(line.split()) for line in [*shown, *nft.splitlines()] if not passing.search(line))

    def held(self) -> list[str]:
        """The pools and addresses that the IPAM driver has given and not got back."""
        script = """
import sqlite3, sys
db = sqlite3.connect(sys.argv[1])
for row in db.execute("SELECT 'pool ' || owner FROM pool UNION ALL SELECT 'address ' || address FROM granted"
                      " WHERE released IS NULL UNION ALL SELECT 'run ' || pool FROM run ORDER BY 1"):
    print(row[0])
"""
        state = self.lab.work / "host/state/berth.db"
        done = self.lab.run("host", ["python3", "-c", script, str(state)], check=True)
        return done.stdout.splitlines()

    def clear(self) -> None:
        """Remove all containers and networks."""
        containers = self.docker("ps", "-aq").split()
        if containers:
            self.docker("rm", "-f", "-v", *containers)
        try:
            self._remove_networks()
        except EngineError as error:
            if self.engine.kind != "20.10" or "has active endpoints" not in str(error):
                raise
            self._recount()
            self._remove_networks()

    def _remove_networks(self) -> None:
        networks = self.docker("network", "ls", "-q", "--filter", "type=custom").split()
        if networks:
            self.docker("network", "rm", *networks)

    def _recount(self) -> None:
        """Docker 20.10 miscounts the endpoints of a network, its own bridge's as well, when many end at once.

        It counts again as it starts (moby/moby#43286), and says so: what else keeps a network is not forgiven.
        """
        assert self.berth("endpoint", "ls") == []
        assert "driver error" not in self.engine.log(10**6)
        self.engine.restart()
        assert "Fixing inconsistent endpoint_cnt for network" in self.engine.log(1000)


class Pings:
    """Pings from a node, five a second, counted: what is lost while something happens."""

    def __init__(self, lab: Session, node: str, address: str) -> None:
        self._process = lab.popen(node, ["ping", "-n", "-i0.1", "-W1", address], stdout=-1, stderr=-1, text=True)

    def lost(self) -> int:
        """How many were not answered; at least some were sent."""
        time.sleep(0.5)
        self._process.send_signal(2)
        said, _ = self._process.communicate(timeout=30)
        found = re.search(r"(\d+) packets transmitted, (\d+) received", said)
        assert found, said
        sent, received = int(found[1]), int(found[2])
        assert sent > 3, said
        return sent - received


def until(condition: Callable[[], object], seconds: float = 30) -> None:
    """Wait for something to come true."""
    give_up = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < give_up, f"not within {seconds} s"
        time.sleep(0.05)
