"""Bytes and round trips between endpoints on two hosts: over Berth's overlay, over a VXLAN made by hand between the
very same hosts, and over Docker's own overlay, a swarm of two real engines there. They take turns.
"""

from __future__ import annotations

import json
import sys
from collections import defaultdict
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from ipaddress import ip_interface
from pathlib import Path
from typing import Any

from berth.lab.session import Inside, Lab
from berth.lab.topology import Host, Nic, Node, Switch, Topology
from interop.engines import IMAGE, Dockerd
from overlaying.fleet import until

HOSTS = ("host", "host2")
_ETCD = "10.9.0.3"
_MTU = 1450  # the same for all: 1,500 less what the tunnel adds
_ENDS = str(Path(__file__).with_name("ends.py"))
_QUESTIONS = 1000  # of a round
_PATIENCE = 60

# What a person types who makes an overlay of two hosts: $1 number of this host, $2 of the other, $3 MTU.
_BY_HAND = """
ip link add hand type bridge stp_state 0 forward_delay 0
ip link add hand-vx type vxlan id 77 local 10.9.0.$1 remote 10.9.0.$2 dstport 4789
ip link set hand-vx mtu $3 master hand up
ip link set hand mtu $3 up
ip link add hand-c mtu $3 master hand up type veth peer name eth0 mtu $3 netns hand$1
ip netns exec hand$1 ip link set lo up
ip netns exec hand$1 ip addr add 10.78.0.$1/24 dev eth0
ip netns exec hand$1 ip addr add fd78::$1/64 dev eth0 nodad
ip netns exec hand$1 ip link set eth0 up
"""

Samples = dict[str, dict[str, list[float]]]
Say = Callable[[str], None]


@dataclass(frozen=True, slots=True)
class Way:
    """A connection that is measured: its client, on the first host, and the address of its server on the second."""

    name: str
    client: tuple[str, ...]  # a node of the lab, and what goes before a command there
    server: tuple[str, ...]
    address: str


def measure(engine: str, rounds: int, size: int, say: Say) -> dict[str, Any]:
    """Set up and measure; samples by way and figure, and what was measured."""
    with Lab(_topology()) as lab, ExitStack() as stack:
        ways = [*_by_hand(lab), *stack.enter_context(_berth(lab))]
        facts: dict[str, Any] = {"mtu": {}}
        if engine:
            say(f"starting a swarm of two Docker {engine}")
            ways.append(stack.enter_context(_docker(lab, engine)))
        for server in sorted({way.server for way in ways}):
            process = _popen(lab, server, ["serve"])
            stack.callback(process.kill)
        for way in ways:
            (link,) = json.loads(_run(lab, way.client, ["ip", "-j", "link", "show", "dev", "eth0"]))
            facts["mtu"][way.name] = link["mtu"]
        facts["samples"] = _rounds(lab, ways, rounds, size, say)
        return facts


def _rounds(lab: Lab, ways: list[Way], rounds: int, size: int, say: Say) -> Samples:
    found: Samples = {way.name: defaultdict(list) for way in ways}
    for number in range(rounds + 1):
        if number % 5 == 1:
            say(f"round {number} of {rounds}")
        for way in ways[:: 1 if number % 2 else -1]:
            argv = [sys.executable, _ENDS, "ask", way.address, str(size), str(_QUESTIONS)]
            figures = json.loads(_run(lab, way.client, argv))
            if number:  # the first warms up
                for what, figure in figures.items():
                    found[way.name][what].append(figure)
    return found


def _topology() -> Topology:
    cards = {name: Nic("eth0", "wire", (ip_interface(f"10.9.0.{n}/24"),)) for n, name in enumerate(HOSTS, 1)}
    etcd = Node("etcd", (Nic("eth0", "wire", (ip_interface(f"{_ETCD}/24"),)),))
    return Topology((Switch("wire"), *(Host(name, (nic,)) for name, nic in cards.items()), etcd))


def _by_hand(lab: Lab) -> Iterator[Way]:
    for number, host in enumerate(HOSTS, 1):
        lab.sandbox(f"hand{number}")
        other = len(HOSTS) + 1 - number
        lab.run(host, ["sh", "-ec", _BY_HAND, "hand", str(number), str(other), str(_MTU)], check=True)
    yield Way("hand 4", ("hand1",), ("hand2",), "10.78.0.2")
    yield Way("hand 6", ("hand1",), ("hand2",), "fd78::2")


@contextmanager
def _berth(lab: Lab) -> Iterator[list[Way]]:
    where = f"http://{_ETCD}:2379"
    processes = [
        _log(lab, "etcd", ["etcd", "--data-dir", str(lab.work / "etcd.data"), "--listen-client-urls", where,
                           "--advertise-client-urls", where]),
        *(_log(lab, host, ["berth", "daemon"], {"BERTH_STORE": f"etcd://{_ETCD}:2379"}) for host in HOSTS),
    ]  # fmt: skip
    try:
        for host in HOSTS:
            until(lambda host=host: _hosts(lab, host) == len(HOSTS), f"berth on {host} does not see all hosts")  # type: ignore[misc]
        create = (
            "network create -d overlay --subnet 10.79.0.0/24 --ipv6 --subnet fd79::/64 -o underlay=10.9.0.0/24 wide"
        )
        lab.berth(*create.split(), check=True)
        for number, host in enumerate(HOSTS, 1):
            lab.sandbox(f"berth{number}")
            given = ("--ip", f"10.79.0.1{number}", "--ip", f"fd79::1{number}")
            lab.berth("attach", "wide", f"berth{number}", *given, host=host, check=True)
        yield [
            Way("berth 4", ("berth1",), ("berth2",), "10.79.0.12"),
            Way("berth 6", ("berth1",), ("berth2",), "fd79::12"),
        ]
    finally:
        for process in reversed(processes):
            process.kill()
            process.wait()


def _hosts(lab: Lab, host: str) -> int:
    """How many hosts a daemon knows; 0 while it does not answer."""
    if not (lab.work / host / "run/berth.sock").exists():
        return 0
    return len(lab.berth("node", "ls", host=host).stdout.splitlines()) - 1


@contextmanager
def _docker(lab: Lab, engine: str) -> Iterator[Way]:
    with Dockerd(lab, engine, node=HOSTS[0]) as one, Dockerd(lab, engine, node=HOSTS[1]) as two:
        for docker in (one, two):  # swarm's own networks have files there, whatever --data-root says
            docker.run(["mount", "-t", "tmpfs", "tmpfs", "/var/lib"])
        one.docker("swarm", "init", "--advertise-addr", "10.9.0.1")
        token = one.docker("swarm", "join-token", "-q", "worker").strip()
        two.docker("swarm", "join", "--advertise-addr", "10.9.0.2", "--token", token, "10.9.0.1:2377")
        one.docker("network", "create", "-d", "overlay", "--attachable", "--subnet", "10.77.0.0/24", "swarm")
        inside = []
        for number, (host, docker) in enumerate(zip(HOSTS, (one, two), strict=True), 1):
            docker.docker("run", "-d", "--name", "guest", "--network", "swarm", "--ip", f"10.77.0.1{number}", IMAGE,
                          "sleep", "86400")  # fmt: skip
            pid = docker.docker("inspect", "--format", "{{.State.Pid}}", "guest").strip()
            inside.append((host, "nsenter", f"--net=/proc/{pid}/ns/net"))
        yield Way("docker 4", inside[0], inside[1], "10.77.0.12")


def _log(lab: Lab, node: str, argv: list[str], env: dict[str, str] | None = None) -> Inside:
    with (lab.work / f"{node}.log").open("ab") as log:
        return lab.popen(node, argv, stdout=log, stderr=log, env=env)


def _popen(lab: Lab, where: tuple[str, ...], argv: list[str]) -> Inside:
    return _log(lab, where[0], [*where[1:], sys.executable, _ENDS, *argv])


def _run(lab: Lab, where: tuple[str, ...], argv: list[str]) -> str:
    return lab.run(where[0], [*where[1:], *argv], timeout=_PATIENCE, check=True).stdout.strip()
