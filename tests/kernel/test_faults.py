"""A failure or a SIGKILL at every operation of every plan leaves the host as it was or as asked.

For each verb the plan itself says how many operations there are; each of them is made to fail, is skipped by a
batch that goes on, and is the last that a killed process did. Then everything a person can list is compared.
"""

from __future__ import annotations

import json
import os
import re
import signal
import sqlite3
import subprocess
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from berth import spec, wire
from berth.engine.engine import Engine
from berth.errors import BerthError, Refused
from berth.kernel.linux import LinuxKernel
from berth.plan import Plan
from berth.seams import Outcome
from berth.store.sqlite import SqliteStore

from .conftest import Host, sh

Verb = Callable[[Engine, bool], Outcome[Any]]


class Failing(LinuxKernel):
    """A kernel that does the first `stop` operations of the first plan and then refuses.

    With `go_on`, it does the others behind the refused one too, as a netlink batch does.
    """

    def __init__(self, stop: int, *, go_on: bool) -> None:
        self._stop: int | None = stop
        self._go_on = go_on

    def send(self, plan: Plan) -> None:
        stop, self._stop = self._stop, None
        if stop is None:
            super().send(plan)
            return
        rest = plan.ops[stop + 1 :] if self._go_on else ()
        super().send(Plan(plan.ops[:stop]))
        for op in rest:
            try:
                super().send(Plan((op,)))
            except BerthError:
                continue  # it needed the one that was refused
        raise Refused("injected")


class Killed(LinuxKernel):
    """A kernel whose process dies after the first `stop` operations."""

    def __init__(self, stop: int) -> None:
        self._stop = stop

    def send(self, plan: Plan) -> None:
        super().send(Plan(plan.ops[: self._stop]))
        os.kill(os.getpid(), signal.SIGKILL)


@dataclass
class World:
    """A host with two sandboxes, a LAN bridge, and whatever the scenario sets up."""

    host: Host
    state: Path
    kernel: LinuxKernel = field(default_factory=LinuxKernel)

    def engine(self, kernel: LinuxKernel | None = None) -> Engine:
        return wire.engine(f"sqlite:{self.state}/berth.db", kernel=kernel or LinuxKernel())

    def do(self, verb: Verb, kernel: LinuxKernel | None = None, *, dry_run: bool = False) -> Outcome[Any]:
        engine = self.engine(kernel)
        try:
            return verb(engine, dry_run)
        finally:
            engine.close()

    def snapshot(self) -> dict[str, Any]:
        """All that `ip`, `nft`, `sysctl` and the store can list, without what differs by nature."""
        seen: dict[str, Any] = {"store": _store(self.state / "berth.db"), "nft": _nft(), "legacy": _legacy()}
        for ns in ("", "c1", "c2"):
            where = ["-n", ns] if ns else []
            seen[f"links {ns}"] = _ip(*where, "-d", "link")
            seen[f"addresses {ns}"] = _ip(*where, "addr")
            seen[f"routes {ns}"] = _ip(*where, "route", "show", "table", "all")
            seen[f"routes6 {ns}"] = _ip(*where, "-6", "route", "show", "table", "all")
            seen[f"sysctl {ns}"] = _sysctls(ns)
        return json.loads(_NEW_EACH_TIME.sub("new", json.dumps(seen)))  # type: ignore[no-any-return]


_NEW_EACH_TIME = re.compile("bv[0-9a-f]{12}|[0-9a-f]{64}")  # cables' names and ids
_VOLATILE = re.compile(
    r"ifindex|link_index|link_netnsid|txqlen|.*timer|.*_life_time|operstate|linkmode|root_port|flags|"
    r"(gso|tso|gro)_.*|topology_change.*|hello_.*|tcn.*|handle|age|used|designated_.*|bridge_id|root_id"
)
_KERNEL_MADE = re.compile(r"^(fe80|ff00|multicast)")


def _ip(*args: str) -> Any:
    out = subprocess.run(["ip", "-j", *args], check=True, capture_output=True, text=True).stdout
    return sorted(map(json.dumps, _plain(json.loads(out or "[]"))))


def _plain(value: Any) -> Any:
    if isinstance(value, dict):
        up = {"up": "UP" in value["flags"]} if "ifname" in value and isinstance(value.get("flags"), list) else {}
        return up | {k: _plain(v) for k, v in value.items() if not _VOLATILE.fullmatch(k)}
    if isinstance(value, list):
        return [
            _plain(item)
            for item in value
            if not (isinstance(item, dict) and _KERNEL_MADE.match(str(item.get("dst", item.get("local", "")))))
        ]
    return value


def _nft() -> Any:
    out = subprocess.run(["nft", "-j", "list", "ruleset"], check=True, capture_output=True, text=True).stdout
    return [_plain(item) for item in json.loads(out)["nftables"] if "metainfo" not in item]


def _legacy() -> list[str]:
    """The rules of iptables-legacy; to ask where there are none would make its table."""
    loaded = Path("/proc/net/ip_tables_names").read_text()
    return sh("iptables-legacy -S; ip6tables-legacy -S").splitlines() if loaded else []


def _sysctls(ns: str) -> list[str]:
    enter = ["nsenter", f"--net=/run/netns/{ns}"] if ns else []
    names = ["net.ipv4.ip_forward", "net.ipv6.conf.all.forwarding", r"net.ipv[46].conf\..*(accept_ra|disable_ipv6)$"]
    out = subprocess.run(
        [*enter, "sysctl", "-a", "-r", "|".join(names)], check=True, capture_output=True, text=True
    ).stdout
    return sorted(out.splitlines())


def differences(wanted: dict[str, Any], found: dict[str, Any]) -> list[str]:
    """What is missing (-) and what is too much (+), section by section."""
    lines = []
    for section, want in wanted.items():
        one, two = (sorted(map(json.dumps, x.items() if isinstance(x, dict) else x)) for x in (want, found[section]))
        lines += [f"{section}: - {line}" for line in one if line not in two]
        lines += [f"{section}: + {line}" for line in two if line not in one]
    return lines


def _store(path: Path) -> dict[str, list[Any]]:
    with sqlite3.connect(path) as db:
        return {
            table: sorted(map(repr, db.execute(f"SELECT {what} FROM {table}")))
            for table, what in (
                ("network", "name"),
                ("endpoint", "name, ifname"),
                ("run", "first, last"),
                ("port", "proto, host_port"),
                ("intent", "id"),
            )
        }


# --- scenarios: what is there before, and the verb ------------------------------------------------------


def create(name: str, **asked: Any) -> Verb:
    return lambda engine, dry: engine.create_network(spec.network_spec(name=name, **asked), dry_run=dry)


def attach(network: str, sandbox: str, **asked: Any) -> Verb:
    request = spec.attach_request(network=network, sandbox=sandbox, **asked)
    return lambda engine, dry: engine.attach(request, dry_run=dry)


def detach(network: str, sandbox: str) -> Verb:
    return lambda engine, dry: engine.detach(network, sandbox, dry_run=dry)


def ports(*texts: str, but: tuple[str, ...] = (), everything: bool = False) -> Verb:
    """Publish these ports of the one endpoint, and unpublish others."""
    change = spec.port_change(endpoint="c1", publish=texts, unpublish=but, everything=everything)
    return lambda engine, dry: engine.change_ports(change, dry_run=dry)


def remove(name: str) -> Verb:
    return lambda engine, dry: engine.remove_network(name, dry_run=dry)


def beside_legacy(*verbs: Verb) -> Verb:
    """The same where the legacy iptables drops what is forwarded."""

    def setup(engine: Engine, dry: bool) -> Outcome[Any]:
        sh("iptables-legacy -P FORWARD DROP; ip6tables-legacy -P FORWARD DROP")
        return [verb(engine, dry) for verb in verbs][-1] if verbs else engine.reconcile()

    return setup


NAT = create("nat", subnets=["10.77.0.0/24", "fd77::/64"])
OTHER = create("other", subnets=["10.78.0.0/24"])
FLAT = create("lan", driver="flat", options=["parent=br0"], ipv6=True)
BYPASS = create("lan", driver="flat", options=["parent=br0", "bypass=always"], ipv6=True)
APART = create("lan", driver="flat", options=["parent=br0", "bypass=always", "icc=false"], ipv6=True)
OPEN = create("lan", driver="flat", options=["parent=br0", "antispoof=false"], ipv6=True)
OVERLAY = create("wide", driver="overlay", subnets=["10.77.0.0/24", "fd77::/64"], options=["underlay=192.168.2.0/24"])
SEALED = create("wide", driver="overlay", subnets=["10.77.0.0/24"], options=["underlay=192.168.2.0/24", "encrypted"])
PORTS = attach(
    "nat", "c1", ips=["10.77.0.9", "fd77::9"], ports=["8080:80", "127.0.0.9:5353:53/udp", "[fd99::1]:443:443"]
)
GUARDED = create("nat", subnets=["10.77.0.0/24", "fd77::/64"], options=["allow=tcp/80,udp/53@10.77.0.0/24"])
GUARDED_LAN = create("lan", driver="flat", options=["parent=br0", "bypass=always", "allow=none"], ipv6=True)
RANGE = attach(
    "nat", "c1", ips=["10.77.0.9", "fd77::9"], ports=["8010-8019:8010-8019", "127.0.0.9:7000-7009:7000-7009"]
)
RATED = create("nat", subnets=["10.77.0.0/24"], options=["ingress_rate=10mbit", "egress_rate=1gbit"])
RATED_LAN = create("lan", driver="flat", options=["parent=br0", "bypass=always", "egress_rate=1gbit"], ipv6=True)
FASTER = attach(
    "nat", "c1", ips=["10.77.0.9"], ports=["8080:80"], options=["egress_rate=2gbit", "routes=10.5.0.0/16=10.77.0.3"]
)
PLAIN = attach("nat", "c1", ips=["10.77.0.9", "fd77::9"])
SECOND = attach("other", "c1", ips=["10.78.0.9"])
C2_ON_LAN = attach("lan", "c2", ips=["192.168.2.77", "fd00:2::77"])

SCENARIOS: dict[str, tuple[tuple[Verb, ...], Verb]] = {
    "create-first": ((), NAT),
    "create-second": ((NAT,), OTHER),
    "create-beside-legacy": ((beside_legacy(),), NAT),
    "remove-beside-legacy": ((beside_legacy(NAT),), remove("nat")),
    "create-internal": ((), create("inner", subnets=["10.79.0.0/24"], internal=True)),
    "create-allowed": (
        (NAT,),
        create("inner", subnets=["10.79.0.0/24"], options=["allow_from=nat", "host_access=false"]),
    ),
    "create-flat": ((), FLAT),
    "create-flat-bypass": ((), BYPASS),
    "attach-flat-bypass": ((BYPASS,), attach("lan", "c1")),
    "detach-flat-bypass": ((BYPASS, attach("lan", "c1", ips=["192.168.2.9"]), C2_ON_LAN), detach("lan", "c1")),
    "remove-flat-bypass": ((BYPASS,), remove("lan")),
    "create-flat-apart": ((), APART),
    "attach-flat-apart": ((APART,), attach("lan", "c1")),
    "detach-flat-apart": ((APART, attach("lan", "c1", ips=["192.168.2.9"]), C2_ON_LAN), detach("lan", "c1")),
    "create-flat-open": ((), OPEN),
    "attach-flat-open": ((OPEN,), attach("lan", "c1")),
    "create-apart": ((), create("inner", subnets=["10.79.0.0/24"], options=["icc=false"])),
    "attach": ((NAT,), attach("nat", "c1")),
    "attach-ports": ((NAT,), PORTS),
    "attach-range": ((NAT,), RANGE),
    "detach-range": ((NAT, RANGE), detach("nat", "c1")),
    "publish-beside-a-range": ((NAT, RANGE), ports("8000-8009:8000-8009", "9000:80")),
    "unpublish-within-a-range": ((NAT, RANGE), ports("8015:81", but=("8015:8015",))),
    "publish-first": ((NAT, PLAIN), ports("8000:80")),
    "unpublish": ((NAT, RANGE), ports(everything=True)),
    "attach-rated": ((RATED,), FASTER),
    "detach-rated": ((RATED, FASTER), detach("nat", "c1")),
    "attach-rated-flat-bypass": ((RATED_LAN,), attach("lan", "c1", options=["ingress_rate=10mbit"])),
    "attach-second-network": ((NAT, OTHER, attach("nat", "c1")), attach("other", "c1")),
    "attach-flat": ((FLAT,), attach("lan", "c1")),
    "detach": ((NAT, PLAIN), detach("nat", "c1")),
    "detach-ports": ((NAT, PORTS), detach("nat", "c1")),
    "detach-default-route-moves": ((NAT, OTHER, PORTS, SECOND), detach("nat", "c1")),
    "detach-flat": ((FLAT, attach("lan", "c1", ips=["192.168.2.9"]), C2_ON_LAN), detach("lan", "c1")),
    "create-overlay": ((), OVERLAY),
    "attach-overlay": ((OVERLAY,), attach("wide", "c1", ports=["8080:80"])),
    "remove-overlay": ((OVERLAY,), remove("wide")),
    "create-sealed": ((), SEALED),
    "remove-sealed": ((SEALED,), remove("wide")),
    "create-guarded": ((), GUARDED),
    "attach-guarded": ((GUARDED,), PORTS),
    "attach-guarded-flat": ((GUARDED_LAN, C2_ON_LAN), attach("lan", "c1")),
    "detach-guarded": ((GUARDED, PORTS), detach("nat", "c1")),
    "remove-one-of-two": ((NAT, OTHER), remove("nat")),
    "remove-last": ((NAT,), remove("nat")),
    "remove-flat": ((FLAT,), remove("lan")),
}


@pytest.fixture
def world(host: Host, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> World:
    monkeypatch.setattr(SqliteStore, "host", "h1")  # overlays are for hosts that have a name
    host.sandbox("c1")
    host.sandbox("c2")
    host.sandbox("far")
    for line in (
        # A loopback that was up once keeps its address, whoever takes it down again.
        *(f"-n {name} link set lo {state}" for name in ("c1", "c2") for state in ("up", "down")),
        "link add br0 type bridge forward_delay 0",
        "link set br0 up",
        "link add enp3s0 type veth peer name port netns far",
        "link set enp3s0 up master br0",
        "-n far link set port up",
        "addr add 192.168.2.2/24 dev br0",
        "addr add fd00:2::2/64 dev br0 nodad",
        "route add default via 192.168.2.1",
        "-6 route add default via fd00:2::1",
    ):
        subprocess.run(["ip", *line.split()], check=True)
    return World(host, tmp_path)


def _kill(world: World, verb: Verb, stop: int) -> None:
    child = os.fork()
    if child == 0:
        try:
            world.do(verb, Killed(stop))
        finally:
            os._exit(9)  # it was to be killed
    _, status = os.waitpid(child, 0)
    assert os.WIFSIGNALED(status) and os.WTERMSIG(status) == signal.SIGKILL


def _inject(world: World, verb: Verb, stop: int, how: str) -> None:
    if how == "kill":
        _kill(world, verb, stop)
        world.do(lambda engine, _: engine.reconcile())
        return
    try:
        world.do(verb, Failing(stop, go_on=how == "fail-and-go-on"))
    except Refused as error:
        assert "injected" in str(error)


@pytest.mark.parametrize("how", ["fail", "fail-and-go-on", "kill"])
@pytest.mark.parametrize("scenario", SCENARIOS)
def test_every_operation_may_be_the_last(world: World, scenario: str, how: str) -> None:
    before_verbs, verb = SCENARIOS[scenario]
    for setup in before_verbs:
        world.do(setup)
    forward = scenario.startswith(("detach", "remove"))
    operations = len(world.do(verb, dry_run=True).plan.ops)
    before = world.snapshot()
    for stop in range(operations + (how == "kill")):
        _inject(world, verb, stop, how)
        if not forward:
            assert differences(before, world.snapshot()) == [], f"after {stop} of {operations} operations"
            continue
        after = world.snapshot()
        assert after["store"]["intent"] == []
        _undo(world, scenario, before_verbs)
        world.do(verb)
        assert differences(world.snapshot(), after) == [], f"after {stop} of {operations} operations"
        _undo(world, scenario, before_verbs)
    world.do(verb)
    if operations and not forward:
        assert world.snapshot() != before  # the comparison can tell


def _undo(world: World, scenario: str, before_verbs: tuple[Verb, ...]) -> None:
    """Bring back what a verb that goes forward has removed."""
    if scenario.startswith("remove"):
        world.do(before_verbs[0])
        return
    every = world.engine()
    left = every.endpoints()
    for ep in left:
        every.detach(ep.network, ep.name)
    every.close()
    for setup in before_verbs:
        try:
            world.do(setup)
        except BerthError as error:
            assert "already" in str(error)  # a network, which was not detached
