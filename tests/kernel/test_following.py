"""What other hosts change is carried to the kernel as it is heard: at its own cost, in order, and with nobody asked."""

from __future__ import annotations

import queue
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from ipaddress import ip_address, ip_interface, ip_network
from pathlib import Path

import pytest

from berth import ipam, wire
from berth.engine.engine import Engine
from berth.errors import NotFound, Refused
from berth.model import AttachRequest, Endpoint, HostRecord, Network, NetworkSpec, Sandbox
from berth.seams import Heard
from berth.store.etcd import SharedTx
from berth.store.gateway import Gateway
from berth.store.protobuf import Said
from berth.store.rpc import GRANT, TXN, Method
from berth.store.shared import SharedStore
from store.cluster import Cluster
from store.nouns import detach

from .conftest import Host, sh

_LAN = "ip link add lan type bridge; ip addr add 192.0.2.1/24 dev lan; ip link set lan up"
_SUBNET, _OTHER = ip_network("10.60.0.0/24"), ip_network("10.62.0.0/24")


@dataclass
class Ground:
    """This host, a, with an engine that hears; and others of which only the store knows."""

    host: Host
    etcd: Cluster
    engine: Engine
    net: Network
    stores: dict[str, SharedStore]
    heard: queue.Queue[Heard] = field(default_factory=queue.Queue)

    def like(self, digit: str, name: str) -> Network:
        """Another network, with addresses of its own."""
        pool = replace(self.net.pools[0], subnet=_OTHER, gateway=_OTHER[1])
        return replace(self.net, id=digit * 64, name=name, vni=99, bridge=f"bt-{digit}", pools=(pool,))

    def plug(self, store: str, name: str, vtep: str, wanted: str = "") -> Endpoint:
        """An endpoint on another host."""
        pool = self.net.pools[0]
        with self.stores[store].write() as tx:
            given = ipam.take(pool, tx.ledger(self.net.id, pool), ip_address(wanted) if wanted else None)
            at = ip_interface(f"{given}/{pool.subnet.prefixlen}")
            mac, sandbox = self.net.mac_for("", (at,)), Sandbox("", name)
            ep = Endpoint(f"id-{name}", self.net.id, name, sandbox, "", "eth0", mac, (at,), vtep=vtep)
            tx.save_endpoint(ep)
        return ep

    def hear(self, *names: str) -> Heard:
        """What is heard until each of the endpoints was heard of, as one."""
        missing, turns, revision = [f"id-{name}" for name in names], {}, 0
        while missing:
            said = self.heard.get(timeout=30)
            revision = said.revision
            for turn in said.turns:
                turns[turn.identity] = turn
                missing.remove(turn.identity)
        return Heard(revision, turns=tuple(turns.values()))

    def known(self) -> set[tuple[str, str]]:
        """The MACs that the tunnel knows, and where they are; each with its neighbour."""
        lines = [line.split() for line in sh(f"bridge fdb show dev {self.net.tunnel}").splitlines()]
        found = {(line[0], line[line.index("dst") + 1]) for line in lines if "dst" in line}
        neighbours = sh(f"ip neigh show dev {self.net.tunnel} nud permanent")
        masters = [line[0] for line in lines if "master" in line and "static" in line]
        assert {mac for mac, _ in found} == {*masters} == {line.split()[2] for line in neighbours.splitlines()}
        return found


@pytest.fixture
def ground(host: Host, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Ground]:
    (tmp_path / "etcd").mkdir()
    monkeypatch.setenv("BERTH_STATE", str(tmp_path / "state"))
    sh(_LAN)
    cluster = Cluster(tmp_path / "etcd")
    closing: list[Callable[[], None]] = [cluster.close]
    try:
        cluster.ready()
        engine = wire.engine(f"etcd://{cluster.places}/?ttl=60")
        closing.append(engine.close)
        engine.register("a")
        spec = NetworkSpec("wide", driver="overlay", subnets=(_SUBNET,), settings=(("underlay", "192.0.2.0/24"),))
        net = engine.create_network(spec).value
        stores = {name: SharedStore(tmp_path / f"{name}.db", cluster.where, "/berth/", name) for name in "bc"}
        closing += [store.close for store in stores.values()]
        for name, store in stores.items():
            store.register(HostRecord(name, name))
        here = Ground(host, cluster, engine, net, stores)
        stop = engine.hear(here.heard.put)
        assert stop is not None
        closing.append(stop)
        assert here.heard.get(timeout=30) == Heard()  # anything may have changed: so there is a look at everything
        engine.settle()
        yield here
    finally:
        for close in reversed(closing):
            close()


def test_a_change_is_carried_out_with_nobody_asked(ground: Ground) -> None:
    one = ground.plug("b", "one", "192.0.2.2")
    came = ground.hear("one")
    two = ground.plug("c", "two", "192.0.2.3")
    detach(ground.stores["b"], one.id)
    then = ground.hear("one", "two")
    ground.etcd.kill()
    assert len(ground.engine.follow(came).ops) == 3
    assert ground.known() == {(one.mac, "192.0.2.2")}
    ground.engine.follow(then)
    assert ground.known() == {(two.mac, "192.0.2.3")}
    assert not ground.engine.audit()


def test_an_address_that_went_from_host_to_host_is_one_change(ground: Ground) -> None:
    one = ground.plug("b", "one", "192.0.2.2")
    ground.engine.follow(ground.hear("one"))
    detach(ground.stores["b"], one.id)
    gone = ground.hear("one")
    two = ground.plug("c", "two", "192.0.2.3", str(one.addresses[0].ip))
    came = ground.hear("two")
    assert two.mac == one.mac
    plan = ground.engine.follow(Heard(came.revision, turns=(*gone.turns, *came.turns)))
    assert [str(op)[0] for op in plan.ops] == ["~"]
    assert ground.known() == {(two.mac, "192.0.2.3")}


def test_what_is_older_than_the_last_look_changes_nothing(ground: Ground) -> None:
    one = ground.plug("b", "one", "192.0.2.2")
    came = ground.hear("one")
    detach(ground.stores["b"], one.id)
    ground.engine.settle()
    assert not ground.engine.follow(came)
    assert ground.known() == set()


def test_an_audit_puts_back_what_somebody_removed(ground: Ground) -> None:
    one = ground.plug("b", "one", "192.0.2.2")
    ground.engine.follow(ground.hear("one"))
    ground.etcd.kill()
    sh(f"bridge fdb del {one.mac} dev {ground.net.tunnel} dst 192.0.2.2 self")
    sh(f"bridge fdb add 02:00:00:00:00:09 dev {ground.net.tunnel} dst 192.0.2.9 self permanent")
    assert len(ground.engine.audit().ops) == 2
    assert ground.known() == {(one.mac, "192.0.2.2")}


def test_a_tunnel_that_somebody_removed_is_there_again_after_an_attach(ground: Ground) -> None:
    one = ground.plug("b", "one", "192.0.2.2")
    ground.engine.follow(ground.hear("one"))
    sh(f"ip link del {ground.net.tunnel}")
    ground.host.sandbox("c1")
    ground.engine.attach(AttachRequest("wide", "c1"))
    assert ground.known() == {(one.mac, "192.0.2.2")}


def test_an_attach_reads_with_the_lock_only(ground: Ground, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[Method] = []
    call = Gateway.call

    def count(gateway: Gateway, method: Method, message: Said) -> Said:
        asked.append(method)
        return call(gateway, method, message)

    ground.host.sandbox("c1")
    monkeypatch.setattr(Gateway, "call", count)
    request, _, _ = ground.engine.wanted(AttachRequest("wide", "c1", addresses=(ip_address("10.60.0.9"),)))
    ground.engine.attach(request)
    assert [method for method in asked if method is not GRANT] == [TXN] * 2


def test_a_network_that_was_removed_and_not_heard_of_is_not_attached_to(ground: Ground) -> None:
    with ground.stores["b"].write() as tx:
        tx.drop_network(ground.net.id)
    ground.host.sandbox("c1")
    with pytest.raises(NotFound, match="no network wide"):
        ground.engine.attach(AttachRequest("wide", "c1"))
    assert not ground.engine.endpoints()
    assert "eth0" not in sh("ip netns exec c1 ip -o link")


def test_a_network_that_was_made_anew_under_its_name_is_attached_to(ground: Ground) -> None:
    anew = ground.like("f", "wide")
    with ground.stores["b"].write() as tx:
        tx.drop_network(ground.net.id)
    with ground.stores["b"].write() as tx:
        tx.save_network(anew)
    ground.host.sandbox("c1")
    ep = ground.engine.attach(AttachRequest("wide", "c1")).value
    assert ep.network == anew.id
    assert {each.id for each in ground.engine.endpoints("wide")} == {ep.id}


def test_a_network_of_this_host_alone_comes_first(ground: Ground) -> None:
    """Another host may have made one of that name, which is followed here."""
    mine = ground.engine.create_network(NetworkSpec("mine", subnets=(ip_network("10.61.0.0/24"),))).value
    theirs = ground.like("e", "mine")
    with ground.stores["b"].write() as tx:
        tx.save_network(theirs)
    ground.engine.settle(frozenset({theirs.id}))
    assert theirs.id in ground.engine.following()
    ground.host.sandbox("c1")
    assert ground.engine.attach(AttachRequest("mine", "c1")).value.network == mine.id


def test_what_could_not_be_carried_out_is_looked_at_anew(ground: Ground) -> None:
    one = ground.plug("b", "one", "192.0.2.2")
    came = ground.hear("one")
    sh(f"ip link del {ground.net.tunnel}")
    with pytest.raises(Exception, match=ground.net.tunnel):
        ground.engine.follow(came)
    two = ground.plug("b", "two", "192.0.2.2")
    ground.engine.follow(ground.hear("two"))  # it is followed no more, so all of it is compared
    assert ground.known() == {(one.mac, "192.0.2.2"), (two.mac, "192.0.2.2")}


def test_who_hears_nothing_looks_at_everything(ground: Ground, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    one = ground.plug("b", "one", "192.0.2.2")  # not followed
    other = wire.engine(f"etcd://{ground.etcd.places}/?ttl=60")  # as a command without a daemon has it
    try:
        ground.host.sandbox("c1")
        other.attach(AttachRequest("wide", "c1"))
        assert ground.known() == {(one.mac, "192.0.2.2")}
    finally:
        other.close()


def test_a_store_that_goes_while_it_is_read_takes_nobody_along(ground: Ground, monkeypatch: pytest.MonkeyPatch) -> None:
    one = ground.plug("b", "one", "192.0.2.2")
    ground.engine.settle()
    read = SharedTx.networks

    def networks(tx: SharedTx) -> Sequence[Network]:
        found = read(tx)
        ground.etcd.kill()
        return found

    with monkeypatch.context() as patched:
        patched.setattr(SharedTx, "networks", networks)
        with pytest.raises(Refused, match="does not answer"):
            ground.engine.settle()
    assert ground.known() == {(one.mac, "192.0.2.2")}


def test_an_audit_makes_nothing_again_that_was_removed_here(ground: Ground) -> None:
    ground.engine.remove_network("wide")  # before it is heard of
    assert not ground.engine.audit()
    assert ground.net.tunnel not in sh("ip -o link")
