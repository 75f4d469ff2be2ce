"""The daemon of a host that shares its store: it is seen for as long as it lives, and frees what others left."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from dataclasses import replace
from ipaddress import ip_address, ip_interface, ip_network
from pathlib import Path

from berth.engine.hosts import underlay
from berth.model import Host as Facts
from berth.model import HostLink, HostRecord, HostRoute
from berth.store.shared import SharedStore, Terms
from kernel.conftest import Host
from store.cluster import Cluster
from store.nouns import attach, make, network, taken
from store.test_shared_hosts import die, until


def test_where_other_hosts_reach_this_one() -> None:
    link = HostLink(
        "n0", "", 1500, True, addresses=tuple(map(ip_interface, ("192.0.2.5/24", "fe80::1/64", "2001:db8::5/64")))
    )
    other = replace(link, name="n1", addresses=(ip_interface("198.51.100.1/24"),))
    best = HostRoute(ip_network("0.0.0.0/0"), "n0", ip_address("192.0.2.1"), metric=100)
    routes = (replace(best, dev="n1", metric=200), best, HostRoute(ip_network("::/0"), "n0"))
    assert underlay(Facts((link, other), routes)) == (ip_address("192.0.2.5"), ip_address("2001:db8::5"))
    assert underlay(Facts((link, other))) == ()


def test_the_daemon_keeps_the_lease_and_frees_what_the_dead_held(host: Host, tmp_path: Path) -> None:
    (tmp_path / "etcd").mkdir()
    cluster = Cluster(tmp_path / "etcd")
    a = SharedStore(tmp_path / "a.db", cluster.where, "/berth/", "a", Terms(grace=1))
    try:
        cluster.ready()
        _the_daemon_s_day(cluster, a, tmp_path)
    finally:
        a.close()
        cluster.close()


def _the_daemon_s_day(cluster: Cluster, a: SharedStore, tmp_path: Path) -> None:
    a.register(HostRecord("a", "a"))
    net = make(a, network())
    attach(a, net, "one")
    die(a)
    env = os.environ | {
        "BERTH_STATE": str(tmp_path / "state"),
        "BERTH_RUN": str(tmp_path / "run"),
        "BERTH_STORE": f"etcd://{cluster.places}/?ttl=15&grace=1",
    }
    command = [sys.executable, "-m", "berth", "daemon"]
    with open(tmp_path / "log", "wb") as log:
        daemon = subprocess.Popen(command, env=env, stdout=log, stderr=log)
    try:
        until(lambda: [record.id for record in _hosts(a)] == _own(tmp_path))
        until(lambda: not taken(a, net), 90)  # it looks now and again
        until(lambda: b"is gone, its addresses are free again" in (tmp_path / "log").read_bytes())
        cluster.kill()
        cluster.lose_everything()
        cluster.start()
        cluster.ready()
        until(lambda: [record.id for record in _hosts(a)] == _own(tmp_path), 60)  # it registers again by itself
    finally:
        daemon.send_signal(signal.SIGTERM)
        assert daemon.wait(30) == 0


def _own(directory: Path) -> list[str]:
    path = directory / "state" / "berth.host"
    return [path.read_text().strip()] if path.exists() else ["not yet"]


def _hosts(store: SharedStore) -> list[HostRecord]:
    with store.read() as tx:
        return list(tx.hosts())
