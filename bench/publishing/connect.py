"""How long a connection through a published port takes to be set up, as the number of ports grows.

    unshare --mount --net --pid --fork --kill-child --mount-proc python connect.py CONNECTIONS

Every way and number has a host, a client and a container of its own, all with the same NAT network of Berth's; they
take turns. A connection goes from the client to the host's port that was published last. Prints JSON: microseconds.
"""

from __future__ import annotations

import json
import multiprocessing
import os
import random
import signal
import socket
import struct
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from ipaddress import IPv4Network
from pathlib import Path

from attaching import spaces
from berth import wire
from berth.model import AttachRequest, NetworkSpec, PortMapping

CASES = tuple(
    [("berth", n) for n in (1, 1000, 40_000)] + [("range", 40_000)] + [("iptables", n) for n in (1, 1000, 5000)]
)
_FIRST, _SERVED = 20_000, 80
_HOST = "192.0.2.1"
_BATCH = 100  # connections of one case before it is another's turn
_SUBNET = IPv4Network("10.77.0.0/16")


@dataclass(frozen=True, slots=True)
class Case:
    """One client, and the port of its host that it connects to."""

    name: str
    client: int  # a descriptor of its namespace
    port: int


def main() -> None:
    """Set up, measure, print."""
    connections = int(sys.argv[1])
    subprocess.run(["mount", "-t", "tmpfs", "tmpfs", "/run"], check=True)
    home = os.open("/proc/self/ns/net", os.O_RDONLY)
    found: dict[str, list[float]] = {f"{way} {count}": [] for way, count in CASES}
    with tempfile.TemporaryDirectory(prefix="berth-bench-", dir="/var/tmp") as state:
        cases = [_set_up(way, count, Path(state), home) for way, count in CASES]
        servers = [_serve(case, home) for case in cases]
        try:
            chance = random.Random(0)
            for number in range(1 + max(1, connections // _BATCH)):
                for case in chance.sample(cases, len(cases)):
                    with spaces.inside(case.client, home):
                        took = [_connect(case.port) for _ in range(_BATCH)]
                    if number:  # the first turn warms up
                        found[case.name] += took
        finally:
            for server in servers:
                os.kill(server, signal.SIGKILL)
                os.waitpid(server, 0)
    print(json.dumps(found))


def _set_up(way: str, count: int, state: Path, home: int) -> Case:
    """A host with so many ports, its client and its container."""
    name = f"{way}-{count}"
    host, client, box = (f"{kind}-{name}" for kind in ("host", "client", "box"))
    spaces.make((host, client, box))
    script = (
        f"link add lan0 netns {host} type veth peer name lan0 netns {client}\n"
        f"netns exec {host} ip link set lan0 up\nnetns exec {host} ip addr add {_HOST}/24 dev lan0\n"
        f"netns exec {client} ip link set lan0 up\nnetns exec {client} ip addr add 192.0.2.2/24 dev lan0\n"
    )
    subprocess.run(["ip", "-batch", "-"], input=script, text=True, check=True)
    last = _FIRST + count - 1
    # A process of its own: Berth keeps its sockets open, and they stay in the namespace they were opened in.
    work = multiprocessing.get_context("fork").Process(
        target=_publish, args=(way, name, range(_FIRST, last + 1), state)
    )
    with spaces.visit(host, home):
        work.start()
    work.join()
    if work.exitcode:
        sys.exit(f"bench ports: cannot set up {name}")
    return Case(f"{way} {count}", spaces.opened(client), last)


def _publish(way: str, name: str, ports: range, state: Path) -> None:
    """Lead the ports of the host that this process is in to the container."""
    engine = wire.engine(f"sqlite:{state / name}.db")
    engine.create_network(NetworkSpec("net", subnets=(_SUBNET,)))
    asked = tuple(PortMapping(None, port, port if way == "range" else _SERVED) for port in ports)
    asked = () if way == "iptables" else asked
    ep = engine.attach(AttachRequest("net", f"box-{name}", ports=asked)).value
    engine.close()
    if way == "iptables":
        target = f"-j DNAT --to-destination {ep.addresses[0].ip}:{_SERVED}"
        rules = [f"-A PREROUTING -p tcp -m tcp --dport {port} {target}" for port in ports]
        subprocess.run(["iptables-restore", "--noflush"], input="\n".join(["*nat", *rules, "COMMIT", ""]), text=True,
                       check=True)  # fmt: skip


def _serve(case: Case, home: int) -> int:
    """A process that accepts whatever comes to a container; its pid."""
    with spaces.visit("box-" + case.name.replace(" ", "-"), home):
        server = socket.socket()
    server.bind(("", case.port if case.name.startswith("range") else _SERVED))
    server.listen(1024)
    if pid := os.fork():
        server.close()
        return pid
    while True:
        server.accept()[0].close()


def _connect(port: int) -> float:
    """Microseconds until a new connection stands. It ends with a reset, so that none waits behind it."""
    with socket.socket() as client:
        client.settimeout(10)
        client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        start = time.perf_counter_ns()
        client.connect((_HOST, port))
        return (time.perf_counter_ns() - start) / 1e3


if __name__ == "__main__":
    main()
