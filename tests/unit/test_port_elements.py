"""What published ports are in the firewall: a range is one element, however many ports it has."""

from __future__ import annotations

from ipaddress import IPv4Interface, IPv6Interface

import pytest

from berth import spec
from berth.firewall.elements import for_endpoint
from berth.model import Endpoint, Interface, Network, Sandbox


def elements(*texts: str, versions: tuple[int, ...] = (4,), proxy: str = "never") -> list[str]:
    """The elements of an endpoint with these published ports, as nft writes them."""
    both: dict[int, Interface] = {4: IPv4Interface("10.0.0.2/24"), 6: IPv6Interface("fd00::2/64")}
    ports = tuple(mapping for text in texts for mapping in spec.port_mappings(text))
    sandbox = Sandbox("/run/netns/web", "1")
    addresses = tuple(both[version] for version in versions)
    ep = Endpoint("1" * 64, "n", "web", sandbox, "bv0", "eth0", "02:00:00:00:00:01", addresses, ports=ports)
    net = Network("n", "n", "bridge", "brt0", (), 1500, "", proxy=proxy)
    told = (element.describe().removeprefix("nft 'add element inet berth ") for element in for_endpoint(net, ep))
    return sorted(line.removesuffix(" }'").replace(" { ", " ") for line in told)


@pytest.mark.parametrize(
    ("texts", "expected"),
    [
        (("8000-8999:8000-8999",), ["anyrange4 tcp . 8000-8999 : 10.0.0.2"]),
        (("1-65535:1-65535/udp",), ["anyrange4 udp . 1-65535 : 10.0.0.2"]),
        (("127.0.0.1:80-81:80-81",), ["range4 127.0.0.1 . tcp . 80-81 : 10.0.0.2"]),
        (("80:80",), ["anyport4 tcp . 80 : 10.0.0.2 . 80"]),
        (("80:80", "81:81"), ["anyrange4 tcp . 80-81 : 10.0.0.2"]),
        (("81:81", "80:80", "83:83"), ["anyport4 tcp . 83 : 10.0.0.2 . 83", "anyrange4 tcp . 80-81 : 10.0.0.2"]),
        (("80:80", "81:81/udp"), ["anyport4 tcp . 80 : 10.0.0.2 . 80", "anyport4 udp . 81 : 10.0.0.2 . 81"]),
        (
            ("127.0.0.1:80:80", "127.0.0.2:81:81"),
            ["port4 127.0.0.1 . tcp . 80 : 10.0.0.2 . 80", "port4 127.0.0.2 . tcp . 81 : 10.0.0.2 . 81"],
        ),
        (("80-81:90-91",), ["anyport4 tcp . 80 : 10.0.0.2 . 90", "anyport4 tcp . 81 : 10.0.0.2 . 91"]),
        ((), []),
    ],
)
def test_neighbours_that_keep_their_numbers_are_one_element(texts: tuple[str, ...], expected: list[str]) -> None:
    assert elements(*texts) == expected


def test_a_range_of_both_versions_and_of_one() -> None:
    both = ["anyrange4 tcp . 80-81 : 10.0.0.2", "anyrange6 tcp . 80-81 : fd00::2"]
    assert elements("80-81:80-81", versions=(4, 6)) == both
    assert elements("[::]:80-81:80-81", versions=(4, 6)) == both[1:]
    assert elements("0.0.0.0:80-81:80-81", versions=(4, 6)) == both[:1]


@pytest.mark.parametrize(
    ("text", "versions", "proxy", "expected"),
    [
        # IPv6 clients of a container that has IPv4 only
        (
            "80:8080",
            (4,),
            "auto",
            ["anyport4 tcp . 80 : 10.0.0.2 . 8080", "proxied64 :: . tcp . 80 : 10.0.0.2 . 8080 . 80"],
        ),
        ("[2001:db8::1]:80:80", (4,), "auto", ["proxied64 2001:db8::1 . tcp . 80 : 10.0.0.2 . 80 . 80"]),
        ("[::1]:80:80/udp", (4,), "auto", ["proxied64 ::1 . udp . 80 : 10.0.0.2 . 80 . 80"]),
        # ::1 of the host itself, and nothing else
        (
            "[::]:80:80",
            (4, 6),
            "auto",
            ["anyport6 tcp . 80 : fd00::2 . 80", "proxied6 ::1 . tcp . 80 : fd00::2 . 80 . 80"],
        ),
        ("[2001:db8::1]:80:80", (4, 6), "auto", ["port6 2001:db8::1 . tcp . 80 : fd00::2 . 80"]),
        ("127.0.0.1:80:80", (4, 6), "auto", ["port4 127.0.0.1 . tcp . 80 : 10.0.0.2 . 80"]),
        (
            "80-90:80-90",
            (4,),
            "auto",
            ["anyrange4 tcp . 80-90 : 10.0.0.2", "proxied64 :: . tcp . 80 : 10.0.0.2 . 80 . 90"],
        ),
        ("80:80/sctp", (4,), "always", ["anyport4 sctp . 80 : 10.0.0.2 . 80"]),
        ("127.0.0.1:80:80", (4, 6), "always", ["proxied4 127.0.0.1 . tcp . 80 : 10.0.0.2 . 80 . 80"]),
        (
            "80:80",
            (4, 6),
            "always",
            ["proxied4 0.0.0.0 . tcp . 80 : 10.0.0.2 . 80 . 80", "proxied6 :: . tcp . 80 : fd00::2 . 80 . 80"],
        ),
        ("0.0.0.0:80:80", (6,), "always", []),
    ],
)
def test_what_the_proxy_passes_on(text: str, versions: tuple[int, ...], proxy: str, expected: list[str]) -> None:
    assert elements(text, versions=versions, proxy=proxy) == expected
