"""One contract for both stores: whoever writes through `Tx` need not know which it is."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from ipaddress import ip_address
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from berth.errors import BerthError, Refused, Taken
from berth.model import PortMapping, Sandbox
from berth.seams import Intent, Store
from berth.store.sqlite import SqliteStore
from store.cluster import Cluster
from store.conftest import MakeHost
from store.nouns import attach, detach, make, names, network, take, taken


@pytest.fixture(params=["sqlite", "etcd", "etcd-local"])
def kind(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def scope(kind: str) -> str:
    return "global" if kind == "etcd" else "local"


@pytest.fixture
def store(kind: str, tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[Store]:
    if kind == "sqlite":
        opened = SqliteStore(tmp_path / "berth.db")
        yield opened
        opened.close()
    else:
        host: MakeHost = request.getfixturevalue("host")
        yield host(request.getfixturevalue("etcd"), "a")


def test_a_network_is_found_again(store: Store, scope: str) -> None:
    net = make(store, network(scope=scope))
    with store.read() as tx:
        assert tx.network("web") == tx.network(net.id) == net
        assert tx.networks() == [net]
        assert tx.network("other") is None
    with store.write() as tx:
        tx.save_network(replace(net, name="new"))
        assert tx.network("web") is None  # what was written is read in the same transaction
    with store.read() as tx:
        assert [found.name for found in tx.networks()] == ["new"]
    with store.write() as tx:
        tx.drop_network(net.id)
        assert tx.network("new") is None
    with store.read() as tx:
        assert tx.networks() == [] and tx.network(net.id) is None


def test_an_error_takes_everything_back(store: Store, scope: str) -> None:
    net = make(store, network(scope=scope))
    before = taken(store, net)
    with pytest.raises(ZeroDivisionError), store.write() as tx:
        take(tx, net, "a")
        tx.open(Intent("x", "attach"))
        raise ZeroDivisionError
    with store.read() as tx:
        assert tx.endpoints() == [] and tx.intents() == []
    assert taken(store, net) == before
    assert attach(store, net, "a").name == "a"  # and nothing is locked


def test_an_endpoint_s_life(store: Store, scope: str) -> None:
    net = make(store, network(scope=scope))
    ep = attach(store, net, "a")
    with store.read() as tx:
        found = tx.endpoint(ep.id)
        assert found is not None and replace(found, host="") == ep
        assert found.host == (store.host if scope == "global" else "")
        assert tx.endpoints() == tx.endpoints(network=net.id) == [found]
        assert tx.endpoints(sandbox=ep.sandbox) == [found] and not tx.endpoints(sandbox=Sandbox("", "other"))
        assert tx.named(net.id, "a") and not tx.named(net.id, "b") and tx.count(net.id) == 1
        assert tx.holds(found, ep.addresses[0].ip)
    port = PortMapping(None, 80, 8080)
    with store.write() as tx:
        tx.save_endpoint(replace(ep, name="b", ports=(port,)))
        assert tx.named(net.id, "b") and not tx.named(net.id, "a")
        assert tx.port_owner(port) == ep.id
    assert names(store, net) == {"b"}
    assert int(ep.addresses[0].ip) in taken(store, net)
    detach(store, ep.id)
    assert names(store, net) == set() and taken(store, net) == set()
    with store.read() as tx:
        assert not tx.named(net.id, "b") and tx.count(net.id) == 0 and tx.port_owner(port) is None


def test_an_address_is_given_once(store: Store, scope: str) -> None:
    net = make(store, network(scope=scope))
    ep = attach(store, net, "a", ip_address("10.9.0.7"))
    with pytest.raises(Taken), store.write() as tx:
        take(tx, net, "b", ep.addresses[0].ip)
    assert names(store, net) == {"a"}


def test_a_pool_larger_than_any_list(store: Store, scope: str) -> None:
    net = make(store, network(scope=scope, subnet="fd00:9::/64"))
    one, two = attach(store, net, "a"), attach(store, net, "b")
    far = attach(store, net, "c", ip_address("fd00:9::ffff:0:0:1"))
    detach(store, one.id)
    with store.read() as tx:
        ledger = tx.ledger(net.id, net.pools[0])
        there = [ledger.covering(int(ep.addresses[0].ip)) is not None for ep in (one, two, far)]
    assert there == [False, True, True]
    assert attach(store, net, "d").addresses[0].ip == two.addresses[0].ip + 1


def test_intents_and_hosts(store: Store) -> None:
    with store.write() as tx:
        tx.open(Intent("one", "attach"))
    with store.read() as tx:
        assert [intent.id for intent in tx.intents()] == ["one"]
        assert [host.id for host in tx.hosts()] == ([store.host] if store.host else [])
    with store.write() as tx:
        tx.close("one")
        tx.drop_host("nobody")
    with store.read() as tx:
        assert tx.intents() == []


@settings(max_examples=12, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(steps=st.lists(st.tuples(st.sampled_from("tgrx"), st.integers(0, 1), st.integers(1, 6)), max_size=14))
def test_two_hosts_taking_turns_agree_with_one_that_is_alone(
    etcd: Cluster, tmp_path_factory: pytest.TempPathFactory, steps: list[tuple[str, int, int]]
) -> None:
    """t: take, g: give back, r: take and then raise, x: take one that is wanted."""
    import secrets

    from berth.model import HostRecord
    from berth.store.shared import SharedStore

    directory, prefix = tmp_path_factory.mktemp("turns"), f"/{secrets.token_hex(4)}/"
    hosts = [SharedStore(directory / f"{name}.db", etcd.where, prefix, name) for name in "ab"]
    alone = SqliteStore(directory / "alone.db")
    net, same = network(subnet="10.9.0.0/29"), network(subnet="10.9.0.0/29", scope="local")
    try:
        for store in hosts:
            store.register(HostRecord(store.host, store.host))
        make(hosts[0], net), make(alone, same)
        for verb, who, number in steps:
            results = [
                _step(store, which, verb, f"{who}{number}") for store, which in ((hosts[who], net), (alone, same))
            ]
            assert results[0] == results[1]
            assert taken(hosts[1 - who], net) == taken(alone, same)
            assert names(hosts[1 - who], net) == names(alone, same)
    finally:
        for opened in (*hosts, alone):
            opened.close()


def _step(store: Store, net: object, verb: str, name: str) -> str:
    from berth.model import Network

    assert isinstance(net, Network)
    try:
        if verb == "g":
            detach(store, f"id-{name}")
            return "given back"
        with store.write() as tx:
            if tx.named(net.id, name):
                return "there"
            ep = take(tx, net, name, ip_address(f"10.9.0.{name[-1]}") if verb == "x" else None)
            if verb == "r":
                raise Refused("as asked")
            return str(ep.addresses[0])
    except BerthError as error:
        return type(error).__name__
