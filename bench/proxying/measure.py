"""Berth's proxy and Docker's beside each other, on a host of their own with one container.

    unshare --mount --net --pid --fork --kill-child --mount-proc python measure.py DOCKER_PROXY GIGABYTES ROUNDS

Clients connect to [::1], where no rule of the firewall can help; the server is behind a veth cable. Prints JSON.
"""

from __future__ import annotations

import json
import os
import resource
import socket
import subprocess
import sys
import tempfile
import time
from collections import defaultdict
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from ipaddress import ip_address
from pathlib import Path
from typing import Any

from attaching import spaces
from berth.firewall import proxy, tables
from berth.model import Proxied
from proxying import ends

_TARGET, _SERVED = "10.77.0.2", 80
_PORTS = {"berth": 9000, "docker": 9001}
_CONNECTIONS = 1000  # of a round
_HELD = 3000  # idle ones: Docker's takes six descriptors for each
_MANY = 10_000
_GIGABYTE = 10**9
_SETUP = """
ip link set lo up
ip netns add c1
ip link add up0 type veth peer name eth0 netns c1
ip addr add 10.77.0.1/24 dev up0
ip link set up0 up
ip -n c1 addr add 10.77.0.2/24 dev eth0
ip -n c1 link set eth0 up
"""

Samples = dict[str, list[float]]


def main() -> None:
    """Set up, measure, print."""
    docker_proxy, gigabytes, rounds = sys.argv[1], float(sys.argv[2]), int(sys.argv[3])
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    subprocess.run(["sh", "-ec", "mount -t tmpfs tmpfs /run" + _SETUP], check=True)
    home = os.open("/proc/self/ns/net", os.O_RDONLY)
    with spaces.visit("c1", home):
        server = socket.create_server((_TARGET, _SERVED), backlog=1024)
    with ends.in_process(lambda: ends.serve(server)):
        with _proxies(docker_proxy) as processes:
            samples = _samples(processes, int(gigabytes * _GIGABYTE), rounds)
        memory = {name: _memory(docker_proxy, name, _HELD) for name in _PORTS}
        many = min(_MANY, (hard - 400) // 2)
        memory["berth-many"] = _memory(docker_proxy, "berth", many)
    print(json.dumps({"samples": samples, "memory": memory, "held": _HELD, "many": many}))


@contextmanager
def _proxies(docker_proxy: str) -> Iterator[dict[str, int]]:
    """The process of each, once it listens."""
    with tempfile.TemporaryDirectory(dir="/run") as run:
        port = _PORTS["berth"]
        proxied = Proxied(ip_address("::1"), "tcp", port, port, ip_address(_TARGET), _SERVED)
        script = f"add table inet berth\ndelete table inet berth\n{tables.inet().script()}"
        element = proxy.element(proxied)
        script += f"add element inet berth {element.set} {{ {element.member()} }}\n"
        subprocess.run(["nft", "-f", "-"], input=script, text=True, check=True)
        berth = [str(Path(sys.executable).with_name("berth")), "proxy"]
        theirs = f"{docker_proxy} -proto tcp -host-ip ::1 -host-port {_PORTS['docker']}"
        theirs += f" -container-ip {_TARGET} -container-port {_SERVED}"
        started = [
            subprocess.Popen(berth, env=os.environ | {"BERTH_RUN": run}, stderr=subprocess.DEVNULL),
            # It says on its descriptor 3 that it listens.
            subprocess.Popen(["sh", "-c", f"exec {theirs} 3>/dev/null"]),
        ]
        try:
            for port in _PORTS.values():
                _await(port)
            yield dict(zip(_PORTS, (process.pid for process in started), strict=True))
        finally:
            for process in started:
                process.kill()
                process.wait()


def _await(port: int) -> None:
    end = time.monotonic() + 10
    while True:
        try:
            ends.ask(port, 1)
        except OSError:
            if time.monotonic() > end:
                raise
            time.sleep(0.05)
        else:
            return


def _samples(processes: dict[str, int], size: int, rounds: int) -> dict[str, Samples]:
    """Figures of each round, the two taking turns."""
    found: dict[str, Samples] = {name: defaultdict(list) for name in _PORTS}
    for number in range(rounds + 1):
        for name in list(_PORTS)[:: 1 if number % 2 else -1]:
            figures = _round(_PORTS[name], processes[name], size)
            if number:  # the first warms up
                for what, figure in figures.items():
                    found[name][what].append(figure)
    return found


def _round(port: int, pid: int, size: int) -> dict[str, float]:
    figures = {}
    for label, kind, streams in (("down 1", "d", 1), ("down 8", "d", 8), ("up 1", "u", 1), ("up 8", "u", 8)):
        before, whole = _cpu(pid), _cpu_of_all()
        took = ends.move(port, kind, size, streams)
        gigabytes = size / _GIGABYTE
        figures[f"{label} GB/s"] = gigabytes / took
        figures[f"{label} CPU s/GB"] = (_cpu(pid) - before) / gigabytes
        time.sleep(0.05)  # the server's children end
        figures[f"{label} with both ends' CPU s/GB"] = (_cpu_of_all() - whole) / gigabytes
    before = _cpu(pid)
    took = ends.ask(port, _CONNECTIONS)
    figures["connections /s"] = _CONNECTIONS / took
    figures["connection CPU µs"] = (_cpu(pid) - before) / _CONNECTIONS * 1e6
    return figures


def _memory(docker_proxy: str, name: str, held: int) -> dict[str, Any]:
    """Megabytes of a fresh proxy alone, and with idle connections."""
    with _proxies(docker_proxy) as processes:
        before = _rss(processes[name])
        clients = ends.hold(_PORTS[name], held)
        after = _rss(processes[name])
        for client in clients:
            client.close()
    return {"connections": held, "before": before, "after": after}


def _cpu(pid: int) -> float:
    """Seconds of CPU time that a process has used."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def _cpu_of_all() -> float:
    """Seconds of CPU time of every process in this PID namespace, and of their children that have ended."""
    ticks = 0
    for process in Path("/proc").glob("[0-9]*"):
        with suppress(OSError):  # it has just ended
            fields = (process / "stat").read_text().rpartition(")")[2].split()
            ticks += sum(map(int, fields[11:15]))
    return ticks / os.sysconf("SC_CLK_TCK")


def _rss(pid: int) -> float:
    line = next(line for line in Path(f"/proc/{pid}/status").read_text().splitlines() if line.startswith("VmRSS"))
    return int(line.split()[1]) / 1024


if __name__ == "__main__":
    main()
