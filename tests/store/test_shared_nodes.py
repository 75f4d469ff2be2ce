"""The hosts themselves: drained, dead, removed, and of another version."""

from __future__ import annotations

import pytest

from berth.errors import Refused, Unsupported
from berth.model import HostRecord, Node
from berth.seams import Store
from berth.store.rpc import RANGE
from berth.store.shared import SharedStore, Terms
from store.cluster import Cluster
from store.conftest import MakeHost
from store.nouns import attach, make, names, network, taken
from store.test_shared_hosts import die, until


def known(store: Store) -> dict[str, Node]:
    with store.read() as tx:
        return {node.host.id: node for node in tx.nodes()}


def drain(store: Store, host: str, *, on: bool) -> None:
    with store.write() as tx:
        tx.drain(host, on=on)


def states(store: Store) -> dict[str, tuple[str, int]]:
    return {ident: (node.state, node.endpoints) for ident, node in known(store).items()}


def test_a_drained_node_keeps_what_it_has_and_takes_nothing_new(etcd: Cluster, host: MakeHost) -> None:
    a, b = host(etcd, "a"), host(etcd, "b")
    net = make(a, network())
    one = attach(a, net, "one")
    drain(b, "a", on=True)
    assert states(b) == {"a": ("drained", 1), "b": ("up", 0)}
    with pytest.raises(Refused, match="drained"):
        attach(a, net, "two")
    assert names(b, net) == {"one"} and len(taken(b, net)) == 1
    with a.write() as tx:  # what is there may still change
        tx.save_endpoint(one)
    local = make(a, network("own", scope="local", subnet="10.8.0.0/24"))
    assert attach(a, local, "mine").name == "mine"  # nor are its own networks the others' business
    assert a.register(HostRecord("a", "a")) == ()  # and it stays drained when its daemon starts again
    assert states(a)["a"] == ("drained", 1)
    drain(a, "a", on=False)
    assert attach(a, net, "two").name == "two"


def test_a_dead_node_is_known_until_it_is_removed_and_then_frees_all_at_once(etcd: Cluster, host: MakeHost) -> None:
    a, b = host(etcd, "a"), host(etcd, "b")  # with a grace time that this test does not wait for
    net = make(a, network())
    for number in range(20):
        attach(a, net, f"n{number}")
    die(a)
    assert b.expire() == ()
    dead = known(b)["a"]
    assert (dead.state, dead.endpoints, dead.dead_since[:2]) == ("dead", 20, "20")
    assert len(b.remove("a")) == 20
    assert states(b) == {"b": ("up", 0)} and taken(b, net) == set()
    assert _keys(b, "a") == []
    heir = attach(b, net, "heir")
    assert a.register(HostRecord("a", "a")) == ()  # it lives after all: with what is still free
    assert states(b)["a"] == ("up", 20)
    assert heir.name in names(a, net)


def test_a_removed_node_that_lives_stays_drained(etcd: Cluster, host: MakeHost) -> None:
    a, b = host(etcd, "a"), host(etcd, "b", Terms())
    drain(b, "a", on=True)
    assert b.remove("a") == ()
    assert states(b) == {"b": ("up", 0)} and not a.keep()
    a.register(HostRecord("a", "a"))
    assert states(b)["a"] == ("drained", 0)


def test_another_format_is_refused_and_nothing_is_changed(etcd: Cluster, host: MakeHost) -> None:
    a = host(etcd, "a")
    with a.write() as tx:
        tx.etcd.put("format", b"99")
    b = host(etcd, "b", registered=False)
    with pytest.raises(Unsupported, match="format 99"):
        b.register(HostRecord("b", "b"))
    with pytest.raises(Unsupported, match="format 99"):
        make(a, network())
    assert states(a) == {"a": ("up", 0)}


def _keys(store: SharedStore, ident: str) -> list[str]:
    """What etcd still has about a host."""
    space = store._space
    found = space.values(space.gateway.call(RANGE, space.below("")))
    return [key for key in found if key.endswith(f"/{ident}") and not key.startswith("last/")]


def test_drained_while_dead(etcd: Cluster, host: MakeHost) -> None:
    a, b = host(etcd, "a"), host(etcd, "b")
    die(a)
    drain(b, "a", on=True)
    until(lambda: known(b)["a"].state == "dead")
    assert known(b)["a"].drained
    b.remove("a")
    assert _keys(b, "a") == []
