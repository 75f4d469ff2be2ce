"""Endpoints of a LAN whose addresses the LAN's own DHCP server gives: `-o addresses=dhcp`, with the daemon."""

from __future__ import annotations

import json
import re
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from typing import Any

import pytest
from lab_ground import LAPTOP, LAPTOP6, ROUTER, Ground

from berth.lab.session import Inside, Session
from router_dhcp import RouterDhcp, age

pytestmark = pytest.mark.timeout(90)

NET = "network create --driver flat -o parent=br0 -o addresses=dhcp lan"
STATIC = "network create --driver flat -o parent=br0 --ip-range 192.168.2.128/26 lan"
LEASED = range(200, 251)  # the last parts of the addresses that the router leases


class Keeper:
    """A `berth daemon` on the lab's host."""

    def __init__(self, ground: Ground) -> None:
        self.ground = ground
        self._process: Inside | None = None

    def start(self) -> None:
        log = (self.ground.lab.work / "host/daemon.log").open("ab")
        with log:
            self._process = self.ground.lab.popen("host", ["berth", "daemon"], stdout=log, stderr=subprocess.STDOUT)
        socket = self.ground.lab.work / "host/run/berth.sock"
        until(lambda: socket.exists() and self.ground.tried("network ls").returncode == 0)

    def stop(self) -> None:
        assert self._process is not None
        self._process.terminate()
        assert self._process.wait(30) == 0

    def kill9(self) -> None:
        assert self._process is not None
        with suppress(ProcessLookupError):
            self._process.kill()
        self._process.wait(30)

    def log(self) -> str:
        return (self.ground.lab.work / "host/daemon.log").read_text()


@pytest.fixture
def keeper(ground: Ground) -> Iterator[Keeper]:
    daemon = Keeper(ground)
    daemon.start()
    yield daemon
    for net in ground.told("network ls"):
        for ep in ground.told(f"endpoint ls --network {net['Name']}"):
            ground.tried(f"detach {net['Name']} {ep['name']}")
    daemon.kill9()


def until(condition: Callable[[], object], seconds: float = 15) -> None:
    give_up = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < give_up, f"not within {seconds} s"
        time.sleep(0.05)


def at_router(ground: Ground) -> dict[str, str]:
    """The router's leases: hostname by address."""
    lines = (ground.lab.work / "router/leases").read_text().splitlines()
    return {fields[2]: fields[3] for fields in map(str.split, lines) if len(fields) == 5}


def leases(ground: Ground) -> dict[str, Any]:
    """Berth's leases by the names of their endpoints."""
    return {record["endpoint_name"]: record for record in ground.told("lease ls")}


def last(address: str) -> int:
    return int(address.rpartition(".")[2])


def test_an_endpoint_has_what_the_router_leased_and_gives_it_back(ground: Ground, keeper: Keeper) -> None:
    ground.berth(NET)
    address = ground.container("lan", "web")
    assert last(address) in LEASED
    assert at_router(ground)[address] == "web"
    assert ground.defaults("web") == [(ROUTER, "eth0")]
    assert ground.pings(("web", LAPTOP), ("laptop", address)) == []
    record = leases(ground)["web"]
    assert (record["lease"]["dns"], record["lease"]["domain"], record["trouble"]) == ([ROUTER], "lab", "")
    assert address in ground.berth("lease ls")
    ground.berth("detach lan web")
    until(lambda: address not in at_router(ground))
    assert leases(ground) == {}


def test_who_is_made_anew_gets_the_same_address(ground: Ground, keeper: Keeper) -> None:
    ground.berth(NET)
    first = {name: ground.container("lan", name) for name in ("a", "b", "c")}
    assert len({*first.values()}) == 3
    for name in first:
        ground.berth(f"detach lan {name}")
    # In the same order: dnsmasq forgets what is given back, and finds it again by the MAC, unless two have one hash.
    again = {name: ground.attach("lan", name)[0] for name in first}
    assert again == first


def test_without_the_daemon_it_is_refused_with_that_word(ground: Ground) -> None:
    ground.berth(NET)
    ground.sandbox("web")
    assert "start it: berth daemon" in ground.refused("attach lan web")
    assert ground.told("endpoint ls") == []


def test_an_address_of_ones_own_choice_is_asked_of_the_server(ground: Ground, keeper: Keeper) -> None:
    ground.berth(NET)
    assert ground.container("lan", "one", "--ip 192.168.2.222") == "192.168.2.222"
    assert "192.168.2.222" in at_router(ground)
    ground.sandbox("two")
    complaint = ground.refused("attach lan two --ip 192.168.2.222")
    assert "the DHCP server gives 192.168.2." in complaint
    assert "and not 192.168.2.222" in complaint
    until(lambda: len(at_router(ground)) == 1)
    assert [ep["name"] for ep in ground.told("endpoint ls")] == ["one"]


def test_one_endpoint_of_a_static_network_has_a_lease(ground: Ground, keeper: Keeper) -> None:
    ground.berth(STATIC)
    static = ground.container("lan", "static")
    leased = ground.container("lan", "leased", "--driver-opt addresses=dhcp")
    assert (last(static), last(leased) in LEASED) == (128, True)
    assert ground.pings(("static", leased), ("leased", static)) == []


def test_a_lease_that_is_kept_stays_at_the_server(ground: Ground, keeper: Keeper) -> None:
    ground.berth(f"{NET} -o keep_lease=true")
    address = ground.container("lan", "web")
    ground.berth("detach lan web")
    assert leases(ground) == {}
    time.sleep(1)
    assert at_router(ground)[address] == "web"
    assert ground.attach("lan", "web") == [address]


@pytest.mark.parametrize("end", ["stop", "kill9"])
def test_leases_outlive_the_daemon(ground: Ground, keeper: Keeper, end: str) -> None:
    ground.berth(NET)
    address = ground.container("lan", "web")
    before = leases(ground)["web"]["lease"]
    getattr(keeper, end)()
    assert ground.pings(("laptop", address)) == []
    keeper.start()
    assert leases(ground)["web"]["lease"]["address"] == before["address"]
    assert at_router(ground)[address] == "web"
    ground.berth("detach lan web")  # the new daemon knows the lease, or could not give it back
    until(lambda: address not in at_router(ground))


def test_many_at_once(ground: Ground, keeper: Keeper) -> None:
    ground.berth(NET)
    names = [ground.sandbox(f"c{number}") for number in range(12)]
    done = ground.at_once(*[("host", ["berth", "attach", "--json", "lan", name]) for name in names])
    assert [code for code, _ in done] == [0] * 12
    found = {json.loads(said)["addresses"][0].partition("/")[0] for _, said in done}
    assert len(found) == 12
    assert found <= {*at_router(ground)}


def test_where_no_server_answers_nothing_is_left(ground: Ground, keeper: Keeper) -> None:
    ground.until_end("nft 'add table netdev deaf; add chain netdev deaf in { type filter hook ingress device lan0"
                     " priority 0; }; add rule netdev deaf in udp dport 67 drop'",
                     "nft delete table netdev deaf", "router")  # fmt: skip
    ground.berth(NET)
    ground.sandbox("web")
    assert "no DHCP server answers on br0" in ground.refused("attach lan web", code=1)
    assert (ground.told("endpoint ls"), ground.told("lease ls")) == ([], [])


def test_berth_run_asks_the_name_servers_of_the_lease(ground: Ground, keeper: Keeper) -> None:
    ground.berth(NET)
    said = ground.berth("run --network lan --name job -- cat /etc/resolv.conf")
    assert said.splitlines()[1:] == ["nameserver 127.0.0.11", "search lab", "options ndots:0"]
    ground.berth("network rm lan")
    ground.berth("network create --driver flat -o parent=br0 -o addresses=dhcp -o names=false plain")
    said = ground.berth("run --network plain --name job2 -- cat /etc/resolv.conf")
    assert said.splitlines()[1:] == ["search lab", f"nameserver {ROUTER}"]
    until(lambda: "job" not in at_router(ground).values())


def test_what_makes_no_sense_is_refused(ground: Ground, keeper: Keeper) -> None:
    assert "is for the containers of a LAN" in ground.refused("network create -o addresses=dhcp private")
    ground.berth("network create private")
    ground.sandbox("web")
    assert "only a LAN" in ground.refused("attach private web --driver-opt addresses=dhcp")
    assert "'dhpc' is not known: did you mean dhcp?" in ground.refused(f"{NET} -o addresses=dhpc")
    ground.berth(NET)
    assert "--dry-run" in ground.refused("attach --dry-run lan web")


# --- what the server says later ---


@pytest.fixture
def server(lab: Session) -> Iterator[RouterDhcp]:
    running = RouterDhcp(lab)
    yield running
    running.back()


def test_another_router_and_mtu_reach_the_sandbox(ground: Ground, keeper: Keeper, server: RouterDhcp) -> None:
    span = "dhcp-range=192.168.2.200,192.168.2.220,1h"
    server.says(span)
    ground.berth(NET)
    address = ground.container("lan", "web")
    keeper.kill9()
    age(ground.lab)
    server.says(
        span, "dhcp-option=option:router,192.168.2.50", "dhcp-option=option:mtu,1400",
        "dhcp-option=option:classless-static-route,10.8.0.0/16,192.168.2.50,0.0.0.0/0,192.168.2.50",
    )  # fmt: skip
    keeper.start()
    until(lambda: ground.defaults("web") == [(LAPTOP, "eth0")])
    (link,) = ground.ip("web", "link", "show", "eth0")
    (route,) = ground.ip("web", "route", "show", "10.8.0.0/16")
    assert (link["mtu"], route["gateway"]) == (1400, LAPTOP)
    assert leases(ground)["web"]["lease"]["address"] == f"{address}/24"


def test_another_address_reaches_the_sandbox(ground: Ground, keeper: Keeper, server: RouterDhcp) -> None:
    server.says("dhcp-range=192.168.2.200,192.168.2.220,1h")
    ground.berth(NET)
    address = ground.container("lan", "web")
    keeper.kill9()
    age(ground.lab)
    server.says("dhcp-range=192.168.2.230,192.168.2.240,1h", forgets=True)
    keeper.start()
    until(lambda: ground.told("endpoint ls")[0]["addresses"] != [f"{address}/24"])
    (now,) = ground.told("endpoint ls")[0]["addresses"]
    moved = now.partition("/")[0]
    assert last(moved) in range(230, 241)
    (link,) = ground.ip("web", "-4", "address", "show", "eth0")
    assert [entry["local"] for entry in link["addr_info"]] == [moved]
    assert ground.defaults("web") == [(ROUTER, "eth0")]
    assert ground.pings(("web", LAPTOP), ("laptop", moved)) == []  # what it sends is checked by the new address
    assert f"moved it from {address} to {moved}" in keeper.log()
    assert leases(ground)["web"]["trouble"] == ""
    assert ground.berth("reconcile") == "nothing to change on this host\n"


def test_both_ip_versions(ground: Ground, keeper: Keeper, server: RouterDhcp) -> None:
    server.says("dhcp-range=192.168.2.200,192.168.2.220,1h", "dhcp-range=fd00:2::200,fd00:2::2ff,64,1h")
    ground.berth(f"{NET.removesuffix('lan')} --ipv6 -o addresses6=dhcp lan")
    ground.sandbox("web")
    four, six = ground.attach("lan", "web")
    assert (last(four) in LEASED, six.startswith("fd00:2::2")) == (True, True)
    until(lambda: ground.pings(("web", LAPTOP6), ("laptop", six), ("web", LAPTOP)) == [])
    assert {record["lease"]["address"].partition("/")[0] for record in ground.told("lease ls")} == {four, six}
    ground.berth("detach lan web")
    until(lambda: not {four, six} & {line.split()[2] for line in _lines(ground)})
    assert ground.attach("lan", "web") == [four, six]


def _lines(ground: Ground) -> list[str]:
    found = (ground.lab.work / "router/leases").read_text().splitlines()
    return [line for line in found if len(line.split()) == 5]


def addresses(ground: Ground, name: str) -> list[str]:
    (link,) = ground.ip(name, "-4", "address", "show", "eth0") or [{"addr_info": []}]
    return [entry["local"] for entry in link["addr_info"]]


@pytest.mark.timeout(180)
def test_the_daemon_renews_by_its_own_clock(ground: Ground, keeper: Keeper, server: RouterDhcp) -> None:
    server.says("dhcp-range=192.168.2.200,192.168.2.220,1h", "dhcp-option=59,5")  # T1 is a second less
    before = len(server.log())
    ground.berth(NET)
    address = ground.container("lan", "web")
    until(lambda: server.log()[before:].count(f"DHCPACK(lan0) {address}") >= 3, 30)  # the first, and two renewals
    assert "DHCPNAK" not in server.log()[before:]
    assert addresses(ground, "web") == [address]
    assert leases(ground)["web"]["trouble"] == ""


@pytest.mark.timeout(240)
def test_a_lease_that_ends_takes_its_address_along(ground: Ground, keeper: Keeper, server: RouterDhcp) -> None:
    server.says("dhcp-range=192.168.2.200,192.168.2.220,1h")
    ground.berth(NET)
    address = ground.container("lan", "web")
    keeper.kill9()
    age(ground.lab, 3600 - 8)  # seconds are left of the hour
    server.deafen()
    keeper.start()
    until(lambda: addresses(ground, "web") == [], 45)
    assert ground.defaults("web") == []
    assert ground.told("endpoint ls")[0]["addresses"] == []
    assert re.search("it ended after 3600 s|its time was over", leases(ground)["web"]["trouble"])
    assert "endpoint web is without it until the LAN gives one again" in keeper.log()
    assert "op=lose" in keeper.log()
    ground.sh(f"ip address add {address}/24 dev eth0", "web")  # nor may it take the address by itself
    assert ground.pings(("web", LAPTOP)) == [("web", LAPTOP)]
    ground.sh(f"ip address del {address}/24 dev eth0", "web")
    server.hear()
    until(lambda: addresses(ground, "web") == [address], 40)
    until(lambda: ground.defaults("web") == [(ROUTER, "eth0")])
    assert ground.pings(("web", LAPTOP), ("laptop", address)) == []
    assert leases(ground)["web"]["trouble"] == ""
    assert f"has given {address} to it again" in keeper.log()
    assert ground.berth("reconcile") == "nothing to change on this host\n"


def test_who_has_the_address_already_keeps_it(ground: Ground, keeper: Keeper, server: RouterDhcp) -> None:
    server.says("dhcp-range=192.168.2.222,192.168.2.223,1h")
    ground.until_end("ip address add 192.168.2.222/24 dev eth0", "ip address del 192.168.2.222/24 dev eth0", "laptop")
    ground.berth(NET)
    assert ground.container("lan", "web", "--ip 192.168.2.223") == "192.168.2.223"
    ground.sandbox("db")
    done = ground.tried("attach lan db")
    until(lambda: all("192.168.2.222/24" not in ep["addresses"] for ep in ground.told("endpoint ls")))
    (laptop,) = ground.ip("laptop", "link", "show", "eth0")
    assert f"gave 192.168.2.222, which {laptop['address']} has already" in done.stderr + keeper.log()
