"""Many hosts and one pool: no address twice, a dead host's are freed in time, and it learns so when it is back."""

from __future__ import annotations

import os
import random
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from berth.errors import NotFound, Refused, Taken
from berth.model import Endpoint, HostRecord
from berth.seams import Store
from berth.store.gateway import Gateway
from berth.store.protobuf import Said
from berth.store.rpc import GRANT, RANGE, REVOKE, TXN, Method
from berth.store.shared import SharedStore, Terms
from store.cluster import Cluster
from store.conftest import MakeHost
from store.nouns import attach, detach, make, names, network, take, taken

ROOT = Path(__file__).parents[1]


def until(condition: Callable[[], object], seconds: float = 20) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "it did not come to it"
        time.sleep(0.05)


def die(store: SharedStore) -> None:
    """What the others see at once of a host whose lease runs out."""
    space = store._space
    key = f"seen/host/{store.host}"
    host = space.values(space.gateway.call(RANGE, space.one(key)))[key]
    space.gateway.call(REVOKE, {"ID": host.lease})


def of_all(store: Store) -> list[Endpoint]:
    with store.read() as tx:
        return list(tx.endpoints(network=network().id))


def test_four_hosts_at_once_some_killed(etcd: Cluster, host: MakeHost, tmp_path: Path, prefix: str) -> None:
    watcher = host(etcd, "w", Terms(grace=1))
    net = make(watcher, network(subnet="10.9.0.0/24"))
    for name in "abcd":
        host(etcd, name, Terms(grace=1))
    processes = {}
    for name in "abcd":
        count = "300" if name in "cd" else "30"  # who is to be killed is not done before
        command = [sys.executable, "-m", "store.taker", str(tmp_path), str(etcd.clients[0]), prefix, name, count]
        env = os.environ | {"PYTHONPATH": f"{ROOT}:{ROOT.parent / 'src'}"}
        with open(tmp_path / f"{name}.out", "wb") as out:
            processes[name] = subprocess.Popen(command, stdout=out, env=env)
    try:
        for name in "cd":
            wanted = random.randint(3, 20)
            until(lambda n=name, w=wanted: (tmp_path / f"{n}.out").read_bytes().count(b"\n") >= w, 60)  # type: ignore[misc]
            processes[name].kill()
        for name, process in processes.items():
            assert process.wait(90) == (-9 if name in "cd" else 0)
    finally:
        for process in processes.values():
            process.kill()
            process.wait()
    eps = of_all(watcher)
    addresses = [ep.addresses[0].ip for ep in eps]
    assert len(set(addresses)) == len(addresses) >= 2 * 20
    # Those that were killed come back: with nothing in etcd that they do not have, and nothing that they lack.
    for name in "cd":
        again = host(etcd, name, registered=False)
        assert again.register(HostRecord(name, name)) == ()
        with again.read() as tx:
            assert {ep.name for ep in tx.endpoints()} == {ep.name for ep in of_all(watcher) if ep.host == name}
    assert taken(watcher, net) == {int(ep.addresses[0].ip) for ep in of_all(watcher)}


def test_a_dead_host_s_endpoints_vanish_and_its_addresses_are_freed(etcd: Cluster, host: MakeHost) -> None:
    a, b = host(etcd, "a", Terms(ttl=2, grace=2)), host(etcd, "b", Terms(grace=2))
    net = make(a, network())
    one, two = attach(a, net, "one"), attach(b, net, "two")
    assert names(b, net) == {"one", "two"}
    until(lambda: names(b, net) == {"two"})  # nobody renews the lease
    assert [record.id for record in _hosts(b)] == ["b"]
    assert int(one.addresses[0].ip) in taken(b, net)
    assert b.expire() == ()  # the grace time begins
    with pytest.raises(Taken), b.write() as tx:
        take(tx, net, "three", one.addresses[0].ip)
    until(lambda: b.expire() == (one.id,))
    assert taken(b, net) == {int(two.addresses[0].ip)}
    assert b.expire() == ()
    # It is back, and nobody has taken the address.
    assert not a.keep()
    assert a.register(HostRecord("a", "a")) == ()
    assert a.keep() and names(b, net) == {"one", "two"}
    assert taken(b, net) == {int(ep.addresses[0].ip) for ep in (one, two)}


def test_who_is_back_too_late_loses_the_address(etcd: Cluster, host: MakeHost) -> None:
    a, b = host(etcd, "a", Terms(grace=1)), host(etcd, "b", Terms(grace=1))
    net = make(a, network())
    one, kept = attach(a, net, "one"), attach(a, net, "kept")
    die(a)
    b.expire()
    until(lambda: set(b.expire()) == {one.id, kept.id})
    heir = attach(b, net, "heir", one.addresses[0].ip)
    with pytest.raises(Refused, match="not registered"):
        attach(a, net, "more")
    assert a.register(HostRecord("a", "a")) == (one.id,)
    assert names(b, net) == {"heir", "kept"}
    with pytest.raises(Taken, match="given to another host"), a.write() as tx:
        tx.save_endpoint(replace(one, name="renamed"))
    detach(a, one.id)  # which gives nothing back that is another's
    assert {int(ep.addresses[0].ip) for ep in (heir, kept)} == taken(b, net)
    assert names(a, net) == {"heir", "kept"} and a.register(HostRecord("a", "a")) == ()


def test_back_within_the_grace_time_nothing_is_freed(etcd: Cluster, host: MakeHost) -> None:
    a, b = host(etcd, "a", Terms(grace=1)), host(etcd, "b", Terms(grace=1))
    net = make(a, network())
    one = attach(a, net, "one")
    die(a)
    b.expire()
    assert a.register(HostRecord("a", "a")) == ()
    time.sleep(1.5)  # longer than the grace time that had begun
    die(a)
    assert b.expire() == ()  # it begins anew
    assert taken(a, net) == {int(one.addresses[0].ip)}
    until(lambda: b.expire() == (one.id,))


def test_a_network_is_made_once_and_not_removed_under_an_endpoint(etcd: Cluster, host: MakeHost) -> None:
    a, b = host(etcd, "a"), host(etcd, "b")
    net = make(a, network())
    with pytest.raises(Taken, match="another host has made"):
        make(b, replace(net, id="f" * 64))
    with pytest.raises(Taken, match="has addresses of"):
        make(b, network("other", subnet="10.9.0.128/25"))
    local = make(b, replace(network(scope="local", subnet="10.8.0.0/24"), id="e" * 64))
    with b.read() as tx:  # what is this host's own comes first
        assert tx.network("web") == local and tx.network(net.id) == net
    attach(a, net, "one")
    with pytest.raises(Taken, match="1 endpoints"), b.write() as tx:
        tx.drop_network(net.id)
    detach(a, "id-one")
    with b.write() as tx:
        tx.drop_network(net.id)
    with pytest.raises(NotFound):
        attach(a, net, "late")
    with a.read() as tx:
        assert tx.networks() == []


def test_many_endpoints_come_back_in_pieces(etcd: Cluster, host: MakeHost) -> None:
    a, b = host(etcd, "a", Terms(grace=1)), host(etcd, "b", Terms(grace=1))
    net = make(a, network())
    for number in range(30):
        attach(a, net, f"n{number}")
    with b.write() as tx:
        tx.drop_host("a")
    assert names(b, net) == set() and [record.id for record in _hosts(b)] == ["b"]
    b.expire()
    until(lambda: len(b.expire()) == 30)
    assert taken(b, net) == set()
    assert a.register(HostRecord("a", "a")) == ()
    assert len(taken(b, net)) == len(names(b, net)) == 30
    theirs = of_all(b)[0]
    with pytest.raises(Refused, match="is on host a"), b.write() as tx:
        tx.save_endpoint(theirs)


def _hosts(store: Store) -> list[HostRecord]:
    with store.read() as tx:
        return list(tx.hosts())


def test_what_is_foreseen_is_read_with_the_lock(etcd: Cluster, host: MakeHost, monkeypatch: pytest.MonkeyPatch) -> None:
    a, b = host(etcd, "a"), host(etcd, "b")
    net = make(a, network())
    wanted = attach(a, net, "one").addresses[0].ip + 1
    asked, call = list[Method](), Gateway.call

    def counted(gateway: Gateway, method: Method, message: Said) -> Said:
        asked.append(method)
        return call(gateway, method, message)

    monkeypatch.setattr(Gateway, "call", counted)
    with b.write() as tx:
        tx.foresee(net.id, "two", (wanted,))
        assert not tx.named(net.id, "two") and not tx.resting(net.id)
        take(tx, net, "two", wanted)
    assert [method for method in asked if method is not GRANT] == [TXN] * 2, "the lock, and the change"
    asked.clear()
    with pytest.raises(Taken), b.write() as tx:
        tx.foresee(net.id, "three", (wanted,))
        assert not tx.named(net.id, "three") and tx.named(net.id, "one")
        take(tx, net, "three", wanted)
    with b.write() as tx:
        take(tx, net, "four")
    assert names(a, net) == {"one", "two", "four"}
