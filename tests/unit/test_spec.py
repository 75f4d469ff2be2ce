"""What people type, and every way of getting it wrong."""

from __future__ import annotations

from collections.abc import Callable
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address, ip_network
from typing import Any

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from berth.errors import Invalid
from berth.model import AttachRequest, NetworkSpec, Pool, PortMapping
from berth.spec import (
    attach_request,
    driver_name,
    endpoint_name,
    link_name,
    mac,
    network_name,
    network_spec,
    pair_pools,
    port_change,
    port_mappings,
)


def spec(**asked: Any) -> NetworkSpec:
    return network_spec(**{"name": "lan", **asked})


def request(**asked: Any) -> AttachRequest:
    return attach_request(**{"network": "lan", "sandbox": "red", **asked})


def refuses(call: Callable[[], object], *parts: str) -> None:
    with pytest.raises(Invalid) as refusal:
        call()
    message = str(refusal.value)
    assert message.isprintable(), "one line"
    for part in parts:
        assert part in message


def test_a_bare_name_is_a_bridge_network() -> None:
    assert spec() == NetworkSpec(name="lan")


def test_everything_at_once() -> None:
    asked = spec(
        driver="flat",
        subnets=["192.168.2.5/24", "fd00::5/64"],
        ip_ranges=["192.168.2.130/25"],
        gateways=["fd00::1", "192.168.2.1"],
        aux=["printer=192.168.2.9", "nas=fd00::9"],
        internal=True,
        labels=["owner=me", "owner=you", "empty", "formula=a=b"],
        options=["com.docker.network.driver.mtu=01400", "parent=br0"],
    )
    assert asked == NetworkSpec(
        name="lan",
        driver="flat",
        subnets=(IPv4Network("192.168.2.0/24"), IPv6Network("fd00::/64")),
        ip_ranges=(IPv4Network("192.168.2.128/25"),),
        gateways=(IPv6Address("fd00::1"), IPv4Address("192.168.2.1")),
        aux=(("printer", IPv4Address("192.168.2.9")), ("nas", IPv6Address("fd00::9"))),
        ipv6=True,  # an IPv6 subnet asks for it
        internal=True,
        labels=(("owner", "you"), ("empty", ""), ("formula", "a=b")),
        options=(("com.docker.network.driver.mtu", "01400"), ("parent", "br0")),
        settings=(("mtu", "1400"), ("bridge", "br0")),
    )


def test_without_subnets_the_rest_is_kept_for_the_driver() -> None:
    asked = spec(driver="flat", ip_ranges=["192.168.2.128/25"], gateways=["192.168.2.1"], aux=["a=192.168.2.9"])
    assert asked.ip_ranges and asked.gateways and asked.aux
    assert not asked.subnets


NO_SUBNETS = ("192.168.2.0/255.255.255.0", "192.168.2.0/", "192.168.2.0/٢٤", "fd00::%eth0/64", "lan\n/24")


@pytest.mark.parametrize("name", ["a", "0", "my-net_1.2", "container", "hosts", "x" * 128])
def test_names_that_pass(name: str) -> None:
    assert network_name(name) == endpoint_name(name) == name


@pytest.mark.parametrize(
    ("asked", "message"),
    [
        ({"ip_ranges": ["10.1.0.0/25"]}, "ip-range 10.1.0.0/25 fits in no subnet of the network (10.0.0.0/24,"),
        ({"ip_ranges": ["10.0.0.0/23"]}, "ip-range 10.0.0.0/23 fits in no subnet"),
        ({"ip_ranges": ["fd01::/80"]}, "ip-range fd01::/80 fits in no subnet"),
        ({"gateways": ["10.0.1.1"]}, "gateway 10.0.1.1 fits in no subnet of the network (10.0.0.0/24, fd00::/64)"),
        ({"gateways": ["::a00:1"]}, "gateway ::a00:1 fits in no subnet"),
        ({"aux": ["nas=10.0.1.9"]}, "aux-address 'nas'=10.0.1.9 fits in no subnet"),
        ({"gateways": ["10.0.0.1", "10.0.0.2"]}, "gateways 10.0.0.1 and 10.0.0.2 are both for subnet 10.0.0.0/24"),
        ({"gateways": ["10.0.0.1", "10.0.0.1"]}, "gateways 10.0.0.1 and 10.0.0.1 are both"),
        ({"ip_ranges": ["fd00::/80", "fd00:0:0:0:1::/80"]}, "ip-ranges fd00::/80 and fd00::1:0:0:0/80 are both"),
    ],
)
def test_parts_that_no_subnet_can_take(asked: dict[str, Any], message: str) -> None:
    subnets = ["10.0.0.0/24", "fd00::/64"]
    refuses(lambda: spec(subnets=subnets, **asked), message)
    refuses(lambda: pair_pools(spec(**asked), [ip_network(subnet) for subnet in subnets]), message)


def test_pair_pools_hands_out_by_subnet() -> None:
    asked = spec(
        ip_ranges=["fd00::/80", "10.0.0.128/25"],
        gateways=["10.0.0.1", "10.0.1.1"],
        aux=["a=10.0.1.9", "b=fd00::9", "c=10.0.1.8"],
    )
    first, second, third = IPv4Network("10.0.0.0/24"), IPv6Network("fd00::/64"), IPv4Network("10.0.1.0/24")
    assert pair_pools(asked, [first, second, third]) == (
        Pool(first, ip_range=IPv4Network("10.0.0.128/25"), gateway=IPv4Address("10.0.0.1")),
        Pool(second, ip_range=IPv6Network("fd00::/80"), aux=(("b", IPv6Address("fd00::9")),)),
        Pool(third, gateway=ip_address("10.0.1.1"), aux=(("a", ip_address("10.0.1.9")), ("c", ip_address("10.0.1.8")))),
    )


def test_pair_pools_with_nothing_to_hand_out() -> None:
    assert pair_pools(spec(), [ip_network("10.0.0.0/24")]) == (Pool(IPv4Network("10.0.0.0/24")),)
    assert pair_pools(spec(), []) == ()
    refuses(
        lambda: pair_pools(spec(gateways=["10.0.0.1"]), []), "gateway 10.0.0.1 fits in no subnet of the network (none)"
    )


@pytest.mark.parametrize("name", ["bridge", "flat", "host", "null"])
def test_drivers(name: str) -> None:
    assert driver_name(name) == name


@pytest.mark.parametrize(
    ("driver", "typed", "setting"),
    [
        ("bridge", "bridge=br0", ("bridge", "br0")),
        ("flat", "com.docker.network.bridge.name=br0", ("bridge", "br0")),
        ("flat", "parent=br0", ("bridge", "br0")),
        ("bridge", "mtu=68", ("mtu", "68")),
        ("flat", "com.docker.network.driver.mtu=65535", ("mtu", "65535")),
        ("bridge", "masquerade=0", ("masquerade", "false")),
        ("bridge", "com.docker.network.bridge.enable_ip_masquerade=True", ("masquerade", "true")),
        ("bridge", "com.docker.network.container_iface_prefix=lan", ("iface_prefix", "lan")),
        ("flat", "iface_prefix=abcdefghijkl", ("iface_prefix", "abcdefghijkl")),
        ("flat", "com.docker.network.bridge.inhibit_ipv4=true", ("inhibit_ipv4", "true")),
        ("bridge", "inhibit_ipv4=f", ("inhibit_ipv4", "false")),
    ],
)
def test_options(driver: str, typed: str, setting: tuple[str, str]) -> None:
    asked = spec(driver=driver, options=[typed])
    assert asked.driver == driver
    assert asked.settings == (setting,)
    assert asked.options == (tuple(typed.split("=")),)


@pytest.mark.parametrize(("driver", "mode"), [("bridge", "flat"), ("flat", "bridge"), ("bridge", "bridge")])
def test_mode_replaces_the_driver(driver: str, mode: str) -> None:
    asked = spec(driver=driver, options=[f"mode={mode}"])
    assert asked.driver == asked.setting("mode") == mode


def test_mode_decides_which_options_fit() -> None:
    assert spec(options=["parent=br0", "mode=flat"]).setting("bridge") == "br0"
    refuses(
        lambda: spec(driver="flat", options=["parent=br0", "mode=bridge"]), "parent is only for flat, not for bridge"
    )


def test_same_option_twice_with_one_meaning_is_one_setting() -> None:
    asked = spec(
        options=["masquerade=1", "mtu=1400", "com.docker.network.bridge.enable_ip_masquerade=true", "mtu=1400"]
    )
    assert asked.settings == (("masquerade", "true"), ("mtu", "1400"))


@pytest.mark.parametrize(
    ("driver", "typed", "message"),
    [
        ("bridge", ["mtv=1400"], "option 'mtv' is not known: did you mean mtu?"),
        ("bridge", ["com.docker.network.bridge.nam=br0"], "did you mean com.docker.network.bridge.name?"),
        ("bridge", ["colour=red"], "choose one of bridge, com.docker.network.bridge.name, parent,"),
        ("bridge", ["parent=br0"], "option parent is only for flat, not for bridge"),
        ("flat", ["masquerade=true"], "option masquerade is only for bridge and overlay, not for flat"),
        ("host", ["mtu=1500"], "option mtu is only for bridge, flat and overlay, not for host"),
        ("null", ["mode=flat"], "option mode is only for bridge, flat and overlay, not for null"),
        ("bridge", ["mode=nat"], "option mode: mode 'nat' is not known: choose one of bridge, flat"),
        ("bridge", ["mode=flap"], "did you mean flat?"),
        ("bridge", ["mode=host"], "option mode is only for bridge, flat and overlay, not for host"),
        ("bridge", ["mode=flat", "mode=bridge"], "options mode=flat and mode=bridge contradict each other"),
        ("bridge", ["mtu=67"], "option mtu: '67' is no MTU: give 68 to 65535 bytes"),
        ("bridge", ["mtu=65536"], "'65536' is no MTU"),
        ("bridge", ["mtu=-1"], "'-1' is no MTU"),
        ("bridge", ["mtu=٦٨٠"], "is no MTU"),
        ("bridge", ["mtu=" + "9" * 5000], "is no MTU"),
        ("bridge", ["masquerade=maybe"], "option masquerade: 'maybe' is neither yes nor no: give true or false"),
        ("bridge", ["masquerade="], "'' is neither yes nor no"),
        ("bridge", ["iface_prefix=abcdefghijklm"], "leaves no room for the number"),
        ("bridge", ["bridge=brt0"], "option bridge: 'brt0' begins as the names that Berth makes up itself"),
        ("flat", ["parent=bv12"], "option parent: 'bv12' begins as the names"),
        ("bridge", ["bridge=a/b"], "option bridge: interface name 'a/b' has a character"),
        ("bridge", ["bridge=br0", "com.docker.network.bridge.name=br1"], "contradict each other: leave one out"),
        ("flat", ["parent=br0", "bridge=br1"], "options parent=br0 and bridge=br1 contradict each other"),
        ("bridge", ["mtu=1400", "mtu=1500"], "options mtu=1400 and mtu=1500 contradict each other"),
    ],
)
def test_options_that_are_refused(driver: str, typed: list[str], message: str) -> None:
    refuses(lambda: spec(driver=driver, options=typed), message)


def test_ipv6_needs_a_larger_mtu() -> None:
    assert spec(ipv6=True, options=["mtu=1280"]).setting("mtu") == "1280"
    for asked in ({"ipv6": True}, {"subnets": ["fd00::/64"]}):
        with pytest.raises(Invalid, match="IPv6 needs 1280 bytes and 1279 is less"):
            spec(options=["mtu=1279"], **asked)


@pytest.mark.parametrize("name", ["a", "eth0", "br-lan", "br0.100", "brt0", "bv0", "exactly15bytes_", "für", "a@b"])
def test_link_names_that_pass(name: str) -> None:
    assert link_name(name) == name


@pytest.mark.parametrize("text", ["02:42:C0:a8:02:03", "02-42-c0-a8-02-03", "0242.c0a8.0203"])
def test_mac(text: str) -> None:
    assert mac(text) == "02:42:c0:a8:02:03"


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("8080:80", [PortMapping(None, 8080, 80)]),
        ("8080:80/UDP", [PortMapping(None, 8080, 80, "udp")]),
        ("1:65535/sctp", [PortMapping(None, 1, 65535, "sctp")]),
        ("127.0.0.1:8080:80", [PortMapping(IPv4Address("127.0.0.1"), 8080, 80)]),
        ("0.0.0.0:8080:80", [PortMapping(IPv4Address("0.0.0.0"), 8080, 80)]),
        ("[fd00::1]:8080:80/udp", [PortMapping(IPv6Address("fd00::1"), 8080, 80, "udp")]),
        ("8080-8081:80-81", [PortMapping(None, 8080, 80), PortMapping(None, 8081, 81)]),
        ("8080-8080:80", [PortMapping(None, 8080, 80)]),
    ],
)
def test_port_mappings(text: str, expected: list[PortMapping]) -> None:
    assert port_mappings(text) == tuple(expected)


MODES = ("host", "none", "container:web", "container:\n")
KERNEL_NAMES = (".", "..", "all", "default")
NO_MACS = ("", "02:42:c0:a8:02", "02:42:c0:a8:02:03:04", "02:42:c0:a8:02:0g", "2:42:c0:a8:2:3", "0242c0a80203")
NO_HOST_PORT = ("80/udp", ":80", "127.0.0.1::80", "[::1]::80")
NO_MAPPINGS = ("8080:", "8080:80/", "::1:8080:80", "[::1]8080:80", "[[::1]]:8080:80", "127.0.0.1:80", "eth0:http:80")
BAD_NAMES = ("", "-a", ".a", "_a", "a b", "a/b", "a\n", "é", "a:b", "x" * 129)


@pytest.mark.parametrize(
    ("parse", "text", "message"),
    [
        *((network_name, name, "network name") for name in BAD_NAMES),
        *((endpoint_name, name, "endpoint name") for name in BAD_NAMES),
        *((network_name, name, f"{name!r} is a way of running") for name in MODES),
        (driver_name, "brigde", "driver 'brigde' is not known: did you mean bridge?"),
        (driver_name, "", "driver '' is not known: choose one of bridge, flat, overlay, host, null"),
        (driver_name, "ipvlan", "choose one of bridge, flat, overlay, host, null"),
        (link_name, "", "has 0 bytes: give it 1 to 15"),
        (link_name, "sixteen_bytes_ab", "has 16 bytes"),
        (link_name, "ääääääää", "has 16 bytes"),
        (link_name, "\udcff" * 9, "bytes"),
        *((link_name, text, "refused by the kernel") for text in KERNEL_NAMES),
        *((link_name, f"a{char}b", "has a character it may not have") for char in '/: \t\n\0\x7f%*"\\\u00a0\udcffà'),
        *((mac, text, "is not six octets") for text in NO_MACS),
        *((mac, text, "is not six octets") for text in ("02:42-c0:a8-02:03", "02:42:c0:a8:02:03\n")),
        (mac, "01:00:5e:00:00:01", "is a multicast address (its first octet is odd)"),
        (mac, "ff:ff:ff:ff:ff:ff", "is a multicast address"),
        (mac, "00:00:00:00:00:00", "is all zero"),
        (port_mappings, "", "'' cannot be read: write it as 8080:80"),
        *((port_mappings, text, "cannot be read") for text in NO_MAPPINGS),
        *((port_mappings, text, "cannot be read") for text in ("8080:80\n", "8080:٨٠")),
        (port_mappings, "8080:80/icmp", "protocol 'icmp' is not known: choose one of tcp, udp, sctp"),
        (port_mappings, "8080:80/tcpp", "protocol 'tcpp' is not known: did you mean tcp?"),
        (port_mappings, "localhost:8080:80", "'localhost' is no IP address"),
        (port_mappings, "[fe80::1%eth0]:8080:80", "is no IP address"),
        (port_mappings, "[127.0.0.1]:8080:80", "brackets are for IPv6: write 127.0.0.1 without them"),
        (port_mappings, "8080-8082:80-81", "joins 3 ports to 2: give ranges of one length"),
        (port_mappings, "8080-8081:80", "joins 2 ports to 1"),
        (port_mappings, "8080:80-81", "joins 1 ports to 2"),
        (port_mappings, "0:80", "'0' is no port or rising range: give 1 to 65535"),
        (port_mappings, "8080:0", "'0' is no port"),
        (port_mappings, "65536:80", "'65536' is no port"),
        (port_mappings, "8080:65536", "'65536' is no port"),
        (port_mappings, "999999999:80", "is no port"),
        (port_mappings, "8081-8080:80-81", "'8081-8080' is no port or rising range"),
        (port_mappings, "8080-:80", "'8080-' is no port"),
        (port_mappings, "1-2-3:80", "'1-2-3' is no port"),
    ],
)
def test_texts_that_are_refused(parse: Callable[[str], object], text: str, message: str) -> None:
    refuses(lambda: parse(text), message)


ADDRESSES = st.one_of(st.none(), st.ip_addresses(v=4), st.ip_addresses(v=6))
PORTS = st.integers(1, 65535)


@settings(deadline=None)
@given(ADDRESSES, PORTS, PORTS, st.integers(1, 50), st.sampled_from(["", "tcp", "udp", "sctp"]))
@example(None, 65535, 65535, 1, "")
def test_port_mappings_written_out_and_read_again(
    ip: IPv4Address | IPv6Address | None, host: int, port: int, length: int, proto: str
) -> None:
    length = min(length, 65536 - host, 65536 - port)
    prefix = "" if ip is None else f"{ip}:" if ip.version == 4 else f"[{ip}]:"
    ports = f"{host}:{port}" if length == 1 else f"{host}-{host + length - 1}:{port}-{port + length - 1}"
    mappings = port_mappings(f"{prefix}{ports}" + (f"/{proto}" if proto else ""))
    assert mappings == tuple(PortMapping(ip, host + step, port + step, proto or "tcp") for step in range(length))


@settings(deadline=None)
@given(st.text(alphabet="0123456789:-/[].tcpudf", max_size=24))
def test_any_text_gives_port_mappings_or_one_clear_line(text: str) -> None:
    try:
        mappings = port_mappings(text)
    except Invalid as error:
        assert repr(text) in str(error)
    else:
        assert mappings
        assert all(0 <= mapping.host_port < 65536 and 0 < mapping.port < 65536 for mapping in mappings)


@pytest.mark.parametrize("text", NO_HOST_PORT)
def test_a_port_without_a_host_port_asks_for_any(text: str) -> None:
    (mapping,) = port_mappings(text)
    assert (mapping.host_port, mapping.port) == (0, 80)


def test_two_ports_may_both_ask_for_any() -> None:
    assert [mapping.host_port for mapping in request(ports=["80", "80", "127.0.0.1::80"]).ports] == [0, 0, 0]


@pytest.mark.parametrize(
    ("asked", "message"),
    [
        ({}, "no port is named"),
        ({"unpublish": ["80"]}, "lacks its host port"),
        ({"publish": ["80:80", "79-80:79-80"]}, "host port 80/tcp is published twice"),
        ({"publish": ["x"]}, "port mapping 'x' cannot be read"),
    ],
)
def test_changes_of_ports_that_are_refused(asked: dict[str, Any], message: str) -> None:
    refuses(lambda: port_change(endpoint="web", **asked), message)


def test_attach_request() -> None:
    assert request() == AttachRequest(network="lan", sandbox="red")
    assert request(
        name="web",
        ips=["fd00::5", "192.168.2.5"],
        mac="02-42-C0-A8-02-05",
        ifname="eth1",
        ports=["80:8080", "443-444:443-444", "80:8080/udp"],
    ) == AttachRequest(
        network="lan",
        sandbox="red",
        name="web",
        addresses=(IPv6Address("fd00::5"), IPv4Address("192.168.2.5")),
        mac="02:42:c0:a8:02:05",
        ifname="eth1",
        ports=(
            PortMapping(None, 80, 8080),
            PortMapping(None, 443, 443),
            PortMapping(None, 444, 444),
            PortMapping(None, 80, 8080, "udp"),
        ),
    )


def test_exposed_ports_are_published_where_nobody_said_otherwise() -> None:
    asked = request(ports=["8080:80", "53:53/udp"], expose=["80", "53", "9000-9001/udp", "9001/udp"])
    assert asked.ports[2:] == (
        PortMapping(None, 0, 53),
        PortMapping(None, 0, 9000, "udp"),
        PortMapping(None, 0, 9001, "udp"),
    )


def test_options_of_an_endpoint() -> None:
    asked = request(options=["mac=02-00-00-00-00-01", "gateway=F", "egress_rate=8mbit"])
    assert asked.mac == "02:00:00:00:00:01"
    assert dict(asked.options) == {"mac": asked.mac, "gateway": "false", "egress_rate": "1000000bps"}


def test_one_host_port_on_different_addresses_is_no_clash() -> None:
    ports = ["127.0.0.1:80:80", "127.0.0.2:80:80", "[::]:80:80", "127.0.0.1:80:80/udp", "127.0.0.1:81:80"]
    assert len(request(ports=ports).ports) == 5


@pytest.mark.parametrize(
    ("ask", "asked", "message"),
    [
        (spec, {"subnets": ["192.168.2.0"]}, "subnet '192.168.2.0' is no subnet: write it as 192.168.2.0/24"),
        (spec, {"subnets": ["192.168.2.0/33"]}, "'192.168.2.0/33' is no subnet"),
        *((spec, {"subnets": [text]}, f"subnet {text!r} is no subnet") for text in NO_SUBNETS),
        (spec, {"ip_ranges": ["192.168.2.128"]}, "ip-range '192.168.2.128' is no subnet"),
        (spec, {"gateways": ["192.168.2.1/24"]}, "gateway '192.168.2.1/24' is no IP address"),
        (spec, {"gateways": ["fe80::1%eth0"]}, "gateway 'fe80::1%eth0' is no IP address"),
        (spec, {"gateways": ["192.168.002.1"]}, "is no IP address"),
        (spec, {"aux": ["printer"]}, "aux-address 'printer' lacks a name or a value: write it as NAME="),
        (spec, {"aux": ["=192.168.2.9"]}, "aux-address '=192.168.2.9' lacks a name"),
        (spec, {"aux": ["printer=here"]}, "aux-address 'printer': 'here' is no IP address"),
        (spec, {"aux": ["a=192.168.2.9", "a=192.168.2.8"]}, "'a=192.168.2.8': give each a name of its own"),
        (spec, {"labels": ["=x"]}, "label '=x' lacks a name"),
        (spec, {"options": ["mtu"]}, "option 'mtu' lacks a name or a value"),
        (spec, {"subnets": ["10.0.0.0/24", "10.0.0.7/24"]}, "subnets 10.0.0.0/24 and 10.0.0.0/24 overlap"),
        (spec, {"subnets": ["10.0.0.0/24", "fd00::/64", "10.0.0.0/16"]}, "subnets 10.0.0.0/24 and 10.0.0.0/16 overlap"),
        (request, {"network": "a b"}, "network name 'a b' is not valid"),
        (request, {"sandbox": ""}, "sandbox is empty"),
        (request, {"name": ""}, "endpoint name '' is not valid"),
        (request, {"ips": ["192.168.2.5/24"]}, "address '192.168.2.5/24' is no IP address"),
        (request, {"ips": ["10.0.0.1", "fd00::1", "10.0.0.2"]}, "10.0.0.1, fd00::1, 10.0.0.2: give at most one"),
        (request, {"ips": ["fd00::1", "fd00::1"]}, "give at most one IPv4 and one IPv6"),
        (request, {"mac": ""}, "MAC address '' is not six octets"),
        (request, {"ifname": ""}, "interface name '' has 0 bytes"),
        (request, {"ports": ["80:80", "80:80"]}, "host port 80/tcp is published twice"),
        (request, {"ports": ["80:80", "80:81"]}, "host port 80/tcp is published twice"),
        (request, {"ports": ["79-81:79-81", "80:8080"]}, "host port 80/tcp is published twice"),
        (request, {"ports": ["80:80/udp", "127.0.0.1:80:81/udp"]}, "host port 80/udp is published twice"),
        (request, {"ports": ["0.0.0.0:80:80", "127.0.0.1:80:80"]}, "host port 80/tcp is published twice"),
        (request, {"ports": ["[::1]:80:80", "[::]:80:80"]}, "host port 80/tcp is published twice"),
        (request, {"expose": ["8080:80"]}, "exposed port '8080:80' names a host port"),
        (request, {"expose": ["0"]}, "'0' is no port"),
        (request, {"options": ["mtu=1400"]}, "endpoint option 'mtu' is not known"),
        (request, {"options": ["egress_burst=64kb"]}, "give egress_rate too"),
        (request, {"options": ["mac=02:00:00:00:00:01"], "mac": "02:00:00:00:00:02"}, "contradict each other"),
        (spec, {"options": ["ingress_burst=64kb"]}, "give ingress_rate too"),
        (spec, {"driver": "host", "options": ["ingress_rate=1mbit"]}, "only for bridge, flat and overlay"),
    ],
)
def test_requests_that_are_refused(ask: Callable[..., object], asked: dict[str, Any], message: str) -> None:
    refuses(lambda: ask(**asked), message)
