"""Addresses that another machine of the LAN holds, on the real kernel: the engine's, Docker's, and on Open vSwitch."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from berth import spec, wire
from berth.engine.engine import Engine
from berth.errors import BerthError, Exhausted, Taken
from berth.model import Endpoint

from .conftest import Host, sh
from .test_docker_pools import EP, NET, Docker

STRANGER = "02:00:00:00:99:01"
STAGE = """\
link add br0 type bridge
link set br0 up
addr add 192.168.2.2/24 dev br0
addr add fd00:2::2/64 dev br0 nodad
route add default via 192.168.2.1
"""


@pytest.fixture
def lan(host: Host) -> Host:
    """A bridge with a LAN, and a machine on it that has two addresses."""
    host.batch(STAGE)
    host.sandbox("phone")
    plug(host, "phone", "br0", STRANGER)
    hold(host, "192.168.2.3/24", "192.168.2.9/24", "fd00:2::1/64")
    host.sandbox("c1")
    host.sandbox("c2")
    return host


def plug(host: Host, name: str, bridge: str, mac: str) -> None:
    host.batch(f"link add {name} type veth peer name eth0 address {mac} netns {name}\nlink set {name} up\n")
    if bridge:
        host.batch(f"link set {name} master {bridge}\n")
    host.batch("link set eth0 up\n", ns=f"/run/netns/{name}")


def hold(host: Host, *addresses: str) -> None:
    lines = [f"addr add {address} dev eth0{' nodad' if ':' in address else ''}\n" for address in addresses]
    host.batch("".join(lines), ns="/run/netns/phone")


@pytest.fixture
def engine(lan: Host, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Engine]:
    monkeypatch.setenv("BERTH_STATE", str(tmp_path))
    engine = wire.engine()
    yield engine
    engine.close()


def create(engine: Engine, *options: str, ip_range: str = "192.168.2.0/24") -> None:
    both = ["192.168.2.0/24", "fd00:2::/64"]
    asked = spec.network_spec(
        name="lan", driver="flat", subnets=both, ip_ranges=[ip_range], options=["parent=br0", *options]
    )
    engine.create_network(asked)


def attach(engine: Engine, sandbox: str, *ips: str) -> Endpoint:
    return engine.attach(spec.attach_request(network="lan", sandbox=sandbox, ips=ips)).value


def given(ep: Endpoint) -> list[str]:
    return [str(address.ip) for address in ep.addresses]


def test_the_next_free_address_of_either_family_is_given(engine: Engine) -> None:
    create(engine)
    assert given(attach(engine, "c1")) == ["192.168.2.4", "fd00:2::3"]
    assert given(attach(engine, "c2")) == ["192.168.2.5", "fd00:2::4"]


@pytest.mark.parametrize("address", ["192.168.2.9", "fd00:2::1"])
def test_a_named_address_that_is_held_is_refused(engine: Engine, host: Host, address: str) -> None:
    create(engine)
    before = host.everything()
    with pytest.raises(Taken, match=f"^{address} is in use on the LAN by the machine with MAC {STRANGER}: give "):
        attach(engine, "c1", address)
    assert (host.everything(), list(engine.endpoints())) == (before, [])
    sh(f"ip -n phone addr del {address}/{64 if ':' in address else 24} dev eth0")
    assert address in given(attach(engine, "c1", address))


def test_nobody_is_asked_with_conflict_off(engine: Engine) -> None:
    create(engine, "conflict=off")
    assert given(attach(engine, "c1", "192.168.2.9"))[0] == "192.168.2.9"


def test_the_full_timing_of_the_rfc(engine: Engine) -> None:
    create(engine, "conflict=full")
    began = time.monotonic()
    with pytest.raises(Taken):
        attach(engine, "c1", "192.168.2.9")  # refused as soon as it answers
    assert given(attach(engine, "c1", "192.168.2.77"))[0] == "192.168.2.77"
    assert time.monotonic() - began >= 4


def test_a_range_of_which_others_hold_all_is_full(engine: Engine, host: Host) -> None:
    hold(host, *(f"192.168.2.{number}/24" for number in range(16, 32)))
    create(engine, ip_range="192.168.2.16/28")
    with pytest.raises(Exhausted, match="held by 16 other machines"):
        attach(engine, "c1")
    assert list(engine.endpoints()) == []


def test_an_endpoint_comes_back_to_its_own_address(engine: Engine) -> None:
    create(engine)
    attach(engine, "c1", "192.168.2.77")
    engine.detach("lan", "c1")
    assert given(attach(engine, "c1", "192.168.2.77"))[0] == "192.168.2.77"
    with pytest.raises(Taken, match="already given to another endpoint"):
        attach(engine, "c2", "192.168.2.77")


def test_a_bridge_that_is_made_anew_is_asked_again(engine: Engine, host: Host) -> None:
    create(engine)
    attach(engine, "c1")
    sh("ip link delete br0")
    host.batch(STAGE)
    sh("ip link set phone master br0")
    engine.reconcile()
    with pytest.raises(Taken):
        attach(engine, "c2", "192.168.2.9")


# --- Docker ---


@pytest.fixture
def docker(engine: Engine) -> Docker:
    return Docker(engine)


def flat(docker: Docker, *, mine: bool = True) -> str:
    """A flat network of Docker's; the id of its pool."""
    pool = docker.pool("192.168.2.0/24") if mine else ""
    data = {"AddressSpace": "berth" if mine else "", "Pool": "192.168.2.0/24", "Gateway": "192.168.2.1/24"}
    if not mine:
        data["AuxAddresses"] = {"host": "192.168.2.2/24"}  # type: ignore[assignment]
    options = {"com.docker.network.generic": {"parent": "br0"}}
    if mine:
        docker.gateway(pool)
    made = docker("NetworkDriver.CreateNetwork", NetworkID=NET, Options=options, IPv4Data=[data], IPv6Data=[])
    assert made == {}
    return pool


def test_the_ipam_driver_gives_the_next_free_address(docker: Docker) -> None:
    pool = flat(docker)
    assert docker.address(pool, name="web") == "192.168.2.4/24"
    docker.endpoint("192.168.2.4/24")
    with pytest.raises(Taken, match=STRANGER):
        docker.address(pool, "192.168.2.9")
    assert docker.address(pool, "192.168.2.10") == "192.168.2.10/24"


def test_who_comes_back_gets_another_address_where_somebody_took_it(docker: Docker, engine: Engine, host: Host) -> None:
    pool = flat(docker)
    address = docker.address(pool, name="web")
    docker.give_back(pool, address)
    engine.vetted.claimed("br0", spec.parse_address(address.partition("/")[0], ""), STRANGER)
    hold(host, address)
    assert docker.address(pool, name="web") != address


def test_an_address_of_dockers_own_ipam_that_is_held_is_refused(docker: Docker, engine: Engine) -> None:
    flat(docker, mine=False)
    with pytest.raises(Taken, match=STRANGER):
        docker.endpoint("192.168.2.9/24")
    assert list(engine.endpoints()) == []
    docker.endpoint("192.168.2.10/24", EP)


# --- Ahead of time ---


def test_candidates_that_were_asked_for_ahead_are_given_at_once(engine: Engine, host: Host) -> None:
    create(engine)
    engine.vetted.watched({"br0"})
    for _ in range(2):  # the second time, those in place of the held
        for ahead in engine.candidates():
            engine.vet(ahead)
    assert engine.candidates() == []
    sh("ip link set phone nomaster")  # whom nobody asks any more
    assert given(attach(engine, "c1")) == ["192.168.2.4", "fd00:2::3"]
    engine.vetted.claimed("br0", spec.parse_address("192.168.2.5", ""), STRANGER)
    assert given(attach(engine, "c2"))[0] == "192.168.2.6"


def test_a_bridge_that_is_gone_holds_nobody_up(engine: Engine) -> None:
    create(engine)
    sh("ip link delete br0")
    with pytest.raises(BerthError):
        attach(engine, "c1")
    assert list(engine.endpoints()) == []
