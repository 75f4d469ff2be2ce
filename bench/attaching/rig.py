"""A host with so many endpoints attached that stay, and every way of attaching one more.

Berth, the hand-packed batch and the CNI plugin each have a host namespace and a bridge of their own, so that none
works on a host that another has filled. The sandboxes that stay are plugged into all of them; every measured attach
goes into a fresh sandbox, as in life.
"""

from __future__ import annotations

import os
import random
import subprocess
import time
from collections.abc import Iterator
from dataclasses import replace
from ipaddress import IPv4Interface, IPv4Network
from itertools import count
from pathlib import Path

from attaching import compare, spaces
from attaching.cni import CniHost
from attaching.hand import Cable, HandBatch
from attaching.ways import Samples, Stopwatch, Thunk, Way
from berth import wire
from berth.engine.engine import Engine
from berth.model import AttachRequest, NetworkSpec, PortMapping

DRIVERS = ("bridge", "flat")
CYCLES = 10  # attaches by each way in a round, between two sweeps: a Linux bridge takes 1,023 ports
LARGEST = 1000
_SWEPT_AT_END = 150

_PORT = PortMapping(host_ip=None, host_port=9000, port=80)
_HELD_PORTS = 10_000
_SUBNET = IPv4Network("10.77.0.0/16")
_LAN = "link add br0 type bridge\nlink set br0 up\naddr add 10.77.0.2/16 dev br0\nroute add default via 10.77.0.1\n"


def host_names(size: int, driver: str) -> tuple[str, str, str]:
    """The host namespaces of a rig: Berth's, the hand-packed batch's, the CNI plugin's."""
    return f"host-{driver}-{size}", f"hand-{driver}-{size}", f"cni-{driver}-{size}"


def sandbox_names(size: int, driver: str, rounds: int) -> list[str]:
    """All sandboxes that a rig uses, those that stay first."""
    return [f"{driver}-{size}-{n}" for n in range(size + rounds * (4 * CYCLES + CniHost.NEEDS + 1) + 5)]


class Rig:
    """The host of one size and driver. It moves this process to Berth's host and gives it mounts of its own."""

    def __init__(self, size: int, driver: str, sandboxes: list[str], state: Path) -> None:
        """Make the networks; of the sandboxes, the first `size` stay attached."""
        self._names = host_names(size, driver)
        self._home, bare, cni = (spaces.opened(name) for name in self._names)
        spaces.own_mounts()
        spaces.setns(self._home)
        self._held, self._fresh = sandboxes[:size], iter(sandboxes[size:])
        self._engine, _ = _network(driver, state / "host")
        with spaces.inside(bare, self._home):
            self._other_engine, bridge = _network(driver, state / "hand")
        self._hand = HandBatch(bare, self._home, bridge)
        self._dice = random.Random(size)
        self._watch = Stopwatch()
        self._suffix = "-flat" if driver == "flat" else ""
        self._cables = self._new_cables()
        self._ways: dict[str, Way] = {f"berth{self._suffix}": self._berth(), f"hand{self._suffix}": self._by_hand()}
        self._cni: CniHost | None = None
        if driver == "bridge":
            self._ways |= {"berth-port": self._berth(_PORT), "hand-port": self._by_hand(_PORT)}
            self._cni = CniHost(cni, self._home, state / "cni")

    # --- ways ---------------------------------------------------------------------------------------------

    def _berth(self, *ports: PortMapping) -> Way:
        def way(sandbox: str) -> tuple[Thunk, Thunk]:
            request = AttachRequest("net", sandbox, ports=ports)
            return lambda: self._engine.attach(request), lambda: self._engine.detach("net", sandbox)

        return way

    def _by_hand(self, port: PortMapping | None = None) -> Way:
        def way(sandbox: str) -> tuple[Thunk, Thunk]:
            cable = replace(self._cable(sandbox), port=port.host_port if port is not None else 0)
            return lambda: self._hand.attach(cable), lambda: self._hand.detach(cable)

        return way

    def _new_cables(self) -> Iterator[Cable]:
        for number in count(3):
            address = IPv4Interface((_SUBNET[number], 16))
            yield Cable(10_000 + number, "", "eth0", address, _SUBNET[1].packed, announced=self._suffix == "-flat")

    def _cable(self, sandbox: str) -> Cable:
        return replace(next(self._cables), sandbox=f"{spaces.NAMES}/{sandbox}")

    # --- before the measurement ---------------------------------------------------------------------------

    def fill(self) -> None:
        """Attach what stays; on NAT networks with one published port each."""
        self._stay: list[Cable] = []
        for number, sandbox in enumerate(self._held):
            port = _HELD_PORTS + number if self._cni is not None else 0
            ports = (PortMapping(host_ip=None, host_port=port, port=80),) if port else ()
            self._engine.attach(AttachRequest("net", sandbox, ports=ports))
            cable = replace(self._cable(sandbox), ifname="hand0", gateway=b"", port=port)
            self._hand.attach(cable)
            self._stay.append(cable)
        if self._cni is not None:
            self._cni.fill(next(self._fresh), [replace(cable, port=0) for cable in self._stay[1:]])

    def check(self) -> list[str]:
        """Attach one sandbox by each way and compare what is there; the differences. This warms every way up, too."""
        found = {name: self._facts(name, way) for name, way in self._ways.items()}
        self._engine.sweep()
        self._hand.sweep()
        pairs = [(name, name.replace("berth", "hand")) for name in found if name.startswith("berth")]
        return [f"{a} | {b}: {line}" for a, b in pairs for line in compare.differences(found[a], found[b])]

    def _facts(self, name: str, way: Way) -> compare.Facts:
        sandbox = next(self._fresh)
        attach, detach = way(sandbox)
        attach()
        time.sleep(0.05)  # until the kernel has told itself that the links have a carrier
        host = self._names[name.startswith("hand")]
        facts = compare.facts(compare.Attached(host, sandbox, _plugged_last(host)), self._home)
        if name.endswith("-port"):
            facts["ports"] = compare.ports(host, self._home)
        detach()
        return facts

    # --- the measurement ----------------------------------------------------------------------------------

    def round(self) -> None:
        """Some cycles of every way, in an order that differs from one cycle to the next."""
        self._look_at_held()
        names = list(self._ways)
        for _ in range(CYCLES):
            self._dice.shuffle(names)
            for name in names:
                self._watch.cycle(name, self._ways[name], next(self._fresh))
        swept = CYCLES * len(names) // 2
        self._watch.time(f"berth{self._suffix}.sweep", self._engine.sweep, swept)
        self._watch.time(f"hand{self._suffix}.sweep", self._hand.sweep, swept)
        if self._cni is not None:
            cable = self._cable(next(self._fresh))
            self._hand.attach(cable)
            self._watch.time("hand.delete", lambda: self._hand.delete(cable))
            self._cni.round(self._watch, self._fresh)

    def _look_at_held(self) -> None:
        """A new /proc that knows the settings of the sandboxes that stay, as after attaching them, and no others."""
        spaces.new_proc()
        for sandbox in self._held:
            with spaces.visit(sandbox, self._home):
                os.stat("/proc/sys/net/ipv4/conf")
                os.stat("/proc/sys/net/ipv6/conf")

    def finish(self) -> Samples:
        """Take many cables out of service and sweep them at once; then leave."""
        many = self._stay[:_SWEPT_AT_END]
        for cable in many:
            self._hand.detach(cable)
        self._watch.time(f"hand{self._suffix}.sweep-many", self._hand.sweep, len(many))
        self._engine.close()
        self._other_engine.close()
        return dict(self._watch.samples)


def _network(driver: str, state: Path) -> tuple[Engine, str]:
    """An engine with one network in the namespace the thread is in, and that network's bridge."""
    state.mkdir(parents=True)
    engine = wire.engine(f"sqlite:{state / 'berth.db'}")
    if driver == "flat":
        subprocess.run(["ip", "-batch", "-"], input=_LAN, text=True, check=True)
        # Not what Berth waits for on a LAN that it has not asked yet: 0.2 s, which a daemon spends ahead of time.
        spec = NetworkSpec("net", driver="flat", settings=(("bridge", "br0"), ("conflict", "off")))
    else:
        spec = NetworkSpec("net", subnets=(_SUBNET,))
    return engine, engine.create_network(spec).value.bridge


def _plugged_last(host: str) -> str:
    """The newest port of the bridge of a host namespace."""
    argv = ["ip", "-n", host, "-o", "link", "show", "type", "veth"]
    lines = subprocess.run(argv, capture_output=True, text=True, check=True).stdout.splitlines()
    return lines[-1].split(": ")[1].split("@")[0]
