"""Docker's calls in any order and with any values: each is answered or refused, and all that came can go again."""

from __future__ import annotations

import sqlite3
from collections import Counter
from collections.abc import Iterator
from itertools import chain
from typing import Any

import msgspec
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from berth import wire
from berth.engine.engine import Engine
from berth.errors import BerthError
from berth.plugins.docker import calls

from .conftest import Host, sh
from .test_docker_pools import Chores

NETS = ("a" * 64, "b" * 64, "c" * 25)
EPS = ("d" * 64, "e" * 64, "f" * 25)
SUBNETS = ("10.88.0.0/28", "10.88.0.0/24", "fd88::/64", "192.168.2.0/24")
LAN = "192.168.2.0/24"
STATE = "/run/berth-state"  # in memory

Strategy = st.SearchStrategy[Any]
_ODD: Strategy = st.one_of(
    st.sampled_from([None, "", 0, -1, True, 2**63, 1.5, [], {}, "\n", "\0", "x" * 300, "ä€😀", "..", "true"]),
    st.text(max_size=6),
)


def mostly(*values: Any) -> Strategy:
    """One of the values, and now and then something odd."""
    return st.integers(0, 29).flatmap(lambda chance: _ODD if not chance else st.sampled_from(values))


def fields(**named: Strategy) -> Strategy:
    """An object with the fields, and now and then without one of them."""
    whole = st.fixed_dictionaries(named)
    part = st.fixed_dictionaries({}, optional=named)
    return st.integers(0, 9).flatmap(lambda chance: whole if chance else part)


NET, EP = mostly(*NETS), mostly(*EPS)
ADDRESS = mostly(
    *(f"10.88.0.{number}" for number in range(8)), "fd88::2", "fd88::3", "", "", "", "192.168.2.1", "192.168.2.2",
    "192.168.2.9", "fe80::1%lo", "fd88::7%lo", "::ffff:10.88.0.2", "10.88.0.15", "0.0.0.0", "255.255.255.255",
)  # fmt: skip
CIDR = ADDRESS.map(lambda text: f"{text}/{64 if ':' in text else 24}" if isinstance(text, str) and text else text)
POOL = mostly(*SUBNETS, "", "0.0.0.0/24", "0.0.0.0/29", "::/64", "0.0.0.0/0", "::/0", "10.88.0.5/28",
              "10.88.0.0", "10.88.0.0/255.255.255.0", "10.88.0.0/31", "224.0.0.0/8", "10.0.0.0/8", "fd88::/126",
              "172.17.0.0/16")  # fmt: skip
POOL_ID = mostly(*(f"berth/{subnet}" for subnet in SUBNETS), "berth/10.88.0.0/28/10.88.0.8/29", "nobody's")
GENERIC = st.one_of(
    st.just({}),
    st.dictionaries(
        mostly("parent", "com.docker.network.driver.mtu", "com.docker.network.bridge.name", "mode", "routes", "bypass",
               "com.docker.network.bridge.inhibit_ipv4", "com.docker.network.container_iface_prefix")
        .filter(lambda key: isinstance(key, str)),
        mostly("br0", "true", "false", "1400", "flat", "bridge", "eth", "10.99.0.0/24=10.88.0.3", "never", "always"),
        max_size=2,
    ),
)  # fmt: skip
DATA = st.lists(
    fields(
        AddressSpace=mostly("berth", "LocalDefault"),
        Pool=POOL,
        Gateway=CIDR,
        AuxAddresses=st.one_of(st.none(), st.dictionaries(st.sampled_from(["nas", "tv", ""]), CIDR, max_size=2)),
    ),
    max_size=2,
)
PORTS = st.lists(
    fields(
        Proto=mostly(6, 17, 132, 1),
        IP=mostly(""),
        Port=mostly(80, 81, 65535, 65536),
        HostIP=mostly("", "0.0.0.0", "::", "192.0.2.1", "fe80::1%lo"),
        HostPort=mostly(0, 8080, 8081, 65535),
        HostPortEnd=mostly(0, 8080, 8082, 65535),
    ),
    max_size=3,
)
NETWORK_OPTIONS = fields(
    **{
        "com.docker.network.generic": GENERIC,
        "com.docker.network.enable_ipv6": st.one_of(st.booleans(), _ODD),
        "com.docker.network.internal": st.one_of(st.booleans(), _ODD),
    }
)
OPTIONS = fields(
    **{
        "com.docker.network.portmap": PORTS,
        "com.docker.network.endpoint.sysctls": st.just("net.ipv4.conf.IFNAME.forwarding=1"),
        "gateway": mostly("true", "false"),
        "iface_prefix": mostly("net"),
        "mac": mostly("02:00:00:00:00:09"),
        "routes": mostly("10.99.0.0/24=10.88.0.3"),
    }
)
OF_ENDPOINT = fields(NetworkID=NET, EndpointID=EP, SandboxKey=mostly("/var/run/docker/netns/x"), Options=OPTIONS)
SHAPES: dict[str, Strategy] = {
    "NetworkDriver.GwAllocCheck": fields(Options=NETWORK_OPTIONS),
    "NetworkDriver.CreateNetwork": fields(NetworkID=NET, Options=NETWORK_OPTIONS, IPv4Data=DATA, IPv6Data=DATA),
    "NetworkDriver.DeleteNetwork": fields(NetworkID=NET),
    "NetworkDriver.CreateEndpoint": fields(
        NetworkID=NET,
        EndpointID=EP,
        Options=st.one_of(st.just({}), OPTIONS),
        Interface=fields(Address=CIDR, AddressIPv6=CIDR, MacAddress=mostly("", "", "02:42:0a:58:00:02")),
    ),
    **{f"NetworkDriver.{name}": OF_ENDPOINT for name in (
        "DeleteEndpoint", "EndpointOperInfo", "Join", "Leave", "ProgramExternalConnectivity",
        "RevokeExternalConnectivity",
    )},
    "IpamDriver.RequestPool": fields(
        AddressSpace=mostly("berth"), Pool=POOL, SubPool=mostly("", "", "10.88.0.8/29", "fd88::8/125", "10.99.0.0/24"),
        V6=st.one_of(st.booleans(), _ODD), Options=st.one_of(st.none(), st.just({"parent": "br0"}), GENERIC),
    ),
    "IpamDriver.ReleasePool": fields(PoolID=POOL_ID),
    "IpamDriver.RequestAddress": fields(
        PoolID=POOL_ID, Address=ADDRESS,
        Options=st.one_of(st.none(), fields(**{
            "RequestAddressType": mostly("com.docker.network.gateway"),
            "com.docker.network.endpoint.name": mostly("web", "db"),
        })),
    ),
    "IpamDriver.ReleaseAddress": fields(PoolID=POOL_ID, Address=ADDRESS),
}  # fmt: skip
_JSON: Strategy = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(max_size=9),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=9), inner, max_size=3),
    max_leaves=6,
)


def body(shape: Strategy) -> st.SearchStrategy[bytes]:
    """The body of a request: mostly of the call's shape, and now and then of none."""
    wrong = st.one_of(_JSON.map(msgspec.json.encode), st.binary(max_size=40))
    return st.integers(0, 19).flatmap(lambda chance: shape.map(msgspec.json.encode) if chance else wrong)


def right(net: str, pool: str, ep: str, number: int) -> list[tuple[str, bytes]]:
    """What Docker says for a network and a container on it, in its order."""
    host, v6, owner = pool.partition("/")[0].removesuffix("0"), ":" in pool, f"berth/{pool}"
    router = f"{host}1/{pool.partition('/')[2]}"
    data = [{"AddressSpace": "berth", "Pool": pool, "Gateway": router}]
    address = f"{host}{number}/{pool.partition('/')[2]}"
    interface = {"Address": "" if v6 else address, "AddressIPv6": address if v6 else "", "MacAddress": ""}
    options: dict[str, Any] = {"com.docker.network.enable_ipv6": v6}
    if pool == LAN:
        options["com.docker.network.generic"] = {"parent": "br0"}
    both = {"IPv4Data": [] if v6 else data, "IPv6Data": data if v6 else []}
    ports = {"com.docker.network.portmap": [{"Proto": 6, "Port": 80, "HostIP": "", "HostPort": 8080}]}
    endpoint = {"NetworkID": net, "EndpointID": ep}
    gateway = {"RequestAddressType": "com.docker.network.gateway"}
    said: list[tuple[str, dict[str, Any]]] = [
        ("IpamDriver.RequestPool", {"AddressSpace": "berth", "Pool": pool, "SubPool": "", "V6": v6}),
        ("IpamDriver.RequestAddress", {"PoolID": owner, "Address": "", "Options": gateway}),
        ("NetworkDriver.CreateNetwork", {"NetworkID": net, "Options": options, **both}),
        ("IpamDriver.RequestAddress", {"PoolID": owner, "Address": address.partition("/")[0], "Options": None}),
        ("NetworkDriver.CreateEndpoint", {**endpoint, "Interface": interface, "Options": {}}),
        ("NetworkDriver.Join", {**endpoint, "SandboxKey": "x", "Options": {}}),
        ("NetworkDriver.ProgramExternalConnectivity", {**endpoint, "Options": ports}),
    ]
    return [(name, msgspec.json.encode(fields)) for name, fields in said]


CALL = st.one_of(*(st.tuples(st.just(name), body(shape)) for name, shape in SHAPES.items()))
RIGHT = st.builds(right, st.sampled_from(NETS), st.sampled_from(SUBNETS), st.sampled_from(EPS), st.integers(2, 6))
#: Right calls in their order, the last of them left out, with any others between.
SEQUENCE = st.lists(
    st.one_of(CALL.map(lambda call: [call]), st.tuples(RIGHT, st.integers(3, 7)).map(lambda both: both[0][: both[1]])),
    min_size=4,
    max_size=12,
).map(lambda parts: list(chain.from_iterable(parts)))


@pytest.fixture
def engine(host: Host, monkeypatch: pytest.MonkeyPatch) -> Iterator[Engine]:
    """An engine on a host with a LAN, whose records need not outlive a power cut."""
    monkeypatch.setenv("BERTH_STATE", STATE)
    host.batch(
        "link add br0 type bridge\nlink set br0 up\naddr add 192.168.2.2/24 dev br0\n"
        "route add default via 192.168.2.1\n"
    )
    engine = wire.engine()
    yield engine
    engine.close()


def answered(engine: Engine, name: str, sent: bytes) -> bool:
    """Whether a call was answered rather than refused; either way as Docker can read it."""
    try:
        said = calls(engine, Chores())[name](sent)
    except BerthError as error:
        assert str(error), name
        return False
    assert isinstance(msgspec.json.decode(msgspec.json.encode(said)), dict)
    return True


def undo_all(engine: Engine) -> None:
    """All that Docker says until nothing of it is left."""
    said = calls(engine, Chores())

    def say(name: str, **named: Any) -> None:
        assert said[name](msgspec.json.encode(named)) == {}

    for net, ep in [(ep.network, ep.id) for ep in engine.endpoints()]:
        for method in ("RevokeExternalConnectivity", "Leave", "DeleteEndpoint"):
            say(f"NetworkDriver.{method}", NetworkID=net, EndpointID=ep)
    with engine._parts.store.read() as tx:
        held = [(entry.pool.owner, entry.holders) for entry in tx.held_pools()]
        grants = [grant for owner, _ in held for grant in tx.grants(owner)]
    for grant in grants:
        say("IpamDriver.ReleaseAddress", PoolID=grant.pool, Address=str(grant.address))
    for owner in chain.from_iterable([owner] * holders for owner, holders in held):
        say("IpamDriver.ReleasePool", PoolID=owner)
    for network in engine.networks():
        say("NetworkDriver.DeleteNetwork", NetworkID=network.id)
    engine.sweep()


def rows() -> dict[str, int]:
    """How many rows there are that only what exists may have."""
    with sqlite3.connect(f"{STATE}/berth.db") as db:
        tables = ("network", "endpoint", "run", "cursor", "port", "intent", "pool")
        counts = {name: db.execute(f"SELECT count(*) FROM {name}").fetchone()[0] for name in tables}
        granted = db.execute("SELECT count(*) FROM granted WHERE released IS NULL").fetchone()[0]
        db.execute("DELETE FROM granted")  # memories of another example
    return {name: count for name, count in {**counts, "granted": granted}.items() if count}


def test_any_calls_in_any_order(host: Host, engine: Engine) -> None:
    before = host.everything()
    count: Counter[tuple[str, bool]] = Counter()

    @settings(max_examples=300, deadline=None, database=None, suppress_health_check=list(HealthCheck))
    @given(SEQUENCE)
    def check(sequence: list[tuple[str, bytes]]) -> None:
        try:
            for name, sent in sequence:
                count[name, answered(engine, name, sent)] += 1
        finally:
            undo_all(engine)
        assert rows() == {}
        assert {link["ifname"] for link in host.ip("link")} == {"lo", "br0"}

    check()
    assert all(count[name, True] for name in SHAPES), count
    assert sum(times for (_, good), times in count.items() if not good) > 300, count
    sh("sysctl -q -w net.ipv4.ip_forward=0 net.ipv6.conf.all.forwarding=0")
    assert host.everything() == before
