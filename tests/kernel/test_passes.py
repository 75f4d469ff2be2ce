"""Ways through Docker's chain: there where the chain is, gone with the network, and nobody else's rules touched."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from berth import spec, wire
from berth.engine.engine import Engine
from berth.kernel.linux import LinuxKernel
from berth.plan import Add, Del, Plan
from berth.state import NftPass

from .conftest import Host, sh

TOOLS = {"ip": "iptables", "ip6": "ip6tables"}


@pytest.fixture
def engine(host: Host, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Engine]:
    monkeypatch.setenv("BERTH_STATE", str(tmp_path))
    engine = wire.engine()
    yield engine
    engine.close()


@pytest.fixture(params=sorted(TOOLS))
def family(request: pytest.FixtureRequest) -> str:
    return str(request.param)


def docker(*families: str) -> None:
    """Make Docker's chains as dockerd does, by the real iptables, with a rule of the operator's."""
    for family in families:
        tool = TOOLS[family]
        sh(f"{tool} -N DOCKER-USER; {tool} -I FORWARD -j DOCKER-USER; {tool} -P FORWARD DROP")
        sh(f"{tool} -A DOCKER-USER -i other0 -j DROP; {tool} -A DOCKER-USER -j RETURN")


THEIRS = ["-N DOCKER-USER", "-A DOCKER-USER -i other0 -j DROP", "-A DOCKER-USER -j RETURN"]


def rules(family: str) -> list[str]:
    """What iptables shows of the chain, in its order."""
    return sh(f"{TOOLS[family]} -S DOCKER-USER").splitlines()


def ours(bridge: str) -> list[str]:
    return sorted(f"-A DOCKER-USER {rule(bridge, direction)}" for direction in ("in", "out"))


def rule(bridge: str, direction: str) -> str:
    return f'-{direction[0]} {bridge} -m comment --comment "berth:{direction} {bridge}" -j ACCEPT'


def create(engine: Engine, name: str = "nat", *subnets: str) -> str:
    asked = spec.network_spec(name=name, subnets=subnets or ("10.77.0.0/24", "fd77::/64"))
    return engine.create_network(asked).value.bridge


def test_without_the_chain_nothing_is_written(host: Host, engine: Engine) -> None:
    sh("nft add table ip filter; nft add chain ip filter FORWARD")
    bridge = create(engine)
    assert "DOCKER-USER" not in sh("nft list ruleset") and bridge not in sh("nft list table ip filter")
    assert not engine.reconcile().plan and not engine.refresh()
    engine.remove_network("nat")
    assert sh("nft list tables").split() == ["table", "ip", "filter"]


def test_without_the_chain_the_way_is_there(host: Host, family: str) -> None:
    way = NftPass(family, "br7", "in")
    assert {found.key for found in host.read(way)} == {way.key}
    docker(*(other for other in TOOLS if other != family))
    assert {found.key for found in host.read(way)} == {way.key}
    docker(family)
    assert host.read(way) == frozenset()


def test_a_network_gets_its_rules_and_takes_them_away(engine: Engine, family: str) -> None:
    docker("ip", "ip6")
    bridge = create(engine)
    seen = rules(family)
    assert seen[0] == THEIRS[0] and sorted(seen[1:3]) == ours(bridge) and seen[3:] == THEIRS[1:]
    assert not engine.reconcile().plan and not engine.refresh()
    engine.remove_network("nat")
    assert rules(family) == THEIRS


def test_each_network_has_its_own(engine: Engine) -> None:
    docker("ip", "ip6")
    one, two = create(engine, "one", "10.77.0.0/24"), create(engine, "two", "10.78.0.0/24")
    assert sorted(rules("ip")) == sorted([*THEIRS, *ours(one), *ours(two)])
    assert rules("ip6") == THEIRS
    engine.remove_network("one")
    assert sorted(rules("ip")) == sorted([*THEIRS, *ours(two)])


def test_refresh_adds_them_when_the_chain_comes(engine: Engine, family: str) -> None:
    bridge = create(engine)
    docker("ip", "ip6")
    assert len(engine.refresh().ops) == 4
    assert sorted(rules(family)) == sorted([*THEIRS, *ours(bridge)])
    assert not engine.refresh()


def test_refresh_adds_them_after_a_flush(engine: Engine, family: str) -> None:
    docker("ip", "ip6")
    bridge = create(engine)
    sh(f"{TOOLS[family]} -F DOCKER-USER")
    assert len(engine.refresh().ops) == 2
    assert sorted(rules(family)[1:]) == ours(bridge)


def test_refresh_adds_the_one_that_is_missing(engine: Engine) -> None:
    docker("ip", "ip6")
    bridge = create(engine)
    sh(f"iptables -D DOCKER-USER {rule(bridge, 'in')}")
    assert len(engine.refresh().ops) == 1
    assert sorted(rules("ip")) == sorted([*THEIRS, *ours(bridge)])


def test_removing_when_the_chain_is_gone(engine: Engine) -> None:
    docker("ip", "ip6")
    create(engine)
    sh("iptables -F; iptables -X DOCKER-USER; nft delete table ip6 filter")
    engine.remove_network("nat")
    assert engine.networks() == []


def test_a_rule_of_somebody_elses_for_the_same_bridge_stays(engine: Engine) -> None:
    docker("ip", "ip6")
    bridge = create(engine)
    sh(f"iptables -A DOCKER-USER -i {bridge} -j ACCEPT; iptables -A DOCKER-USER -o {bridge} -j DROP")
    engine.remove_network("nat")
    assert rules("ip") == [*THEIRS, f"-A DOCKER-USER -i {bridge} -j ACCEPT", f"-A DOCKER-USER -o {bridge} -j DROP"]


@pytest.mark.parametrize("direction", NftPass.directions)
def test_what_the_plan_prints_removes_the_rule(host: Host, family: str, direction: str) -> None:
    docker(family)
    way = NftPass(family, "br7", direction)
    host.send(Add(way))
    sh(way.describe_removal())
    assert rules(family) == THEIRS
    sh(way.describe())
    assert host.read(way) == {way}


def test_a_rule_that_is_there_twice_goes_whole(host: Host, family: str) -> None:
    docker(family)
    way = NftPass(family, "br7", "out")
    kernel = LinuxKernel()
    kernel.send(Plan((Add(way), Add(way))))
    assert host.read(way) == {way}
    kernel.send(Plan((Del(way),)))
    assert rules(family) == THEIRS and host.read(way) == frozenset()
    kernel.send(Plan((Del(way),)))


def test_rules_of_a_network_that_is_gone_are_removed(host: Host, engine: Engine, family: str) -> None:
    docker("ip", "ip6")
    host.send(Add(NftPass(family, "brt00000000", "in")))
    bridge = create(engine)
    assert len(engine.reconcile().plan.ops) == 1
    assert sorted(rules(family)) == sorted([*THEIRS, *ours(bridge)])


def test_iptables_can_save_and_restore_them(engine: Engine, family: str) -> None:
    docker("ip", "ip6")
    bridge = create(engine)
    tool = TOOLS[family]
    sh(f"{tool}-save > /run/saved; {tool}-restore < /run/saved")
    assert sorted(rules(family)) == sorted([*THEIRS, *ours(bridge)])
    assert not engine.refresh()
    engine.remove_network("nat")
    assert rules(family) == THEIRS


def test_packets_get_through(host: Host, engine: Engine) -> None:
    """From one network of the host's to another sandbox behind it, which the policy DROP would stop."""
    docker("ip", "ip6")
    bridge = create(engine)
    host.batch(
        "netns add c1\nnetns add far\n"
        "link add up0 type veth peer name eth0 netns far\nlink set up0 up\naddr add 192.0.2.1/24 dev up0\n"
    )
    host.batch("link set eth0 up\naddr add 192.0.2.2/24 dev eth0\n", ns="/run/netns/far")
    engine.attach(spec.attach_request(network="nat", sandbox="c1"))
    ping = "ip netns exec c1 ping -c 1 -W 2 192.0.2.2"
    sh(ping)
    sh(f"iptables -D DOCKER-USER {rule(bridge, 'in')}")
    with pytest.raises(AssertionError):
        sh(ping)
    engine.refresh()
    sh(ping)


# --- FORWARD itself, where there is no Docker -----------------------------------------------------------

STOPS = {
    "policy": "{tool} -P FORWARD DROP; {tool} -A FORWARD -i other0 -j ACCEPT",
    "drop-all": "{tool} -A FORWARD -i other0 -j ACCEPT; {tool} -A FORWARD -j DROP",
    "reject-all": "{tool} -A FORWARD -i other0 -j ACCEPT; {tool} -A FORWARD -j REJECT",
}
LETS_THROUGH = {
    "nothing": "{tool} -N OTHER",
    "accept": "{tool} -A FORWARD -i other0 -j DROP; {tool} -A FORWARD -j ACCEPT",
    "drop-some": "{tool} -A FORWARD -i other0 -j DROP",
    "no-base-chain": "nft add table {family} filter; nft add chain {family} filter FORWARD;"
    " nft add rule {family} filter FORWARD counter drop",
}


def forward(family: str) -> list[str]:
    return sh(f"{TOOLS[family]} -S FORWARD").splitlines()


@pytest.mark.parametrize("stop", STOPS.values(), ids=STOPS)
def test_a_forward_chain_that_stops_all_gets_the_rules_first(engine: Engine, family: str, stop: str) -> None:
    sh(stop.format(tool=TOOLS[family]))
    before = forward(family)
    bridge = create(engine)
    seen = [line.replace("FORWARD", "DOCKER-USER", 1) for line in forward(family)]
    assert sorted(seen[1:3]) == ours(bridge) and forward(family)[3:] == before[1:]
    assert not engine.reconcile().plan and not engine.refresh()
    engine.remove_network("nat")
    assert forward(family) == before


@pytest.mark.parametrize("harmless", LETS_THROUGH.values(), ids=LETS_THROUGH)
def test_a_forward_chain_that_stops_nobody_is_left_alone(engine: Engine, family: str, harmless: str) -> None:
    sh(harmless.format(tool=TOOLS[family], family=family))
    before = sh(f"nft list table {family} filter")
    bridge = create(engine)
    assert sh(f"nft list table {family} filter") == before
    assert bridge not in before and not engine.refresh()


def test_with_dockers_chain_forward_is_left_alone(engine: Engine, family: str) -> None:
    docker("ip", "ip6")
    before = forward(family)
    create(engine)
    assert forward(family) == before


def test_a_script_of_the_operators_that_starts_anew_is_followed(engine: Engine, family: str) -> None:
    tool = TOOLS[family]
    script = f"{tool} -F; {tool} -P FORWARD DROP; {tool} -A FORWARD -i other0 -j ACCEPT"
    sh(script)
    before = forward(family)
    bridge = create(engine)
    sh(script)
    assert forward(family) == before
    assert len(engine.heal().ops) == 2
    engine.remove_network("nat")
    assert forward(family) == before and bridge not in sh("nft list ruleset")


@pytest.mark.parametrize("direction", NftPass.directions)
def test_what_the_plan_prints_for_forward_removes_the_rule(host: Host, family: str, direction: str) -> None:
    sh(STOPS["policy"].format(tool=TOOLS[family]))
    before, way = forward(family), NftPass(family, "br7", direction, "FORWARD")
    sh(way.describe())
    assert host.read(way) == {way}
    sh(way.describe_removal())
    assert forward(family) == before


@pytest.mark.parametrize("stop", STOPS.values(), ids=STOPS)
def test_packets_get_through_forward(host: Host, engine: Engine, stop: str) -> None:
    """Both ways and both families: out of the container, and answers into it."""
    for tool in TOOLS.values():
        sh(stop.format(tool=tool))
    host.batch(
        "netns add c1\nnetns add far\n"
        "link add up0 type veth peer name eth0 netns far\nlink set up0 up\n"
        "addr add 192.0.2.1/24 dev up0\naddr add 2001:db8::1/64 dev up0 nodad\n"
    )
    far = "link set eth0 up\naddr add 192.0.2.2/24 dev eth0\naddr add 2001:db8::2/64 dev eth0 nodad\n"
    host.batch(far, ns="/run/netns/far")
    create(engine)
    engine.attach(spec.attach_request(network="nat", sandbox="c1"))
    for address in ("192.0.2.2", "2001:db8::2"):
        sh(f"ip netns exec c1 ping -c 1 -W 5 {address}")
    sh("iptables -F; ip6tables -F; iptables -P FORWARD DROP; ip6tables -P FORWARD DROP")
    with pytest.raises(AssertionError):
        sh("ip netns exec c1 ping -c 1 -W 1 192.0.2.2")
    engine.heal()
    for address in ("192.0.2.2", "2001:db8::2"):
        sh(f"ip netns exec c1 ping -c 1 -W 5 {address}")
