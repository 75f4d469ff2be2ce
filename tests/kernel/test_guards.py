"""Endpoints' guards: put back when they are lost, cheap to make, bounded in what they remember, and refused where
the kernel has none."""

from __future__ import annotations

import json
import socket
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from berth import spec, wire
from berth.engine.engine import Engine
from berth.errors import Denied, Invalid, Unsupported
from berth.guarded import ROOM, NftGuard
from berth.kernel import guards, nft
from berth.kernel.netns import inside
from berth.plan import Add, Plan
from berth.state import LinkUp, Veth

from .conftest import C1, Host, sh

TABLE = "netdev $(nft list tables netdev | grep -o 'berth_allow_.*')"
#: What somebody does; all of it is undone.
DAMAGE = {
    "everything": "nft flush ruleset",
    "table": f"nft delete table {TABLE}",
    "table-flushed": f"nft flush table {TABLE}",
    "to-flushed": f"nft flush chain {TABLE} to",
    "from-flushed": f"nft flush chain {TABLE} from",
    "to-deleted": f"t='{TABLE}'; t=$(eval echo $t); nft \"flush chain $t to; delete chain $t to\"",
    "rule-more": f"nft insert rule {TABLE} to accept",
}


@pytest.fixture
def engine(host: Host, tmp_path: Path) -> Iterator[Engine]:
    """A NAT network with an allow list, and a container on it."""
    host.sandbox("c1")
    engine = wire.engine(f"sqlite:{tmp_path}/berth.db")
    options = ["allow=tcp/80,udp/53@10.77.0.0/24"]
    engine.create_network(spec.network_spec(name="nat", subnets=["10.77.0.0/24", "fd77::/64"], options=options))
    engine.attach(spec.attach_request(network="nat", sandbox="c1"))
    yield engine
    engine.close()


def ruleset() -> str:
    return sh("nft -s list ruleset")


@pytest.mark.parametrize("how", ["heal", "reconcile"])
@pytest.mark.parametrize("damage", DAMAGE.values(), ids=DAMAGE)
def test_it_is_put_back_and_there_is_nothing_more_to_do(engine: Engine, damage: str, how: str) -> None:
    before = ruleset()
    sh(damage)
    assert ruleset() != before
    assert engine.heal() if how == "heal" else engine.reconcile().plan
    assert ruleset() == before
    assert not engine.heal() and not engine.reconcile().plan


def test_a_guard_stands_before_its_endpoint_is_up(engine: Engine, host: Host) -> None:
    host.sandbox("c2")
    outcome = engine.attach(spec.attach_request(network="nat", sandbox="c2"), dry_run=True)
    made = [op.new for op in outcome.plan.ops if isinstance(op, Add)]
    kinds = [type(obj) for obj in made]
    guard = kinds.index(NftGuard)
    assert kinds.index(Veth) < guard < kinds.index(LinkUp)
    assert all(not isinstance(obj, LinkUp) for obj in made[:guard])


def test_an_attach_with_a_list_starts_no_process(engine: Engine, host: Host, monkeypatch: pytest.MonkeyPatch) -> None:
    host.sandbox("c2")
    monkeypatch.setattr("subprocess.Popen", lambda *_, **__: pytest.fail("a process"))
    engine.attach(spec.attach_request(network="nat", sandbox="c2"))


def test_what_it_remembers_is_bounded_and_nobody_elses_is_forgotten(stage: Host) -> None:
    """A flood fills the endpoint's own set and no more; who is in it stays in it."""
    from berth.firewall import policy

    stage.send(Add(policy.guard("up0", ())))
    table = "netdev berth_allow_up0"
    sh(f"nft flush chain {table} from")
    room = 20
    sh(
        f"nft 'add set {table} few {{ type ipv4_addr . ipv4_addr . inet_proto . inet_service . inet_service;"
        f" size {room}; flags dynamic,timeout; timeout 2m; }}'"
    )
    rule = "update @few { ip daddr . ip saddr . meta l4proto . th dport . th sport } counter"
    sh(f"nft 'add rule {table} from meta protocol ip meta l4proto udp {rule}'")
    with inside(C1), socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as asking:
        sh("ip neigh add 10.9.0.9 lladdr 02:00:00:00:09:09 dev eth0")
        for port in (*range(1000, 1000 + 2 * room), 1000):
            asking.sendto(b"?", ("10.9.0.9", port))
    (held,) = [item["set"] for item in json.loads(sh(f"nft -j list set {table} few"))["nftables"] if "set" in item]
    ports = {entry["elem"]["val"]["concat"][3] for entry in held["elem"]}
    assert ports == set(range(1000, 1000 + room))
    sizes = [item["set"]["size"] for item in json.loads(sh("nft -j list sets"))["nftables"] if "set" in item]
    assert sorted(sizes) == [room, ROOM, ROOM]


def test_a_kernel_without_egress_hooks_is_told_of_at_create_and_at_attach(
    engine: Engine, host: Host, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Such a kernel does not know the hook's number, as ours does not know this one."""
    host.sandbox("c2")
    assert guards.supported()
    before = ruleset()
    monkeypatch.setattr(guards, "_EGRESS", 7)
    assert not guards.supported()
    asked = spec.network_spec(name="other", options=["allow=none"])
    with pytest.raises(Unsupported, match="CONFIG_NETFILTER_EGRESS"):
        engine.create_network(asked)
    with pytest.raises(Unsupported, match="CONFIG_NETFILTER_EGRESS"):
        engine.attach(spec.attach_request(network="nat", sandbox="c2"))
    assert ruleset() == before and len(engine.endpoints()) == 1
    engine.create_network(replace(asked, settings=(), options=()))


def test_asking_the_kernel_leaves_nothing(host: Host) -> None:
    before = host.everything()
    assert guards.supported()
    assert host.everything() == before


def test_who_may_not_is_told_so(monkeypatch: pytest.MonkeyPatch, host: Host) -> None:
    from berth.kernel.linux import LinuxKernel
    from berth.kernel.netlink import Refusal

    monkeypatch.setattr(nft, "transaction", lambda _: [Refusal(1, "", 0)])
    with pytest.raises(Denied, match="as root"):
        LinuxKernel().must_guard()


def test_where_nobody_reaches_an_endpoint_a_list_is_refused(engine: Engine) -> None:
    engine.create_network(spec.network_spec(name="nothing", driver="null"))
    asked = replace(
        spec.attach_request(network="nothing", sandbox="c1"), options=spec.endpoint_options((("allow", "none"),))
    )
    with pytest.raises(Invalid, match="leave --driver-opt out"):
        engine.attach(asked)
    assert Plan() == engine.heal()
