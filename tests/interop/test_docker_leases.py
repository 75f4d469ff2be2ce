"""`--ipam-driver berth-dhcp`: containers of Docker's whose addresses the LAN's own DHCP server gives."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from router_dhcp import RouterDhcp, age

from .harbour import LAN, LAPTOP, ROUTER, Harbour, until

pytestmark = pytest.mark.timeout(240)

LEASED = range(200, 251)  # the last parts of the addresses that the router leases


@pytest.fixture
def lan(harbour: Harbour) -> Harbour:
    """A network of that name, made as a person would."""
    harbour.engine.plugin("berth-dhcp.spec", f"unix://{harbour.berthd.socket.with_name('berth-dhcp.sock')}\n")
    subnet = "--subnet=192.168.2.0/24"  # Docker wants the LAN spelt out
    harbour.docker("network", "create", "-d", "berth", "--ipam-driver", "berth-dhcp", subnet, "-o", "parent=br0", "lan")
    return harbour


@pytest.fixture
def server(harbour: Harbour) -> Iterator[RouterDhcp]:
    running = RouterDhcp(harbour.lab)
    yield running
    running.back()


def at_router(harbour: Harbour) -> dict[str, str]:
    """The router's leases: hostname by address."""
    lines = (harbour.lab.work / "router/leases").read_text().splitlines()
    return {fields[2]: fields[3] for fields in map(str.split, lines) if len(fields) == 5}


def test_the_router_knows_the_container_by_its_name(lan: Harbour) -> None:
    address = lan.serve("web", "lan")
    assert int(address.rpartition(".")[2]) in LEASED
    until(lambda: at_router(lan).get(address) == "web")
    assert lan.inside("web", "ip", "route", "show", "default").split()[:3] == ["default", "via", ROUTER]
    assert lan.asks("laptop", address) == "web"
    assert "1 packets received" in lan.inside("web", "ping", "-c1", "-W2", LAPTOP)
    (record,) = lan.berth("lease", "ls")
    assert (record["lease"]["address"], record["trouble"]) == (f"{address}/24", "")
    lan.docker("rm", "-f", "web")
    until(lambda: address not in at_router(lan))
    assert lan.berth("lease", "ls") == []


def test_a_container_made_anew_has_the_same_address(lan: Harbour) -> None:
    first = lan.start("web", "lan")
    lan.docker("rm", "-f", "web")
    assert lan.start("web", "lan") == first
    lan.docker("restart", "-t", "1", "web")
    assert lan.address("web", "lan") == first


def test_a_container_is_known_again_after_berth_was_started_anew(lan: Harbour) -> None:
    first = {name: lan.start(name, "lan") for name in ("web", "db")}
    lan.berthd.kill9()
    lan.berthd.start()
    lan.docker("restart", "-t", "1", "db")
    lan.docker("restart", "-t", "1", "web")
    assert {name: lan.address(name, "lan") for name in first} == first


def test_an_address_of_ones_own_choice(lan: Harbour) -> None:
    assert lan.start("one", "lan", "--ip", "192.168.2.233") == "192.168.2.233"
    assert "192.168.2.233" in at_router(lan)


def test_leases_outlive_berth(lan: Harbour) -> None:
    address = lan.serve("web", "lan")
    until(lambda: lan.asks("laptop", address) == "web")  # its server may take a moment to start
    lan.berthd.kill9()
    assert lan.asks("laptop", address) == "web"
    lan.berthd.start()
    assert [record["lease"]["address"] for record in lan.berth("lease", "ls")] == [f"{address}/24"]
    lan.docker("rm", "-f", "web")  # Berth knows the lease still, or could not give it back
    until(lambda: address not in at_router(lan))


def test_another_address_reaches_the_container(lan: Harbour, server: RouterDhcp) -> None:
    server.says("dhcp-range=192.168.2.200,192.168.2.220,1h")
    address = lan.serve("web", "lan")
    until(lambda: lan.berth("lease", "ls")[0]["sandbox"] != "")
    lan.berthd.kill9()
    age(lan.lab)
    server.says("dhcp-range=192.168.2.230,192.168.2.240,1h", forgets=True)
    lan.berthd.start()
    until(lambda: lan.berth("endpoint", "ls")[0]["addresses"] not in ([], [f"{address}/24"]))
    (now,) = lan.berth("endpoint", "ls")[0]["addresses"]
    moved = now.partition("/")[0]
    assert int(moved.rpartition(".")[2]) in range(230, 241)
    until(lambda: lan.asks("laptop", moved) == "web")
    assert lan.inside("web", "ip", "route", "show", "default").split()[:3] == ["default", "via", ROUTER]
    assert lan.address("web", "lan") == address  # Docker cannot be told
    said = f"moved it from {address} to {moved}, and `docker inspect` goes on to show {address}"
    assert said in lan.berthd.log()
    assert lan.asks("laptop", address) == ""
    lan.docker("rm", "-f", "web")
    until(lambda: not {address, moved} & {*at_router(lan)})
    until(lambda: not [held for held in lan.held() if held.startswith("address")])


def test_a_lease_that_ends_takes_the_container_off_the_lan(lan: Harbour, server: RouterDhcp) -> None:
    server.says("dhcp-range=192.168.2.200,192.168.2.220,1h")
    address = lan.serve("web", "lan")
    until(lambda: lan.berth("lease", "ls")[0]["sandbox"] != "")
    lan.berthd.kill9()
    age(lan.lab, 3600 - 8)
    server.deafen()
    lan.berthd.start()
    until(lambda: lan.berth("endpoint", "ls")[0]["addresses"] == [], 40)
    assert address not in lan.inside("web", "ip", "address")
    assert lan.inside("web", "ip", "route", "show", "default") == ""
    server.hear()
    until(lambda: lan.asks("laptop", address) == "web", 60)
    assert lan.inside("web", "ip", "route", "show", "default").split()[:3] == ["default", "via", ROUTER]


def test_a_private_network_has_no_server(harbour: Harbour) -> None:
    harbour.engine.plugin("berth-dhcp.spec", f"unix://{harbour.berthd.socket.with_name('berth-dhcp.sock')}\n")
    said = harbour.refused(
        "network", "create", "-d", "berth", "--ipam-driver", "berth-dhcp", "--subnet=10.9.0.0/24", "x"
    )
    assert "only a LAN has a DHCP server" in said
    assert harbour.held() == []


def test_a_range_that_the_router_leases_too_is_told_in_the_log(harbour: Harbour) -> None:
    harbour.network("whole", *LAN)
    until(lambda: "gives addresses of 192.168.2.0/24, and the DHCP server 192.168.2.1 leases" in harbour.berthd.log())
