"""What still holds of router advertisements, and the address that is made of it."""

from __future__ import annotations

from dataclasses import replace
from ipaddress import IPv6Address, IPv6Network
from math import inf

import pytest

from berth.errors import Refused
from berth.lan.advertised import FOREVER, Link, complete, hear, make, remember
from berth.lan.dhcp6.asking import Information
from berth.lan.slaac import Advertised, Prefix
from berth.model import LeaseRequest

ONE, TWO, THREE = (IPv6Network(f"2001:db8:{number}::/64") for number in (1, 2, 3))
OWN = IPv6Network("fd00:2::/64")
FIRST, SECOND = IPv6Address("fe80::1"), IPv6Address("fe80::2")
DNS = IPv6Address("fd00:2::53")
WEB = LeaseRequest("key", "br0", "02:00:00:00:00:01", b"\xffweb", version=6, auto=True)


def prefix(subnet: IPv6Network = ONE, valid: int = 86400, preferred: int = 3600, *, autonomous: bool = True) -> Prefix:
    return Prefix(subnet, True, autonomous, preferred, valid)


def said(*prefixes: Prefix, router: IPv6Address = FIRST, lifetime: int = 1800) -> Advertised:
    return Advertised(router, lifetime, False, False, prefixes)


def test_the_address_is_of_the_identity_and_not_of_the_mac() -> None:
    link = hear(Link(), said(prefix()), 0)
    lease = make(WEB, link, None, 0, 0, 1000.0)
    assert lease.address.ip in ONE
    assert (lease.lifetime, lease.acquired, lease.slaac, lease.server) == (86400, 1000.0, True, FIRST.packed)
    assert make(replace(WEB, mac="02:00:00:00:00:02"), link, None, 0, 0, 0).address == lease.address
    assert make(replace(WEB, client_id=b"\xffdb"), link, None, 0, 0, 0).address != lease.address
    assert make(WEB, link, None, 1, 0, 0).address != lease.address  # somebody else had the first one


def test_a_wish_is_met_in_an_advertised_prefix_alone() -> None:
    link = hear(Link(), said(prefix()), 0)
    near, far = ONE[77], TWO[77]
    assert make(replace(WEB, wanted=near), link, None, 0, 0, 0).address.ip == near
    assert make(replace(WEB, wanted=near), link, None, 1, 0, 0).address.ip != near
    assert make(replace(WEB, wanted=far), link, None, 0, 0, 0).address.ip in ONE
    assert make(replace(WEB, wanted=near), link, ONE[88], 0, 0, 0).address.ip == ONE[88]


@pytest.mark.parametrize(
    "useless",
    [
        prefix(autonomous=False),
        prefix(IPv6Network("2001:db8::/48")),
        prefix(IPv6Network("fe80::/64")),
        prefix(valid=10, preferred=20),
        prefix(valid=0, preferred=0),
    ],
)
def test_of_some_prefixes_no_address_is_made(useless: Prefix) -> None:
    with pytest.raises(Refused, match="no router on br0 advertises a prefix"):
        make(WEB, hear(Link(), said(useless), 0), None, 0, 0, 0)


def test_which_prefix() -> None:
    link = hear(Link(), said(prefix(OWN), prefix(ONE), prefix(TWO, preferred=0)), 0)

    def chosen(*favoured: IPv6Network, has: IPv6Address | None = None) -> IPv6Network | None:
        found = link.prefix(0, favoured, has)
        return None if found is None else found.subnet

    assert chosen() == ONE  # which leads to the internet
    assert chosen(OWN) == OWN  # the network's own
    assert chosen(has=OWN[5]) == OWN  # nobody moves without need
    assert chosen(TWO, has=TWO[5]) == ONE  # from a deprecated one they do
    assert hear(Link(), said(prefix(TWO, preferred=0)), 0).prefix(0) is not None


def test_prefixes_and_routers_end() -> None:
    link = hear(Link(), said(prefix(valid=20_000, preferred=100), lifetime=50), 0)
    assert [link.next(now) for now in (0, 50, 100, 20_000)] == [50, 100, 20_000, inf]
    assert link.best(49) is not None and link.best(50) is None
    assert link.prefix(19_999) is not None and link.prefix(20_000) is None
    for_ever = hear(Link(), said(prefix(valid=FOREVER, preferred=FOREVER)), 0)
    assert make(WEB, for_ever, None, 0, 10.0**9, 0).lifetime == FOREVER


def test_one_advertisement_does_not_end_a_prefix() -> None:
    """RFC 4862 section 5.5.3 (e): it may be forged."""
    link = hear(Link(), said(prefix(valid=86400)), 0)
    assert hear(link, said(prefix(valid=0, preferred=0)), 10).prefixes[0].valid == 7210
    assert hear(link, said(prefix(valid=8000)), 10).prefixes[0].valid == 8010
    short = hear(Link(), said(prefix(valid=100, preferred=50)), 0)
    assert hear(short, said(prefix(valid=1, preferred=1)), 10).prefixes[0].valid == 100
    assert hear(short, said(prefix(valid=200, preferred=50)), 10).prefixes[0].valid == 210
    assert hear(link, said(prefix(valid=0, preferred=0)), 10).prefixes[0].preferred == 10  # but deprecate it


def test_which_router_and_what_else_is_said() -> None:
    link = hear(Link(), replace(said(prefix()), mtu=1400, dns=(DNS, FIRST), dns_lifetime=60, search=("a",)), 0)
    link = hear(link, said(router=SECOND), 1)
    lease = make(WEB, link, None, 0, 1, 0)
    whole = complete(lease, link, None, 1)
    assert (whole.router, whole.mtu, whole.dns, whole.search) == (FIRST, 1400, (DNS,), ("a",))
    assert complete(lease, link, None, 61).dns == ()
    told = Information((SECOND,), ("b",), (DNS,))
    assert complete(lease, link, told, 1).dns == (SECOND, DNS)
    better = hear(link, replace(said(router=SECOND), preference=1), 2)
    assert complete(lease, better, None, 2).router == SECOND
    off = hear(link, said(lifetime=0), 2)
    assert complete(lease, off, None, 2).router == SECOND
    assert complete(lease, hear(off, said(router=SECOND, lifetime=0), 3), None, 3).router is None


def test_a_flood_of_routers_and_prefixes_takes_no_room() -> None:
    link = hear(Link(), said(prefix()), 0)
    for number in range(1000):
        other = IPv6Network((0x2002 << 112 | number << 64, 64))
        link = hear(link, said(prefix(other), router=IPv6Address((0xFE80 << 112) + 7 + number)), 1)
    assert (len(link.routers), len(link.prefixes)) == (16, 16)
    best, shared = link.best(1), link.prefix(1, (ONE,))
    assert best is not None and best.said.router == FIRST
    assert shared is not None and shared.subnet == ONE


def test_what_an_earlier_process_knew() -> None:
    link = hear(Link(), replace(said(prefix(valid=1000, preferred=1000)), dns=(DNS,), dns_lifetime=60), 0)
    lease = complete(make(WEB, link, None, 0, 0, 5000.0), link, None, 0)
    heir = remember(Link(), lease, 70.0, 5400.0)  # 400 s later, by a clock of another boot
    assert complete(make(WEB, heir, lease.address.ip, 0, 70.0, 5400.0), heir, None, 70.0) == replace(
        lease, acquired=5400.0, lifetime=600
    )
    assert heir.prefix(669.9) is not None and heir.prefix(670) is None
    assert remember(Link(), lease, 70.0, 9000.0).prefix(70.0) is None  # it is over
    assert remember(link, lease, 0, 9000.0) == link  # routers have spoken since
