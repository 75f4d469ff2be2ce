"""What the tests of networks in a lab have in common: a host to type `berth` at, and machines that ask each other."""

from __future__ import annotations

import json
import re
import shlex
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from queue import Empty, Queue
from threading import Thread
from typing import Any

from berth.lab.session import Inside, Session

STATION = (sys.executable, str(Path(__file__).with_name("lab_station.py")))
POST = (
    "network create --driver=bridge --ip-range=192.168.2.0/24 --subnet=192.168.2.0/24"
    " --aux-address='ip1=192.168.2.10' -o \"com.docker.network.bridge.name=br0\" br0"
)
ROUTER, HOST, LAPTOP, INTERNET = "192.168.2.1", "192.168.2.2", "192.168.2.50", "203.0.113.10"
ROUTER6, HOST6, LAPTOP6, INTERNET6 = "fd00:2::1", "fd00:2::2", "fd00:2::50", "2001:db8::10"
ROUTER_MAC = "02:00:00:00:02:01"
PIPE, NULL = subprocess.PIPE, subprocess.DEVNULL

#: What of the host must stay: all that a person could see, without what counts, ages or is the kernel's own doing.
_LOOK = """
ip -d -o link; echo; ip -o address; ip rule; ip -6 rule
ip route show table all; ip -6 route show table all
"""
_SHARED = re.compile(r"^berth: warning: .* the DHCP server 192\.168\.2\.1 leases")
_PASSING = re.compile(r"^\d+: |@if\d+|(hello|tcn|topology_change|gc|hold|message_age|forward_delay)_timer +\S+")


class Ground:
    """A host of a lab during one test."""

    def __init__(self, lab: Session) -> None:
        self.lab = lab
        self._sandboxes: list[str] = []
        self._undo: list[tuple[str, str]] = []

    def berth(self, line: str) -> str:
        """Type `berth …` on the host, which must succeed without a warning; what it printed.

        A network of all the LAN shares it with the router's own leases: of that it is right to warn.
        """
        done = self.tried(line)
        warnings = [said for said in done.stderr.splitlines() if not _SHARED.search(said)]
        assert (done.returncode, warnings) == (0, []), done
        return done.stdout

    def told(self, line: str) -> Any:
        """The same with `--json`."""
        return json.loads(self.berth(f"{line} --json"))

    def tried(self, line: str) -> subprocess.CompletedProcess[str]:
        """Type `berth …` on the host, whatever comes of it."""
        return self.lab.run("host", ["berth", *shlex.split(line)])

    def refused(self, line: str, code: int = 2) -> str:
        """Type `berth …`, which must be refused in one line; that line."""
        done = self.tried(line)
        assert (done.returncode, done.stdout) == (code, ""), done
        (complaint,) = done.stderr.splitlines()
        assert complaint.startswith("berth: ")
        return complaint

    def container(self, network: str, name: str, more: str = "") -> str:
        """Make a sandbox and attach it; its IPv4 address, or its IPv6 one where it has no other."""
        self.sandbox(name)
        return self.attach(network, name, more)[0]

    def attach(self, network: str, name: str, more: str = "") -> list[str]:
        """Attach a sandbox that is there; its addresses."""
        ep = self.told(f"attach {network} {name} {more}")
        return [address.partition("/")[0] for address in ep["addresses"]]

    def sandbox(self, name: str) -> str:
        """Make a sandbox that ends with the test."""
        self.sh(f"ip netns add {name}")
        self._sandboxes.append(name)
        return name

    def forget(self, name: str) -> None:
        """Think no more of a sandbox that the test has ended itself."""
        self._sandboxes.remove(name)

    def sh(self, script: str, node: str = "host") -> str:
        """What a shell in a node prints for a script that must succeed."""
        return self.lab.run(node, ["sh", "-ec", script], check=True).stdout

    def until_end(self, script: str, undo: str, node: str = "host") -> None:
        """Run a script, and another at the end of the test."""
        self._undo.append((undo, node))
        self.sh(script, node)

    def look(self, *, without: str = "^$") -> list[str]:
        """The host's links, addresses, rules and routes, without lines of links that match."""
        shown = self.sh(_LOOK)
        lines = sorted(" ".join(_PASSING.sub("", line).split()) for line in shown.splitlines())
        return [line for line in lines if line and not re.search(without, line)]

    def ip(self, node: str, *args: str) -> list[dict[str, Any]]:
        """What `ip -j` says in a node."""
        done = self.lab.run(node, ["ip", "-j", *args], check=True)
        return [entry for entry in json.loads(done.stdout or "[]") if entry]

    def defaults(self, node: str, version: int = 4) -> list[tuple[str, str]]:
        """A node's default routes: next hop and device."""
        found = self.ip(node, f"-{version}", "route", "show", "default")
        return [(route["gateway"], route["dev"]) for route in found]

    # --- packets ---

    def pings(self, *pairs: tuple[str, str], wait: int = 2) -> list[tuple[str, str]]:
        """The pairs (node, address) of which the one does not reach the other by ping; all try at once."""
        argvs = [(node, ["ping", "-n", "-c1", f"-W{wait}", address]) for node, address in pairs]
        return [pair for pair, (code, _) in zip(pairs, self.at_once(*argvs), strict=True) if code != 0]

    def ask(self, node: str, *addresses: str, port: int = 80, proto: str = "tcp") -> list[str]:
        """The addresses that servers saw a node ask from, all at once; "" for one that could not be asked."""
        argvs = [(node, [*STATION, "ask", proto, address, str(port)]) for address in addresses]
        return [said.strip() for _, said in self.at_once(*argvs)]

    def at_once(self, *commands: tuple[str, Sequence[str]]) -> list[tuple[int, str]]:
        """Run commands in nodes at the same time; exit code and output of each."""
        with ExitStack() as running:
            started: list[Inside] = []
            for node, argv in commands:
                process = self.lab.popen(node, argv, stdin=NULL, stdout=PIPE, stderr=NULL, text=True)
                started.append(running.enter_context(process))
                running.callback(process.kill)
            outputs = [process.communicate(timeout=20)[0] for process in started]
            return [(process.returncode, out) for process, out in zip(started, outputs, strict=True)]

    @contextmanager
    def station(self, node: str, *args: str, program: Sequence[str] = STATION) -> Iterator[Callable[[], list[str]]]:
        """Have a program run in a node for the length of a block; gives a call for the lines that it has said."""
        said: Queue[str] = Queue()
        with self.lab.popen(node, [*program, *args], stdin=NULL, stdout=PIPE, text=True) as process:
            reader = Thread(target=_hear, args=(process, said), daemon=True)
            reader.start()
            try:
                assert said.get(timeout=10) == "ready"
                yield lambda: _drain(said)
            finally:
                process.kill()
        reader.join()

    @contextmanager
    def serving(self, *nodes: str, port: int = 80) -> Iterator[None]:
        """Have nodes answer on a TCP and UDP port for the length of a block."""
        with ExitStack() as running:
            for node in nodes:
                running.enter_context(self.station(node, "serve", str(port)))
            yield

    # --- the end ---

    def clear(self) -> None:
        """Take away what the test made."""
        for script, node in reversed(self._undo):
            self.lab.run(node, ["sh", "-c", script])
        self.lab.run("host", [*STATION, "clear"], check=True)
        self.sh("\n".join(f"ip netns delete {name}" for name in self._sandboxes))


def _hear(process: Inside, said: Queue[str]) -> None:
    for line in process.stdout or ():
        said.put(line.strip())


def _drain(said: Queue[str]) -> list[str]:
    lines = []
    while True:
        try:
            lines.append(said.get_nowait())
        except Empty:
            return lines
