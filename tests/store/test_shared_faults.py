"""etcd stopped, lost, slow, without a leader; compaction; certificates and users."""

from __future__ import annotations

import os
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from berth import ipam, wire
from berth.engine.engine import Engine
from berth.engine.parts import forget
from berth.errors import Denied, Invalid, Refused
from berth.model import HostRecord
from berth.store.gateway import Away, Members, members
from berth.store.keyspace import View
from berth.store.rpc import RANGE, REVOKE
from berth.store.shared import SharedStore
from store.cluster import Cluster
from store.conftest import MakeHost
from store.nouns import attach, detach, make, names, network, take, taken
from store.test_shared_hosts import until


def test_etcd_is_stopped_and_restarted_within_a_transaction(own_etcd: Cluster, host: MakeHost) -> None:
    a = host(own_etcd, "a")
    net = make(a, network())
    with a.write() as tx:
        ep = take(tx, net, "one")
        own_etcd.kill()
        threading.Timer(1, own_etcd.start).start()
    assert names(a, net) == {"one"} and taken(a, net) == {int(ep.addresses[0].ip)}


def test_cut_off_this_host_s_own_goes_on(own_etcd: Cluster, host: MakeHost) -> None:
    a = host(own_etcd, "a")
    net = make(a, network())
    one, two = attach(a, net, "one"), attach(a, net, "two")
    local = make(a, network("lan", scope="local", subnet="10.8.0.0/24"))
    own_etcd.kill()
    with pytest.raises(Away, match=f"etcd://127.0.0.1:{own_etcd.clients[0]} does not answer"):
        attach(a, net, "three")
    begun = time.monotonic()
    here = attach(a, local, "here")
    assert time.monotonic() - begun < 4  # it waited once, and does not again
    with a.read() as tx:
        assert {found.id for found in tx.networks()} == {net.id, local.id}  # what the data plane is put right from
        assert {ep.id for ep in tx.endpoints()} == {one.id, two.id, here.id}
    detach(a, one.id)
    own_etcd.start()
    own_etcd.ready()
    assert names(a, net) == {"two"} or names(a, net) == {"one", "two"}
    assert set(a.expire()) == {one.id}  # what was detached meanwhile is given back
    assert names(a, net) == {"two"} and taken(a, net) == {int(two.addresses[0].ip)}
    with a.read() as tx:
        assert not tx.named(net.id, "one")
    attach(a, net, "three")


def test_all_of_etcd_is_lost_and_made_anew(own_etcd: Cluster, host: MakeHost) -> None:
    a = host(own_etcd, "a")
    net = make(a, network())
    heard: list[frozenset[str]] = []
    a.watch(lambda said: heard.append(said.networks))
    one = attach(a, net, "one")
    until(lambda: frozenset({net.id}) in heard)
    own_etcd.kill()
    own_etcd.lose_everything()
    own_etcd.start()
    own_etcd.ready()
    b = host(own_etcd, "b")
    other = make(b, network("other"))  # who came first made another network of what is free
    heard.clear()
    assert not a.keep()
    assert a.register(HostRecord("a", "a")) == (one.id,)  # its own network has no room any more
    with b.write() as tx:
        tx.drop_network(other.id)
    assert a.register(HostRecord("a", "a")) == (one.id,)  # and is made anew once only: it may have been removed
    own_etcd.kill()
    own_etcd.lose_everything()
    own_etcd.start()
    own_etcd.ready()
    assert a.register(HostRecord("a", "a")) == ()
    until(lambda: heard)
    assert names(b, net) == {"one"} and taken(b, net) == {int(one.addresses[0].ip)}
    b.register(HostRecord("b", "b"))
    two = attach(b, net, "two")
    assert names(a, net) == {"one", "two"} and taken(a, net) == {int(ep.addresses[0].ip) for ep in (one, two)}


def test_who_does_not_know_what_became_of_a_change_registers_again(own_etcd: Cluster, host: MakeHost) -> None:
    a = host(own_etcd, "a")
    net = make(a, network())
    one = attach(a, net, "one")
    with pytest.raises(Away), a.write() as tx:
        forget(tx, one.id)
        own_etcd.pause()  # long enough for the asking to be given up; then it is carried out
    own_etcd.go_on()
    own_etcd.ready()
    assert not a.keep() and a.register(HostRecord("a", "a")) == () and a.keep()
    assert names(a, net) == {"one"} and taken(a, net) == {int(one.addresses[0].ip)}


def test_who_could_not_see_all_does_not_go_by_it(own_etcd: Cluster, host: MakeHost) -> None:
    """etcd goes away within a transaction, after its first answers, and is back before the end."""
    a, b = host(own_etcd, "a"), host(own_etcd, "b")
    net = make(a, network())
    attach(b, net, "theirs")
    with pytest.raises(Away), a.read() as tx:
        assert tx.networks() == [net]
        _blink(own_etcd, lambda: tx.endpoints(network=net.id) == [])
        tx.hosts()
    with pytest.raises(Away), a.write() as tx:
        assert tx.networks() == [net]
        _blink(own_etcd, lambda: tx.endpoints(network=net.id) == [])
        tx.drop_network(net.id)
    assert names(a, net) == {"theirs"} and attach(a, net, "ours")


def _blink(etcd: Cluster, meanwhile: Callable[[], bool]) -> None:
    etcd.kill()
    assert meanwhile()
    etcd.start()
    etcd.ready()


def test_what_this_host_has_and_etcd_does_not_is_registered_again(etcd: Cluster, host: MakeHost) -> None:
    """As after a detach of another process's, which etcd has carried out and this host's records have not."""
    a, b = host(etcd, "a"), host(etcd, "b")
    net = make(a, network())
    one, two = attach(a, net, "one"), attach(a, net, "two")
    with a.write() as tx:
        tx.withdraw(one)
        ipam.give_back(net.pools[0], tx.ledger(net.id, net.pools[0]), one.addresses[0].ip)
    assert names(b, net) == {"two"}
    assert a.keep() and a.expire() == () and not a.keep()
    assert a.register(HostRecord("a", "a")) == () and a.expire() == () and a.keep()
    assert names(b, net) == {"one", "two"} and taken(b, net) == {int(ep.addresses[0].ip) for ep in (one, two)}


def test_slow_answers(own_etcd: Cluster, host: MakeHost) -> None:
    """Asked twice because the first answer was late, and done once."""
    a = host(own_etcd, "a")
    net = make(a, network())
    with a.write() as tx:
        ep = take(tx, net, "one")
        own_etcd.pause()
        threading.Timer(4, own_etcd.go_on).start()  # longer than one answer may take
    assert names(a, net) == {"one"} and taken(a, net) == {int(ep.addresses[0].ip)}
    assert attach(a, net, "two").addresses != ep.addresses


def test_who_was_held_up_for_too_long_changes_nothing(etcd: Cluster, host: MakeHost) -> None:
    """However wrong its own clock is: the lock is etcd's."""
    a, b = host(etcd, "a"), host(etcd, "b")
    net = make(a, network())
    with pytest.raises(Refused, match="other hosts went on"), a.write() as tx:
        ep = take(tx, net, "one")
        a._space.gateway.call(REVOKE, {"ID": a._space.lock_lease()})
        assert attach(b, net, "two").addresses == ep.addresses
    assert names(a, net) == {"two"}
    attach(a, net, "one")
    assert names(b, net) == {"one", "two"} and len(taken(b, net)) == 2


def test_a_killed_leader_of_three(tmp_path: Path, host: MakeHost) -> None:
    cluster = Cluster(tmp_path, 3)
    try:
        cluster.ready()
        a, b = host(cluster, "a"), host(cluster, "b")
        net = make(a, network())
        heard: list[frozenset[str]] = []
        b.watch(lambda said: heard.append(said.networks))
        with a.write() as tx:
            take(tx, net, "one")
            cluster.kill(cluster.leader())
        assert names(b, net) == {"one"}
        until(lambda: any(net.id in nets for nets in heard))
        heard.clear()
        attach(b, net, "two")
        assert names(a, net) == {"one", "two"} and len(taken(a, net)) == 2
        until(lambda: frozenset({net.id}) in heard)
        cluster.kill(cluster.leader())  # no majority any more
        with pytest.raises(Refused):
            attach(a, net, "three")
    finally:
        cluster.close()


def test_a_watch_over_a_compaction(own_etcd: Cluster, host: MakeHost) -> None:
    a = host(own_etcd, "a")
    net = make(a, network())
    heard: list[frozenset[str]] = []
    stop = a.watch(lambda said: heard.append(said.networks))
    until(lambda: heard == [frozenset()])
    attach(a, net, "one")
    until(lambda: frozenset({net.id}) in heard)
    # It does not hear while the member is silent; all that it missed is compacted when it comes back.
    watcher = a._watchers[0]
    watcher._next = 2
    revision = a._space.gateway.call(RANGE, a._space.one("lock"))["header"]["revision"]
    own_etcd.ctl("compact", str(revision))
    heard.clear()
    own_etcd.kill()
    own_etcd.start()
    own_etcd.ready()
    until(lambda: frozenset() in heard)  # anything may have changed
    attach(a, net, "two")
    until(lambda: frozenset({net.id}) in heard)
    stop()
    heard.clear()
    attach(a, net, "three")
    assert heard == []


def test_a_read_of_what_is_compacted_says_so(etcd: Cluster, host: MakeHost) -> None:
    a = host(etcd, "a")
    net = make(a, network())
    view = View(a._space, writing=False)
    view.range("seen/host/")
    attach(a, net, "one")
    revision = a._space.gateway.call(RANGE, a._space.one("lock"))["header"]["revision"]
    etcd.ctl("compact", str(revision))
    with pytest.raises(Refused, match="try again"):
        view.range("held/")


@pytest.fixture(scope="module")
def certificates(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A CA, and one certificate for server and clients."""
    directory = tmp_path_factory.mktemp("tls")
    (directory / "ext").write_text("subjectAltName=IP:127.0.0.1\nextendedKeyUsage=serverAuth,clientAuth\n")
    key = "-newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -batch"
    for command in (
        f"req -x509 {key} -keyout ca.key -out ca.pem -subj /CN=ca -days 2",
        f"req {key} -keyout key.pem -out csr -subj /O=berth",
        "x509 -req -in csr -CA ca.pem -CAkey ca.key -CAcreateserial -out cert.pem -days 2 -extfile ext",
    ):
        subprocess.run(["openssl", *command.split()], cwd=directory, check=True, capture_output=True)
    return directory


@pytest.fixture
def closed(tmp_path: Path, certificates: Path) -> Iterator[Cluster]:
    """An etcd with TLS and users."""
    (tmp_path / "etcd").mkdir()
    files = tuple(str(certificates / name) for name in ("ca.pem", "cert.pem", "key.pem"))
    cluster = Cluster(tmp_path / "etcd", tls=files)
    try:
        places = cluster.where.endpoints
        cluster.ready(Members(places, tls=True, ca=files[0], cert=files[1], key=files[2]))
        for line in (
            "user add root:r",
            "role add root",
            "user grant-role root root",
            "user add berth:s3cret/@",
            "role add berth",
            "role grant-permission berth readwrite /berth/ /berth0",
            "user grant-role berth berth",
            "auth enable",
        ):
            cluster.ctl(*line.split())
        yield cluster
    finally:
        cluster.close()


def test_certificates_and_users(
    closed: Cluster, certificates: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    files = "&".join(f"{key}={certificates / key}.pem" for key in ("ca", "cert", "key"))
    url = f"etcds://{closed.places}/?{files}"
    path = tmp_path / "berth.db"
    store = wire.shared_store(url, path)
    with pytest.raises(Denied, match="BERTH_ETCD_USER"):
        store.register(HostRecord(store.host, "a"))
    store.close()
    monkeypatch.setenv("BERTH_ETCD_USER", "berth")
    monkeypatch.setenv("BERTH_ETCD_PASSWORD", "wr0ng")
    store = wire.shared_store(url, path)
    with pytest.raises(Denied) as told:
        store.register(HostRecord(store.host, "a"))
    assert "wr0ng" not in str(told.value)
    store.close()
    monkeypatch.setenv("BERTH_ETCD_PASSWORD", "s3cret/@")
    store = wire.shared_store(url, path)
    heard: list[frozenset[str]] = []
    store.watch(lambda said: heard.append(said.networks))
    store.register(HostRecord(store.host, "a"))
    net = make(store, network())
    attach(store, net, "one")
    assert store.keep() and names(store, net) == {"one"}
    until(lambda: any(net.id in nets for nets in heard))
    closed.kill()  # tokens are forgotten with it
    closed.start()
    attach(store, net, "two")
    assert names(store, net) == {"one", "two"}
    heard.clear()
    attach(store, net, "three")
    until(lambda: heard)
    store.close()


def test_urls_that_are_wrong_are_told_without_the_password() -> None:
    where, rest = members("etcd://u:p%40ss@one,two:99,[fd00::1]:7/?ttl=9")
    assert where.endpoints == (("one", 2379), ("two", 99), ("fd00::1", 7)) and rest == {"ttl": "9"}
    assert (where.user, where.password, where.url) == ("u", "p@ss", "etcd://one:2379,two:99,[fd00::1]:7")
    assert "p@ss" not in repr(where)
    for url in (
        "etcd://u:hush@/",
        "etcd://u:hush@one:x",
        "etcd://u:hush@one/path",
        "etcd://u:hush@one/?nonsense=1",
        "etcd://u:hush?x@one",
    ):
        with pytest.raises(Invalid) as told:
            wire.shared_store(url, Path(os.devnull))
        assert "hush" not in str(told.value)


def test_the_engine_opens_it(own_etcd: Cluster, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("BERTH_STATE", str(tmp_path))
    engine: Engine = wire.engine(f"etcd://{own_etcd.places}")
    assert list(engine.networks()) == []
    assert (tmp_path / "berth.host").exists()
    other = SharedStore(tmp_path / "other.db", own_etcd.where, "/berth/", "other")
    other.register(HostRecord("other", "other"))
    net = make(other, network())
    assert [found.id for found in engine.networks()] == [net.id]
    engine.close()
    other.close()
