"""The records are read again when somebody has written, and only then."""

from __future__ import annotations

import time
from pathlib import Path

from berth.engine.recorded import Recent
from berth.seams import Heard
from berth.store.sqlite import SqliteStore
from store.cluster import Cluster
from store.conftest import MakeHost
from store.nouns import attach, detach, make, network
from store.test_shared_hosts import until


def test_what_nobody_changed_is_not_read_again(tmp_path: Path) -> None:
    store, other = SqliteStore(tmp_path / "berth.db"), SqliteStore(tmp_path / "berth.db")
    recent = Recent(store)
    empty = recent.read()
    assert recent.read() is empty and not empty.networks
    net = make(store, network(scope="local"))
    ep = attach(other, net, "one")  # by another process
    known = recent.read()
    assert [each.name for each in known.endpoints] == ["one"] and [each.name for each in known.networks] == ["web"]
    assert recent.read() is known
    with store.read() as tx:
        assert tx.endpoints()
    assert recent.read() is known, "who reads changes nothing"
    detach(store, ep.id)
    assert not recent.read().endpoints
    other.close()
    store.close()


def test_of_a_shared_store_other_hosts_write_too(own_etcd: Cluster, host: MakeHost) -> None:
    a, b = host(own_etcd, "a"), host(own_etcd, "b")
    recent = Recent(a)
    known = recent.read()
    assert recent.read() is known
    make(b, network())
    assert [each.name for each in recent.read().networks] == ["web"]
    own_etcd.kill()
    away = recent.read()
    assert recent.read() is away, "an etcd that is away changes nothing"
    own_etcd.start()
    own_etcd.ready()
    assert [each.name for each in recent.read().networks] == ["web"]


def test_how_it_stands_with_a_shared_store(etcd: Cluster, host: MakeHost) -> None:
    a, b = host(etcd, "a"), host(etcd, "b")
    stop = a.watch(lambda _: None)
    net = make(b, network())
    end = time.monotonic() + 10
    while not a.contact().heard_revision:  # the watch may have begun after the network was made
        assert time.monotonic() < end
        attach(b, net, f"ep-{time.monotonic_ns()}")
        time.sleep(0.05)
    assert a.keep()
    told = a.contact()
    assert 0 < told.took < 10 and abs(told.answered - time.time()) < 60 and abs(told.heard - time.time()) < 60
    assert told.revision >= told.heard_revision > 0
    stop()


def test_who_watches_asks_nobody(own_etcd: Cluster, host: MakeHost) -> None:
    a, b = host(own_etcd, "a"), host(own_etcd, "b")
    recent, heard = Recent(a), list[Heard]()
    stop = a.watch(heard.append)
    until(lambda: heard)  # it has begun
    net = make(b, network())
    until(lambda: any(net.id in said.made for said in heard))
    known = recent.read()
    assert _names(recent) == ["web"] and recent.read() is known
    attach(b, net, "one")
    until(lambda: any(said.turns for said in heard))
    assert recent.read() is known, "what others attach is not in it"
    own_etcd.kill()
    assert recent.read() is known
    make(a, network(name="here", scope="local"))
    assert _names(recent) == ["here"], (
        "of the others' networks only those that are used here are known while it is away"
    )
    own_etcd.start()
    own_etcd.ready()
    until(lambda: _names(recent) == ["here", "web"])
    stop()


def _names(recent: Recent) -> list[str]:
    return [net.name for net in recent.read().networks]
