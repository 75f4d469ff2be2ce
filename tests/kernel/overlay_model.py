"""What has to be true of an overlay once everybody has had the time to hear of everybody: see `Model.wrong`."""

from __future__ import annotations

import re
import sqlite3
import subprocess
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from berth.errors import BerthError, NotFound
from berth.model import Endpoint, HostRecord, Network
from berth.spec import network_spec
from berth.store.etcd import Held, held
from berth.store.shared import SharedStore

from .conftest import sh
from .overlay_hosts import UNDERLAY
from .overlay_world import World, until

Addresses = tuple[str, ...]


RECOVERY = 90  # seconds for everybody to agree again, on a machine that has other work; some two are usual
SUBNETS = ("10.50.0.0/28", "fd50::/124")  # small, so that addresses come round
CONTAINERS = 9


@dataclass
class Container:
    """What was asked for it. `addresses` None: it is attached nowhere; `sure` False: nobody said what came of it."""

    host: str
    addresses: Addresses | None = None
    sure: bool = True
    since: float = 0  # when it was given them


@dataclass
class Model:
    """The containers there are, and an observer who sees etcd as a host does."""

    world: World
    store: SharedStore
    directory: Path
    containers: dict[str, Container] = field(default_factory=dict)
    given: dict[str, dict[str, float]] = field(default_factory=dict)  # by address and container, when it was last
    reserved: int = 0  # addresses that no endpoint gets
    lost: int = 0  # endpoints whose addresses went to others while their host was away

    def attached(self, name: str, addresses: Addresses) -> None:
        """An attach has succeeded."""
        now = time.monotonic()
        container = self.containers[name]
        container.addresses, container.sure, container.since = addresses, True, now
        for address in addresses:
            self.given.setdefault(address, {})[name] = now

    def on(self, host: str) -> list[str]:
        """The containers of a host, attached or not."""
        return [name for name, container in self.containers.items() if container.host == host]

    def network(self) -> Network:
        """The network, as etcd has it. Raises `NotFound`."""
        with self.store.read() as tx:
            net = tx.network("ov")
        if net is None:
            raise NotFound("etcd has no network ov")
        return net

    def count_reserved(self) -> None:
        """Before anything is attached."""
        self.reserved = self._taken(self.network())

    def _taken(self, net: Network) -> int:
        with self.store.read() as tx:
            runs = {k: v for k, v in tx.etcd.range(f"pool/{net.id}/").items() if "/run/" in k}
        return sum(int(value.data, 16) - int(key.rpartition("/")[2], 16) + 1 for key, value in runs.items())

    def recovery(self, told: str, within: float = RECOVERY) -> float:
        """The seconds until nothing is wrong; `told`: what is said of who does not recover."""
        begins, said = time.monotonic(), ""
        while (wrong := self.wrong()) or not self._sure():
            if wrong and time.monotonic() > begins + 5 and str(wrong) != said:
                said = str(wrong)
                print(f"after {time.monotonic() - begins:.1f} s still wrong: {'; '.join(wrong)}", flush=True)
            if time.monotonic() > begins + within:
                logs = "\n".join(f"--- {name}\n{self.world.log(name)[-3000:]}" for name in self.world.names)
                pytest.fail("\n".join([told, *wrong, logs]))
            time.sleep(0.2)
        return time.monotonic() - begins

    def _sure(self) -> bool:
        """Whether it was known of everybody what to expect; it is from now on."""
        unsure = [container for container in self.containers.values() if not container.sure]
        for container in unsure:
            container.sure = True
        return not unsure

    # --- what is wrong --------------------------------------------------------------------------------------

    def wrong(self) -> list[str]:
        """Everything that is not as it has to be now; empty: all is well. What nobody was sure of is learnt here."""
        try:
            records = {host: self._records(host) for host in self.world.live}
            found = [*self._of_records(records), *self._of_etcd(records)]
        except (OSError, BerthError, sqlite3.Error) as error:
            return [f"not to be asked: {error}"]
        found += [line for host in self.world.live for line in self._of_kernel(host, records)]
        found += self._of_sandboxes(records)
        return found or [*self._unreachable(records)] or [*self._drift()]

    def _records(self, host: str) -> dict[str, Endpoint]:
        client = self.world.daemon(host)
        try:
            return {ep.name: ep for ep in client.endpoints()}
        finally:
            client.close()

    def _of_records(self, records: dict[str, dict[str, Endpoint]]) -> Iterator[str]:
        """Each host has the endpoints that it was asked for, and no address is on record twice."""
        every = [ep for eps in records.values() for ep in eps.values()]
        for address, count in Counter(interface.ip for ep in every for interface in ep.addresses).items():
            if count > 1:
                yield f"{address} is on record {count} times"
        for host, eps in records.items():
            for name in eps.keys() - set(self.on(host)):
                yield f"{host} has {name}, which is not on it"
            for name in self.on(host):
                yield from self._compared(name, eps.get(name), {str(i.ip) for ep in every for i in ep.addresses})

    def _compared(self, name: str, ep: Endpoint | None, taken: set[str]) -> Iterator[str]:
        container = self.containers[name]
        has = _addresses(ep) if ep is not None else None
        if has == container.addresses:
            return
        if not container.sure:
            if has is not None:
                self.attached(name, has)
            container.addresses, container.sure = has, False  # a daemon that hung may still do as it was told
        elif has is None and container.addresses and self._went_to_others(name, container.addresses):
            container.addresses = None
            self.lost += 1
        else:
            yield f"{name} on {container.host} has {has}, and was given {container.addresses}"

    def _went_to_others(self, name: str, addresses: Addresses) -> bool:
        since = self.containers[name].since
        return any(when > since for address in addresses for who, when in self.given[address].items() if who != name)

    def _of_etcd(self, records: dict[str, dict[str, Endpoint]]) -> Iterator[str]:
        """What all hosts share says the same, of addresses, endpoints, names and hosts."""
        net = self.network()
        with self.store.read() as tx:
            claims = {key.rpartition("/")[2]: held(value) for key, value in tx.etcd.range(f"held/{net.id}/").items()}
            seen = {key.rpartition("/")[2] for key in tx.etcd.range(f"seen/endpoint/{net.id}/")}
            names = {key.rpartition("/")[2] for key in tx.etcd.range(f"name/{net.id}/")}
            hosts = {host.id for host in tx.hosts()}
            gone = {key.rpartition("/")[2] for key in (*tx.etcd.range("gone/"), *tx.etcd.range("grace/"))}
        every = {ep.id: ep for eps in records.values() for ep in eps.values()}
        here = {ep.host for ep in every.values()} | hosts
        want = {str(i.ip): Held(ep.host, ep.id) for ep in every.values() for i in ep.addresses}
        have = {address: claim for address, claim in claims.items() if claim.host in here}
        if have != want:
            yield f"held for live hosts: {_difference(have, want)}"
        if seen != set(every):
            yield f"endpoints that others see: {_difference(seen, set(every))}"
        if names != {ep.name for ep in every.values()}:
            yield f"names that others see: {_difference(names, {ep.name for ep in every.values()})}"
        if len(hosts) != len(self.world.live) or gone & here:
            yield f"hosts {sorted(hosts)} are there, {sorted(gone & here)} are there and gone"
        if self._taken(net) != len(claims) + self.reserved:
            yield f"{self._taken(net)} addresses are taken, {len(claims)} held, {self.reserved} reserved"

    def _of_kernel(self, host: str, records: dict[str, dict[str, Endpoint]]) -> Iterator[str]:
        """A host's tunnel knows the others' endpoints and nothing else; cables are there for its own only."""
        others = [(name, ep) for name, eps in records.items() if name != host for ep in eps.values()]
        told = self.world.tells(host)
        where = set(re.findall(r"^(\S+) dst (\S+) self permanent", told, re.M))
        want = {(ep.mac, f"10.0.0.{name[1]}") for name, ep in others}
        if where != want:
            yield f"{host}: forwarding: {_difference(where, want)}"
        ports = set(re.findall(r"^(\S+) master \S+ static", told, re.M))
        if ports != {mac for mac, _ in want}:
            yield f"{host}: bridge: {_difference(ports, {mac for mac, _ in want})}"
        known = set(re.findall(r"^(\S+) lladdr (\S+) .*PERMANENT", told, re.M))
        answers = {(address, ep.mac) for _, ep in others for address in _addresses(ep)}
        if known != answers:
            yield f"{host}: neighbours: {_difference(known, answers)}"
        links = set(re.findall(r"^\d+: ([^:@]+)", sh(f"ip -n {host} -o link show"), re.M)) - {"lo", "eth0"}
        cables = {link for link in links if not re.match("brt|bvx", link)}
        if cables != {ep.link for ep in records[host].values()} or len(links - cables) not in (0, 2):
            yield f"{host}: links {sorted(links)}, and endpoints {sorted(records[host])}"
        left = self._intents(host)
        if left:
            yield f"{host}: {left} changes under way"

    def _intents(self, host: str) -> int:
        path = Path(self.world.places(host)["BERTH_STATE"]) / "berth.db"
        records = sqlite3.connect(f"file:{path}?mode=ro", uri=True)
        try:
            return int(records.execute("SELECT count(*) FROM intent").fetchone()[0])
        finally:
            records.close()

    def _of_sandboxes(self, records: dict[str, dict[str, Endpoint]]) -> Iterator[str]:
        """What a container's own kernel says it has, and that nobody else has it."""
        every: Counter[str] = Counter()
        for name, container in self.containers.items():
            ep = records.get(container.host, {}).get(name)
            has = re.findall(r"inet6? ([0-9a-f.:]+)/", sh(f"ip -n {name} -o addr show scope global"))
            every.update(has)
            if set(has) != (set(_addresses(ep)) if ep is not None else set()):
                yield f"{name} has {has} inside, on record {ep and _addresses(ep)}"
        yield from (f"{address} is in {count} containers" for address, count in every.items() if count > 1)

    def _unreachable(self, records: dict[str, dict[str, Endpoint]]) -> Iterator[str]:
        """Every container reaches every other, in both IP versions."""
        every = {name: _addresses(ep) for eps in records.values() for name, ep in eps.items()}
        tries = {
            name: [address for other, addresses in every.items() if other != name for address in addresses]
            for name in every
        }
        asked = {name: _pinging(name, addresses) for name, addresses in tries.items() if addresses}
        for name, process in asked.items():
            out, _ = process.communicate(timeout=30)
            for address in out.split():
                yield f"{name} does not reach {address}"

    def _drift(self) -> Iterator[str]:
        """A host that is asked to put itself in order finds nothing to do."""
        for host in self.world.live:
            try:
                client = self.world.daemon(host)
                outcome = client.reconcile()
                client.close()
            except (OSError, BerthError) as error:
                yield f"{host} does not reconcile: {error}"
            else:
                yield from (f"{host} had to be put in order: {op}" for op in (*outcome.plan.ops, *outcome.value))


def _pinging(name: str, addresses: list[str]) -> subprocess.Popen[str]:
    """Begin to ask all at once, twice at most; prints those that do not answer."""
    each = "\n".join(
        f"(ping -n -c1 -W1 {address} || ping -n -c1 -W2 {address} || echo {address} >&3) >/dev/null 2>&1 &"
        for address in addresses
    )
    argv = ["nsenter", f"--net=/run/netns/{name}", "sh", "-c", f"exec 3>&1\n{each}\nwait"]
    return subprocess.Popen(argv, stdout=subprocess.PIPE, text=True)


def _addresses(ep: Endpoint) -> Addresses:
    return tuple(str(interface.ip) for interface in ep.addresses)


def _difference(have: object, want: object) -> str:
    if isinstance(have, set) and isinstance(want, set):
        return f"too many {sorted(have - want)}, missing {sorted(want - have)}"
    if isinstance(have, dict) and isinstance(want, dict):
        return f"too many {have.items() - want.items()}, missing {want.items() - have.items()}"
    return f"{have} instead of {want}"


@contextmanager
def met(directory: Path) -> Iterator[Model]:
    """Three hosts that have met, a network `ov`, and some containers that are attached nowhere yet."""
    world = World(3, directory)
    store = SharedStore(directory / "observer.db", world.where, "/berth/", "observer")
    model = Model(world, store, directory)
    try:
        world.start_members()
        for name in world.names:
            world.start(name)
        for name in world.names:
            until(lambda name=name: world.answers(name), f"no daemon on {name}")  # type: ignore[misc]
        until(lambda: len(hosts(store)) == len(world.names), "not all hosts are registered")
        create(world)
        model.count_reserved()
        for number in range(CONTAINERS):
            name = f"c{number}"
            model.containers[name] = Container(world.names[number % len(world.names)])
            sh(f"ip netns add {name}; ip -n {name} link set lo up")
        yield model
    finally:
        store.close()
        world.close()


def create(world: World) -> None:
    """The network `ov`, on the first host."""
    options = (f"underlay={UNDERLAY[4]}",)
    client = world.daemon("h1")
    client.create_network(network_spec(name="ov", driver="overlay", subnets=SUBNETS, ipv6=True, options=options))
    client.close()


def hosts(store: SharedStore) -> list[HostRecord]:
    """Those that etcd knows of now."""
    with suppress(BerthError), store.read() as tx:
        return list(tx.hosts())
    return []
