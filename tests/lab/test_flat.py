"""Flat networks: containers are members of the LAN, and nobody else on it notices, the host least of all."""

from __future__ import annotations

import json
import time
from ipaddress import ip_network

import pytest
from lab_ground import (
    HOST,
    HOST6,
    INTERNET,
    INTERNET6,
    LAPTOP,
    LAPTOP6,
    POST,
    ROUTER,
    ROUTER6,
    ROUTER_MAC,
    STATION,
    Ground,
)

from berth.lab.proofs import PROBE

pytestmark = pytest.mark.timeout(60)

LAN = "network create --driver flat -o parent=br0 lan"
LAN6 = "network create --driver flat --ipv6 -o parent=br0 lan"
RESERVED = {  # the last part of the address: what the refusal calls it
    0: "network address",
    1: "gateway",
    2: "host's own",
    10: "aux-address 'ip1'",
    255: "broadcast address",
}
EVERYBODY = {4: (ROUTER, HOST, LAPTOP, INTERNET), 6: (ROUTER6, HOST6, LAPTOP6, INTERNET6)}


def settle(ground: Ground) -> None:
    """Wait until the kernel has nothing left to do for the host's own addresses."""
    for _ in range(100):
        if not ground.ip("host", "-6", "address", "show", "tentative"):
            return
        time.sleep(0.05)
    pytest.fail("an address of the host stays tentative")


def who_has(ground: Ground, address: str) -> list[str]:
    """The MACs of all machines that answer ARP for an address. Nobody hears itself, so two of them ask."""
    probe = [*PROBE, "arp"]
    ((_, laptop), (_, router)) = ground.at_once(
        ("laptop", [*probe, "eth0", address]), ("router", [*probe, "lan0", address])
    )
    return sorted({*laptop.split(), *router.split()})


# --- The host is left alone ---


@pytest.mark.parametrize("create", [POST, LAN6], ids=["post", "dual-stack"])
def test_the_host_keeps_exactly_its_links_addresses_and_routes(ground: Ground, create: str) -> None:
    settle(ground)
    before = ground.look()
    assert sum("192.168.2.2/24" in line for line in before) == 1
    ground.berth(create)
    name = create.split()[-1]
    assert ground.look() == before
    ground.container(name, "web")
    ground.container(name, "db")
    assert ground.look(without=r"\bbv[0-9a-f]{12}\b") == before
    held = {
        f"{each['local']}/{each['prefixlen']}" for each in ground.ip("host", "address", "show", "br0")[0]["addr_info"]
    }
    assert {address for address in held if not address.startswith("fe80:")} == {"192.168.2.2/24", "fd00:2::2/64"}
    for container in ("web", "db"):
        ground.berth(f"detach {name} {container}")
    ground.berth(f"network rm {name}")
    assert ground.look() == before


def loose_bridge(ground: Ground) -> None:
    """A second bridge with a NIC, as plain as can be: the kernel adjusts its MAC and MTU to its ports."""
    ground.until_end(
        "ip link add br9 type bridge && ip link add nic9 address 8e:00:00:00:00:09 type veth peer name wall9\n"
        "ip link set nic9 up master br9 && ip link set wall9 up && ip link set br9 up\n"
        "ip address add 10.9.0.1/24 dev br9",
        "ip link delete br9; ip link delete nic9",
    )


@pytest.mark.parametrize("options", ["", "-o mtu=1300"], ids=["plain", "smaller-mtu"])
def test_a_loose_bridge_keeps_its_mac_and_mtu(ground: Ground, options: str) -> None:
    loose_bridge(ground)
    seen, low = [], ground.sandbox("low")
    ground.berth(f"network create --driver flat -o parent=br9 --gateway 10.9.0.254 {options} nine")
    for act in ("", f"attach nine {low} --mac 02:00:00:00:00:01", f"detach nine {low}"):
        if act:
            ground.berth(act)
        (bridge,) = ground.ip("host", "link", "show", "br9")
        seen.append((bridge["address"], bridge["mtu"]))
    assert seen == [("8e:00:00:00:00:09", 1500)] * 3


@pytest.mark.parametrize("mtu", [1500, 1400])
def test_a_container_has_the_lans_mtu(ground: Ground, mtu: int) -> None:
    ground.until_end(
        f"ip link set enp3s0 mtu {mtu} && ip link set br0 mtu {mtu}",
        "ip link set enp3s0 mtu 1500; ip link set br0 mtu 1500",
    )
    ground.berth(LAN)
    ground.container("lan", "web")
    (link,) = ground.ip("web", "link", "show", "eth0")
    assert link["mtu"] == mtu
    full = ["ping", "-n", "-c1", "-W2", "-Mdo", f"-s{mtu - 28}", ROUTER]
    assert ground.at_once(("web", full))[0][0] == 0


def test_a_smaller_mtu_is_the_containers(ground: Ground) -> None:
    ground.berth(f"{LAN} -o mtu=1300")
    ground.container("lan", "web")
    (link,) = ground.ip("web", "link", "show", "eth0")
    assert link["mtu"] == 1300


def test_a_larger_mtu_than_the_lans_is_refused(ground: Ground) -> None:
    assert "1500" in ground.refused(f"{LAN} -o mtu=9000")


# --- The LAN's subnet and router ---


def test_the_lan_is_learnt_from_its_bridge(ground: Ground) -> None:
    ground.berth(LAN6)
    (net,) = ground.told("network inspect lan")
    pools = [(pool["Subnet"], pool["Gateway"]) for pool in net["IPAM"]["Config"]]
    assert (net["Driver"], pools) == ("flat", [("192.168.2.0/24", ROUTER), ("fd00:2::/64", ROUTER6)])


def test_the_gateway_is_the_hosts_default_route(ground: Ground) -> None:
    ground.until_end(f"ip route replace default via {LAPTOP}", f"ip route replace default via {ROUTER}")
    ground.berth(LAN)
    ground.container("lan", "web")
    assert ground.defaults("web") == [(LAPTOP, "eth0")]


@pytest.mark.parametrize("wrong", ["192.168.2.254", LAPTOP])
def test_a_gateway_that_contradicts_the_lan_is_refused(ground: Ground, wrong: str) -> None:
    complaint = ground.refused(f"network create --driver flat -o parent=br0 --gateway {wrong} lan")
    assert wrong in complaint
    assert ROUTER in complaint
    ground.berth(f"network create --driver flat -o parent=br0 --gateway {ROUTER} lan")


def test_only_the_router_answers_for_its_address(ground: Ground) -> None:
    ground.berth(POST)
    for name in ("web", "db"):
        ground.container("br0", name)
    assert who_has(ground, ROUTER) == [ROUTER_MAC]


# --- Addresses ---


def test_a_full_network_has_given_each_address_once_and_no_reserved_one(ground: Ground) -> None:
    ground.berth(POST)
    lan = ip_network("192.168.2.0/24")
    free = {str(lan[number]) for number in range(256) if number not in RESERVED}
    names = [f"crowd{number}" for number in range(len(free) + 1)]
    netns = "\n".join(f"netns {{verb}} {name}" for name in names)
    ground.until_end(f"ip -batch - <<.\n{netns.format(verb='add')}\n.", "true")
    ((_, said),) = ground.at_once(("host", [*STATION, "crowd", "br0", "0", str(len(names))]))
    result = json.loads(said)
    assert len(result["given"]) >= 240
    assert len(set(result["given"])) == len(result["given"])
    assert set(result["given"]) <= free
    assert free - set(result["given"]) <= {LAPTOP}  # which answers on the LAN
    assert "is full" in result["end"]
    assert who_has(ground, ROUTER) == [ROUTER_MAC]
    assert ground.pings(("crowd0", ROUTER), ("laptop", result["given"][-1])) == []
    assert "is full" in ground.refused(f"attach br0 {names[-1]}")


@pytest.mark.parametrize(("part", "what"), RESERVED.items())
def test_a_reserved_address_is_refused(ground: Ground, part: int, what: str) -> None:
    ground.berth(POST)
    complaint = ground.refused(f"attach br0 {ground.sandbox('web')} --ip 192.168.2.{part}")
    assert f"192.168.2.{part} is " in complaint
    assert what in complaint
    assert ground.told("endpoint ls") == []


def test_an_address_that_answers_on_the_lan_is_not_given(ground: Ground) -> None:
    ground.berth(POST)
    assert LAPTOP in ground.refused(f"attach br0 {ground.sandbox('web')} --ip {LAPTOP}")


# --- The neighbours ---


@pytest.mark.parametrize("create", [LAN, LAN6], ids=["v4", "dual-stack"])
def test_an_attach_is_announced_on_the_lan(ground: Ground, create: str) -> None:
    ground.berth(create)
    with ground.station("laptop", "sniff", "eth0") as heard:
        ground.sandbox("web")
        ep = ground.told("attach lan web")
        wanted = {f"{address.partition('/')[0]} {ep['mac']}" for address in ep["addresses"]}
        lines: set[str] = set()
        for _ in range(40):
            lines |= set(heard())
            if wanted <= lines:
                return
            time.sleep(0.05)
    pytest.fail(f"{wanted} not among {lines}")


@pytest.mark.parametrize(("create", "address"), [(POST, "192.168.2.77"), (LAN6, "fd00:2::77")], ids=["v4", "v6"])
def test_a_successor_is_reached_at_once(ground: Ground, create: str, address: str) -> None:
    """The laptop remembers the predecessor's MAC until it is told of the new one."""
    ground.berth(create)
    name = create.split()[-1]
    macs = []
    for container in ("old", "new"):
        ground.sandbox(container)
        macs.append(ground.told(f"attach {name} {container} --ip {address}")["mac"])
        unreached = ground.pings(("laptop", address), wait=1)
        (neighbour,) = ground.ip("laptop", "neigh", "show", "to", address)
        assert (unreached, neighbour["lladdr"]) == ([], macs[-1]), neighbour
        if container == "old":
            ground.berth(f"detach {name} old")
    assert macs[0] != macs[1]


def test_dhcp_works_beside(ground: Ground) -> None:
    ground.berth(POST)
    ground.container("br0", "web")
    ground.sandbox("guest")
    ground.until_end(
        "ip link add guest type veth peer eth0 netns guest && ip link set guest up master br0",
        "ip link delete guest",
    )
    ground.sh("ip link set eth0 up && busybox udhcpc -nqf -i eth0 -s /bin/true", "guest")
    assert "guest" not in ground.berth("endpoint ls")


# --- Both families, end to end ---


def test_a_container_is_a_member_of_the_lan(ground: Ground) -> None:
    ground.berth(LAN6)
    ground.sandbox("web")
    four, six = ground.attach("lan", "web")
    ground.sandbox("db")
    other = ground.attach("lan", "db")
    assert ground.defaults("web") == [(ROUTER, "eth0")]
    assert ground.defaults("web", 6) == [(ROUTER6, "eth0")]
    out = [("web", address) for address in (*EVERYBODY[4], *EVERYBODY[6], *other)]
    back = [(node, address) for node in ("router", "host", "laptop", "db") for address in (four, six)]
    assert ground.pings(*out, *back) == []
    with ground.serving("web", "laptop"):
        assert ground.ask("laptop", four, six) == [LAPTOP, LAPTOP6]
        assert ground.ask("web", LAPTOP, LAPTOP6) == [four, six]
        assert ground.ask("host", four, six, proto="udp") == [HOST, HOST6]
