"""What a link carries: as `ip` made it, so it is read; as it was read, so it is made again, to the last flag."""

from __future__ import annotations

import os
import subprocess
import time
from difflib import unified_diff
from pathlib import Path
from typing import get_args

import pytest

from berth.errors import Refused
from berth.kernel import neighbours, read, rtnl
from berth.kernel.netlink import ROUTE, Netlink
from berth.moved import Moved, MovedAddr, MovedNeigh, MovedRoute, MovedRule, Port, TextFile
from berth.plan import Add, Change, Del, diff
from berth.seams import Scope
from berth.state import State, keys
from berth.uplink.decide import carry

from .conftest import Host, sh, type_in

#: What `ip` is told, after two links and their addresses are there; and which noun it makes.
ROWS: dict[str, tuple[type, str]] = {
    "address": (MovedAddr, "ip address add 10.1.0.1/24 dev a0"),
    "address-broadcast": (MovedAddr, "ip address add 10.1.0.1/24 broadcast + dev a0"),
    "address-label": (MovedAddr, "ip address add 10.1.0.1/24 label a0:web dev a0"),
    "address-scope": (MovedAddr, "ip address add 10.1.0.1/24 scope link dev a0"),
    "address-metric": (MovedAddr, "ip address add 10.1.0.1/24 metric 50 dev a0"),
    "address-noprefixroute": (MovedAddr, "ip address add 10.1.0.1/24 noprefixroute dev a0"),
    "route-by-a-manager": (
        MovedRoute,
        "ip route add 10.0.0.0/24 dev a0 proto kernel scope link src 10.0.0.1 metric 100",
    ),
    "address-lifetime": (MovedAddr, "ip address add 10.1.0.1/24 valid_lft 900 preferred_lft 600 dev a0"),
    "address-peer": (MovedAddr, "ip address add 10.1.0.1 peer 10.1.0.9/32 dev a0"),
    "address6": (MovedAddr, "ip address add fd01::1/64 nodad dev a0"),
    "address6-deprecated": (MovedAddr, "ip address add fd01::1/64 valid_lft 900 preferred_lft 0 nodad dev a0"),
    "address6-autojoin": (MovedAddr, "ip address add fd01::1/128 noprefixroute nodad home dev a0"),
    "address6-peer": (MovedAddr, "ip address add fd01::1 peer fd01::9/128 nodad dev a0"),
    "route": (MovedRoute, "ip route add 10.7.0.0/16 via 10.0.0.9 dev a0"),
    "route-link": (MovedRoute, "ip route add 10.7.0.0/16 dev a0 scope link proto static"),
    "route-metric": (MovedRoute, "ip route add default via 10.0.0.9 metric 900"),
    "route-table": (MovedRoute, "ip route add 10.7.0.0/16 via 10.0.0.9 table 1000 proto 99"),
    "route-source": (MovedRoute, "ip route add 10.7.0.0/16 via 10.0.0.9 src 10.0.0.1"),
    "route-tos": (MovedRoute, "ip route add 10.7.0.0/16 tos 0x10 via 10.0.0.9"),
    "route-onlink": (MovedRoute, "ip route add 10.7.0.0/16 via 10.55.0.1 dev a0 onlink"),
    "route-metrics": (MovedRoute, "ip route add 10.7.0.0/16 via 10.0.0.9 mtu 1400 advmss 1300 initcwnd 20"),
    "route-hops": (MovedRoute, "ip route add 10.7.0.0/16 nexthop via 10.0.0.9 weight 3 nexthop via 10.0.0.8 dev a0"),
    "route-other-family": (MovedRoute, "ip route add 10.7.0.0/16 via inet6 fe80::9 dev a0"),
    "route6": (MovedRoute, "ip -6 route add fd07::/64 via fd00::9"),
    "route6-table": (MovedRoute, "ip -6 route add fd07::/64 via fd00::9 dev a0 table 100 metric 20"),
    "route6-preference": (MovedRoute, "ip -6 route add default via fd00::9 dev a0 pref low"),
    "route6-source": (MovedRoute, "ip -6 route add fd07::/64 from fd00::/64 via fd00::9 src fd00::1"),
    "route6-expires": (MovedRoute, "ip -6 route add fd07::/64 via fd00::9 expires 900"),
    "rule-in": (MovedRule, "ip rule add iif a0 lookup 100 pref 1000"),
    "rule-out": (MovedRule, "ip rule add oif a0 from 10.0.0.1 to 10.9.0.0/16 fwmark 0x7/0xff lookup 1000 pref 1001"),
    "rule-ports": (MovedRule, "ip rule add iif a0 ipproto tcp dport 22 sport 1000-2000 lookup 100 pref 1002"),
    "rule-suppress": (MovedRule, "ip rule add iif a0 lookup main suppress_prefixlength 0 pref 1003"),
    "rule6": (MovedRule, "ip -6 rule add oif a0 lookup 100 pref 1000"),
    "neighbour": (MovedNeigh, "ip neigh add 10.0.0.7 lladdr 02:00:00:00:00:07 dev a0 nud permanent"),
    "neighbour-proxy": (MovedNeigh, "ip neigh add proxy 10.0.0.7 dev a0"),
    "neighbour6": (MovedNeigh, "ip -6 neigh add fd00::7 lladdr 02:00:00:00:00:07 dev a0 nud permanent router"),
}
_LINKS = """
ip link set lo up
for link in a b; do
    ip link add ${link}0 address 02:00:00:00:00:0a type veth peer name ${link}1
    ip link set ${link}0 addrgenmode none; ip link set ${link}1 addrgenmode none
    ip link set ${link}0 up; ip link set ${link}1 up
done
ip address add 10.0.0.1/24 dev a0; ip address add fd00::1/64 dev a0 nodad
"""
_SHOW = (
    "ip -d address; ip route show table all; ip -6 route show table all; ip rule; ip -6 rule;"
    " ip neigh show nud permanent; ip -6 neigh show nud permanent; ip neigh show proxy"
)
rows = pytest.mark.parametrize(("noun", "line"), ROWS.values(), ids=ROWS)
#: Of these rules the printed line says which they are; what else they say is carried as it is.
_MORE = {"rule-out", "rule-ports", "rule-suppress"}
_TYPED = {name: row for name, row in ROWS.items() if name not in _MORE}
typed = pytest.mark.parametrize(("noun", "line"), _TYPED.values(), ids=_TYPED)


@pytest.fixture
def stage(host: Host) -> Host:
    """Two cables; the first carries an address of each family."""
    sh(_LINKS)
    for _ in range(100):
        if all(entry["operstate"] == "UP" for entry in host.ip("link") if entry["ifname"] != "lo"):
            return host
        time.sleep(0.02)
    pytest.fail("the cables stay down")


def show() -> list[str]:
    """All that `ip` shows, without what runs, when the kernel's own threads have done their part."""
    seen: list[list[str]] = []
    while len(seen) < 2 or seen[-1] != seen[-2]:
        words = (line.split() for line in sh(_SHOW).splitlines())
        seen.append([" ".join(word for word in line if not word.endswith("sec")) for line in words])
        time.sleep(0.02)
    return seen[-1]


def shows(wanted: list[str]) -> bool:
    """Whether `ip` shows that before long."""
    for _ in range(40):
        if show() == wanted:
            return True
        time.sleep(0.05)
    print("\n".join(unified_diff(wanted, show(), lineterm="", n=0)))
    return False


def carried(host: Host, dev: str = "a0") -> State:
    return read.read(Scope(frozenset(), devices=frozenset({dev})))


def made_by(line: str, host: Host) -> State:
    """What is carried since the line was typed; but for what the kernel has made beside it."""
    there = keys(carried(host))
    sh(line)
    new = (obj for obj in carried(host) if obj.key not in there)
    return frozenset(obj for obj in new if not (isinstance(obj, MovedRoute) and obj.expires and "route" not in line))


@rows
def test_what_ip_made_is_read_removed_and_made_again(stage: Host, noun: type, line: str) -> None:
    bare, before = carried(stage), show()
    new = made_by(line, stage)
    made, whole = show(), carried(stage)
    assert {type(obj) for obj in new} == {noun}
    assert not diff(whole, carried(stage))
    removal = diff(bare, whole)
    stage.send(*removal.ops)
    assert shows(before)
    stage.send(*removal.ops)  # what is gone already is no error
    stage.send(*diff(whole, bare).ops)
    assert shows(made)
    assert not diff(whole, carried(stage))
    assert keys(carried(stage)) == keys(whole)


@typed
def test_what_is_printed_can_be_typed(stage: Host, noun: type, line: str) -> None:
    before = show()
    (obj,) = made_by(line, stage)
    made = show()
    type_in(Del(obj))
    assert expires(line) or shows(before)
    type_in(Add(obj))
    if "mtu" not in line:  # the metrics of a route are carried as they are
        assert shows(made)


def expires(line: str) -> bool:
    """Whether the kernel keeps the subnet's route until it expires, when the address is deleted."""
    return "fd" in line and "valid_lft" in line


@rows
def test_what_is_carried_to_another_link_can_be_carried_back(stage: Host, noun: type, line: str) -> None:
    sh(line)
    before, load = show(), carried(stage)
    there = frozenset(carry(obj, "a0", "b0") for obj in load)
    stage.send(*diff(there, load).ops)
    assert carried(stage) == frozenset()
    assert not diff(there, carried(stage, "b0"))
    stage.send(*diff(load, there).ops)
    assert shows(before)


def test_every_noun_has_its_rows() -> None:
    assert {noun for noun, _ in ROWS.values()} == set(get_args(Moved))


def test_a_port_is_plugged_in_and_out(stage: Host) -> None:
    sh("ip link add br9 type bridge")
    alone, port = Port("a1", "", 1), Port("a1", "br9", 0)
    assert stage.read(alone) == {alone}
    stage.send(Change(alone, port))
    assert stage.read(alone) == {port}
    type_in(Change(port, alone))
    assert stage.read(alone) == {alone}
    assert not diff((), {alone})


def test_a_bridge_takes_packets_before_anything_leads_there(stage: Host) -> None:
    """Else the first question for a neighbour would be lost, and be asked again only a second later."""
    sh("ip link add br9 type bridge")
    with subprocess.Popen(["sh", "-c", "sleep 0.05; ip link set br9 up"]), Netlink(ROUTE) as nl:
        stage.send(Change(Port("a1", "", 1), Port("a1", "br9", 1)))
        assert rtnl.is_operational(nl, "br9")


def test_a_bridge_whose_only_port_has_no_carrier_is_not_waited_for(stage: Host) -> None:
    sh("ip link add br9 type bridge; ip link set br9 up; ip link set a0 down")
    stage.send(Change(Port("a1", "", 1), Port("a1", "br9", 1)))
    with Netlink(ROUTE) as nl:
        assert not rtnl.is_operational(nl, "br9")


def test_a_link_is_told_whom_another_knows(stage: Host) -> None:
    sh(
        "ip neigh add 10.0.0.9 lladdr 02:00:00:00:00:09 dev a0 nud reachable;"
        "ip neigh add fd00::9 lladdr 02:00:00:00:00:09 dev a0 nud stale router;"
        "ip neigh add 10.0.0.8 lladdr 02:00:00:00:00:08 dev a0 nud stale;"
        "ip neigh add 10.0.0.8 lladdr 02:00:00:00:88:88 dev a1 nud permanent;"
        "ip neigh add 10.0.0.7 dev a0 nud failed"
    )
    neighbours.acquaint("a0", "a1")
    known = {(entry["dst"], entry.get("lladdr"), *entry["state"]) for entry in stage.ip("neigh", "show", "dev", "a1")}
    assert known == {
        ("10.0.0.9", "02:00:00:00:00:09", "STALE"),
        ("10.0.0.8", "02:00:00:00:88:88", "PERMANENT"),
        ("fd00::9", "02:00:00:00:00:09", "STALE"),
    }
    assert "router" in sh("ip neigh show fd00::9 dev a1")
    neighbours.acquaint("a0", "a9")
    neighbours.acquaint("a9", "a1")
    assert len(stage.ip("neigh", "show", "dev", "a1")) == 3


def test_a_file_is_written_whole_and_removed(host: Host, tmp_path: Path) -> None:
    path = tmp_path / "below" / "interfaces"
    old, new = TextFile(str(path), "auto eth0\r\n"), TextFile(str(path), "auto br0\n", 0o600)
    assert host.read(old) == frozenset()
    host.send(Add(old))
    assert host.read(old) == {old}
    host.send(Change(old, new))
    assert host.read(old) == {new}
    assert [entry.name for entry in path.parent.iterdir()] == ["interfaces"]
    host.send(Del(new), Del(new))
    assert not path.exists()


def test_a_link_to_a_file_stays_one(host: Host, tmp_path: Path) -> None:
    real, link = tmp_path / "real", tmp_path / "link"
    real.write_text("old")
    link.symlink_to(real)
    host.send(Change(TextFile(str(link), "old"), TextFile(str(link), "new")))
    assert link.is_symlink()
    assert real.read_text() == "new"


def test_what_is_no_file_is_not_replaced(host: Host, tmp_path: Path) -> None:
    """A masked file is a link to /dev/null, which must stay what it is."""
    device, link = tmp_path / "device", tmp_path / "link"
    os.mkfifo(device)
    link.symlink_to(device)
    with pytest.raises(Refused, match="no regular file"):
        host.send(Add(TextFile(str(link), "new")))
    assert device.is_fifo()
    assert link.is_symlink()
