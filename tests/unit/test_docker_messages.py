"""What Docker sends, read into Berth's words; and the verbs' requests on their way through the daemon's own API."""

from __future__ import annotations

from ipaddress import ip_address, ip_network
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from berth import rest, spec
from berth.errors import BerthError, Invalid, NotFound, Refused
from berth.model import AttachRequest, Ipam, NetworkSpec, Placement, PoolRequest, PortRequest
from berth.plugins.docker import messages as m

NET, EP = "a" * 64, "b" * 64


def create(**fields: Any) -> NetworkSpec:
    whole = {"NetworkID": NET, "Options": {}, "IPv4Data": [data("10.20.0.0/24", "10.20.0.1/24")], "IPv6Data": []}
    return m.network_spec(msgspec.json.decode(msgspec.json.encode({**whole, **fields}), type=m.CreateNetwork))


def data(pool: str, gateway: str | None = None, space: str = "berth", **aux: str) -> dict[str, Any]:
    entry: dict[str, Any] = {"AddressSpace": space, "Pool": pool}
    if gateway is not None:
        entry["Gateway"] = gateway
    if aux:
        entry["AuxAddresses"] = aux
    return entry


def generic(**options: str) -> dict[str, Any]:
    return {"com.docker.network.generic": options}


# --- networks -------------------------------------------------------------------------------------------


def test_the_least_that_docker_says() -> None:
    asked = create()
    assert (asked.id, asked.name, asked.driver, asked.ipam) == (NET, NET[:12], "bridge", Ipam.POOL)
    assert (asked.subnets, asked.gateways) == ((ip_network("10.20.0.0/24"),), (ip_address("10.20.0.1"),))
    assert (asked.aux, asked.internal, asked.ipv6, asked.options) == ((), False, False, ())


def test_a_parent_means_the_lan() -> None:
    asked = create(Options=generic(parent="br0"))
    assert (asked.driver, asked.setting("bridge")) == ("flat", "br0")
    assert create(Options=generic(parent="br0", mode="flat")).driver == "flat"
    with pytest.raises(Invalid, match="parent"):
        create(Options=generic(parent="br0", mode="bridge"))


def test_the_mode_is_the_driver() -> None:
    assert create(Options=generic(mode="flat")).driver == "flat"
    assert create(Options=generic(mode="bridge")).driver == "bridge"
    with pytest.raises(Invalid, match="mode"):
        create(Options=generic(mode="ipvlan"))


def test_both_ip_versions() -> None:
    asked = create(
        Options={"com.docker.network.enable_ipv6": True},
        IPv4Data=[data("10.20.0.0/24", "10.20.0.1/24", rtr="10.20.0.9/24")],
        IPv6Data=[data("fd20::/64", "fd20::1/64", rtr="fd20::9/64", nas="fd20::a/64")],
    )
    assert asked.ipv6 and [str(subnet) for subnet in asked.subnets] == ["10.20.0.0/24", "fd20::/64"]
    assert [str(gateway) for gateway in asked.gateways] == ["10.20.0.1", "fd20::1"]
    assert [str(address) for _, address in asked.aux] == ["10.20.0.9", "fd20::9", "fd20::a"]
    assert len({name for name, _ in asked.aux}) == 3


def test_ipv6_alone() -> None:
    asked = create(Options={"com.docker.network.enable_ipv4": False, "com.docker.network.enable_ipv6": True},
                   IPv4Data=[], IPv6Data=[data("fd20::/64", "fd20::1/64")])  # fmt: skip
    assert [str(subnet) for subnet in asked.subnets] == ["fd20::/64"]


@pytest.mark.parametrize("nothing", [None, {}])
def test_null_and_nothing_are_the_same(nothing: Any) -> None:
    entry = {**data("10.20.0.0/24"), "Gateway": None if nothing is None else "", "AuxAddresses": nothing}
    said = create(Options=nothing, IPv4Data=[entry], IPv6Data=None if nothing is None else [])
    assert said == create(IPv4Data=[data("10.20.0.0/24")])
    assert create(Options={"com.docker.network.generic": nothing}) == create()


def test_the_engines_own_ipam() -> None:
    assert create(IPv4Data=[data("10.20.0.0/24", "10.20.0.1/24", "LocalDefault")]).ipam is Ipam.DOCKER
    both = [data("10.20.0.0/24"), data("10.21.0.0/24", space="LocalDefault")]
    assert create(IPv4Data=both).ipam is Ipam.DOCKER


@pytest.mark.parametrize(
    "fields",
    [
        {"IPv4Data": [data("0.0.0.0/0", space="null")]},
        {"IPv4Data": [], "IPv6Data": [data("::/0", space="null")]},
        {"IPv4Data": [data("10.20.0.0/24")], "IPv6Data": [data("::/0", space="null")]},
    ],
)
def test_the_null_ipam_is_refused(fields: dict[str, Any]) -> None:
    with pytest.raises(Invalid, match="null"):
        create(**fields)


@pytest.mark.parametrize("value", [True, False])
def test_internal(value: bool) -> None:
    assert create(Options={"com.docker.network.internal": value}).internal is value


def test_docker_names_of_options() -> None:
    asked = create(Options=generic(**{"com.docker.network.driver.mtu": "1400"}))
    assert asked.setting("mtu") == "1400"
    assert asked.options == (("com.docker.network.driver.mtu", "1400"),)


@pytest.mark.parametrize(
    "options",
    [
        generic(nosuch="x"),
        generic(**{"com.docker.network.driver.mtu": ""}),
        generic(**{"a=b": "c"}),
        generic(parent=""),
    ],
)
def test_options_that_mean_nothing_are_refused(options: dict[str, Any]) -> None:
    with pytest.raises(Invalid):
        create(Options=options)


@pytest.mark.parametrize(
    "fields",
    [
        {"Options": {"com.docker.network.internal": "yes"}},
        {"Options": {"com.docker.network.generic": {"mtu": 1400}}},
        {"Options": {"com.docker.network.generic": ["mtu"]}},
        {"IPv4Data": [{"Pool": 7}]},
        {"NetworkID": None},
    ],
)
def test_wrong_types_are_refused(fields: dict[str, Any]) -> None:
    with pytest.raises((Invalid, msgspec.ValidationError)):
        create(**fields)


@pytest.mark.parametrize(
    "pool", ["", "10.20.0.0", "10.20.0.0/33", "x", "10.20.0.0/255.255.255.0", "fe80::%lo/64", "10.20.0.0/24/24"]
)
def test_a_pool_that_is_no_subnet_is_refused(pool: str) -> None:
    with pytest.raises(Invalid):
        create(IPv4Data=[data(pool)])


IDS = [NET, "0123456789ab", "z9" * 12 + "z", "A" * 128]
NO_IDS = ["", "x", "a" * 11, "a" * 129, "../" * 8, "a" * 12 + "\n", "-" * 12, "é" * 12, "٣" * 12, "a b" * 6, "%s" * 9]


@pytest.mark.parametrize("ident", IDS)
def test_ids(ident: str) -> None:
    assert m.identity(ident, "network") == create(NetworkID=ident).id == ident


@pytest.mark.parametrize("ident", NO_IDS)
def test_what_is_no_id_is_refused(ident: str) -> None:
    with pytest.raises(Invalid, match="network id"):
        create(NetworkID=ident)
    for name in ("NetworkID", "EndpointID"):
        with pytest.raises(Invalid, match=f"{name[:-2].lower()} id"):
            endpoint(**{name: ident})


# --- endpoints ------------------------------------------------------------------------------------------


def endpoint(**fields: Any) -> AttachRequest:
    interface = {"Address": "10.20.0.2/24", "AddressIPv6": "", "MacAddress": ""}
    whole = {"NetworkID": NET, "EndpointID": EP, "Interface": interface, "Options": {}}
    return m.attach_request(msgspec.json.decode(msgspec.json.encode({**whole, **fields}), type=m.CreateEndpoint))


def test_an_endpoint() -> None:
    asked = endpoint()
    assert (asked.network, asked.id, asked.sandbox, asked.placement) == (NET, EP, "", Placement.HANDOVER)
    assert (asked.addresses, asked.mac, asked.options) == ((ip_address("10.20.0.2"),), None, ())


def test_an_endpoint_of_both_ip_versions_with_a_mac() -> None:
    interface = {"Address": "10.20.0.2/24", "AddressIPv6": "fd20::2/64", "MacAddress": "02:42:0A:14:00:02"}
    asked = endpoint(Interface=interface)
    assert [str(address) for address in asked.addresses] == ["10.20.0.2", "fd20::2"]
    assert asked.mac == "02:42:0a:14:00:02"


@pytest.mark.parametrize("interface", [None, {}, {"Address": None}, {"Address": "", "AddressIPv6": None}])
def test_an_endpoint_without_an_address(interface: Any) -> None:
    assert endpoint(Interface=interface).addresses == ()


def test_endpoint_options() -> None:
    asked = endpoint(Options={
        "gateway": "FALSE", "iface_prefix": "lan", "mac": "02-42-0a-14-00-07", "routes": "10.9.0.0/16=10.20.0.9",
        "com.docker.network.endpoint.exposedports": [{"Proto": 6, "Port": 80}],
        "com.docker.network.portmap": [], "com.docker.network.endpoint.macaddress": "AkKsHQAC",
        "com.docker.network.endpoint.sysctls": "net.ipv4.conf.IFNAME.forwarding=1",
        "com.docker.network.endpoint.ifname": "eth7", "com.docker.network.endpoint.dnsservers": ["192.0.2.1"],
    })  # fmt: skip
    assert dict(asked.options) == {
        "gateway": "false", "iface_prefix": "lan", "mac": "02:42:0a:14:00:07", "routes": "10.9.0.0/16=10.20.0.9",
    }  # fmt: skip
    assert asked.mac == "02:42:0a:14:00:07"


def test_the_interfaces_mac_is_more_than_an_options() -> None:
    interface = {"Address": "", "AddressIPv6": "", "MacAddress": "02:00:00:00:00:01"}
    assert endpoint(Interface=interface, Options={"mac": "02:00:00:00:00:02"}).mac == "02:00:00:00:00:01"


def test_dockers_name_for_the_prefix() -> None:
    options = {"com.docker.network.container_iface_prefix": "lan"}
    assert dict(endpoint(Options=options).options) == {"iface_prefix": "lan"}


@pytest.mark.parametrize(
    "options",
    [{"nosuch": "x"}, {"gateway": "perhaps"}, {"gateway": True}, {"mac": "01:00:00:00:00:01"}, {"iface_prefix": "a/b"},
     {"routes": "0.0.0.0/0=10.20.0.1"}, {"routes": ["10.9.0.0/16=10.20.0.9"]}, {"gateway": None}],
)  # fmt: skip
def test_endpoint_options_that_mean_nothing_are_refused(options: dict[str, Any]) -> None:
    with pytest.raises(Invalid, match="endpoint option"):
        endpoint(Options=options)


@pytest.mark.parametrize("address", ["x", "10.20.0.256/24", "10.20.0.2%lo/24", "fd20::2%lo/64", "/24"])
def test_what_is_no_address_is_refused(address: str) -> None:
    with pytest.raises(Invalid):
        endpoint(Interface={"Address": address})


# --- pools and ports ------------------------------------------------------------------------------------


def pool(**fields: Any) -> PoolRequest:
    return m.pool_request(msgspec.json.decode(msgspec.json.encode(fields), type=m.RequestPool))


def test_any_pool() -> None:
    assert pool(Pool="", SubPool="", Options=None, V6=False) == pool() == PoolRequest()
    assert pool(V6=True) == PoolRequest(version=6)


def test_a_certain_pool() -> None:
    asked = pool(Pool="10.20.0.7/24", SubPool="10.20.0.128/25")
    assert asked == PoolRequest(ip_network("10.20.0.0/24"), ip_network("10.20.0.128/25"))
    assert pool(Pool="fd20::/64").version == 6  # swarm does not say V6


@pytest.mark.parametrize("text", ["0.0.0.0/24", "::/64"])
def test_a_pool_of_a_size(text: str) -> None:
    assert pool(Pool=text).subnet == ip_network(text)


@pytest.mark.parametrize("key", ["parent", "bridge"])
def test_the_pool_behind_a_link(key: str) -> None:
    assert pool(Options={key: "br0"}).parent == "br0"


@pytest.mark.parametrize(
    "fields", [{"Pool": "x"}, {"Pool": "10.20.0.0/33"}, {"SubPool": "x"}, {"Options": {"nosuch": "x"}},
               {"Pool": "fe80::%lo/64"}],
)  # fmt: skip
def test_a_pool_that_means_nothing_is_refused(fields: dict[str, Any]) -> None:
    with pytest.raises(Invalid):
        pool(**fields)


@pytest.mark.parametrize("address", ["x", "10.20.0.2%lo", "fd20::2%lo", "10.20.0", " 10.20.0.2"])
def test_an_address_that_is_none_is_refused(address: str) -> None:
    with pytest.raises(Invalid, match="address"):
        m.wanted_address(m.RequestAddress("x", address))


def test_any_address() -> None:
    assert m.wanted_address(m.RequestAddress("x", "")) is m.wanted_address(m.RequestAddress("x")) is None
    assert m.wanted_address(m.RequestAddress("x", "10.20.0.2/24")) == ip_address("10.20.0.2")


def ports(*bindings: dict[str, Any]) -> list[PortRequest]:
    return list(m.port_requests({"com.docker.network.portmap": list(bindings)}))


def test_ports() -> None:
    whole = {"Proto": 6, "IP": "", "Port": 80, "HostIP": "", "HostPort": 8080, "HostPortEnd": 8080}
    assert ports(whole) == [PortRequest(None, 8080, 8080, 80)]
    assert ports({**whole, "HostIP": "192.0.2.1", "Proto": 17}) == [
        PortRequest(ip_address("192.0.2.1"), 8080, 8080, 80, "udp")
    ]
    assert ports({**whole, "HostPortEnd": 8090, "Proto": 132}) == [PortRequest(None, 8080, 8090, 80, "sctp")]
    assert ports({**whole, "HostPort": 0, "HostPortEnd": 0}) == [PortRequest(None, 0, 0, 80)]
    assert ports({"Proto": 6, "Port": 80, "HostIP": None, "HostPort": 8080}) == [PortRequest(None, 8080, 8080, 80)]


@pytest.mark.parametrize("options", [None, {}, {m.PORTS: None}, {m.PORTS: []}])
def test_no_ports(options: m.Options) -> None:
    assert m.port_requests(options) == ()


@pytest.mark.parametrize(
    "change",
    [{"Proto": 1}, {"Proto": 0}, {"Port": 0}, {"Port": 65536}, {"HostPort": -1}, {"HostPort": 65536}, {"Port": -80},
     {"HostPortEnd": 65536}, {"HostIP": "x"}, {"HostIP": "fe80::1%lo"}, {"Port": 10**30}],
)  # fmt: skip
def test_ports_that_are_none_are_refused(change: dict[str, Any]) -> None:
    with pytest.raises((Invalid, msgspec.ValidationError)):
        ports({"Proto": 6, "Port": 80, "HostPort": 8080, **change})


# --- the daemon's own API -------------------------------------------------------------------------------

NAMES = st.from_regex("[a-zA-Z0-9][a-zA-Z0-9_.-]{0,20}", fullmatch=True).filter(
    lambda name: name not in ("host", "none")
)
LABELS = st.dictionaries(st.text(min_size=1, max_size=8).filter(lambda key: "=" not in key), st.text(max_size=8))


@given(name=NAMES, labels=LABELS, internal=st.booleans(), ipv6=st.booleans(), dry_run=st.booleans(),
       octets=st.lists(st.integers(0, 255), max_size=3, unique=True),
       mtu=st.none() | st.integers(1280, 65535))  # fmt: skip
def test_a_network_comes_out_as_it_went_in(
    name: str, labels: dict[str, str], internal: bool, ipv6: bool, dry_run: bool, octets: list[int], mtu: int | None
) -> None:
    asked = spec.network_spec(
        name=name,
        subnets=[f"10.{octet}.0.0/16" for octet in octets] + (["fd00::/64"] if ipv6 and octets else []),
        ip_ranges=[f"10.{octet}.1.0/24" for octet in octets[:2]],
        gateways=[f"10.{octet}.0.9" for octet in octets[1:]],
        aux=[f"n{octet}=10.{octet}.0.77" for octet in octets],
        ipv6=ipv6,
        internal=internal,
        labels=[f"{key}={value}" for key, value in labels.items()],
        options=[] if mtu is None else [f"com.docker.network.driver.mtu={mtu}"],
    )
    sent = msgspec.json.encode(rest.network_create(asked, dry_run=dry_run))
    read = msgspec.json.decode(sent, type=rest.NetworkCreate)
    assert rest.network_spec(read) == asked and read.dry_run is dry_run


@pytest.mark.parametrize(
    "asked",
    [
        {"driver": "flat", "options": ["parent=br0", "bypass=always"]},
        {"driver": "bridge", "options": ["mode=flat", "parent=br0"]},
        {"driver": "flat", "options": ["mode=bridge"]},
        {"driver": "null"},
        {"options": ["routes=10.9.0.0/16=10.8.0.1"], "subnets": ["10.8.0.0/24"]},
    ],
)
def test_drivers_and_options_come_out_as_they_went_in(asked: dict[str, Any]) -> None:
    went = spec.network_spec(name="x", **asked)
    assert rest.network_spec(rest.network_create(went, dry_run=False)) == went


PORT = st.tuples(
    st.sampled_from(["", "192.0.2.1:", "0.0.0.0:", "[::]:", "[fd00::1]:"]), st.integers(1, 65535),
    st.integers(1, 65535), st.sampled_from(["", "/tcp", "/udp", "/sctp"]),
)  # fmt: skip

ENDPOINT_OPTIONS = ("egress_rate=1.5mbit", "egress_burst=64kb", "gateway=f", "routes=10.1.0.0/16=10.0.0.9")


@given(sandbox=st.text(min_size=1, max_size=20), name=st.none() | NAMES, ports=st.lists(PORT, max_size=2),
       mac=st.sampled_from([None, "02-00-00-00-00-01"]), ifname=st.sampled_from([None, "eth0.7"]),
       ips=st.sampled_from([(), ("10.0.0.7",), ("10.0.0.7", "fd00:0::7")]),
       options=st.sampled_from([(), ENDPOINT_OPTIONS]), dry_run=st.booleans())  # fmt: skip
def test_an_attach_comes_out_as_it_went_in(
    sandbox: str, name: str | None, ports: list[tuple[str, int, int, str]], mac: str | None, ifname: str | None,
    ips: tuple[str, ...], options: tuple[str, ...], dry_run: bool,
) -> None:  # fmt: skip
    apart = {(host, proto): f"{ip}{host}:{port}{proto}" for ip, host, port, proto in ports if proto or len(ports) < 2}
    asked = spec.attach_request(
        network="lan",
        sandbox=sandbox,
        name=name,
        ips=ips,
        mac=mac,
        ifname=ifname,
        ports=list(apart.values())[:1],
        options=options,
    )
    sent = msgspec.json.encode(rest.attach(asked, dry_run=dry_run))
    read = msgspec.json.decode(sent, type=rest.Attach)
    assert rest.attach_request(read) == asked and read.dry_run is dry_run


@pytest.mark.parametrize("error", [Invalid("a"), NotFound("b"), Refused("c"), BerthError("d")])
def test_an_error_comes_out_as_it_went_in(error: BerthError) -> None:
    read = rest.error(msgspec.json.decode(rest.failure(error), type=rest.Failure))
    assert str(read) == str(error)
    assert type(read) is (Refused if type(error) is BerthError else type(error))


def test_a_field_that_nobody_knows_is_refused() -> None:
    for type_, fields in ((rest.NetworkCreate, {"name": "x"}), (rest.Attach, {"network": "x", "sandbox": "x"})):
        msgspec.convert(fields, type_)
        with pytest.raises(msgspec.ValidationError, match="nosuch"):
            msgspec.convert({**fields, "nosuch": 1}, type_)
