"""Publishing through Berth and through a real Docker engine, on one lab's host."""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from berth.lab.session import Lab
from berth.lab.topology import home
from interop.engines import IMAGE
from interop.engines import KINDS as KINDS
from interop.harbour import OURS, Harbour

WAYS = {"bridge": "docker run, Docker's bridge", "nat": "docker run, Berth's driver"}
_PATIENCE = 400  # seconds for one request: 1,000 ports take Docker a minute and more
_LIVE = Path(__file__).with_name("live.py")
_ROUNDS = 5  # of Berth's publishing, and of containers with few ports
_MANY = 1000  # from here on Docker is asked once
_FIRST = 20_000

Times = dict[str, list[float]]  # milliseconds


class Beside:
    """The host with both."""

    def __init__(self, harbour: Harbour) -> None:
        self._harbour = harbour
        self._lab = harbour.lab
        harbour.docker("network", "create", *OURS, "nat")
        self._lab.run("host", ["ip", "netns", "add", "box"], check=True)
        self._berth("network", "create", "own")
        said = json.loads(self._berth("attach", "own", "box", "--json"))
        self._endpoint: str = said["id"]

    def facts(self) -> dict[str, Any]:
        """What was measured."""
        return {"engine": self._harbour.engine.api("GET", "/version")["Version"]}

    def berth(self, count: int) -> dict[str, Any]:
        """Milliseconds of publishing ports of an endpoint and taking them back, and the processes on the host."""
        argv = [sys.executable, str(_LIVE), self._endpoint, str(count), str(_ROUNDS)]
        found: dict[str, Any] = json.loads(self._lab.run("host", argv, check=True, timeout=_PATIENCE).stdout)
        return found

    def docker(self, way: str, count: int) -> tuple[Times, int]:
        """Milliseconds of starting and removing a container with so many ports, and the processes that serve them."""
        found: Times = {"start": [], "remove": []}
        proxies = 0
        for _ in range(1 if count >= _MANY else _ROUNDS):
            guest = self._create(way, count)
            found["start"].append(self._took("POST", f"/containers/{guest}/start"))
            proxies = sum("docker-proxy" in line for line in self._harbour.engine.processes().values())
            found["remove"].append(self._took("DELETE", f"/containers/{guest}?force=1"))
            time.sleep(0.3)
        return found, proxies

    def _create(self, way: str, count: int) -> str:
        ports = range(_FIRST, _FIRST + count)
        body = {
            "Image": IMAGE,
            "Cmd": ["sleep", "86400"],
            "ExposedPorts": {f"{port}/tcp": {} for port in ports},
            "HostConfig": {
                "NetworkMode": way,
                "PortBindings": {f"{port}/tcp": [{"HostPort": str(port)}] for port in ports},
            },
        }
        created: str = self._harbour.engine.api("POST", "/containers/create", body, _PATIENCE)["Id"]
        return created

    def _took(self, method: str, path: str) -> float:
        start = time.perf_counter_ns()
        self._harbour.engine.api(method, path, None, _PATIENCE)
        return (time.perf_counter_ns() - start) / 1e6

    def _berth(self, *args: str) -> str:
        return self._lab.run("host", ["berth", *args], check=True).stdout


@contextmanager
def beside(kind: str, say: Callable[[str], None]) -> Iterator[Beside]:
    """A lab with both; all of it is gone afterwards."""
    say(f"starting Docker {kind}")
    with Lab(home()) as lab, Harbour(lab, kind) as harbour:
        yield Beside(harbour)
