"""Docker on two hosts, with one network: real engines, a real etcd on a machine of the LAN's."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack
from functools import partial

import pytest

from berth.lab.session import Lab
from berth.lab.topology import home

from .harbour import OURS, Harbour, until

pytestmark = pytest.mark.timeout(180)

ETCD = "192.168.2.50:2379"
SUBNET = "--subnet=10.50.0.0/24"
WIDE = (*OURS, "-o", "mode=overlay")

Two = tuple[Harbour, Harbour]


@pytest.fixture(scope="module")
def _two(engine_kind: str) -> Iterator[Two]:
    with ExitStack() as stack:
        lab = stack.enter_context(Lab(home(2)))
        where = f"http://{ETCD}"
        argv = ["etcd", "--data-dir", str(lab.work / "etcd"), "--listen-client-urls", where]
        with (lab.work / "etcd.log").open("wb") as log:
            etcd = lab.popen("laptop", [*argv, "--advertise-client-urls", where], stdout=log, stderr=log)
        stack.callback(etcd.wait)
        stack.callback(etcd.kill)
        until(lambda: lab.run("laptop", ["busybox", "wget", "-qO-", f"{where}/health"]).returncode == 0)
        store = f"etcd://{ETCD}?ttl=10"
        one, two = (
            stack.enter_context(Harbour(lab, engine_kind, node=node, store=store)) for node in ("host", "host2")
        )
        until(lambda: len(one.berth("node", "ls")) == 2)
        yield one, two


@pytest.fixture
def two(_two: Two) -> Iterator[Two]:
    """Both engines without containers and networks, before and after."""
    yield _two
    for harbour in _two:
        harbour.clear()
    until(lambda: all(harbour.berth("network", "ls") == [] for harbour in _two))
    assert left(_two[0]) == []


def left(harbour: Harbour) -> list[str]:
    """What etcd has of networks and addresses."""
    argv = ["etcdctl", f"--endpoints={ETCD}", "get", "--prefix", "--keys-only", "/berth/"]
    done = harbour.lab.run("laptop", argv, env={"ETCDCTL_API": "3"}, check=True)
    kept = ("held/", "pool/", "joined/", "name/", "seen/network/", "seen/endpoint/")
    return [key for key in done.stdout.split() if key.removeprefix("/berth/").startswith(kept)]


def wide(two: Two, *more: str) -> None:
    """The same network on both, made by the same words."""
    for harbour in two:
        harbour.docker("network", "create", *WIDE, SUBNET, *more, "wide")


def finds(harbour: Harbour, asker: str, name: str, address: str) -> bool:
    """Whether a container finds another by its name; what is a static program here has no resolver but nslookup's."""
    return f"Address: {address}" in harbour.inside(asker, "nslookup", name, check=False)


def pings(harbour: Harbour, name: str, address: str) -> bool:
    return "1 packets received" in harbour.inside(name, "ping", "-c1", "-W2", address, check=False)


def test_containers_of_two_engines_meet_by_address_and_name(two: Two) -> None:
    one, other = two
    wide(two)
    dns = ("--dns", "10.50.0.1", "--dns-search", "wide")
    a = one.serve("red", "wide", *dns, "-p", "8080:80")
    b = other.serve("blue", "wide", *dns)
    assert a != b
    assert {a, b} == {"10.50.0.2", "10.50.0.3"}
    until(lambda: pings(one, "red", b) and pings(other, "blue", a))
    (shown,) = one.berth("network", "ls")
    until(lambda: one.berth("network", "ls")[0]["Name"] == "wide", 10)
    assert other.berth("network", "ls")[0]["Id"] == shown["Id"]
    # Docker's own resolver knows its own containers; the others' names it asks of the gateway.
    for harbour, asker, name, address in ((one, "red", "blue", b), (other, "blue", "red", a)):
        until(partial(finds, harbour, asker, name, address))
        until(partial(finds, harbour, asker, f"{name}.wide", address))
    assert one.asks("laptop", "192.168.2.2", 8080) == "red"
    assert one.asks("laptop", "192.168.2.3", 8080) == ""
    assert other.asks("internet", "192.168.2.2", 8080) in ("", "red")
    assert pings(other, "blue", "203.0.113.10")


def test_who_leaves_leaves_the_network_to_the_others(two: Two) -> None:
    one, other = two
    wide(two)
    one.start("red", "wide")
    b = other.start("blue", "wide")
    one.docker("rm", "-f", "red")
    one.docker("network", "rm", "wide")
    until(lambda: [net["Name"] for net in other.berth("network", "ls")] == ["wide"])
    c = other.start("cyan", "wide")
    assert len({b, c}) == 2 and pings(other, "cyan", b)
    one.docker("network", "create", *WIDE, SUBNET, "wide")  # and joins again
    a = one.start("red", "wide")
    assert a not in (b, c)
    until(lambda: pings(one, "red", b))


def test_what_contradicts_the_network_is_refused(two: Two) -> None:
    one, other = two
    one.docker("network", "create", *WIDE, SUBNET, "wide")
    until(lambda: one.berth("network", "ls")[0]["Name"] == "wide")
    named = ("--ipam-opt", "network=wide")
    said = other.refused("network", "create", *WIDE, *named, "--subnet=10.60.0.0/24", "wide")
    assert "network wide has 10.50.0.0/24 on all hosts, not 10.60.0.0/24" in said
    assert "overlaps" in other.refused("network", "create", *WIDE, "--subnet=10.50.0.0/23", "wide")
    said = other.refused("network", "create", *WIDE, SUBNET, "--gateway=10.50.0.9", "wide")
    assert "10.50.0.1" in said
    assert "vni=" in other.refused("network", "create", *WIDE, SUBNET, "-o", "vni=7", "wide")
    said = other.refused("network", "create", "-d", "berth", "-o", "mode=overlay", "--subnet=10.70.0.0/24", "own")
    assert "--ipam-driver berth" in said
    assert [net["Name"] for net in other.berth("network", "ls")] == ["wide"]
    assert "add --subnet 10.50.0.0/24" in other.refused("network", "create", *WIDE, *named, "wide")
    other.docker("network", "create", *WIDE, *named, SUBNET, "wide")
    assert other.start("blue", "wide", "--ip", "10.50.0.7") == "10.50.0.7"
    assert "10.50.0.7" in one.refused("run", "--network", "wide", "--ip", "10.50.0.7", "bb", "true")


def test_a_dead_host_s_addresses_are_free_when_it_is_removed(two: Two) -> None:
    one, other = two
    wide(two)
    b = other.start("blue", "wide")
    other.berthd.kill9()
    try:
        assert b in one.refused("run", "--network", "wide", "--ip", b, "bb", "true")
        done = one.lab.berth("node", "rm", "-f", "192.168.2.3", check=True)
        assert "1 endpoints freed" in done.stdout
        assert one.start("red", "wide", "--ip", b) == b
    finally:
        other.berthd.start()
    until(lambda: "went to another host" in other.berthd.log())
    other.docker("rm", "-f", "blue")
    assert pings(one, "red", "10.50.0.1") and one.attached("red", "wide")["IPAddress"] == b


def test_both_engines_and_berth_start_again(two: Two) -> None:
    one, other = two
    wide(two)
    one.start("red", "wide", "--restart", "always")
    b = other.start("blue", "wide")
    other.berthd.stop()
    assert pings(one, "red", b)
    other.berthd.start()
    one.engine.restart()
    until(lambda: one.address("red", "wide") != "", 30)
    until(lambda: pings(other, "blue", one.address("red", "wide")))
    assert one.address("red", "wide") != b
