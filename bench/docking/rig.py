"""A real Docker engine on a lab's host, with containers that stay on every network, and what is timed on it."""

from __future__ import annotations

import random
import time
from collections import defaultdict
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

from berth.lab.session import Inside, Lab
from docking.calls import Call, Log, around
from docking.place import BERTH, Ground, grounds, topology
from interop.engines import IMAGE, Dockerd

VERBS = ("connect", "disconnect", "run", "remove")
CONNECTS = 2  # by each network in a round
_AROUND = 10  # calls in a round that ask for nothing
_AT_ONCE = 4  # containers started side by side
_PATIENCE = 120  # seconds for one request to the engine, which is busy while the networks are filled
_PAUSE = 0.35  # seconds: what Berth does 0.2 s after a call, and the kernel behind it, must not delay the next


class Unlike(Exception):
    """The networks do not do the same."""


@dataclass(slots=True)
class Found:
    """Milliseconds, by "way.verb"."""

    waits: dict[str, list[float]] = field(default_factory=lambda: defaultdict(list))
    inside: dict[str, list[float]] = field(default_factory=lambda: defaultdict(list))  # the sum of Berth's calls
    calls: dict[str, list[Call]] = field(default_factory=lambda: defaultdict(list))


class Rig:
    """The engine, its networks and containers."""

    def __init__(self, lab: Lab, engine: Dockerd, log: Log, sizes: tuple[int, ...]) -> None:
        self._lab, self._engine, self._log = lab, engine, log
        self._grounds = grounds(sizes)
        self.found = {size: Found() for size in sizes}
        self.around: list[float] = []  # milliseconds of a call that its line in the log leaves out
        self._traveller = ""

    def prepare(self) -> None:
        """Make the networks and the containers that stay; `traveller` is the one that is connected to them all."""
        for ground in self._grounds:
            self._ask("POST", "/networks/create", ground.creation())
        self._traveller = self._start(self._create("bridge", name="traveller"))
        with ThreadPoolExecutor(_AT_ONCE) as pool:
            for _ in pool.map(self._stay, range(max(ground.size for ground in self._grounds))):
                pass

    def check(self) -> None:
        """Whether every network has its containers, and one more there reaches the first. Raises `Unlike`."""
        for ground in self._grounds:
            there = self._ask("GET", f"/networks/{ground.name}")["Containers"]
            if len(there) != ground.size:
                raise Unlike(f"{ground.name} has {len(there)} containers, not {ground.size}")
            first = next(at["IPv4Address"] for at in there.values() if at["Name"] == "stays-0").partition("/")[0]
            guest = self._start(self._create(ground.name))
            self._engine.docker("exec", guest, "ping", "-c1", "-W2", first)
            route = self._engine.docker("exec", guest, "ip", "route", "show", "default")
            if ground.creation()["IPAM"]["Config"][0]["Gateway"] not in route:
                raise Unlike(f"a container on {ground.name} has the default route {route!r}")
            self._remove(guest)
        time.sleep(_PAUSE)

    def facts(self) -> dict[str, Any]:
        """What was measured."""
        tables = self._lab.run("host", ["nft", "list", "tables"], check=True).stdout
        return {
            "engine": self._ask("GET", "/version")["Version"],
            "containers": len(self._ask("GET", "/containers/json")),
            "bypasses": tables.count("table netdev berth_"),  # flat networks that pass their frames by Docker's rules
        }

    # --- measuring ---

    def round(self, number: int) -> None:
        """Every network in its turns. Their order is another each time: none always comes after the same one."""
        cycles = [*[self._cycle_connect] * CONNECTS, self._cycle_run]
        turns = [(cycle, ground) for cycle in cycles for ground in self._grounds]
        for cycle, ground in random.Random(number).sample(turns, len(turns)):
            cycle(ground)
        self.around += around(self._lab.work / "host/run/berth.sock", self._log, _AROUND)

    def _cycle_connect(self, ground: Ground) -> None:
        for verb in ("connect", "disconnect"):
            with self._timed(ground, verb):
                self._ask("POST", f"/networks/{ground.name}/{verb}", {"Container": self._traveller})
            time.sleep(_PAUSE)

    def _cycle_run(self, ground: Ground) -> None:
        with self._timed(ground, "run"):
            guest = self._start(self._create(ground.name))
        time.sleep(_PAUSE)
        with self._timed(ground, "remove"):
            self._remove(guest)
        time.sleep(_PAUSE)

    @contextmanager
    def _timed(self, ground: Ground, verb: str) -> Iterator[None]:
        found, name = self.found[ground.size], f"{ground.way}.{verb}"
        self._log.calls()
        start = time.perf_counter_ns()
        yield
        found.waits[name].append((time.perf_counter_ns() - start) / 1e6)
        calls = self._log.calls()
        if bool(calls) != (ground.way in BERTH):
            raise Unlike(f"{verb} on {ground.name} made {len(calls)} calls to Berth")
        if calls:
            found.inside[name].append(sum(milliseconds for _, milliseconds in calls))
            found.calls[name] += calls

    # --- the engine ---

    def _ask(self, method: str, path: str, body: object = None) -> Any:
        return self._engine.api(method, path, body, _PATIENCE)

    def _create(self, network: str, name: str = "") -> str:
        body = {"Image": IMAGE, "Cmd": ["sleep", "86400"], "HostConfig": {"NetworkMode": network}}
        created: str = self._ask("POST", "/containers/create" + (f"?name={name}" if name else ""), body)["Id"]
        return created

    def _start(self, container: str) -> str:
        self._ask("POST", f"/containers/{container}/start")
        return container

    def _remove(self, container: str) -> None:
        self._ask("DELETE", f"/containers/{container}?force=1")

    def _stay(self, number: int) -> None:
        """One container on every network that is not full by then; started, it is plugged into all at once."""
        first, *others = [ground.name for ground in self._grounds if number < ground.size]
        container = self._create(first, name=f"stays-{number}")
        for name in others:
            self._ask("POST", f"/networks/{name}/connect", {"Container": container})
        self._start(container)


@contextmanager
def rig(kind: str, sizes: tuple[int, ...]) -> Iterator[Rig]:
    """A rig on a lab of its own; all of it is gone afterwards."""
    with Lab(topology(sizes)) as lab:
        plugin = f"unix://{lab.work}/host/run/berth.sock\n"
        engine = Dockerd(lab, kind, plugins={"berth.spec": plugin})
        path = lab.work / "host/berth.log"
        with path.open("wb") as output:
            where = {"DOCKER_HOST": f"unix://{engine.socket}"}  # it asks Docker for names
            daemon = lab.popen("host", ["berth", "daemon"], env=where, stdout=output, stderr=output)
        log = Log(path)
        try:
            with engine:
                yield Rig(lab, engine, log, sizes)
        finally:
            _end(daemon)
            log.close()


def _end(daemon: Inside) -> None:
    daemon.terminate()
    daemon.wait(30)
