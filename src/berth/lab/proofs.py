"""What the demo claims, and how each claim is measured: by real packets between the lab's machines.

A proof is a claim and a function on a `Stage`. It can fail, and says by what it saw:

    stage = Stage(lab)
    fact = ONLY_ROUTER_ANSWERS.measure(stage)
    fact.holds, fact.said
"""

from __future__ import annotations

import json
import re
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass

from berth.errors import Refused
from berth.lab.probe import READY
from berth.lab.session import Session
from berth.lab.topology import home

PROBE = (sys.executable, "-P", "-m", "berth.lab.probe")
ROUTER, ROUTER_MAC = "192.168.2.1", "02:00:00:00:02:01"
OUTSIDE = "the router's outside"  # a name for its address there
NEVER_GIVEN = ("192.168.2.0", ROUTER, "192.168.2.2", "192.168.2.10", "192.168.2.255")


@dataclass(frozen=True, slots=True)
class Fact:
    """What was measured, and whether it is what was claimed."""

    holds: bool
    said: str


class Stage:
    """A lab with the demo's networks and containers, and who has which address there."""

    def __init__(self, lab: Session) -> None:
        self.lab = lab
        self.networks = json.loads(lab.berth("network", "ls", "--json", check=True).stdout)
        self.endpoints = json.loads(lab.berth("endpoint", "ls", "--json", check=True).stdout)
        nodes = home().nodes
        known = {node.name: [str(address) for address in node.addresses] for node in nodes}
        known |= {OUTSIDE: [str(a) for node in nodes for nic in node.nics if nic.name == "wan0" for a in nic.addresses]}
        known |= {ep["name"]: ep["addresses"] for ep in self.endpoints}
        self._addresses = known

    def address(self, name: str, version: int = 4) -> str:
        """A machine's or container's address."""
        every = (text.partition("/")[0] for text in self._addresses[name])
        return next(text for text in every if (":" in text) == (version == 6))

    def ask(self, *questions: tuple[str, Sequence[str]]) -> list[subprocess.CompletedProcess[str]]:
        """Run commands in nodes, all at once."""
        pipe = subprocess.PIPE
        with ExitStack() as running:
            started = []
            for node, argv in questions:
                process = self.lab.popen(node, argv, stdin=subprocess.DEVNULL, stdout=pipe, stderr=pipe, text=True)
                running.enter_context(process)
                running.callback(process.kill)
                started.append((argv, process))
            answers = []
            for argv, process in started:
                out, err = process.communicate(timeout=30)
                answers.append(subprocess.CompletedProcess(argv, process.returncode, out, err))
            return answers


@dataclass(frozen=True, slots=True)
class Proof:
    """A claim and its measurement."""

    claim: str
    measure: Callable[[Stage], Fact]


@contextmanager
def serving(lab: Session, *nodes: str) -> Iterator[None]:
    """Have web servers answer in nodes for the length of a block."""
    with ExitStack() as running:
        started = []
        quiet, pipe = subprocess.DEVNULL, subprocess.PIPE
        for node in nodes:
            process = lab.popen(node, [*PROBE, "serve"], stdin=quiet, stdout=pipe, stderr=quiet, text=True)
            running.enter_context(process)
            running.callback(process.kill)
            started.append((node, process))
        for node, process in started:
            if process.stdout is None or process.stdout.readline().strip() != READY:
                raise Refused(f"the web server in {node} did not start")
        yield


# --- Who reaches whom ---


def ping(source: str, target: str, *, version: int = 4) -> Proof:
    """One machine's ping reaches another."""

    def measure(stage: Stage) -> Fact:
        (answer,) = stage.ask(_ping(stage, source, target, version))
        took = _took(answer)
        return Fact(took is not None, f"{stage.address(target, version)} {_answered(took)}")

    return Proof(f"{source} → {target}: ping{_suffix(version)}", measure)


def ping_both_ways(one: str, other: str) -> Proof:
    """Two machines reach each other."""

    def measure(stage: Stage) -> Fact:
        there, back = map(_took, stage.ask(_ping(stage, one, other, 4), _ping(stage, other, one, 4)))
        said = f"{stage.address(other)} {_answered(there)}, {stage.address(one)} {_answered(back)}"
        return Fact(there is not None and back is not None, said)

    return Proof(f"{one} ↔ {other}: ping", measure)


def _ping(stage: Stage, source: str, target: str, version: int) -> tuple[str, Sequence[str]]:
    return source, ["ping", "-n", "-c1", "-W2", stage.address(target, version)]


def _took(answer: subprocess.CompletedProcess[str]) -> str | None:
    time = re.search(r"time=([0-9.]+) ms", answer.stdout)
    return time[1] if time and answer.returncode == 0 else None


def _answered(took: str | None) -> str:
    return "does not answer" if took is None else f"answers in {took} ms"


def tcp(source: str, target: str, *, seen: str, port: int = 80, server: str = "", version: int = 4) -> Proof:
    """A connection reaches a server, which sees it come from the machine `seen`.

    `server` is who answers where that is not the target itself: a container behind a published port.
    """

    def measure(stage: Stage) -> Fact:
        host, expected = stage.address(target, version), stage.address(seen, version)
        (answer,) = stage.ask((source, [*PROBE, "get", host, str(port)]))
        saw = answer.stdout.strip()
        if not saw:
            return Fact(False, answer.stderr.strip() or "no answer")
        whose = f" ({seen})" if seen != source else ""
        wrong = "" if saw == expected else f", not {expected}"
        return Fact(saw == expected, f"{server or target} saw {saw}{wrong or whose}")

    way = f"{target}:{port} → {server}" if server else target
    return Proof(f"{source} → {way}: TCP{_suffix(version)}", measure)


def _suffix(version: int) -> str:
    return "" if version == 4 else "/IPv6"


# --- Who is who ---


def _only_router_answers(stage: Stage) -> Fact:
    # Nobody hears itself, so two ask: the laptop hears all but the laptop, the router all but the router.
    asked = stage.ask(("laptop", [*PROBE, "arp", "eth0", ROUTER]), ("router", [*PROBE, "arp", "lan0", ROUTER]))
    for answer in asked:
        if answer.returncode:
            return Fact(False, answer.stderr.strip())
    heard, beside = (answer.stdout.split() for answer in asked)
    answers = sorted({*heard, *beside})
    if answers == [ROUTER_MAC] and not beside:
        return Fact(True, f"1 answer: {ROUTER_MAC}, the router's")
    return Fact(False, f"{len(answers)} answers: {', '.join(answers)}; the router is {ROUTER_MAC}")


def _gateway_is_the_router(stage: Stage) -> Fact:
    routes, neighbours = stage.ask(
        ("web", ["ip", "-j", "route", "show", "default"]), ("web", ["ip", "-j", "neigh", "show", "to", ROUTER])
    )
    via = [route.get("gateway", "") for route in json.loads(routes.stdout or "[]")]
    macs = [entry.get("lladdr", "") for entry in json.loads(neighbours.stdout or "[]")]
    return Fact(via == [ROUTER] and macs == [ROUTER_MAC], f"via {', '.join(via)} at {', '.join(macs)}")


def _host_keeps_its_address(stage: Stage) -> Fact:
    (shown,) = stage.ask(("host", ["ip", "-j", "address", "show", "dev", "br0"]))
    found = [entry for link in json.loads(shown.stdout or "[]") for entry in link["addr_info"]]
    texts = [f"{each['local']}/{each['prefixlen']}" for each in found if each["scope"] == "global"]
    return Fact(sorted(texts) == ["192.168.2.2/24", "fd00:2::2/64"], f"br0: {', '.join(texts)}")


def _nobody_gets_a_reserved_address(stage: Stage) -> Fact:
    given = [stage.address(ep["name"]) for ep in stage.endpoints]
    wrong = sorted(set(given) & set(NEVER_GIVEN))
    request = ["berth", "attach", "br0", "api", "--dry-run", "--ip"]
    answers = stage.ask(*(("host", [*request, address]) for address in NEVER_GIVEN))
    for address, answer in zip(NEVER_GIVEN, answers, strict=True):
        if answer.returncode != 2 or f"{address} is " not in answer.stderr:
            wrong.append(address)
    if wrong:
        return Fact(False, f"{', '.join(wrong)} can be given")
    return Fact(True, f"given: {', '.join(given)}; those five, asked for, are refused")


ONLY_ROUTER_ANSWERS = Proof(f"one machine answers ARP for {ROUTER}", _only_router_answers)
GATEWAY_IS_THE_ROUTER = Proof("web's default route is the router", _gateway_is_the_router)
HOST_KEEPS_ITS_ADDRESS = Proof("the host keeps exactly its addresses", _host_keeps_its_address)
NOBODY_GETS_A_RESERVED_ADDRESS = Proof("no container has .0 .1 .2 .10 .255", _nobody_gets_a_reserved_address)


def as_before(before: str) -> Proof:
    """The host's links, addresses, routes and firewall are what they were."""

    def measure(stage: Stage) -> Fact:
        now = look_at_host(stage.lab)
        strange = set(before.splitlines()) ^ set(now.splitlines())
        return Fact(not strange, "nothing added, nothing gone" if not strange else f"changed: {min(strange).strip()}")

    return Proof("the host is as before the first command", measure)


def look_at_host(lab: Session) -> str:
    """The host's links, addresses, routes and firewall; without what the kernel does for link-local addresses."""
    script = "ip -br link; ip -br address; ip route; ip -6 route; nft list ruleset"
    shown = lab.run("host", ["sh", "-ec", script], check=True).stdout
    return re.sub(r"(?m)^fe80.*\n| fe80::\S+", "", re.sub(r" +", " ", shown))


#: What the demo proves, part by part.
PARTS: tuple[tuple[str, tuple[Proof, ...]], ...] = (
    (
        "Flat: web and db are members of the LAN",
        (
            ping_both_ways("web", "router"),
            ping_both_ways("web", "laptop"),
            ping_both_ways("web", "host"),
            ping_both_ways("web", "db"),
            tcp("web", "laptop", seen="web"),
            tcp("laptop", "web", seen="laptop"),
            ping("web", "internet"),
            tcp("web", "internet", seen=OUTSIDE),
        ),
    ),
    (
        "Everybody is still who they were",
        (
            ONLY_ROUTER_ANSWERS,
            GATEWAY_IS_THE_ROUTER,
            HOST_KEEPS_ITS_ADDRESS,
            NOBODY_GETS_A_RESERVED_ADDRESS,
        ),
    ),
    (
        "NAT: api is private, behind the host",
        (
            ping("api", "internet"),
            tcp("api", "internet", seen=OUTSIDE),
            tcp("api", "laptop", seen="host"),
            tcp("laptop", "host", port=8080, server="api", seen="laptop"),
            ping("api", "internet", version=6),
            tcp("api", "internet", seen=OUTSIDE, version=6),
            tcp("api", "laptop", seen="host", version=6),
            tcp("laptop", "host", port=8080, server="api", seen="laptop", version=6),
        ),
    ),
)
