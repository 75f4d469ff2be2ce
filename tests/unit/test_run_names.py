"""The files of /etc that a sandbox sees."""

from __future__ import annotations

from ipaddress import ip_address

import pytest

from berth.run.names import hosts, hosts_with, only_local_stub, resolv_conf

GATEWAYS = [ip_address("10.1.0.1"), ip_address("fd00::1")]


def servers(text: str) -> list[str]:
    return [line.split()[1] for line in text.splitlines() if line.startswith("nameserver ")]


@pytest.mark.parametrize(
    ("host", "kept"),
    [
        ("nameserver 9.9.9.9\nnameserver 2620:fe::fe\n", ["9.9.9.9", "2620:fe::fe"]),
        ("nameserver 127.0.0.53\nnameserver 9.9.9.9\n", ["9.9.9.9"]),
        ("nameserver 127.8.8.8\nnameserver ::1\n", ["10.1.0.1", "fd00::1"]),
        ("nameserver 0.0.0.0\n", ["10.1.0.1", "fd00::1"]),  # which the C library takes for the host itself
        ("nameserver fe80::1%eth0\n", ["10.1.0.1", "fd00::1"]),  # eth0 is the host's
        ("nameserver 169.254.169.254\n", ["169.254.169.254"]),
        ("nameserver rubbish\nnameserver\n", ["10.1.0.1", "fd00::1"]),
        ("", ["10.1.0.1", "fd00::1"]),
    ],
)
def test_name_servers_that_a_sandbox_can_reach(host: str, kept: list[str]) -> None:
    assert servers(resolv_conf(host, GATEWAYS)) == kept


def test_other_resolver_settings_are_kept() -> None:
    text = resolv_conf("# theirs\n; too\n\nsearch lan example.org\nnameserver 127.0.0.1\noptions ndots:2 edns0\n", [])
    assert text.splitlines()[1:] == ["search lan example.org", "options ndots:2 edns0"]


@pytest.mark.parametrize(
    ("host", "stub"),
    [
        ("nameserver 127.0.0.53\noptions edns0\n", True),
        ("nameserver 127.0.0.53\nnameserver 9.9.9.9\n", False),
        ("search lan\n", False),
        ("", False),
    ],
)
def test_a_resolver_of_the_hosts_own_is_recognised(host: str, stub: bool) -> None:
    assert only_local_stub(host) is stub


def test_own_name_in_hosts() -> None:
    text = hosts("web.example", [ip_address("10.1.0.2"), ip_address("fd00::2")], ["web", "web.example"])
    assert text.splitlines() == [
        "127.0.0.1\tlocalhost",
        "::1\tlocalhost ip6-localhost ip6-loopback",
        "10.1.0.2\tweb.example web",
        "fd00::2\tweb.example web",
    ]


def test_own_name_without_an_address_is_at_the_loopback() -> None:
    assert hosts("web", [], ["web"]).splitlines()[-1] == "127.0.1.1\tweb"


@pytest.mark.parametrize("host", ["127.0.0.1 localhost", "127.0.0.1 localhost\n\n"])
def test_one_more_name_for_the_host(host: str) -> None:
    assert hosts_with(host, "web") == "127.0.0.1 localhost\n127.0.1.1\tweb\n"


def test_one_more_name_for_a_host_without_a_file() -> None:
    assert hosts_with("", "web") == "127.0.1.1\tweb\n"
