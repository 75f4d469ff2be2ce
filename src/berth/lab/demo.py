"""`berth lab demo`: the virtual LAN, two networks on it, and the proof by real packets that they do as they should."""

from __future__ import annotations

import shutil
import time
from collections.abc import Callable
from dataclasses import dataclass, field

from berth.errors import Refused, Unsupported
from berth.lab.chart import chart
from berth.lab.enter import search_path
from berth.lab.proofs import PARTS, Proof, Stage, as_before, look_at_host, serving
from berth.lab.screen import Screen
from berth.lab.session import Lab, Session

FLAT = (
    # As people type it for Docker, which would take the host's address off br0 and put the router's there.
    "berth network create --driver=bridge --ip-range=192.168.2.0/24 --subnet=192.168.2.0/24"
    " --aux-address='ip1=192.168.2.10' -o \"com.docker.network.bridge.name=br0\" br0",
    "ip netns add web",
    "berth attach br0 web",
    "ip netns add db",
    "berth attach br0 db",
)
NAT = (
    "berth network create --ipv6 backend",
    "ip netns add api",
    "berth attach backend api -p 8080:80",
)
CLEAN_UP = (
    "berth detach br0 web",
    "berth detach br0 db",
    "berth detach backend api",
    "berth network rm br0 backend",
    "ip netns delete web",
    "ip netns delete db",
    "ip netns delete api",
)


@dataclass(slots=True)
class Score:
    """What was proven and what was not, part by part."""

    parts: dict[str, list[tuple[bool, str]]] = field(default_factory=dict)

    def count(self, part: str, holds: bool, claim: str) -> None:
        """One more proof was tried."""
        self.parts.setdefault(part, []).append((holds, claim))

    @property
    def tried(self) -> int:
        """How many proofs."""
        return sum(map(len, self.parts.values()))

    @property
    def failed(self) -> list[str]:
        """The claims that do not hold."""
        return [claim for proofs in self.parts.values() for holds, claim in proofs if not holds]


def demo(screen: Screen, *, meddle: Callable[[Session], object] = lambda lab: None) -> bool:
    """Show it all in a lab that ends with this call; whether every proof held.

    `meddle` is done to the lab before the proofs: by it a test shows that they can fail.
    """
    if shutil.which("ping", path=search_path()) is None:
        raise Unsupported("the demo needs `ping`, which is not installed: install the package iputils-ping")
    began, score = time.monotonic(), Score()
    with Lab() as lab:
        _introduce(screen)
        before = look_at_host(lab)
        build(lab, screen)
        stage = Stage(lab)
        screen.heading("The map, as the machines tell it")
        for line in chart(stage).lines():
            screen.line(f"  {line}")
        meddle(lab)
        prove(stage, screen, score)
        screen.heading("And away with it")
        _type(lab, screen, *CLEAN_UP)
        _try(stage, screen, score, "Nothing stays behind", as_before(before))
    _sum_up(screen, score, time.monotonic() - began)
    return not score.failed


def build(lab: Session, screen: Screen) -> None:
    """The networks and containers."""
    screen.heading("Containers on the LAN itself")
    screen.remark("br0 carries the LAN and the host's address: the network is flat, its gateway the LAN's own router")
    _type(lab, screen, "ip -br address show dev br0", *FLAT)
    screen.heading("A private network behind the host")
    _type(lab, screen, *NAT)


def prove(stage: Stage, screen: Screen, score: Score) -> None:
    """Measure all claims, with a web server in every machine that has to answer."""
    with serving(stage.lab, "web", "api", "laptop"):
        for part, proofs in PARTS:
            screen.heading(part)
            for proof in proofs:
                _try(stage, screen, score, part, proof)


def _introduce(screen: Screen) -> None:
    screen.line("A home LAN made of network namespaces: a router, a host, a laptop, and an internet behind the router.")
    screen.line("Everything below happens in there, by real commands and real packets; this machine is not touched.")


def _type(lab: Session, screen: Screen, *commands: str) -> None:
    for command in commands:
        screen.typed("host", command)
        done = lab.run("host", ["sh", "-c", command])
        for line in (done.stdout + done.stderr).splitlines():
            screen.line(line.rstrip())
        if done.returncode:
            raise Refused(f"in the demo, `{command}` ended with {done.returncode}")


def _try(stage: Stage, screen: Screen, score: Score, part: str, proof: Proof) -> None:
    fact = proof.measure(stage)
    score.count(part, fact.holds, proof.claim)
    screen.verdict(fact.holds, proof.claim, fact.said)


def _sum_up(screen: Screen, score: Score, seconds: float) -> None:
    screen.heading("In short")
    for part, proofs in score.parts.items():
        held = sum(holds for holds, _ in proofs)
        screen.verdict(held == len(proofs), part, f"{held} of {len(proofs)}")
    held = score.tried - len(score.failed)
    screen.line(f"\n{held} of {score.tried} proofs held, in {seconds:.1f} s; the lab is gone.")
    for claim in score.failed:
        screen.line(f"FAILED: {claim}")
