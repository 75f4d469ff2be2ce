"""The CNI reference plugin `bridge` with `host-local` addresses, run as a container engine runs it."""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Iterator, Sequence
from dataclasses import replace
from ipaddress import IPv4Interface, IPv4Network
from pathlib import Path
from typing import ClassVar

from attaching.hand import Cable, HandBatch
from attaching.spaces import NAMES, inside
from attaching.ways import Stopwatch, Thunk, Way

FOLDER = Path("/usr/lib/cni")
_BRIDGE = "cni0"
_SUBNET = IPv4Network("10.80.0.0/16")
_CYCLES = 2  # in a round, by each configuration


def missing() -> str | None:
    """What has to be installed first; None when all is there."""
    for plugin in ("bridge", "host-local"):
        if not (FOLDER / plugin).exists():
            return f"{FOLDER / plugin} is missing: install containernetworking-plugins"
    return None


class CniPlugin:
    """One network configuration of the plugin in one host namespace."""

    def __init__(self, host: int, home: int, data: Path, *, masquerade: bool) -> None:
        """`host`: the namespace to plug into; `home`: the one the thread is in; `data`: where addresses are kept."""
        self._host, self._home = host, home
        third = 16 if masquerade else 8  # each configuration has its own part of the subnet
        ranges = {"subnet": str(_SUBNET), "gateway": str(_SUBNET[1])}
        ranges |= {"rangeStart": f"10.80.{third}.0", "rangeEnd": f"10.80.{third + 7}.255"}
        config = {
            "cniVersion": "1.0.0",
            "name": "masq" if masquerade else "plain",
            "type": "bridge",
            "bridge": _BRIDGE,
            "isGateway": True,
            "isDefaultGateway": True,
            "ipMasq": masquerade,
            "mtu": 1500,
            "ipam": {"type": "host-local", "dataDir": str(data), "ranges": [[ranges]]},
        }
        self._config = json.dumps(config).encode()

    def way(self) -> Way:
        """ADD and DEL of a sandbox."""

        def way(sandbox: str) -> tuple[Thunk, Thunk]:
            return lambda: self.run("ADD", sandbox), lambda: self.run("DEL", sandbox)

        return way

    def run(self, command: str, sandbox: str) -> None:
        """ADD or DEL. Raises `RuntimeError` with the plugin's own words."""
        environment = {
            "PATH": os.environ.get("PATH", "/usr/sbin:/usr/bin:/sbin:/bin"),
            "CNI_COMMAND": command,
            "CNI_CONTAINERID": sandbox,
            "CNI_NETNS": f"{NAMES}/{sandbox}",
            "CNI_IFNAME": "eth0",
            "CNI_PATH": str(FOLDER),
        }
        with inside(self._host, self._home):
            done = subprocess.run(
                [str(FOLDER / "bridge")], input=self._config, capture_output=True, env=environment, check=False
            )
        if done.returncode:
            raise RuntimeError(f"CNI {command} failed: {done.stdout.decode(errors='replace').strip()}")


class CniHost:
    """The plugin's own host: a bridge, with and without masquerading."""

    NEEDS: ClassVar[int] = 2 * _CYCLES  # fresh sandboxes in a round

    def __init__(self, host: int, home: int, data: Path) -> None:
        self._host, self._home = host, home
        self._plain = CniPlugin(host, home, data, masquerade=False)
        masquerading = CniPlugin(host, home, data, masquerade=True)
        self._ways = {"cni": self._plain.way(), "cni-masq": masquerading.way()}

    def fill(self, first: str, others: Sequence[Cable]) -> None:
        """The plugin makes its bridge and one endpoint; cables by hand stand for the others, to save minutes."""
        self._plain.run("ADD", first)
        crowd = HandBatch(self._host, self._home, _BRIDGE)
        for number, cable in enumerate(others, 0x4000):
            address = IPv4Interface((_SUBNET[number], _SUBNET.prefixlen))
            crowd.attach(replace(cable, ifname="cni0", address=address, inner=1001))

    def round(self, watch: Stopwatch, fresh: Iterator[str]) -> None:
        """Some cycles by each configuration, and the start of a process as such."""
        for _ in range(_CYCLES):
            watch.time("process.start", _process_alone)
            for name, way in self._ways.items():
                watch.cycle(name, way, next(fresh))


def _process_alone() -> None:
    """Start a program that does nothing, in the same way."""
    subprocess.run(["/bin/true"], input=b"", capture_output=True, env={}, check=True)
