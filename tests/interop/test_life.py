"""Daemons that stop, are killed and come back, in any order; and hosts that reboot."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from contextlib import suppress

import pytest

from berth.lab.session import Lab

from .engines import EngineError
from .harbour import ALWAYS, INTERNET, LAN, Harbour, Pings, until

pytestmark = pytest.mark.timeout(240)


@pytest.fixture
def port(fresh_lab: Lab, engine_kind: str) -> Iterator[Harbour]:
    """A host of its own for a test that ends daemons."""
    with Harbour(fresh_lab, engine_kind) as running:
        yield running


@pytest.fixture
def surviving(fresh_lab: Lab, engine_kind: str) -> Iterator[Harbour]:
    """The same, with an engine that leaves its containers alone when it ends (live restore)."""
    with Harbour(fresh_lab, engine_kind, live_restore=True) as running:
        yield running


def two_networks(harbour: Harbour) -> None:
    harbour.network("lan", *LAN)
    harbour.network("nat")


def nothing_is_left(harbour: Harbour, before: list[str]) -> None:
    """Remove everything by Docker; the host is as it was."""
    harbour.clear()
    with suppress(AssertionError):  # to be shown what is left
        until(lambda: harbour.look() == before, 5)
    assert harbour.look() == before
    assert harbour.held() == []


# --- Berth ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("how", ["stop", "kill9"])
def test_no_packet_is_lost_when_berth_restarts(port: Harbour, how: str) -> None:
    before = port.look()
    two_networks(port)
    lan, nat = port.start("c1", "lan"), port.start("c2", "nat", "-p", "8080:80")
    pings = [Pings(port.lab, "laptop", lan), Pings(port.lab, "host", nat)]
    getattr(port.berthd, how)()
    port.berthd.start()
    assert [each.lost() for each in pings] == [0, 0]
    assert len(port.berth("endpoint", "ls")) == 2
    assert port.serve("c3", "lan") != lan
    nothing_is_left(port, before)


def test_docker_runs_without_berth(port: Harbour) -> None:
    """Docker asks its plugins only for what needs them."""
    two_networks(port)
    port.start("c1", "nat")
    port.docker("stop", "-t1", "c1")
    port.berthd.stop()
    assert port.docker("run", "--rm", "bb", "echo", "fine") == "fine"
    named = port.docker("network", "ls", "--filter", "driver=berth", "--format", "{{.Name}}").split()
    assert sorted(named) == ["lan", "nat"]
    port.berthd.start()
    port.docker("start", "c1")
    assert "1 packets received" in port.inside("c1", "ping", "-c1", "-W2", INTERNET)


@pytest.mark.parametrize("how", ["stop", "kill9"])
def test_docker_starts_while_berth_is_held_up(port: Harbour, how: str) -> None:
    """Not even where it has addresses to give back: after the first, Berth says at once that it is busy."""
    two_networks(port)
    for name in ("c1", "c2", "c3"):
        port.start(name, "nat")
    getattr(port.engine, how)()
    with port.berthd.held_up():
        port.engine.start()
        assert port.docker("run", "--rm", "bb", "echo", "fine") == "fine"
    # What was asked before is still at work for a moment, and who comes meanwhile is told to try again.
    until(lambda: port.docker("start", "c1", check=False) == "c1")
    assert "1 packets received" in port.inside("c1", "ping", "-c1", "-W2", INTERNET)


def test_docker_finds_a_berth_that_starts_when_it_is_asked(port: Harbour) -> None:
    """As systemd does it: the socket is there though the daemon is not, and what is asked waits in it.

    Docker, killed, has addresses to give back as it starts: where nobody listens it tries for 15 seconds for each.
    """
    before = port.look()
    two_networks(port)
    for name in ("c1", "c2", "c3"):
        port.serve(name, "nat")
    port.serve("c4", "lan", "--restart=always", "--ip", "192.168.2.77")
    port.engine.kill9()
    port.berthd.stop()
    port.berthd.activate()
    port.engine.start()
    until(lambda: port.asks("laptop", "192.168.2.77") == "c4")
    assert "Unable to connect to plugin" not in port.engine.log(1000)
    nothing_is_left(port, before)


# --- Docker ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("how", ["stop", "kill9"])
def test_no_packet_is_lost_when_docker_restarts_with_live_restore(surviving: Harbour, how: str) -> None:
    before = surviving.look()
    two_networks(surviving)
    lan, nat = surviving.start("c1", "lan"), surviving.start("c2", "nat", "-p", "8080:80")
    pings = [Pings(surviving.lab, "laptop", lan), Pings(surviving.lab, "host", nat)]
    getattr(surviving.engine, how)()
    surviving.engine.start()
    assert [each.lost() for each in pings] == [0, 0]
    assert surviving.address("c1", "lan") == lan
    assert surviving.serve("c3", "lan") not in (lan, "")
    assert {port["host_port"] for port in surviving.berth("port", "ls")} == {8080}
    nothing_is_left(surviving, before)


@pytest.mark.parametrize("how", ["stop", "kill9"])
def test_containers_that_always_restart_are_back_with_docker(port: Harbour, how: str) -> None:
    before = port.look()
    two_networks(port)
    port.serve("c1", "lan", "--restart=always", "--ip", "192.168.2.77")
    port.serve("c2", "nat", "--restart=always", "-p", "8080:80")
    getattr(port.engine, how)()
    port.engine.start()
    until(lambda: port.asks("laptop", "192.168.2.77") == "c1")
    until(lambda: port.asks("laptop", "192.168.2.2", 8080) == "c2")
    assert len(port.berth("endpoint", "ls")) == 2
    nothing_is_left(port, before)


def test_an_address_that_a_killed_docker_had_given_is_given_again(port: Harbour) -> None:
    """With Docker's own IPAM, which takes it for free at once."""
    before = port.look()
    port.docker("network", "create", "-d", "berth", "nat")
    address = port.start("c1", "nat")
    port.engine.kill9()
    port.engine.start()
    assert port.serve("c2", "nat") == address
    assert port.asks("host", address) == "c2"
    nothing_is_left(port, before)


@pytest.mark.parametrize("moment", [0.03, 0.12, 0.3])
def test_both_killed_in_the_middle_of_a_run(port: Harbour, moment: float) -> None:
    before = port.look()
    two_networks(port)
    port.serve("c1", "lan")

    def run() -> None:
        for number, network in enumerate(("lan", "nat")):
            port.engine.docker(
                "run", "-d", "--init", "--name", f"x{number}", "--network", network, "bb", *ALWAYS, check=False
            )

    running = threading.Thread(target=run)
    running.start()
    time.sleep(moment)
    port.engine.kill9()
    port.berthd.kill9()
    running.join()
    port.berthd.start()
    port.engine.start()
    port.docker("run", "--rm", "--network", "lan", "bb", "ping", "-c1", "-W2", "192.168.2.50")
    port.docker("run", "--rm", "--network", "nat", "bb", "ping", "-c1", "-W2", INTERNET)
    port.clear()
    until(lambda: port.look() == before and not port.held(), 120)  # what Docker forgot is dropped after a while


# --- the host -------------------------------------------------------------------------------------------


def reboot(harbour: Harbour) -> None:
    """All processes, all that the kernel knows of the networks, and all of /run: gone."""
    harbour.engine.kill9()
    harbour.berthd.kill9()
    harbour.engine.lose_power()
    links = [line.split(":")[1].strip().partition("@")[0] for line in harbour.sh("ip -o link").splitlines()]
    for link in links:
        if link.startswith(("bv", "bw", "brt", "docker", "veth")):
            harbour.sh(f"ip link del {link} 2>/dev/null || true")
    harbour.sh("nft flush ruleset; sysctl -qw net.ipv4.ip_forward=0; rm -rf $BERTH_RUN")


@pytest.mark.parametrize("first", ["berth", "docker"])
def test_a_reboot(port: Harbour, first: str) -> None:
    before = port.look()
    two_networks(port)
    port.serve("c1", "lan", "--restart=always", "--ip", "192.168.2.77")
    port.serve("c2", "nat", "--restart=always", "-p", "8080:80")
    port.start("c3", "nat")
    reboot(port)
    if first == "berth":
        port.berthd.start()
        port.engine.start()
    else:
        starting = threading.Thread(target=port.engine.start)
        starting.start()
        time.sleep(0.5)
        port.berthd.start()
        starting.join()
    until(lambda: port.asks("laptop", "192.168.2.77") == "c1", 60)
    until(lambda: port.asks("laptop", "192.168.2.2", 8080) == "c2", 60)
    port.docker("start", "c3")
    assert "1 packets received" in port.inside("c3", "ping", "-c1", "-W2", INTERNET)
    nothing_is_left(port, before)


def test_what_docker_has_forgotten_is_dropped(port: Harbour) -> None:
    """A Docker whose records are lost never calls off what it had asked for."""
    port.network("lan", *LAN)
    port.start("c1", "lan")
    port.engine.kill9()
    port.engine.lose_power()
    port.engine.lose_records()
    port.engine.start()
    until(lambda: port.berth("endpoint", "ls") == [], 120)
    assert not port.sh("ip -o link | grep -E ' b[vw]' || true")


# --- many -----------------------------------------------------------------------------------------------


def test_a_hundred_containers_at_once(port: Harbour) -> None:
    before = port.look()
    two_networks(port)
    names = {f"{network}{number}": network for number in range(50) for network in ("lan", "nat")}
    failures: list[str] = []

    def run(part: list[str]) -> None:
        for name in part:
            try:
                port.docker("run", "-d", "--name", name, "--network", names[name], "bb", "sleep", "1000", timeout=200)
            except EngineError as error:
                failures.append(str(error))

    every = sorted(names)
    threads = [threading.Thread(target=run, args=(every[first::10],)) for first in range(10)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert failures == []
    addresses = {name: port.address(name, network) for name, network in names.items()}
    assert len(set(addresses.values())) == 100
    unreached = [name for name, a in addresses.items() if not port.reaches("laptop" if "lan" in name else "host", a)]
    assert unreached == []
    nothing_is_left(port, before)
