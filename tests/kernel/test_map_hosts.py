"""The map and the metrics of a host among several: two daemons that share a real etcd."""

from __future__ import annotations

import http.client
import json
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from .conftest import Host
from .test_overlay_etcd import CREATE, Daemons, until

pytestmark = pytest.mark.timeout(180)


@pytest.fixture
def two(host: Host, tmp_path: Path) -> Iterator[Daemons]:
    hosts = Daemons(2, tmp_path)
    try:
        hosts.start_etcd()
        for name in hosts.names:
            hosts.start(name)
        for name in hosts.names:
            until(lambda name=name: hosts.tried(name, "node ls").returncode == 0, f"{name} does not start")  # type: ignore[misc]
        yield hosts
    finally:
        hosts.close()


def test_other_hosts_are_on_the_map_and_etcd_in_the_metrics(two: Daemons, tmp_path: Path) -> None:
    two.berth("h1", CREATE)
    two.attach("h1", "c1", "--name near")
    two.attach("h2", "c2", "--name far")
    name = socket.gethostname()
    seen = two.berth("h1", "map")
    assert f"host {name}   10.0.0.2   1 endpoint" in seen
    assert seen.count("host ") == 1, "this host is no other"
    (far,) = (line for line in seen.splitlines() if "─ far" in line)
    (near,) = (line for line in seen.splitlines() if "─ near" in line)
    assert far.endswith(f"on {name}") and not near.endswith(f"on {name}")
    picture = two.berth("h1", "map --svg -")
    assert "other hosts" in picture and "10.0.0.2" in picture and f"on {name}" in picture
    told = json.loads(two.berth("h2", "map --json"))
    assert [peer["addresses"] for peer in told["peers"]] == [["10.0.0.1"]]
    until(lambda: _metric(tmp_path, "berth_etcd_heard_revision") > 0, "the watch heard nothing")
    until(lambda: _metric(tmp_path, "berth_etcd_round_trip_seconds") > 0, "the lease is not renewed")
    assert _metric(tmp_path, "berth_etcd_revision") > 0
    assert _metric(tmp_path, 'berth_endpoints{network="ov"}') == 1


def _metric(directory: Path, name: str) -> float:
    connection = http.client.HTTPConnection("berth")
    connection.sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    connection.sock.connect(str(directory / "h1.run" / "berth.sock"))
    connection.request("GET", "/metrics")
    lines = connection.getresponse().read().decode().splitlines()
    connection.close()
    return float(next(line for line in lines if line.startswith(f"{name} ")).rpartition(" ")[2])
