"""The verbs behind Docker's drivers on the real kernel: pools, addresses and ports in the order Docker asks."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from ipaddress import ip_address, ip_network
from pathlib import Path
from typing import Any

import msgspec
import pytest

from berth import spec, wire
from berth.engine.engine import Engine
from berth.errors import BerthError, Exhausted, Invalid, NotFound, Refused, Taken
from berth.kernel.linux import LinuxKernel
from berth.model import PoolRequest, PortMapping, PortRequest
from berth.plan import Plan
from berth.plugins.docker import calls

from .conftest import C1, Host, sh
from .running import until
from .test_faults import Killed

SUBNET = "10.88.0.0/24"
NET, EP, EP2 = "a" * 64, "b" * 64, "c" * 64
GRACE, RETURN = 60, 30  # seconds; see berth.engine.pools


class Clock:
    """A clock that the test moves."""

    def __init__(self) -> None:
        self.seconds = 0.0

    def __call__(self) -> str:
        moment = datetime(2026, 1, 1, tzinfo=UTC) + timedelta(seconds=self.seconds)
        return moment.isoformat().replace("+00:00", "Z")


class Chores:
    """What the daemon would do behind Docker's back: nothing of it is done here."""

    def __init__(self) -> None:
        self.left: list[str] = []

    def sweep(self) -> None:
        self.left.append("sweep")

    def refresh(self) -> None:
        self.left.append("refresh")

    def announce(self, identity: str, ns: str) -> None:
        self.left.append(f"announce {identity} {ns}")

    def learn(self, network: str) -> None:
        self.left.append(f"learn {network}")


class Docker:
    """Says to an engine what Docker says, and takes an answer as Docker does."""

    def __init__(self, engine: Engine) -> None:
        self.chores = Chores()
        self._calls = calls(engine, self.chores)

    def __call__(self, name: str, **fields: Any) -> dict[str, Any]:
        return self._calls[name](msgspec.json.encode(fields))

    def pool(self, subnet: str = SUBNET, **more: Any) -> str:
        """RequestPool; the pool's id."""
        asked = {"AddressSpace": "berth", "Pool": subnet, "SubPool": "", "Options": None, "V6": ":" in subnet, **more}
        answer = self("IpamDriver.RequestPool", **asked)
        assert answer["PoolID"] and ip_network(answer["Pool"])
        return str(answer["PoolID"])

    def gateway(self, pool: str, wanted: str = "") -> str:
        """RequestAddress for a network's gateway."""
        options = {"RequestAddressType": "com.docker.network.gateway"}
        return str(self("IpamDriver.RequestAddress", PoolID=pool, Address=wanted, Options=options)["Address"])

    def address(self, pool: str, wanted: str = "", name: str | None = None) -> str:
        """RequestAddress for an endpoint, as Docker 29 does with a name and as older ones do without."""
        options = None if name is None else {"com.docker.network.endpoint.name": name}
        return str(self("IpamDriver.RequestAddress", PoolID=pool, Address=wanted, Options=options)["Address"])

    def give_back(self, pool: str, address: str) -> None:
        """ReleaseAddress."""
        assert self("IpamDriver.ReleaseAddress", PoolID=pool, Address=address.partition("/")[0]) == {}

    def network(self, pool: str, gateway: str, aux: dict[str, str] | None = None, ident: str = NET) -> None:
        """CreateNetwork on a pool of Berth's."""
        data: dict[str, Any] = {"AddressSpace": "berth", "Pool": pool.split("/", 1)[1], "Gateway": gateway}
        if aux:
            data["AuxAddresses"] = aux
        v6 = ":" in pool
        options = {"com.docker.network.enable_ipv6": v6, "com.docker.network.generic": {}}
        both = {"IPv4Data": [] if v6 else [data], "IPv6Data": [data] if v6 else []}
        assert self("NetworkDriver.CreateNetwork", NetworkID=ident, Options=options, **both) == {}

    def endpoint(self, address: str, ident: str = EP, network: str = NET, mac: str = "") -> dict[str, Any]:
        """CreateEndpoint."""
        interface = {"Address": address, "AddressIPv6": "", "MacAddress": mac}
        return self(
            "NetworkDriver.CreateEndpoint", NetworkID=network, EndpointID=ident, Interface=interface, Options={}
        )

    def of(self, method: str, ident: str = EP, **more: Any) -> dict[str, Any]:
        """A call about an endpoint."""
        return self(f"NetworkDriver.{method}", NetworkID=NET, EndpointID=ident, **more)

    def create(self, **aux: str) -> str:
        """All of `docker network create`; the pool's id."""
        pool = self.pool()
        gateway = self.gateway(pool)
        for address in aux.values():
            self.address(pool, address)
        self.network(pool, gateway, {name: f"{address}/24" for name, address in aux.items()})
        return pool


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def engine(host: Host, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, clock: Clock) -> Iterator[Engine]:
    monkeypatch.setenv("BERTH_STATE", str(tmp_path))
    engine = wire.engine()
    engine._parts.now = clock
    yield engine
    engine.close()


@pytest.fixture
def docker(engine: Engine) -> Docker:
    return Docker(engine)


def attach(engine: Engine, network: str, sandbox: str, *ips: str) -> str:
    request = spec.attach_request(network=network, sandbox=sandbox, ips=ips)
    return str(engine.attach(request).value.addresses[0])


def links(host: Host) -> set[str]:
    return {link["ifname"] for link in host.ip("link")}


def published() -> list[str]:
    """What the maps of ports hold that are published at every address; not the proxy's, which all name one."""
    return sorted(re.findall(r"(?<!\. )(?:tcp|udp) \. \d+ : \S+ \. \d+", sh("nft list table inet berth")))


def binding(host_port: int, port: int = 80, last: int = 0, proto: int = 6, host_ip: str = "") -> dict[str, Any]:
    return {"Proto": proto, "IP": "", "Port": port, "HostIP": host_ip, "HostPort": host_port,
            "HostPortEnd": last or host_port}  # fmt: skip


# --- the sequences that Docker sends --------------------------------------------------------------------


def test_a_networks_life_in_dockers_order(host: Host, engine: Engine, docker: Docker) -> None:
    before = host.everything()
    pool = docker.pool()
    gateway = docker.gateway(pool)
    assert gateway == "10.88.0.1/24"
    assert docker.address(pool, "10.88.0.2") == "10.88.0.2/24"  # --aux-address
    docker.network(pool, gateway, {"rtr": "10.88.0.2/24"})
    address = docker.address(pool)
    assert address == "10.88.0.3/24"
    mac = docker.endpoint(address)["Interface"]["MacAddress"]
    joined = docker.of("Join", SandboxKey="/var/run/docker/netns/0123456789ab", Options={})
    assert joined["Gateway"] == "10.88.0.1"
    inner = joined["InterfaceName"]["SrcName"]
    assert host.ip("link", "show", inner)[0]["address"] == mac
    assert docker.of("Leave") == docker.of("DeleteEndpoint") == {}
    docker.give_back(pool, address)
    docker.give_back(pool, "10.88.0.1")
    docker.give_back(pool, "10.88.0.2")
    assert docker("IpamDriver.ReleasePool", PoolID=pool) == {}
    assert docker("NetworkDriver.DeleteNetwork", NetworkID=NET) == {}
    engine.sweep()
    assert host.everything() == before
    assert (engine.networks(), engine.endpoints()) == ([], [])


def test_every_call_may_come_twice(host: Host, engine: Engine, docker: Docker) -> None:
    pool = docker.pool()
    assert docker.gateway(pool) == docker.gateway(pool)
    for _ in range(2):
        docker.address(pool, "10.88.0.9")
    for _ in range(2):
        docker.network(pool, "10.88.0.1/24", {"rtr": "10.88.0.9/24"})
    address = docker.address(pool)
    assert docker.endpoint(address) == docker.endpoint(address)
    there = links(host)
    assert docker.of("Join", SandboxKey="x", Options={}) == docker.of("Join", SandboxKey="x", Options={})
    assert links(host) == there and len(engine.endpoints()) == 1
    for method in ("Leave", "Leave", "DeleteEndpoint", "DeleteEndpoint"):
        assert docker.of(method) == {}
    for _ in range(2):
        docker.give_back(pool, address)
    for _ in range(2):
        assert docker("IpamDriver.ReleasePool", PoolID=pool) == {}
    for _ in range(2):
        assert docker("NetworkDriver.DeleteNetwork", NetworkID=NET) == {}
    assert engine.networks() == []


def test_a_pool_is_free_again_when_the_network_is_gone(engine: Engine, docker: Docker) -> None:
    for _ in range(2):
        pool = docker.create()
        assert docker.address(pool) == "10.88.0.2/24"
        docker.give_back(pool, "10.88.0.1")
        docker("IpamDriver.ReleasePool", PoolID=pool)
        docker("NetworkDriver.DeleteNetwork", NetworkID=NET)
    engine.create_network(spec.network_spec(name="mine", subnets=[SUBNET]))


def test_a_network_that_could_not_be_made_leaves_its_pool_to_docker(engine: Engine, docker: Docker) -> None:
    engine.create_network(spec.network_spec(name=NET[:12], subnets=["10.99.0.0/24"]))
    pool = docker.pool()
    gateway = docker.gateway(pool)
    with pytest.raises(Taken):
        docker.network(pool, gateway)
    docker.give_back(pool, gateway)
    docker("IpamDriver.ReleasePool", PoolID=pool)
    assert docker.pool() == pool


def test_a_network_needs_its_pool(engine: Engine, docker: Docker) -> None:
    with pytest.raises(NotFound, match=r"10\.88\.0\.0/24"):
        docker.network(f"berth/{SUBNET}", "10.88.0.1/24")
    assert engine.networks() == []


def test_both_ip_versions(host: Host, engine: Engine, docker: Docker) -> None:
    pools = [docker.pool(), docker.pool("fd88::/64")]
    data = [
        [{"AddressSpace": "berth", "Pool": pool.split("/", 1)[1], "Gateway": docker.gateway(pool)}] for pool in pools
    ]
    options = {"com.docker.network.enable_ipv6": True}
    docker("NetworkDriver.CreateNetwork", NetworkID=NET, Options=options, IPv4Data=data[0], IPv6Data=data[1])
    first, second = (docker.address(pool) for pool in pools)
    interface = {"Address": first, "AddressIPv6": second, "MacAddress": ""}
    docker("NetworkDriver.CreateEndpoint", NetworkID=NET, EndpointID=EP, Interface=interface, Options=None)
    joined = docker.of("Join", SandboxKey="x", Options=None)
    assert (joined["Gateway"], joined["GatewayIPv6"]) == ("10.88.0.1", "fd88::1")
    assert [str(address) for address in engine.endpoints()[0].addresses] == ["10.88.0.2/24", "fd88::2/64"]


# --- pools ----------------------------------------------------------------------------------------------


def test_a_pool_lives_as_long_as_its_last_holder(docker: Docker) -> None:
    pool = docker.pool()
    assert docker.pool() == pool
    gateway = docker.gateway(pool)
    assert docker.gateway(pool) == gateway
    docker("IpamDriver.ReleasePool", PoolID=pool)
    assert docker.address(pool) == "10.88.0.2/24"
    docker("IpamDriver.ReleasePool", PoolID=pool)
    docker("IpamDriver.ReleasePool", PoolID=pool)
    assert docker.pool() == pool
    assert docker.gateway(pool, "10.88.0.77") == "10.88.0.77/24", "nothing of it is left"


def test_a_pool_that_berth_has_lost_is_held_again(docker: Docker) -> None:
    """Docker goes on asking from it: its id says all that there is to know."""
    assert docker.address(f"berth/{SUBNET}/10.88.0.128/25") == "10.88.0.128/24"
    for other in ("", "berth", "other/10.9.0.0/24", "berth/999.9.0.0/24", "berth/10.9.0.5/24", "berth/10.9.0.0/24\n"):
        with pytest.raises(NotFound, match="no pool"):
            docker.address(other)


def test_pools_differ_until_none_is_left(host: Host, docker: Docker) -> None:
    given = []
    with pytest.raises(Exhausted):
        for _ in range(100):
            given.append(docker.pool(""))
    assert len(given) == len(set(given)) == 31
    subnets = [ip_network(pool.split("/", 1)[1]) for pool in given]
    assert not any(a.overlaps(b) for a in subnets for b in subnets if a is not b)
    for pool in given:
        docker("IpamDriver.ReleasePool", PoolID=pool)
    assert docker.pool("") == given[0]


def test_a_pool_that_docker_holds_is_not_given_to_a_network_of_berths(engine: Engine, docker: Docker) -> None:
    pool = docker.pool("")
    net = engine.create_network(spec.network_spec(name="mine")).value
    assert str(net.pools[0].subnet) != pool.split("/", 1)[1]
    with pytest.raises(Taken):
        engine.create_network(spec.network_spec(name="too", subnets=[pool.split("/", 1)[1]]))
    with pytest.raises(Taken):
        docker.pool(str(net.pools[0].subnet))


def test_the_lans_pool_never_gives_what_the_lan_has(host: Host, docker: Docker) -> None:
    host.batch(
        "link add br0 type bridge\nlink set br0 up\naddr add 192.168.2.2/29 dev br0\n"
        "route add default via 192.168.2.1\n"
    )
    pool = docker.pool("192.168.2.0/29")
    assert docker.gateway(pool) == "192.168.2.1/29"
    assert docker.gateway(pool, "192.168.2.1") == "192.168.2.1/29"
    with pytest.raises(Taken, match=r"192\.168\.2\.1"):
        docker.gateway(pool, "192.168.2.3")
    assert docker.address(pool, "192.168.2.2") == "192.168.2.2/29"  # as --aux-address: reserved anyway
    given = []
    with pytest.raises(Exhausted):
        for _ in range(10):
            given.append(docker.address(pool))
    assert given == [f"192.168.2.{number}/29" for number in (3, 4, 5, 6)]


def test_a_flat_network_of_dockers(host: Host, engine: Engine, docker: Docker) -> None:
    host.batch(
        "link add br0 type bridge\nlink set br0 up\naddr add 192.168.2.2/24 dev br0\n"
        "route add default via 192.168.2.1\n"
    )
    before = host.everything()
    pool = docker.pool("192.168.2.0/24", SubPool="192.168.2.128/25")
    data = {"AddressSpace": "berth", "Pool": "192.168.2.0/24", "Gateway": docker.gateway(pool)}
    options = {"com.docker.network.generic": {"parent": "br0"}}
    docker("NetworkDriver.CreateNetwork", NetworkID=NET, Options=options, IPv4Data=[data], IPv6Data=[])
    address = docker.address(pool)
    assert address == "192.168.2.128/24"
    docker.endpoint(address)
    joined = docker.of("Join", SandboxKey="x", Options={})
    assert joined["Gateway"] == "192.168.2.1"
    assert docker.of("ProgramExternalConnectivity", Options={"com.docker.network.portmap": [binding(80)]}) == {}
    for method in ("RevokeExternalConnectivity", "Leave", "DeleteEndpoint"):
        assert docker.of(method) == {}
    docker("IpamDriver.ReleasePool", PoolID=pool)
    docker("NetworkDriver.DeleteNetwork", NetworkID=NET)
    engine.sweep()
    assert host.everything() == before


# --- addresses ------------------------------------------------------------------------------------------


def test_docker_and_attach_never_clash(host: Host, engine: Engine, docker: Docker) -> None:
    pool = docker.create()
    given = []
    for number in range(8):
        host.sandbox(f"s{number}")
        given += [docker.address(pool), attach(engine, NET, f"s{number}")]
    assert len(set(given)) == 16
    with pytest.raises(Taken):
        docker.address(pool, given[1].partition("/")[0])
    host.sandbox("c1")
    with pytest.raises(Taken):
        attach(engine, NET, "c1", given[0].partition("/")[0])


def test_an_attached_sandbox_keeps_its_address_while_docker_drops_everything(
    host: Host, engine: Engine, docker: Docker
) -> None:
    pool = docker.create()
    host.sandbox("c1")
    taken = attach(engine, NET, "c1")
    docker.give_back(pool, taken)  # which Docker never had
    docker("IpamDriver.ReleasePool", PoolID=pool)
    with pytest.raises(Taken, match="1 endpoints"):
        docker("NetworkDriver.DeleteNetwork", NetworkID=NET)
    assert docker.pool() == pool
    with pytest.raises(Taken):
        docker.address(pool, taken.partition("/")[0])
    docker("IpamDriver.ReleasePool", PoolID=pool)
    engine.detach(NET, "c1")
    engine.remove_network(NET)
    assert docker.pool() == pool
    assert docker.address(pool, taken.partition("/")[0]) == taken


def test_a_detached_sandboxs_address_is_free_for_docker(host: Host, engine: Engine, docker: Docker) -> None:
    pool = docker.create()
    host.sandbox("c1")
    taken = attach(engine, NET, "c1")
    engine.detach(NET, "c1")
    assert docker.address(pool, taken.partition("/")[0]) == taken


def test_the_address_outlives_the_endpoint_until_docker_gives_it_back(engine: Engine, docker: Docker) -> None:
    pool = docker.create()
    address = docker.address(pool, "10.88.0.7")
    docker.endpoint(address)
    docker.of("DeleteEndpoint")
    engine._parts.now = Clock()
    with pytest.raises(Taken):
        engine.attach(spec.attach_request(network=NET, sandbox="/proc/self/ns/net", ips=["10.88.0.7"]))
    docker.give_back(pool, address)
    docker.give_back(pool, address)
    assert docker.address(pool, "10.88.0.7") == address


def test_an_explicit_address_may_be_asked_for_again_at_once(clock: Clock, docker: Docker) -> None:
    pool = docker.create()
    assert docker.address(pool, "10.88.0.7") == docker.address(pool, "10.88.0.7") == "10.88.0.7/24"
    clock.seconds += RETURN + 1
    with pytest.raises(Taken):
        docker.address(pool, "10.88.0.7")


def test_an_explicit_address_that_an_endpoint_has_is_refused(docker: Docker) -> None:
    pool = docker.create()
    docker.endpoint(docker.address(pool, "10.88.0.7"))
    with pytest.raises(Taken):
        docker.address(pool, "10.88.0.7")


def test_an_explicit_address_that_another_name_just_got_is_refused(docker: Docker) -> None:
    pool = docker.create()
    docker.address(pool, "10.88.0.7", name="one")
    with pytest.raises(Taken):
        docker.address(pool, "10.88.0.7", name="two")


def test_an_aux_address_is_not_given_right_after_the_network_was_made(docker: Docker) -> None:
    pool = docker.create(nas="10.88.0.9")
    with pytest.raises(Taken):
        docker.address(pool, "10.88.0.9", name="web")


@pytest.mark.parametrize("address", ["10.88.0.0", "10.88.0.1", "10.88.0.255"])
def test_what_is_reserved_is_not_given(docker: Docker, address: str) -> None:
    pool = docker.create()
    with pytest.raises(Taken):
        docker.address(pool, address)


@pytest.mark.parametrize("address", ["10.89.0.7", "fd88::7", "::a58:7"])
def test_an_address_of_another_subnet_is_refused(docker: Docker, address: str) -> None:
    pool = docker.create()
    with pytest.raises(Invalid):
        docker.address(pool, address)
    docker.give_back(pool, address)


def test_an_address_with_a_zone_is_refused(docker: Docker) -> None:
    pool = docker.pool("fd88::/64")
    with pytest.raises(Invalid):
        docker.address(pool, "fd88::7%eth0")


def test_an_aux_address_may_lie_outside_the_range(docker: Docker) -> None:
    pool = docker.pool(SUBNET, SubPool="10.88.0.128/25")
    assert docker.address(pool, "10.88.0.2") == "10.88.0.2/24"
    assert docker.address(pool) == "10.88.0.128/24"


def test_a_name_finds_its_address_again(clock: Clock, docker: Docker) -> None:
    pool = docker.create()
    mine, other = docker.address(pool, name="web"), docker.address(pool, name="db")
    docker.give_back(pool, mine)
    docker.give_back(pool, other)
    clock.seconds += 86400
    assert docker.address(pool, name="db") == other
    assert docker.address(pool, name="new") not in (mine, other)
    assert docker.address(pool, name="web") == mine


def test_a_name_finds_its_address_in_a_network_that_is_made_anew(docker: Docker, clock: Clock) -> None:
    pool = docker.create()
    docker.address(pool, name="first")
    mine = docker.address(pool, name="web")
    docker.give_back(pool, mine)
    docker("IpamDriver.ReleasePool", PoolID=pool)
    docker("NetworkDriver.DeleteNetwork", NetworkID=NET)
    clock.seconds += 3600
    pool = docker.create()
    assert docker.address(pool, name="web") == mine
    assert docker.address(pool, name="first") == "10.88.0.2/24"


def test_a_name_whose_address_was_taken_gets_another(host: Host, engine: Engine, docker: Docker) -> None:
    pool = docker.create()
    mine = docker.address(pool, name="web")
    docker.give_back(pool, mine)
    host.sandbox("c1")
    attach(engine, NET, "c1", mine.partition("/")[0])
    assert docker.address(pool, name="web") == "10.88.0.3/24"


def test_a_name_may_have_two_addresses(docker: Docker) -> None:
    pool = docker.create()
    assert docker.address(pool, name="web") != docker.address(pool, name="web")


def test_nameless_the_first_to_leave_is_the_first_to_return(clock: Clock, docker: Docker) -> None:
    pool = docker.create()
    given = [docker.address(pool) for _ in range(3)]
    for address in (given[1], given[2], given[0]):
        clock.seconds += 1
        docker.give_back(pool, address)
    clock.seconds += 5
    assert [docker.address(pool) for _ in range(4)] == [given[1], given[2], given[0], "10.88.0.5/24"]


def test_nameless_who_comes_late_gets_another(clock: Clock, docker: Docker) -> None:
    pool = docker.create()
    address = docker.address(pool)
    docker.give_back(pool, address)
    clock.seconds += RETURN + 1
    assert docker.address(pool) != address


# --- what Docker has forgotten --------------------------------------------------------------------------


def test_an_address_that_nobody_uses_comes_back_after_the_grace(engine: Engine, clock: Clock, docker: Docker) -> None:
    pool = docker.create(nas="10.88.0.9")
    lost, used = docker.address(pool), docker.address(pool)
    docker.endpoint(used)
    clock.seconds += GRACE
    assert engine.collect() == []
    clock.seconds += 1
    assert list(engine.collect()) == [ip_address(lost.partition("/")[0])]
    assert engine.collect() == []
    for kept in (used, "10.88.0.9"):
        with pytest.raises(Taken):
            docker.address(pool, kept.partition("/")[0])


def test_addresses_of_another_drivers_network_are_left_alone(engine: Engine, clock: Clock, docker: Docker) -> None:
    pool = docker.pool()
    address = docker.address(pool)
    clock.seconds += 30 * 86400
    assert engine.collect() == []
    with pytest.raises(Taken):
        docker.address(pool, address.partition("/")[0])


def test_a_full_pool_takes_back_what_nobody_uses_at_once(engine: Engine, clock: Clock, docker: Docker) -> None:
    pool = docker.pool("10.88.0.0/29")
    docker.network(pool, docker.gateway(pool))
    given = [docker.address(pool) for _ in range(5)]
    docker.endpoint(given[0])
    with pytest.raises(Exhausted):
        docker.address(pool)
    clock.seconds += GRACE + 1
    assert {docker.address(pool) for _ in range(4)} == set(given[1:])
    with pytest.raises(Exhausted):
        docker.address(pool)


def test_a_cable_that_nobody_came_for_is_abandoned_and_one_in_a_sandbox_is_not(
    host: Host, engine: Engine, docker: Docker
) -> None:
    pool = docker.create()
    docker.endpoint(docker.address(pool))
    docker.endpoint(docker.address(pool), EP2)
    inner = docker.of("Join", EP2, SandboxKey="x", Options={})["InterfaceName"]["SrcName"]
    host.sandbox("c1")
    host.batch(f"link set {inner} netns c1 name eth0\n")
    assert engine.abandoned() == {EP}
    host.batch("link set eth0 up\naddr add 10.88.0.3/24 dev eth0\n", ns=C1)
    before = host.everything()
    assert not engine.reconcile().plan
    assert host.everything() == before
    host.batch("netns del c1\n")
    until(lambda: engine.abandoned() == {EP, EP2})  # the kernel takes a namespace apart in its own time


def test_leaving_brings_the_cable_away_wherever_it_is(host: Host, engine: Engine, docker: Docker) -> None:
    pool = docker.create()
    before = links(host)
    docker.endpoint(docker.address(pool))
    docker.endpoint(docker.address(pool), EP2)
    inner = docker.of("Join", EP2, SandboxKey="x", Options={})["InterfaceName"]["SrcName"]
    host.sandbox("c1")
    host.batch(f"link set {inner} netns c1 name eth0\n")
    docker.of("DeleteEndpoint")
    docker.of("DeleteEndpoint", EP2)
    engine.sweep()
    assert links(host) == before
    assert [link["ifname"] for link in host.ip("link", ns=C1)] == ["lo"]
    assert engine.endpoints() == []


@pytest.mark.parametrize("name", [None, "web"])
def test_two_endpoints_whose_ids_begin_alike(host: Host, engine: Engine, docker: Docker, name: str | None) -> None:
    pool = docker.create()
    docker.endpoint(docker.address(pool))
    there = links(host)
    with pytest.raises(BerthError):
        docker.endpoint(docker.address(pool, name=name), EP[:12] + "c" * 52)
    assert links(host) == there
    assert [ep.id for ep in engine.endpoints()] == [EP]


def test_deleting_the_network_drops_what_docker_had_on_it(host: Host, engine: Engine, docker: Docker) -> None:
    pool = docker.create()
    docker.endpoint(docker.address(pool))
    docker("IpamDriver.ReleasePool", PoolID=pool)
    assert docker("NetworkDriver.DeleteNetwork", NetworkID=NET) == {}
    engine.sweep()
    assert links(host) == {"lo"}


# --- ports ----------------------------------------------------------------------------------------------


@pytest.fixture
def there(engine: Engine, docker: Docker) -> Docker:
    """Two endpoints on a network: .2 and .3."""
    pool = docker.create()
    for ident in (EP, EP2):
        docker.endpoint(docker.address(pool), ident)
    return docker


def program(docker: Docker, *bindings: dict[str, Any], ident: str = EP) -> None:
    options = {"com.docker.network.portmap": list(bindings), "com.docker.network.endpoint.exposedports": []}
    assert docker.of("ProgramExternalConnectivity", ident, Options=options) == {}


def test_ports_are_published_and_revoked(there: Docker, engine: Engine) -> None:
    program(there, binding(8080), binding(5353, 53, proto=17))
    seen = ["tcp . 8080 : 10.88.0.2 . 80", "udp . 5353 : 10.88.0.2 . 53"]
    assert published() == seen
    program(there, binding(8080), binding(5353, 53, proto=17))
    assert published() == seen
    for _ in range(2):
        assert there.of("RevokeExternalConnectivity") == {}
    assert published() == [] and engine.endpoints()[0].ports == ()


@pytest.mark.parametrize("method", ["Leave", "DeleteEndpoint"])
def test_leaving_revokes(there: Docker, method: str) -> None:
    program(there, binding(8080))
    there.of(method)
    assert published() == []


def test_publishing_again_replaces(there: Docker) -> None:
    program(there, binding(8080), binding(8081))
    program(there, binding(8081), binding(8082))
    assert published() == ["tcp . 8081 : 10.88.0.2 . 80", "tcp . 8082 : 10.88.0.2 . 80"]


def test_a_host_port_of_a_range(there: Docker, engine: Engine) -> None:
    program(there, binding(8080, last=8081))
    program(there, binding(8080, last=8081), ident=EP2)
    assert published() == ["tcp . 8080 : 10.88.0.2 . 80", "tcp . 8081 : 10.88.0.3 . 80"]
    with pytest.raises(Exhausted, match="8080-8081"):
        program(there, binding(8080, last=8081), binding(8080, 81, last=8081), ident=EP2)
    assert published() == ["tcp . 8080 : 10.88.0.2 . 80", "tcp . 8081 : 10.88.0.3 . 80"]


def test_any_host_port(there: Docker, engine: Engine) -> None:
    chosen = [engine.publish(ident, [PortRequest(None, 0, 0, 80)])[0].host_port for ident in (EP, EP2)]
    assert len(set(chosen)) == 2 and all(32768 <= port < 61000 for port in chosen)
    again = engine.publish(EP, [PortRequest(None, 0, 0, 80)])
    assert again[0].host_port == chosen[0]
    assert len(published()) == 2


def test_a_clash_changes_nothing(there: Docker, engine: Engine) -> None:
    program(there, binding(8080))
    before = published()
    with pytest.raises(Taken, match="8080"):
        program(there, binding(9090), binding(8080), ident=EP2)
    assert published() == before and engine.endpoints()[1].ports == ()
    with pytest.raises(Taken, match="twice"):
        program(there, binding(9090), binding(9090, 81), ident=EP2)
    assert published() == before


def test_ports_of_one_host_address(there: Docker) -> None:
    program(there, binding(8080, host_ip="192.0.2.1"))
    program(there, binding(8080, host_ip="192.0.2.2"), ident=EP2)
    with pytest.raises(Taken):
        program(there, binding(8080, host_ip="0.0.0.0"), ident=EP2)


def test_publishing_for_an_unknown_endpoint(there: Docker) -> None:
    with pytest.raises(NotFound):
        there.of("ProgramExternalConnectivity", "d" * 64, Options={"com.docker.network.portmap": [binding(8080)]})
    assert there.of("RevokeExternalConnectivity", "d" * 64) == there.of("Leave", "d" * 64) == {}


def test_reconcile_mends_ports_of_a_handed_over_endpoint(there: Docker, engine: Engine) -> None:
    program(there, binding(8080))
    before = published()
    sh("nft flush ruleset")
    engine.reconcile()
    assert published() == before


class Refusing(LinuxKernel):
    """A kernel that refuses the next plan."""

    refuse = False

    def send(self, plan: Plan) -> None:
        if self.refuse:
            self.refuse = False
            raise Refused("injected")
        super().send(plan)


@pytest.fixture
def refusing(there: Docker, engine: Engine) -> Refusing:
    kernel = Refusing()
    engine._parts.kernel = kernel
    return kernel


def told(engine: Engine) -> list[str]:
    """The published ports by the records."""
    return sorted(
        f"{m.proto} . {m.host_port} : {ep.addresses[0].ip} . {m.port}" for ep in engine.endpoints() for m in ep.ports
    )


def test_ports_that_are_refused_are_not_there(there: Docker, engine: Engine, refusing: Refusing) -> None:
    refusing.refuse = True
    with pytest.raises(Refused):
        program(there, binding(8080))
    assert published() == told(engine) == []


def test_other_ports_that_are_refused_leave_records_and_firewall_alike(
    there: Docker, engine: Engine, refusing: Refusing
) -> None:
    program(there, binding(8080))
    refusing.refuse = True
    with pytest.raises(Refused):
        program(there, binding(9090))
    assert published() == told(engine)


def test_revoking_that_is_refused_leaves_records_and_firewall_alike(
    there: Docker, engine: Engine, refusing: Refusing
) -> None:
    program(there, binding(8080))
    refusing.refuse = True
    with pytest.raises(Refused):
        there.of("RevokeExternalConnectivity")
    assert published() == told(engine) != []
    there.of("DeleteEndpoint")
    assert published() == told(engine) == []


@pytest.mark.parametrize("after", [[], [9090], [8080, 9090]], ids=["revoke", "replace", "add"])
@pytest.mark.parametrize("stop", range(4))
def test_whoever_is_killed_while_ports_change_leaves_records_and_firewall_alike(
    there: Docker, engine: Engine, after: list[int], stop: int
) -> None:
    program(there, binding(8080))
    if not (child := os.fork()):
        try:
            dying = wire.engine(kernel=Killed(stop))
            dying.publish(EP, [PortRequest(None, port, port, 80) for port in after])
        finally:
            os._exit(9)  # it was to be killed
    _, status = os.waitpid(child, 0)
    assert os.WIFSIGNALED(status)
    engine.reconcile()
    assert published() == told(engine)


@pytest.mark.parametrize("stop", range(4))
def test_whoever_is_killed_while_ports_change_is_made_good_by_the_next_verb(
    there: Docker, engine: Engine, stop: int
) -> None:
    program(there, binding(8080))
    if not (child := os.fork()):
        try:
            wire.engine(kernel=Killed(stop)).publish(EP, [PortRequest(None, 9090, 9090, 80)])
        finally:
            os._exit(9)
    os.waitpid(child, 0)
    there.pool("10.89.0.0/24")
    assert published() == told(engine)


def test_mappings_are_what_was_asked_for(there: Docker, engine: Engine) -> None:
    wanted = PortRequest(ip_address("192.0.2.1"), 8080, 8080, 80, "udp")
    assert list(engine.publish(EP, [wanted])) == [PortMapping(ip_address("192.0.2.1"), 8080, 80, "udp")]


def test_pools_follow_the_lan_behind_a_link(host: Host, engine: Engine) -> None:
    host.batch("link add br0 type bridge\nlink set br0 up\naddr add 192.168.2.2/24 dev br0\n")
    assert str(engine.request_pool(PoolRequest(parent="br0")).subnet) == "192.168.2.0/24"
    with pytest.raises(Exhausted, match="--subnet"):
        engine.request_pool(PoolRequest(parent="br0"))
    with pytest.raises(NotFound, match="br7"):
        engine.request_pool(PoolRequest(parent="br7"))
