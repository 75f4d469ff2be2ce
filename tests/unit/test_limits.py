"""What rates come to: for an endpoint of a network's, for one with its own, and for a network of an older version."""

from __future__ import annotations

from dataclasses import replace
from ipaddress import ip_network

import msgspec
import pytest

from berth import spec
from berth.drivers.limits import limits
from berth.model import Endpoint, Network, Pool, Sandbox
from berth.rates import NftRate, Shaped
from berth.schema import dump, load_network

NET = Network("1" * 64, "nat", "bridge", "brt0", (Pool(ip_network("10.0.0.0/24")),), 1500, "")
EP = Endpoint("2" * 64, NET.id, "web", Sandbox("/run/netns/c1", "c1"), "bv0", "eth0", "02:00:00:00:00:01", ())


def net(*options: str, bridge_mtu: int = 0) -> Network:
    return replace(NET, rates=spec.network_spec(name="nat", options=options).rates, bridge_mtu=bridge_mtu)


def ep(*options: str) -> Endpoint:
    return replace(EP, options=spec.attach_request(network="nat", sandbox="c1", options=options).options)


@pytest.mark.parametrize(
    ("network", "endpoint", "expected"),
    [
        (net(), ep(), []),
        (net(), ep("gateway=false"), []),
        (net("mtu=1400"), ep(), []),
        (net("ingress_rate=8mbit"), ep(), [Shaped("bv0", 1_000_000, 32 << 10)]),
        (net("ingress_rate=8gbit"), ep(), [Shaped("bv0", 10**9, 10**7)]),
        (net("ingress_rate=8mbit", "ingress_burst=64kb"), ep(), [Shaped("bv0", 1_000_000, 64 << 10)]),
        (net("ingress_rate=8mbit", "ingress_burst=1"), ep(), [Shaped("bv0", 1_000_000, 1514)]),
        (net("ingress_rate=8mbit", bridge_mtu=65535), ep(), [Shaped("bv0", 1_000_000, 65549)]),
        (net("egress_rate=8mbit"), ep(), [NftRate("bv0", 1_000_000, 128 << 10)]),
        (net("egress_rate=8mbit", "egress_burst=1"), ep(), [NftRate("bv0", 1_000_000, 68 << 10)]),
        (net("egress_rate=8mbit"), ep("egress_rate=16mbit"), [NftRate("bv0", 2_000_000, 128 << 10)]),
        # The network's burst is that of the network's rate.
        (
            net("egress_rate=8mbit", "egress_burst=1mb"),
            ep("egress_rate=16mbit"),
            [NftRate("bv0", 2_000_000, 128 << 10)],
        ),
        (
            net("egress_rate=8mbit"),
            ep("ingress_rate=16mbit"),
            [NftRate("bv0", 1_000_000, 128 << 10), Shaped("bv0", 2_000_000, 32 << 10)],
        ),
    ],
)
def test_limits(network: Network, endpoint: Endpoint, expected: list[object]) -> None:
    assert limits(network, endpoint) == frozenset(expected)


def test_rates_are_remembered_and_a_network_of_an_older_version_has_none() -> None:
    limited = net("ingress_rate=8mbit", "egress_rate=1mbps")
    assert load_network(dump(limited)) == limited
    older = {key: value for key, value in msgspec.json.decode(dump(limited)).items() if key != "rates"}
    assert load_network(msgspec.json.encode(older)).rates == ()
