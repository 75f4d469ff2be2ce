"""Three real hosts on one wire, each a namespace with a daemon, and a real etcd of three members beside them.

For a process in network, mount and process namespaces that end with it: whatever happens, nothing is left.
"""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Callable
from ipaddress import ip_network
from pathlib import Path
from types import TracebackType
from typing import Self

from attaching import spaces
from berth.client import Client, reachable
from berth.errors import BerthError
from berth.model import NetworkSpec
from berth.store.gateway import Gateway, Members
from berth.store.rpc import GRANT

HOSTS = ("h1", "h2", "h3")
ETCD = tuple((f"10.0.0.{number}", 2379) for number in (252, 253, 254))
MEMBERS = tuple(f"etcd{number}" for number in range(len(ETCD)))
NETWORK, SUBNET, RANGE = "wide", "10.80.0.0/14", "10.80.0.0/20"  # simulated hosts have the addresses beyond the range
_TTL = 60  # seconds of silence until a host is gone
_PATIENCE = 60  # seconds for anything to start

_WIRE = """
mount -t tmpfs tmpfs /run
ip link set lo up
ip link add lan type bridge
for number in 252 253 254; do ip addr add 10.0.0.$number/16 dev lan; done
ip link set lan up
"""
_HOST = """
ip netns add {name}
ip link add p{number} master lan up type veth peer name eth0 netns {name}
ip -n {name} link set lo up
ip -n {name} addr add 10.0.0.{number}/16 dev eth0
ip -n {name} link set eth0 up
ip -n {name} route add default via 10.0.0.254
"""


class Fleet:
    """The hosts and their network, from `with` to its end."""

    def __init__(self, directory: Path) -> None:
        script = _WIRE + "".join(_HOST.format(name=name, number=n) for n, name in enumerate(HOSTS, 1))
        subprocess.run(["sh", "-ec", script], check=True)
        self.home = os.open("/proc/self/ns/net", os.O_RDONLY)
        self._directory = directory
        self._running: dict[str, subprocess.Popen[bytes]] = {}
        self.clients: dict[str, Client] = {}

    def __enter__(self) -> Self:
        try:
            self._begin()
        except BaseException as error:
            self.__exit__(type(error), error, None)
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if error is not None:
            for log in self._directory.glob("*.log"):
                error.add_note(f"{log.name}:\n{log.read_text(errors='replace')[-2000:]}")
        for process in self._running.values():
            process.kill()
            process.wait()

    def _begin(self) -> None:
        cluster = ",".join(f"{name}=http://{host}:2380" for name, (host, _) in zip(MEMBERS, ETCD, strict=True))
        for name, (host, port) in zip(MEMBERS, ETCD, strict=True):
            client, peer = f"http://{host}:{port}", f"http://{host}:2380"
            argv = ["etcd", "--name", name, "--data-dir", str(self._directory / name), "--logger", "zap"]
            argv += ["--listen-client-urls", client, "--advertise-client-urls", client, "--listen-peer-urls", peer]
            argv += ["--initial-advertise-peer-urls", peer, "--initial-cluster", cluster]
            self._start(name, argv, {})
        until(self._takes_writes, "etcd does not answer")
        for number, name in enumerate(HOSTS):
            places = ",".join(f"{host}:{port}" for host, port in (*ETCD[number:], *ETCD[:number]))
            argv = ["nsenter", f"--net={spaces.NAMES}/{name}", sys.executable, "-m", "berth", "daemon"]
            state = self._directory / name
            env = {"BERTH_STATE": str(state), "BERTH_RUN": str(state / "run")}
            self._start(name, argv, env | {"BERTH_STORE": f"etcd://{places}?ttl={_TTL}"})
        for name in HOSTS:
            self.clients[name] = self._client(name)
        until(lambda: len(self.clients["h1"].nodes()) == len(HOSTS), "not all hosts are registered")
        spec = NetworkSpec(
            NETWORK,
            driver="overlay",
            subnets=(ip_network(SUBNET),),
            ip_ranges=(ip_network(RANGE),),
            settings=(("underlay", "10.0.0.0/16"),),
        )
        self.clients["h1"].create_network(spec)

    def _client(self, name: str) -> Client:
        found: list[Client] = []

        def connected() -> bool:
            with spaces.visit(name, self.home):
                client = reachable(self._directory / name / "run/berth.sock")
            found.extend([client] if client is not None else [])
            return bool(found)

        until(connected, f"no daemon on {name}")
        return found[0]

    def _start(self, name: str, argv: list[str], env: dict[str, str]) -> None:
        with open(self._directory / f"{name}.log", "ab") as log:
            self._running[name] = subprocess.Popen(argv, stdout=log, stderr=log, env={**os.environ, **env})

    def gateway(self) -> Gateway:
        """A connection to etcd; for one thread."""
        return Gateway(Members(ETCD))

    def _takes_writes(self) -> bool:
        gateway = self.gateway()
        try:
            gateway.call(GRANT, {"TTL": 5})
        except BerthError:
            return False
        finally:
            gateway.close()
        return True

    def cost(self, name: str) -> tuple[float, float]:
        """Seconds of CPU time and megabytes of memory that a daemon, or all of etcd, has used."""
        if name == "etcd":
            costs = [self.cost(member) for member in MEMBERS]
            return sum(cpu for cpu, _ in costs), sum(memory for _, memory in costs)
        pid = self._running[name].pid
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
        seconds = (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")
        status = Path(f"/proc/{pid}/status").read_text().splitlines()
        return seconds, next(int(line.split()[1]) / 1024 for line in status if line.startswith("VmRSS"))

    def entries(self, name: str, begin: str = "") -> int:
        """How many endpoints a host's tunnel knows on hosts whose addresses begin so."""
        told = ["nsenter", f"--net={spaces.NAMES}/{name}", "bridge", "fdb", "show"]
        lines = subprocess.run(told, capture_output=True, text=True, check=True).stdout.splitlines()
        return sum(f" dst {begin}" in line and line.endswith("self permanent") for line in lines)


def until(true: Callable[[], object], what: str, within: float = _PATIENCE, pause: float = 0.05) -> None:
    """Wait for something. Raises `TimeoutError`, which tells what did not come."""
    end = time.monotonic() + within
    while not true():
        if time.monotonic() > end:
            raise TimeoutError(what)
        time.sleep(pause)
