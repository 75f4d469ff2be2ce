"""Address choice, compared step by step with a plain set of numbers."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address, ip_network

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule, run_state_machine_as_test
from memory_ledger import MemoryLedger

from berth.errors import Exhausted, Invalid, Taken
from berth.ipam import check, default_subnet, give_back, reserve, take, ula_subnet
from berth.model import Address, Pool, Subnet

PRINTER = (("printer", ip_address("10.0.0.9")),)
OFFICE = Pool(ip_network("10.0.0.0/24"), None, ip_address("10.0.0.1"), PRINTER, (ip_address("10.0.0.7"),))
LOOKUPS = 4  # the most that one take may need: two to find a number, two for its neighbours


def maximal_runs(numbers: Iterable[int]) -> list[tuple[int, int]]:
    runs: list[tuple[int, int]] = []
    for number in sorted(numbers):
        if runs and runs[-1][1] == number - 1:
            runs[-1] = (runs[-1][0], number)
        else:
            runs.append((number, number))
    return runs


def prepared(pool: Pool) -> MemoryLedger:
    check(pool)
    ledger = MemoryLedger()
    reserve(pool, ledger)
    return ledger


@st.composite
def pools(draw: st.DrawFn) -> Pool:
    """Pools of all sizes, mostly small enough to run full, with any mix of range, gateway, aux and host addresses."""
    subnet: Subnet
    if draw(st.booleans()):
        length = draw(st.sampled_from([30, 30, 29, 29, 28, 28, 27, 26, 24, 16, 8]))
        subnet = ip_network((draw(st.sampled_from(["10.0.0.0", "100.64.8.0", "192.168.2.0"])), length), strict=False)
    else:
        length = draw(st.sampled_from([126, 126, 125, 125, 124, 124, 123, 120, 112, 96, 64]))
        subnet = ip_network((draw(st.sampled_from(["fd00:1:2:3::", "2001:db8::ff00"])), length), strict=False)
    ip_range = None
    if draw(st.booleans()):
        inside = subnet.network_address + draw(st.integers(0, subnet.num_addresses - 1))
        shorter = draw(st.sampled_from([subnet.prefixlen, subnet.prefixlen + 1, subnet.max_prefixlen - 3]))
        ip_range = ip_network((inside, max(shorter, subnet.prefixlen)), strict=False)
    hosts = st.integers(1, min(subnet.num_addresses - 2, 40)).map(lambda offset: subnet.network_address + offset)
    chosen = draw(st.lists(hosts, unique=True, max_size=4))
    has_gateway = draw(st.booleans())
    gateway = chosen.pop() if chosen and has_gateway else None
    aux = tuple((f"aux{index}", address) for index, address in enumerate(chosen[:2]))
    return Pool(subnet, ip_range=ip_range, gateway=gateway, aux=aux, reserved=tuple(chosen[2:]))


class Choosing(RuleBasedStateMachine):
    """A pool beside its model: the set of given numbers, and the number given last."""

    operations = 0
    refusals = 0  # for want of a free address

    @initialize(pool=pools())
    def start(self, pool: Pool) -> None:
        self.pool = pool
        self.ledger = prepared(pool)
        subnet = pool.subnet
        never = {subnet.network_address, *(address for _, address in pool.aux), *pool.reserved}
        if pool.gateway is not None:
            never.add(pool.gateway)
        if subnet.version == 4:
            never.add(subnet.broadcast_address)
        self.never = {int(address) for address in never}
        self.given: set[int] = set()
        self.last: int | None = None
        self.low, self.high = int(pool.span.network_address), int(pool.span.broadcast_address)

    def address(self, number: int) -> Address:
        return IPv4Address(number) if self.pool.subnet.version == 4 else IPv6Address(number)

    def expected(self) -> int | None:
        """The next free number, found by looking at one after the other."""
        after = self.low if self.last is None else self.last + 1
        for numbers in (range(after, self.high + 1), range(self.low, after)):
            for number in numbers:
                if number not in self.given and number not in self.never:
                    return number
        return None

    @rule(times=st.integers(1, 6))
    def take_next(self, times: int) -> None:
        for _ in range(times):
            Choosing.operations += 1
            expected = self.expected()
            if expected is None:
                Choosing.refusals += 1
                with pytest.raises(Exhausted):
                    take(self.pool, self.ledger, None)
                continue
            got = take(self.pool, self.ledger, None)
            assert got == self.address(expected)
            assert int(got) not in self.given | self.never
            self.given.add(int(got))
            self.last = int(got)

    @rule(offset=st.one_of(st.integers(0, 40), st.integers(-40, -1), st.integers(0, 2**64 - 1)))
    def take_wanted(self, offset: int) -> None:
        Choosing.operations += 1
        wanted = self.pool.subnet.network_address + offset % self.pool.subnet.num_addresses
        if int(wanted) in self.given | self.never:
            with pytest.raises(Taken, match=f"^{wanted} is "):
                take(self.pool, self.ledger, wanted)
            return
        assert take(self.pool, self.ledger, wanted) == wanted
        self.given.add(int(wanted))

    @rule(choice=st.integers(0, 10**6))
    def give_back_one(self, choice: int) -> None:
        if self.given:
            Choosing.operations += 1
            number = sorted(self.given)[choice % len(self.given)]
            give_back(self.pool, self.ledger, self.address(number))
            self.given.remove(number)

    @rule(offset=st.integers(-3, 40))
    def give_back_any(self, offset: int) -> None:
        """Also reserved ones, free ones and the neighbours of the subnet."""
        Choosing.operations += 1
        number = int(self.pool.subnet.network_address) + offset
        give_back(self.pool, self.ledger, self.address(number))
        self.given.discard(number)

    @rule()
    def reserve_again(self) -> None:
        reserve(self.pool, self.ledger)

    @invariant()
    def ledger_is_the_model(self) -> None:
        assert self.ledger.runs() == maximal_runs(self.given | self.never)
        assert self.ledger.last == self.last


def test_random_operations_agree_with_a_set() -> None:
    Choosing.operations = Choosing.refusals = 0
    effort = settings(max_examples=300, stateful_step_count=50, deadline=None, database=None)
    run_state_machine_as_test(Choosing, settings=effort)
    assert Choosing.operations >= 10_000
    assert Choosing.refusals >= 100


def test_first_addresses_skip_what_is_reserved() -> None:
    ledger = prepared(OFFICE)
    picks = [str(take(OFFICE, ledger, None)).removeprefix("10.0.0.") for _ in range(7)]
    assert picks == ["2", "3", "4", "5", "6", "8", "10"]


def test_ipv6_gives_the_last_address_but_not_the_first() -> None:
    pool = Pool(ip_network("fd00::/126"))
    ledger = prepared(pool)
    assert [str(take(pool, ledger, None)) for _ in range(3)] == ["fd00::1", "fd00::2", "fd00::3"]


def test_router_outside_the_subnet_takes_no_room() -> None:
    ledger = MemoryLedger()
    reserve(Pool(ip_network("fd00::/64"), gateway=ip_address("fe80::1")), ledger)
    assert ledger.runs() == [(0xFD00 << 112, 0xFD00 << 112)]


def test_freed_address_rests_until_the_search_has_come_round() -> None:
    pool = Pool(ip_network("10.0.0.0/29"), gateway=ip_address("10.0.0.1"))
    ledger = prepared(pool)
    first, second = take(pool, ledger, None), take(pool, ledger, None)
    give_back(pool, ledger, second)
    give_back(pool, ledger, first)
    picks = [str(take(pool, ledger, None)) for _ in range(5)]
    assert picks == ["10.0.0.4", "10.0.0.5", "10.0.0.6", "10.0.0.2", "10.0.0.3"]


def test_wanted_address_may_lie_outside_the_range_and_does_not_move_the_search() -> None:
    pool = Pool(ip_network("10.0.0.0/24"), ip_range=ip_network("10.0.0.128/25"))
    ledger = prepared(pool)
    assert take(pool, ledger, ip_address("10.0.0.5")) == ip_address("10.0.0.5")
    assert take(pool, ledger, ip_address("10.0.0.200")) == ip_address("10.0.0.200")
    assert take(pool, ledger, None) == ip_address("10.0.0.128")


def test_search_starts_over_when_the_last_address_is_outside_the_range() -> None:
    pool = Pool(ip_network("10.0.0.0/24"), ip_range=ip_network("10.0.0.64/26"))
    for last in ("10.0.0.5", "10.0.0.127", "10.0.0.200"):
        ledger = prepared(pool)
        ledger.last = int(ip_address(last))
        assert take(pool, ledger, None) == ip_address("10.0.0.64")


@pytest.mark.parametrize(
    ("wanted", "reason"),
    [
        ("10.0.0.1", "the gateway of 10.0.0.0/24"),
        ("10.0.0.0", "the network address of 10.0.0.0/24"),
        ("10.0.0.255", "the broadcast address of 10.0.0.0/24"),
        ("10.0.0.9", "aux-address 'printer'"),
        ("10.0.0.7", "the host's own address"),
        ("10.0.0.42", "already given"),
        ("fd00::", "the subnet-router anycast address of fd00::/64"),
        ("fd00::1", "the gateway of fd00::/64"),
    ],
)
def test_taken_says_by_what(wanted: str, reason: str) -> None:
    pool = OFFICE if "." in wanted else Pool(ip_network("fd00::/64"), gateway=ip_address("fd00::1"))
    ledger = prepared(pool)
    if wanted == "10.0.0.42":
        take(pool, ledger, ip_address(wanted))
    before = ledger.runs()
    with pytest.raises(Taken) as refusal:
        take(pool, ledger, ip_address(wanted))
    assert wanted in str(refusal.value) and reason in str(refusal.value)
    assert ledger.runs() == before


@pytest.mark.parametrize("wanted", ["10.0.1.0", "9.255.255.255", "::a00:5", "fd00::1"])
def test_wanted_outside_the_subnet_is_invalid(wanted: str) -> None:
    """Also an IPv6 address of the same number as an IPv4 address of the pool."""
    pool = Pool(ip_network("10.0.0.0/24"))
    ledger = prepared(pool)
    with pytest.raises(Invalid, match=r"not in subnet 10\.0\.0\.0/24"):
        take(pool, ledger, ip_address(wanted))


def test_exhausted_names_pool_range_and_size() -> None:
    pool = Pool(ip_network("10.0.0.0/24"), ip_range=ip_network("10.0.0.64/30"))
    ledger = prepared(pool)
    for _ in range(4):
        take(pool, ledger, None)
    with pytest.raises(Exhausted, match=r"pool 10\.0\.0\.0/24 .* all 4 addresses of its range 10\.0\.0\.64/30"):
        take(pool, ledger, None)
    assert take(pool, ledger, ip_address("10.0.0.9")) == ip_address("10.0.0.9")


def test_giving_back_splits_and_taking_joins_the_run() -> None:
    pool = Pool(ip_network("10.0.0.0/24"))
    ledger = prepared(pool)
    base = int(ip_address("10.0.0.0"))
    for _ in range(5):
        take(pool, ledger, None)
    assert ledger.runs() == [(base, base + 5), (base + 255, base + 255)]
    give_back(pool, ledger, ip_address("10.0.0.3"))
    assert ledger.runs() == [(base, base + 2), (base + 4, base + 5), (base + 255, base + 255)]
    take(pool, ledger, ip_address("10.0.0.3"))
    assert ledger.runs() == [(base, base + 5), (base + 255, base + 255)]


@pytest.mark.parametrize(
    "address", ["10.0.0.0", "10.0.0.1", "10.0.0.9", "10.0.0.7", "10.0.0.255", "10.0.0.50", "::a00:5"]
)
def test_giving_back_leaves_reserved_free_and_foreign_ones_alone(address: str) -> None:
    ledger = prepared(OFFICE)
    take(OFFICE, ledger, ip_address("10.0.0.5"))
    before = ledger.runs()
    give_back(OFFICE, ledger, ip_address(address))
    assert ledger.runs() == before


def scattered(pool: Pool) -> MemoryLedger:
    """100,000 taken addresses, no two of them neighbours: the most runs there can be."""
    ledger = prepared(pool)
    start = int(pool.subnet.network_address) + 10
    for number in range(start, start + 200_000, 2):
        ledger.add(number, number)
    return ledger


def cost(ledger: MemoryLedger, pool: Pool, wanted: Address | None) -> int:
    before = ledger.lookups
    take(pool, ledger, wanted)
    return ledger.lookups - before


@pytest.mark.parametrize("subnet", ["10.0.0.0/8", "fd00::/64"])
def test_take_needs_few_lookups_among_many_scattered(subnet: str) -> None:
    pool = Pool(ip_network(subnet), gateway=ip_network(subnet)[1])
    ledger = scattered(pool)
    base = pool.subnet.network_address
    automatic = [cost(ledger, pool, None) for _ in range(500)]
    wanted = [cost(ledger, pool, base + 100_011 + index * 2) for index in range(500)]
    assert max(*automatic, *wanted) <= LOOKUPS


@pytest.mark.parametrize("subnet", ["10.0.0.0/8", "fd00::/64"])
def test_take_needs_few_lookups_between_runs_and_at_the_wrap(subnet: str) -> None:
    pool = Pool(ip_network(subnet))
    ledger = prepared(pool)
    base, top = int(pool.subnet.network_address), int(pool.subnet.broadcast_address)
    ledger.add(base + 2, base + 100_000)
    if ledger.covering(top) is None:
        ledger.add(top, top)
    for last in (base, top - 1):
        ledger.last = last
        assert cost(ledger, pool, None) <= LOOKUPS
    assert ledger.runs() == [(base, base + 100_001), (top, top)]


GOOD = Pool(ip_network("10.0.0.0/24"), ip_network("10.0.0.128/25"), ip_address("10.0.0.1"))
TWINS = (("a", ip_address("10.0.0.9")), ("b", ip_address("10.0.0.9")))
GOOD6 = Pool(ip_network("fd00::/64"), ip_network("fd00::8000/113"), ip_address("fd00::1"))


@pytest.mark.parametrize(
    "pool",
    [
        GOOD,
        GOOD6,
        Pool(ip_network("10.0.0.0/30")),
        Pool(ip_network("fd00::/126"), gateway=ip_address("fd00::3")),  # IPv6 has no broadcast address
        replace(GOOD, ip_range=GOOD.subnet),
        replace(GOOD, aux=(("a", ip_address("10.0.0.2")), ("b", ip_address("10.0.0.3")))),
        Pool(ip_network("2001:db8::/32")),
    ],
)
def test_check_passes(pool: Pool) -> None:
    check(pool)


@pytest.mark.parametrize(
    ("pool", "message"),
    [
        (replace(GOOD, gateway=ip_address("10.0.1.1")), "gateway 10.0.1.1 is not in subnet 10.0.0.0/24"),
        (replace(GOOD, gateway=ip_address("fd00::1")), "gateway fd00::1 is not in subnet"),
        (replace(GOOD, gateway=ip_address("10.0.0.0")), "gateway 10.0.0.0 is the network address"),
        (replace(GOOD, gateway=ip_address("10.0.0.255")), "gateway 10.0.0.255 is the broadcast address"),
        (replace(GOOD6, gateway=ip_address("fd00::")), "gateway fd00:: is the subnet-router anycast address"),
        (replace(GOOD, ip_range=ip_network("10.0.1.0/25")), "ip-range 10.0.1.0/25 is not inside subnet"),
        (replace(GOOD, ip_range=ip_network("10.0.0.0/23")), "ip-range 10.0.0.0/23 is not inside subnet"),
        (replace(GOOD, ip_range=ip_network("fd00::/120")), "ip-range fd00::/120 is IPv6 but subnet 10.0.0.0/24"),
        (replace(GOOD6, ip_range=ip_network("10.0.0.0/24")), "ip-range 10.0.0.0/24 is IPv4 but subnet fd00::/64"),
        (replace(GOOD, aux=(("nas", ip_address("10.1.0.9")),)), "aux-address 'nas'=10.1.0.9 is not in subnet"),
        (replace(GOOD, aux=(("nas", ip_address("10.0.0.1")),)), "aux-address 'nas'=10.0.0.1 is the gateway"),
        (replace(GOOD, aux=TWINS), "aux-addresses 'a' and 'b' are both 10.0.0.9"),
        (Pool(ip_network("10.0.0.0/31")), "subnet 10.0.0.0/31 is too small"),
        (Pool(ip_network("fd00::/127")), "subnet fd00::/127 is too small"),
        (Pool(ip_network("224.1.0.0/16")), "holds multicast addresses"),
        (Pool(ip_network("192.0.0.0/2")), "holds multicast addresses"),
        (Pool(ip_network("ff02::/64")), "holds multicast addresses"),
        (Pool(ip_network("127.0.0.0/24")), "holds loopback addresses"),
        (Pool(ip_network("::/64")), "holds unspecified addresses"),
        (Pool(ip_network("::1/128")), "holds loopback addresses"),
        (Pool(ip_network("0.0.0.0/24")), "holds unspecified addresses"),
        (Pool(ip_network("0.0.0.0/0")), "holds unspecified addresses"),
        (Pool(ip_network("240.0.0.0/4")), "holds limited broadcast addresses"),
        (Pool(ip_network("169.254.7.0/24")), "holds link-local addresses"),
    ],
)
def test_check_refuses(pool: Pool, message: str) -> None:
    with pytest.raises(Invalid) as refusal:
        check(pool)
    assert message in str(refusal.value)
    assert "\n" not in str(refusal.value)


def test_default_subnets_come_in_dockers_order_until_none_is_left() -> None:
    occupied: list[Subnet] = []
    docker = [f"172.{n}.0.0/16" for n in range(17, 32)] + [f"192.168.{n}.0/20" for n in range(0, 256, 16)]
    for expected in docker:
        assert str(default_subnet(occupied)) == expected
        occupied.append(ip_network(expected))
    with pytest.raises(Exhausted, match="31 default pools"):
        default_subnet(occupied)


@pytest.mark.parametrize(
    ("occupied", "expected"),
    [
        (["172.17.5.0/24"], "172.18.0.0/16"),  # a part of it is in use
        (["172.16.0.0/12"], "192.168.0.0/20"),  # a route covers all of the first ones
        (["172.16.0.0/12", "192.168.2.0/24"], "192.168.16.0/20"),
        (["0.0.0.0/0", "::/0"], "172.17.0.0/16"),
        (["0.0.0.0/1", "128.0.0.0/1"], "172.17.0.0/16"),  # what a VPN adds to outdo the default route
        (["128.0.0.0/2"], "192.168.0.0/20"),
        (["fd00::/64"], "172.17.0.0/16"),
    ],
)
def test_default_subnet_overlaps_nothing(occupied: list[str], expected: str) -> None:
    assert default_subnet(map(ip_network, occupied)) == IPv4Network(expected)


def test_ula_subnet_is_of_rfc_4193_and_follows_the_seed() -> None:
    assert ula_subnet("lan") == IPv6Network("fd09:4a36:7b02::/64")  # printf lan | sha256sum: 094a367b02…
    seen = {ula_subnet(f"network {index}") for index in range(1000)}
    assert len(seen) == 1000
    for subnet in seen:
        assert subnet.prefixlen == 64
        assert subnet.subnet_of(IPv6Network("fd00::/8"))
        assert int(subnet.network_address) >> 64 & 0xFFFF == 0  # subnet ID
