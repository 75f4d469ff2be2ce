"""The demo runs, proves what it claims, leaves nothing, and its proofs fail where the claims do not hold."""

from __future__ import annotations

import io
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from lab_nobody import Nobody

from berth.errors import Unsupported
from berth.lab import proofs
from berth.lab.demo import CLEAN_UP, Score, build, prove
from berth.lab.proofs import PARTS, Fact, Proof, Stage, as_before, look_at_host, serving
from berth.lab.screen import Screen
from berth.lab.session import Lab, Session

pytestmark = pytest.mark.timeout(60)

BERTH = str(Path(sys.executable).with_name("berth"))
WITHIN = 30  # seconds
COUNT = sum(len(each) for _, each in PARTS) + 1  # the last one is that nothing stays behind
POST = (
    "host$ berth network create --driver=bridge --ip-range=192.168.2.0/24 --subnet=192.168.2.0/24"
    " --aux-address='ip1=192.168.2.10' -o \"com.docker.network.bridge.name=br0\" br0"
)


def holders(directory: Path) -> list[str]:
    """The labs' own processes, of labs in a directory."""
    found = []
    for process in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            command = process.read_text().replace("\0", " ")
        except OSError:
            continue
        if str(directory) in command:
            found.append(command)
    return found


def check(done: subprocess.CompletedProcess[str], directory: Path) -> None:
    """All proofs held, all was shown, nothing is left."""
    assert (done.returncode, done.stderr) == (0, "")
    assert f"{COUNT} of {COUNT} proofs held" in done.stdout
    assert done.stdout.count("✓ ") == COUNT + len(PARTS) + 1  # and the summary
    assert "✗" not in done.stdout
    assert "\033" not in done.stdout
    lines = done.stdout.splitlines()
    assert POST in lines
    for wanted in (
        r"└─ router +203\.0\.113\.1/24",
        r"├─ br0 +192\.168\.2\.2/24",
        r"└─ api +172\.\S+ +fd.* 8080 → 80/tcp",
    ):
        assert any(re.search(wanted, line) for line in lines), wanted
    assert not directory.exists()
    assert holders(directory) == []


def test_the_demo(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("BERTH_LAB_DIR", str(tmp_path / "labs"))
    done = subprocess.run([BERTH, "lab", "demo"], capture_output=True, text=True, timeout=WITHIN)
    if done.returncode == 2 and "user namespaces" in done.stderr:
        pytest.skip(done.stderr)
    check(done, tmp_path / "labs")


def test_the_demo_without_root(nobody: Nobody) -> None:
    check(nobody.run([BERTH, "lab", "demo"], timeout=WITHIN), nobody.directory / "labs")


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
@pytest.mark.parametrize("after", ["A home LAN", "host$ berth attach br0 db", "  ✓ web → laptop"])
def test_an_interrupted_demo_cleans_up(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, number: signal.Signals, after: str
) -> None:
    directory = tmp_path / "labs"
    monkeypatch.setenv("BERTH_LAB_DIR", str(directory))
    with subprocess.Popen([BERTH, "lab", "demo"], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as demo:
        assert demo.stdout is not None
        line = next((line for line in demo.stdout if line.startswith(after)), "")
        demo.send_signal(number)
        time.sleep(0.01)
        demo.send_signal(number)  # by somebody in a hurry
        _, complaint = demo.communicate(timeout=10)
    assert line
    assert (demo.returncode, complaint) == (128 + number, "")
    assert holders(directory) == []
    assert not directory.exists()


# --- The proofs can fail ---


class Scene:
    """The demo's networks and containers, in a lab that is not the demo's."""

    def __init__(self, lab: Session) -> None:
        self.lab = lab
        self.before = look_at_host(lab)
        build(lab, Screen(io.StringIO()))
        self.stage = Stage(lab)

    def failed(self, *claims: str) -> set[str]:
        """Those of the claims that do not hold now."""
        with serving(self.lab, "web", "api", "laptop"):
            tried = [proof for _, each in PARTS for proof in each if proof.claim in claims]
            assert len(tried) == len(claims)
            return {proof.claim for proof in tried if not proof.measure(self.stage).holds}


@pytest.fixture(scope="module")
def scene() -> Iterator[Scene]:
    try:
        running = Lab()
    except Unsupported as error:
        pytest.skip(str(error))
    with running:
        yield Scene(running)


@pytest.fixture
def meddle(scene: Scene) -> Iterator[Callable[[str, str, str], None]]:
    """Run a script in a node, and another one after the test."""
    undo: list[tuple[str, str]] = []

    def do(node: str, script: str, back: str) -> None:
        undo.append((node, back))
        scene.lab.run(node, ["sh", "-ec", script], check=True)

    yield do
    for node, back in undo:
        scene.lab.run(node, ["sh", "-ec", back], check=True)
    for node in ("web", "db", "laptop", "host", "router"):
        scene.lab.run(node, ["ip", "neigh", "flush", "all"], check=True)


ARP, HOST_KEEPS, RESERVED = (
    proof.claim
    for proof in (
        proofs.ONLY_ROUTER_ANSWERS,
        proofs.HOST_KEEPS_ITS_ADDRESS,
        proofs.NOBODY_GETS_A_RESERVED_ADDRESS,
    )
)

#: What is done to the lab: node, script, script that undoes it, and the claims that must then fail, among others.
MEDDLING = {
    "laptop-has-routers-address": (
        "laptop",
        "ip address add 192.168.2.1/32 dev eth0",
        "ip address delete 192.168.2.1/32 dev eth0",
        {ARP},
    ),
    "host-has-routers-address": (  # as it is after Docker's own bridge driver
        "host",
        "ip address add 192.168.2.1/24 dev br0",
        "ip address delete 192.168.2.1/24 dev br0",
        {ARP, HOST_KEEPS},
    ),
    "container-has-routers-address": (
        "host",  # where its guard has to go first
        "nft flush chain netdev $(nft list tables netdev | sed 's/table netdev //') guarded;"
        " ip -n db address add 192.168.2.1/32 dev eth0",
        "ip -n db address delete 192.168.2.1/32 dev eth0; berth reconcile",
        {ARP},
    ),
    "no-masquerade": (
        "host",
        "nft flush chain inet berth postrouting",
        "berth reconcile",
        {"api → laptop: TCP/IPv6"},
    ),
    "no-published-port": (
        "host",
        "nft flush map inet berth anyport4",
        "berth reconcile",
        {"laptop → host:8080 → api: TCP"},
    ),
    "router-drops": (
        "router",
        "nft add table inet no; nft 'add chain inet no f { type filter hook forward priority 0; policy drop; }'",
        "nft delete table inet no",
        {"web → internet: ping"},
    ),
}


@pytest.mark.parametrize("kind", MEDDLING)
def test_a_proof_fails_where_its_claim_does_not_hold(
    scene: Scene, meddle: Callable[[str, str, str], None], kind: str
) -> None:
    node, script, back, expected = MEDDLING[kind]
    meddle(node, script, back)
    assert scene.failed(*expected) == expected


def test_all_proofs_hold_when_the_meddling_is_over(scene: Scene) -> None:
    score = Score()
    prove(scene.stage, Screen(io.StringIO()), score)
    assert (score.tried, score.failed) == (COUNT - 1, [])
    fact = as_before(scene.before).measure(scene.stage)
    assert not fact.holds  # the networks are still there
    assert "changed" in fact.said
    for command in CLEAN_UP[:4]:
        scene.lab.run("host", ["sh", "-ec", command], check=True)
    assert as_before(scene.before).measure(scene.stage) == Fact(True, "nothing added, nothing gone")


def test_a_failed_proof_is_told_and_makes_the_demo_fail(monkeypatch: pytest.MonkeyPatch) -> None:
    from berth.lab import demo

    seen = io.StringIO()
    part = (
        "Part",
        (Proof("a true claim", lambda _: Fact(True, "seen")), Proof("a false one", lambda _: Fact(False, "no"))),
    )
    monkeypatch.setattr(demo, "PARTS", (part,))
    assert not demo.demo(Screen(seen))
    assert "✗ a false one" in seen.getvalue()
    assert "FAILED: a false one" in seen.getvalue()
    assert "2 of 3 proofs held" in seen.getvalue()


def test_the_command_fails_with_a_proof(monkeypatch: pytest.MonkeyPatch) -> None:
    """The real demo, in whose lab the laptop takes the router's address just before the proofs."""
    script = """
from berth.lab import demo
from berth.cli.main import main
show = demo.demo
demo.demo = lambda screen: show(screen, meddle=lambda lab: lab.run(
    "laptop", ["ip", "address", "add", "192.168.2.1/32", "dev", "eth0"], check=True))
main(["lab", "demo"])
"""
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=WITHIN)
    assert done.returncode == 1, done.stderr
    assert f"FAILED: {ARP}" in done.stdout
    assert "2 answers" in done.stdout


# --- The screen ---


class Terminal(io.StringIO):
    """A stream that says it is a terminal."""

    def isatty(self) -> bool:
        return True


@pytest.mark.parametrize(
    ("stream", "environment", "coloured"),
    [(Terminal(), {}, True), (Terminal(), {"NO_COLOR": "1"}, False), (Terminal(), {"TERM": "dumb"}, False),
     (io.StringIO(), {}, False)],
)  # fmt: skip
def test_colour_is_for_terminals(
    monkeypatch: pytest.MonkeyPatch, stream: io.StringIO, environment: dict[str, str], coloured: bool
) -> None:
    for name in ("NO_COLOR", "TERM"):
        monkeypatch.delenv(name, raising=False)
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    Screen(stream).verdict(True, "claim", "fact")
    assert ("\033[" in stream.getvalue()) == coloured


def test_a_stream_without_check_marks_is_no_obstacle() -> None:
    raw = io.BytesIO()
    stream = io.TextIOWrapper(raw, encoding="ascii")
    Screen(stream).verdict(True, "claim", "fact")
    stream.flush()
    assert raw.getvalue().startswith(b"  ? claim")
