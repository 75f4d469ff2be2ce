"""Rates of endpoints: how long a transfer takes that has to keep to one, in both directions and by every way.

The bounds are wide: no transfer is quicker than its rate allows, whatever the machine does, and none takes three times
as long, on a machine that has something else to do. What may go at once is taken off first.
"""

from __future__ import annotations

import re

import pytest
from lab_ground import HOST, STATION, Ground

pytestmark = pytest.mark.timeout(120)

NAT = "network create --subnet 10.20.0.0/24 --ipv6 --subnet fd20::/64"
LAN = "network create --driver flat --ipv6 -o parent=br0"
RATE = 2_500_000  # bytes a second: 20 Mbit/s
SHAPED_AT_ONCE = 64 << 10  # bytes: the bucket, and what is on its way
POLICED_AT_ONCE = RATE + (192 << 10)  # bytes: what the kernel lets through of a second, and the burst
SENT = 4 * RATE
IN, OUT = "ingress_rate=20mbit", "egress_rate=20mbit"


def seconds(ground: Ground, sender: str, receiver: str, address: str) -> float:
    """How long the transfer of `SENT` bytes takes, as its receiver sees it: from the first byte to the last."""
    with ground.station(receiver, "drain", "5001"):
        ((_, said),) = ground.at_once((sender, [*STATION, "pour", address, "5001", str(SENT)]))
    count, took = said.split()
    assert int(count) == SENT
    return float(took)


def kept(took: float, at_once: int) -> bool:
    """Whether a transfer kept to the rate, and had a good part of it."""
    least = (SENT - at_once) / RATE
    return least * 0.95 <= took <= 3 * least


def both_ways(ground: Ground, name: str, address: str, peer: str, at: str) -> tuple[float, float]:
    """The times to a container and from it."""
    return seconds(ground, peer, name, address), seconds(ground, name, peer, at)


@pytest.mark.parametrize("version", [4, 6])
@pytest.mark.parametrize(
    "create", [NAT, f"{LAN} -o bypass=never", f"{LAN} -o bypass=always"], ids=["nat", "flat", "flat-bypass"]
)
def test_what_is_received_and_sent_keeps_to_the_networks_rate(ground: Ground, create: str, version: int) -> None:
    """Between two containers, of which one was freed of the network's limits."""
    ground.berth(f"{create} -o {IN} -o {OUT} net")
    ground.sandbox("slow")
    ground.sandbox("peer")
    slow = ground.attach("net", "slow")[version == 6]
    peer = ground.attach("net", "peer", "--driver-opt ingress_rate=10gbit --driver-opt egress_rate=10gbit")[
        version == 6
    ]
    towards, back = both_ways(ground, "slow", slow, "peer", peer)
    assert kept(towards, SHAPED_AT_ONCE), towards
    assert kept(back, POLICED_AT_ONCE), back


def test_an_endpoints_own_rate_alone_limits_it_alone(ground: Ground) -> None:
    ground.berth(f"{NAT} net")
    slow = ground.container("net", "slow", f"--driver-opt {IN} --driver-opt {OUT}")
    free = ground.container("net", "free")
    host = "10.20.0.1"
    assert kept(seconds(ground, "host", "slow", slow), SHAPED_AT_ONCE)
    assert kept(seconds(ground, "slow", "host", host), POLICED_AT_ONCE)
    least = (SENT - POLICED_AT_ONCE) / RATE
    assert max(both_ways(ground, "free", free, "host", host)) < least / 2, "it has no limit"


def test_a_published_port_keeps_to_the_rate(ground: Ground) -> None:
    ground.berth(f"{NAT} net")
    ground.container("net", "slow", f"-p 5001:5001 --driver-opt {IN}")
    assert kept(seconds(ground, "laptop", "slow", HOST), SHAPED_AT_ONCE)


def test_rates_come_back_and_go_with_their_endpoint(ground: Ground) -> None:
    before = ground.sh("nft list ruleset")
    ground.berth(f"{NAT} net")
    ground.container("net", "slow", f"--driver-opt {IN} --driver-opt ingress_burst=100kb --driver-opt {OUT}")
    link = ground.told("endpoint ls")[0]["link"]
    look = f"nft list ruleset; tc qdisc show dev {link}"
    made = ground.sh(look)
    assert f"table netdev berth_rate_{link}" in made
    assert re.search(r"tbf .* rate 20Mbit burst (100Kb|10\d{4}b)", made), made
    assert "limit rate over" in made
    ground.sh(f"nft delete table netdev berth_rate_{link}; tc qdisc del dev {link} root")
    assert ground.sh(look) != made
    ground.berth("reconcile")
    assert _plain(ground.sh(look)) == _plain(made)
    ground.sh(f"nft flush table netdev berth_rate_{link}")
    ground.berth("reconcile")
    assert _plain(ground.sh(look)) == _plain(made)
    ground.berth("detach net slow")
    ground.berth("network rm net")
    assert ground.sh("nft list ruleset") == before


def test_rates_go_with_a_sandbox_that_is_gone(ground: Ground) -> None:
    ground.berth(f"{NAT} -o {OUT} net")
    ground.sh("ip netns add gone")
    ground.attach("net", "gone")
    assert "berth_rate_" in ground.sh("nft list ruleset")
    ground.sh("ip netns delete gone")
    ground.berth("reconcile")
    assert "berth_rate_" not in ground.sh("nft list ruleset")


def _plain(text: str) -> list[str]:
    """Without the numbers that the kernel gives queues, and in no order of tables."""
    return sorted(re.sub(r"qdisc tbf \w+:", "", text).splitlines())


@pytest.mark.parametrize(
    ("line", "complaint"),
    [
        (f"{NAT} -o ingress_rate=0 net", "rate '0' is out of range: give 8kbit to 100gbit"),
        (f"{NAT} -o egress_rate=-5mbit net", "'-5mbit' is no rate: write it as 10mbit"),
        (f"{NAT} -o egress_rate=1000tbit net", "is out of range"),
        (f"{NAT} -o egress_burst=64kb net", "give egress_rate too"),
        (f"{NAT} -o egress_rate=1mbit -o egress_burst=4gb net", "'4gb' is no size"),
        ("network create --driver null -o egress_rate=1mbit net", "only for bridge, flat and overlay"),
        ("attach net nobody --driver-opt ingress_rate=fast", "endpoint option ingress_rate: 'fast' is no rate"),
        ("attach net nobody --driver-opt rate=1mbit", "endpoint option 'rate' is not known"),
        ("attach net nobody --driver-opt gateway", "endpoint option 'gateway' lacks a name or a value"),
        ("attach net nobody --mac 02:00:00:00:00:01 --driver-opt mac=02:00:00:00:00:02", "contradict each other"),
    ],
)
def test_what_is_no_rate_is_refused(ground: Ground, line: str, complaint: str) -> None:
    assert complaint in ground.refused(line)


def test_options_of_one_endpoint(ground: Ground) -> None:
    """What Docker's --driver-opt says, `berth attach` heeds."""
    ground.berth(f"{NAT} -o routes=10.5.0.0/16=10.20.0.7 net")
    ground.sandbox("web")
    more = "gateway=false", "iface_prefix=lan", "mac=02:00:00:00:77:01", "routes=10.5.0.0/16=10.20.0.8"
    ep = ground.told("attach net web " + " ".join(f"--driver-opt {each}" for each in more))
    assert (ep["ifname"], ep["mac"]) == ("lan0", "02:00:00:00:77:01")
    assert ground.defaults("web") == []
    (route,) = ground.ip("web", "route", "show", "10.5.0.0/16")
    assert route["gateway"] == "10.20.0.8"
    ground.sandbox("db")
    assert "in none of the subnets" in ground.refused("attach net db --driver-opt routes=10.5.0.0/16=10.99.0.1")
    ground.berth("network create --driver null nothing")
    assert "leave --driver-opt out" in ground.refused("attach nothing db --driver-opt gateway=false")
