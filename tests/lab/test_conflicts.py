"""Addresses that other machines of the LAN have, or take later, as who types `berth` sees it."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from contextlib import contextmanager
from ipaddress import ip_address
from typing import Any

import pytest
from lab_ground import INTERNET, LAPTOP, LAPTOP6, NULL, PIPE, ROUTER, ROUTER6, ROUTER_MAC, STATION, Ground
from test_proxied_ports import until

from berth.lan.frames import announcement

pytestmark = pytest.mark.timeout(90)

LAN6 = "network create --driver flat --ipv6 -o parent=br0"
SEND = (*STATION, "send", "eth0")
WEB, WEB6 = "192.168.2.77", "fd00:2::77"


@contextmanager
def daemon(ground: Ground) -> Iterator[list[str]]:
    """A daemon on the lab's host; what it has logged is there when it has ended."""
    log: list[str] = []
    with ground.lab.popen("host", ["berth", "daemon"], stdin=NULL, stdout=PIPE, stderr=NULL, text=True) as process:
        try:
            until(lambda: ground.sh('test -S "$BERTH_RUN/berth.sock" && echo yes || true') != "")
            yield log
        finally:
            process.terminate()
            log += process.communicate(timeout=30)[0].splitlines()


def laptop_mac(ground: Ground) -> str:
    return str(ground.ip("laptop", "link", "show", "eth0")[0]["address"])


@pytest.fixture(params=[False, True], ids=["alone", "daemon"])
def way(request: pytest.FixtureRequest, ground: Ground) -> Iterator[None]:
    if not request.param:
        yield
        return
    with daemon(ground):
        yield


def test_an_address_in_use_is_refused_or_passed_over(way: None, ground: Ground) -> None:
    ground.berth(f"{LAN6} --subnet 192.168.2.0/24 --ip-range 192.168.2.50/31 --subnet fd00:2::/64 lan")
    ground.sandbox("web")
    for address in (LAPTOP, LAPTOP6):
        complaint = ground.refused(f"attach lan web --ip {address}")
        assert f"{address} is in use on the LAN by the machine with MAC {laptop_mac(ground)}" in complaint
    assert ground.told("endpoint ls") == []
    assert ground.attach("lan", "web")[0] == "192.168.2.51"
    assert ground.pings(("web", LAPTOP), ("laptop", "192.168.2.51")) == []
    ground.sandbox("db")
    assert "held by 1 other machines" in ground.refused("attach lan db")


def test_an_address_that_is_claimed_later_is_defended_and_reported(ground: Ground) -> None:
    with daemon(ground) as log:
        ground.berth(f"{LAN6} lan")
        ground.sandbox("web")
        with ground.station("router", "sniff", "lan0") as heard:
            mac = ground.told(f"attach lan web --ip {WEB} --ip {WEB6}")["mac"]
            lines: set[str] = set()

            def defended() -> bool:
                lines.update(heard())
                return {f"{WEB} {mac}", f"{WEB6} {mac}"} <= lines

            until(defended)  # the announcement of the attach
            lines.clear()
            ground.until_end(
                f"ip address add {WEB}/24 dev eth0; ip address add {WEB6}/64 dev eth0 nodad",
                f"ip address del {WEB}/24 dev eth0; ip address del {WEB6}/64 dev eth0",
                "laptop",
            )
            claims = [announce(ground, WEB), announce(ground, WEB6)]

            def claimed() -> bool:
                ground.lab.run("laptop", [*SEND, *claims], check=True)
                return defended()

            until(claimed, 20)
        (ep,) = ground.told("endpoint ls")
        found = {(each["address"], each["mac"]) for each in ep["conflicts"]}
        assert found == {(WEB, laptop_mac(ground)), (WEB6, laptop_mac(ground))}
        shown = ground.tried("endpoint ls")
        assert f"{WEB} of web is claimed by the machine with MAC {laptop_mac(ground)} too" in shown.stderr
    said = [line for line in log if "is claimed by another machine" in line]
    assert any(f"address {WEB} of endpoint web" in line and laptop_mac(ground) in line for line in said)
    assert len(said) <= 2 + 4, said  # not more than one in ten seconds for an address


def test_noise_does_not_stop_the_watch(ground: Ground) -> None:
    with daemon(ground):
        ground.berth(f"{LAN6} lan")
        ground.sandbox("web")
        ground.berth(f"attach lan web --ip {WEB}")
        noise = [f"ffffffffffff02000000000908060001{number:04x}" + "ff" * (number % 50) for number in range(500)]
        ground.lab.run("laptop", [*SEND, *noise], check=True)
        claim = announce(ground, WEB)

        def reported() -> bool:
            ground.lab.run("laptop", [*SEND, claim], check=True)
            return conflicts(ground) != []

        until(reported, 20)


def conflicts(ground: Ground) -> list[dict[str, str]]:
    (ep,) = json.loads(ground.tried("endpoint ls --json").stdout)
    return list(ep["conflicts"])


def announce(ground: Ground, address: str) -> str:
    """The laptop's announcement of an address, in hexadecimal."""
    return announcement(ip_address(address), laptop_mac(ground)).hex()


def test_the_lan_is_shown(ground: Ground) -> None:
    ground.berth(f"{LAN6} lan")
    ground.until_end(
        f"ip address add {ROUTER}/32 dev lo; sysctl -qw net.ipv4.conf.eth0.arp_ignore=0",
        f"ip address del {ROUTER}/32 dev lo",
        "laptop",
    )
    shown = ground.tried("lan show br0 --json")
    found = json.loads(shown.stdout)
    assert (found["bridge"], found["addresses"]) == ("br0", ["192.168.2.2/24", "fd00:2::2/64"])
    routers = {router["address"]: router["macs"] for router in found["routers"]}
    assert routers[ROUTER] == sorted([ROUTER_MAC, laptop_mac(ground)])
    assert routers[ROUTER6] == [ROUTER_MAC]
    (offer,) = found["offers"]
    assert (offer["server"], offer["mac"], offer["subnet"]) == (ROUTER, ROUTER_MAC, "192.168.2.0/24")
    two, leased = found["warnings"]
    assert f"2 machines answer for the router {ROUTER}" in two
    assert f"network lan gives addresses of 192.168.2.0/24, and the DHCP server {ROUTER} leases 192.168.2.2" in leased
    (served,) = found["served"]
    assert int(ip_address(served["first"])) < int(ip_address(served["last"]))
    lines = ground.tried("lan show br0").stdout
    assert f"DHCP server {ROUTER}, {ROUTER_MAC}: would lease 192.168.2." in lines


def test_routers_that_advertise_themselves_and_doubles_are_shown(ground: Ground) -> None:
    work = ground.lab.work / "router"
    (work / "radvd.conf").write_text(
        "interface lan0 { AdvSendAdvert on; AdvManagedFlag on; AdvDefaultLifetime 900;"
        " prefix fd00:2::/64 { AdvAutonomous off; }; };\n"
    )
    ground.until_end(
        f"radvd -C {work}/radvd.conf -p {work}/radvd.pid -m logfile -l {work}/radvd.log",
        f"kill $(cat {work}/radvd.pid); while test -e {work}/radvd.pid; do sleep 0.05; done",
        "router",
    )
    ground.berth("network create --driver flat -o parent=br0 --ip-range 192.168.2.64/26 lan")
    ground.sandbox("web")
    mac = ground.told(f"attach lan web --ip {WEB}")["mac"]
    ground.until_end(f"ip address add {WEB}/24 dev eth0", f"ip address del {WEB}/24 dev eth0", "laptop")

    def advertised() -> bool:
        found.update(json.loads(ground.tried("lan show br0 --json").stdout))
        return len(found["routers6"]) == 1

    found: dict[str, Any] = {}
    until(advertised, 40)
    (router,) = found["routers6"]
    said = router["said"]
    assert (router["mac"], said["managed"], said["lifetime"]) == (ROUTER_MAC, True, 900)
    assert [(each["subnet"], each["autonomous"]) for each in said["prefixes"]] == [("fd00:2::/64", False)]
    doubles = {each["address"]: each["macs"] for each in found["doubles"]}
    assert doubles == {WEB: sorted([mac, laptop_mac(ground)])}
    (warning,) = found["warnings"]
    assert f"2 machines have {WEB}" in warning


def test_a_lan_that_is_not_there(ground: Ground) -> None:
    assert "no bridge br7" in ground.refused("lan show br7")


def test_what_the_router_leases_too_is_pointed_out(way: None, ground: Ground) -> None:
    done = ground.tried("network create --driver flat -o parent=br0 whole")
    assert done.returncode == 0
    (warning,) = done.stderr.splitlines()
    assert (
        f"network whole gives addresses of 192.168.2.0/24, and the DHCP server {ROUTER} leases 192.168.2.2" in warning
    )
    assert " at least: give it an --ip-range" in warning
    low, high = re.findall(r"192\.168\.2\.(2\d\d)", warning)
    ground.sandbox("web")
    done = ground.tried(f"attach whole web --ip 192.168.2.{low}")
    assert done.returncode == 0
    assert f"192.168.2.{low} of endpoint web is among what the DHCP server {ROUTER} leases" in done.stderr
    ground.sandbox("db")
    assert ground.tried(f"attach whole db --ip {WEB}").stderr == ""
    assert int(low) < int(high)


def test_a_range_of_its_own_needs_no_warning(ground: Ground) -> None:
    done = ground.tried("network create --driver flat -o parent=br0 --ip-range 192.168.2.128/26 part")
    assert (done.returncode, done.stderr) == (0, "")


def test_a_bridge_without_an_address_takes_all_from_the_lan(ground: Ground) -> None:
    ground.until_end(
        "ip address del 192.168.2.2/24 dev br0",
        "ip address add 192.168.2.2/24 dev br0; ip route add default via 192.168.2.1 dev br0",
    )
    ground.berth("network create --driver flat -o parent=br0 lan")
    (net,) = ground.told("network inspect lan")
    assert net["IPAM"]["Config"] == [{"Subnet": "192.168.2.0/24", "Gateway": ROUTER}]
    ground.container("lan", "web", f"--ip {WEB}")
    assert ground.defaults("web") == [(ROUTER, "eth0")]
    assert ground.pings(("web", LAPTOP), ("laptop", WEB), ("web", INTERNET)) == []
    ground.berth("detach lan web")
    ground.berth("network rm lan")
    ground.until_end("nft 'add table netdev deaf; add chain netdev deaf in { type filter hook ingress device lan0"
                     " priority 0; }; add rule netdev deaf in udp dport 67 drop'",
                     "nft delete table netdev deaf", "router")  # fmt: skip
    assert "no DHCP server answers on it: give --subnet" in ground.refused(
        "network create --driver flat -o parent=br0 x"
    )
