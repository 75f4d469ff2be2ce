"""A flat network on Open vSwitch: what holds on a bridge of the kernel's holds on one of its bridges.

A real ovs-vswitchd with its userspace datapath is the switch of the lab's host, in the place of br0, and real packets
cross it.
"""

from __future__ import annotations

import json
import os
import re
import shlex
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from functools import partial
from pathlib import Path
from subprocess import DEVNULL, PIPE
from typing import Any

import pytest

import vswitch
from berth.errors import Unsupported
from berth.lab.session import Lab
from vswitch import OpenVSwitch

from .harbour import HOST, INTERNET, LAPTOP, LAPTOP6, ROUTER, ROUTER6

pytestmark = pytest.mark.timeout(vswitch.patience(90))

STATION = (sys.executable, str(Path(__file__).parents[1] / "lab/lab_station.py"))
HOST6 = "fd00:2::2"
POST = (
    "network create --driver=bridge --ip-range=192.168.2.0/24 --subnet=192.168.2.0/24"
    " --aux-address='ip1=192.168.2.10' -o com.docker.network.bridge.name=ovsbr0 lan"
)
LAN = "network create --driver flat -o parent=ovsbr0 lan"
LAN6 = f"{LAN} --ipv6"

#: From br0 to ovsbr0: what an operator does who has Open vSwitch.
_MOVE = """
ip link set enp3s0 nomaster
ip link del br0
ip link set ovsbr0 up
ip addr add 192.168.2.2/24 dev ovsbr0
ip addr add fd00:2::2/64 dev ovsbr0 nodad
ip route add default via 192.168.2.1
ip -6 route add default via fd00:2::1
"""
#: As Open vSwitch's documentation asks of who uses its userspace datapath: else the host hears everything twice. Packet
#: sockets, and so the switch, are served before this.
_ONLY_THE_SWITCH = "table netdev lab { chain nic { type filter hook ingress device enp3s0 priority 0; policy drop; }; }"
_PAGE = "import sys, urllib.request as r; print(r.urlopen(sys.argv[1], timeout=5).read().decode())"
_LOOK = """
ip -d -o link | sed 's/^[0-9]*: //'; ip -o address; ip rule
ip route show table all; ip -6 route show table all
"""


class Host:
    """The lab's host, with the switch, during one test."""

    def __init__(self, lab: Lab, switch: OpenVSwitch) -> None:
        self.lab, self.switch = lab, switch
        self._sandboxes: list[str] = []

    def tried(self, line: str) -> tuple[int, str, str]:
        """Exit code, output and complaint of `berth …`."""
        done = self.lab.run("host", ["berth", *shlex.split(line)])
        return done.returncode, done.stdout, done.stderr

    def berth(self, line: str) -> str:
        """What `berth …` prints; it must succeed without a warning, but for that of the LAN's own DHCP server."""
        code, out, err = self.tried(line)
        warnings = [said for said in err.splitlines() if "the DHCP server 192.168.2.1 leases" not in said]
        assert (code, warnings) == (0, []), (line, err)
        return out

    def refused(self, line: str) -> str:
        """The one line in which `berth …` is refused."""
        code, out, err = self.tried(line)
        assert (code, out) == (2, ""), (code, out, err)
        (complaint,) = err.splitlines()
        return complaint

    def told(self, line: str) -> Any:
        """What `berth … --json` says."""
        return json.loads(self.berth(f"{line} --json"))

    def sandbox(self, name: str) -> str:
        """A sandbox that ends with the test."""
        self._sandboxes.append(name)
        return self.lab.sandbox(name)

    def container(self, name: str, more: str = "") -> list[str]:
        """The addresses of a new sandbox on the network."""
        self.sandbox(name)
        ep = self.told(f"attach lan {name} {more}")
        return [address.partition("/")[0] for address in ep["addresses"]]

    def sh(self, script: str, node: str = "host") -> str:
        """What a shell prints."""
        return self.lab.run(node, ["sh", "-ec", script], check=True).stdout

    def ports(self) -> list[str]:
        """The cables that are ports of the switch."""
        return [port for port in self.switch.ports("ovsbr0") if port != "enp3s0"]

    def unreached(self, *pairs: tuple[str, str]) -> list[tuple[str, str]]:
        """The pairs (node, address) of which the one does not reach the other by ping."""
        with ExitStack() as running:
            tries = []
            for node, address in pairs:
                argv = ["ping", "-n", "-c1", "-W3", address]
                tries.append(running.enter_context(self.lab.popen(node, argv, stdout=DEVNULL, stderr=DEVNULL)))
            return [pair for pair, process in zip(pairs, tries, strict=True) if process.wait(20) != 0]

    def ask(self, node: str, address: str, proto: str = "tcp") -> str:
        """The address that a server saw a node ask from; "" where it could not be asked."""
        return self.lab.run(node, [*STATION, "ask", proto, address, "80"]).stdout.strip()

    @contextmanager
    def serving(self, *nodes: str) -> Iterator[None]:
        """Nodes that answer on port 80."""
        with ExitStack() as running:
            for node in nodes:
                process = running.enter_context(self.lab.popen(node, [*STATION, "serve", "80"], stdout=PIPE, text=True))
                running.callback(process.kill)
                assert process.stdout is not None and process.stdout.readline() == "ready\n"
            yield

    def look(self) -> list[str]:
        """The host's links but for cables, its addresses and routes."""
        lines = self.sh(_LOOK).splitlines()
        return sorted(line for line in lines if not re.search("bv[0-9a-f]{12}", line))

    def clear(self) -> None:
        """Take away what the test made."""
        self.lab.run("host", [*STATION, "clear"], check=True)
        for name in self._sandboxes:
            self.lab.remove_sandbox(name)


def _a_lab() -> Lab:
    try:
        return Lab()
    except Unsupported as error:
        pytest.skip(str(error))


@pytest.fixture(scope="module")
def switched_lab() -> Iterator[tuple[Lab, OpenVSwitch]]:
    """A lab whose host has a switch in the place of its bridge."""
    if os.geteuid() != 0:
        pytest.skip("Open vSwitch needs root")
    with _a_lab() as lab, OpenVSwitch(partial(lab.popen, "host")) as switch, pytest.MonkeyPatch.context() as patch:
        patch.setenv("OVS_RUNDIR", str(switch.home))
        mac = "other_config:hwaddr=02:00:00:00:02:02"
        switch.vsctl("add-br", "ovsbr0", "--", "set", "bridge", "ovsbr0", "datapath_type=netdev", mac)
        lab.run("host", ["sh", "-ec", _MOVE], check=True)
        switch.vsctl("add-port", "ovsbr0", "enp3s0")
        lab.run("host", ["nft", _ONLY_THE_SWITCH], check=True)
        while "tentative" in lab.run("host", ["ip", "-6", "address"], check=True).stdout:
            time.sleep(0.05)
        for node, nic in (("router", "lan0"), ("laptop", "eth0")):
            # What a real wire carries is finished; that of a lab is not, as long as it stays in the kernel.
            lab.run(node, ["ethtool", "-K", nic, "tx", "off"], check=True)
        yield lab, switch


@pytest.fixture
def host(switched_lab: tuple[Lab, OpenVSwitch]) -> Iterator[Host]:
    """The host, without a network or an endpoint."""
    here = Host(*switched_lab)
    yield here
    here.clear()
    assert here.ports() == []


# --- a member of the LAN --------------------------------------------------------------------------------


def test_a_container_is_a_member_of_the_lan(host: Host) -> None:
    host.berth(LAN6)
    four, six = host.container("web")
    others = host.container("db")
    out = [("web", address) for address in (ROUTER, HOST, LAPTOP, INTERNET, ROUTER6, HOST6, LAPTOP6, *others)]
    back = [(node, address) for node in ("router", "host", "laptop", "db") for address in (four, six)]
    assert host.unreached(*out, *back) == []


def test_what_is_said_arrives_whole(host: Host) -> None:
    """A checksum that nobody computed would let pings through, and nothing else."""
    host.berth(LAN6)
    four, six = host.container("web")
    (db, _) = host.container("db")
    with host.serving("web", "laptop", "db"):
        for proto in ("tcp", "udp"):
            assert host.ask("laptop", four, proto) == LAPTOP
            assert host.ask("laptop", six, proto) == LAPTOP6
            assert host.ask("web", LAPTOP, proto) == four
            assert host.ask("web", LAPTOP6, proto) == six
            assert host.ask("web", db, proto) == four
            assert host.ask("host", four, proto) == HOST
    page = [sys.executable, "-c", _PAGE, f"http://{INTERNET}/"]
    assert "203.0.113.1" in host.lab.run("web", page, check=True).stdout  # the router's, which it is behind


def test_the_host_keeps_exactly_its_links_addresses_and_routes(host: Host) -> None:
    before = host.look()
    host.berth(LAN)
    host.container("web", "--mac 02:00:00:00:00:01")
    assert host.look() == before
    host.berth("detach lan web")
    host.berth("network rm lan")
    assert host.look() == before


# --- the network ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("create", [LAN, POST], ids=["flat", "post"])
def test_the_lan_is_learnt_from_its_switch(host: Host, create: str) -> None:
    host.berth(create)
    (net,) = host.told("network inspect lan")
    (pool,) = net["IPAM"]["Config"]
    assert (net["Driver"], pool["Subnet"], pool["Gateway"]) == ("flat", "192.168.2.0/24", ROUTER)


@pytest.mark.parametrize(("part", "what"), [(0, "network address"), (1, "gateway"), (2, "host's own"), (255, "broadc")])
def test_a_reserved_address_is_refused(host: Host, part: int, what: str) -> None:
    host.berth(LAN)
    complaint = host.refused(f"attach lan {host.sandbox('web')} --ip 192.168.2.{part}")
    assert f"192.168.2.{part} is " in complaint and what in complaint


def test_a_full_network_has_given_no_reserved_address(host: Host) -> None:
    host.berth(f"{LAN} --ip-range 192.168.2.0/29")
    given = {host.container(f"c{number}")[0] for number in range(5)}
    assert given == {f"192.168.2.{part}" for part in range(3, 8)}
    assert "is full" in host.refused(f"attach lan {host.sandbox('late')}")


def test_a_smaller_mtu_is_the_containers(host: Host) -> None:
    assert "1500" in host.refused(f"{LAN} -o mtu=9000")
    host.berth(f"{LAN} -o mtu=1300")
    host.container("web")
    links = json.loads(host.sh("ip -j link", "web"))
    assert [link["mtu"] for link in links if link["ifname"] == "eth0"] == [1300]


def test_what_is_of_the_kernels_bridges_is_refused(host: Host) -> None:
    complaint = host.refused(f"{LAN} -o bypass=always")
    assert "ovsbr0" in complaint and "leave it out" in complaint
    assert "enp3s0 is not a bridge" in host.refused("network create --driver flat -o parent=enp3s0 lan")
    assert "192.168.3.0/24 is not the LAN's" in host.refused(f"{LAN} --subnet 192.168.3.0/24")


def test_a_plan_is_what_an_operator_would_type(host: Host) -> None:
    host.berth(LAN)
    plan = host.berth(f"attach lan {host.sandbox('web')} --dry-run")
    assert "ovs-vsctl add-port ovsbr0 bv" in plan and "ethtool -K eth0 tx off" in plan
    assert host.ports() == []


# --- ends and repairs -----------------------------------------------------------------------------------


def test_a_detached_container_is_off_the_switch_and_its_successor_is_reached(host: Host) -> None:
    host.berth(LAN)
    for name in ("old", "new"):
        (address,) = host.container(name, "--ip 192.168.2.77")
        assert host.unreached(("laptop", address)) == []
        assert len(host.ports()) == 1
        host.berth(f"detach lan {name}")
        assert host.ports() == []


def test_reconcile_puts_a_port_back_and_leaves_strangers(host: Host) -> None:
    host.berth(LAN)
    (address,) = host.container("web")
    (port,) = host.ports()
    host.switch.vsctl("del-port", port)
    host.sh("ip link add guest0 up type veth peer name guest1")
    host.switch.vsctl("add-port", "ovsbr0", "guest0")
    try:
        assert host.unreached(("laptop", address)) == [("laptop", address)]
        host.berth("reconcile")
        assert sorted(host.ports()) == sorted([port, "guest0"])
        assert host.unreached(("laptop", address)) == []
    finally:
        host.switch.vsctl("del-port", "guest0")
        host.sh("ip link del guest0")


def test_reconcile_removes_the_port_of_a_container_that_is_gone(host: Host) -> None:
    host.berth(LAN)
    host.container("web")
    assert len(host.ports()) == 1
    host.lab.remove_sandbox("web")
    host._sandboxes.remove("web")
    host.berth("reconcile")
    assert host.ports() == []
    assert host.told("endpoint ls") == []


def test_a_restart_of_the_switch_loses_nobody(host: Host) -> None:
    host.berth(LAN)
    (address,) = host.container("web")
    host.switch.stop_switch()
    assert host.unreached(("laptop", address)) == [("laptop", address)]
    host.switch.start_switch()
    give_up = time.monotonic() + 10
    while left := host.unreached(("laptop", address), ("web", ROUTER), ("host", address)):
        assert time.monotonic() < give_up, left


def test_without_the_switch_an_attach_is_refused_and_a_detach_is_not(host: Host) -> None:
    host.berth(LAN)
    host.container("web")
    host.berth("network create --driver bridge --subnet 10.77.0.0/24 nat")
    host.switch.stop_switch()
    host.switch.stop_database()
    try:
        complaint = host.refused(f"attach lan {host.sandbox('late')}")
        assert "no Open vSwitch runs" in complaint and "systemctl start" in complaint
        assert [ep["name"] for ep in host.told("endpoint ls")] == ["web"]
        host.berth("detach lan web")
        host.berth("attach nat late")
    finally:
        host.switch.start_database()
        host.switch.start_switch()
    assert len(host.ports()) == 1  # as the database had it
    host.berth("reconcile")
    assert host.ports() == []
    (address,) = host.container("again")
    assert host.unreached(("laptop", address)) == []


def test_a_cable_that_was_cut_is_replaced(host: Host) -> None:
    host.berth(LAN)
    (address,) = host.container("web")
    (port,) = host.ports()
    host.sh(f"ip link del {port}")
    host.berth("reconcile")
    assert host.ports() == [port]
    assert host.unreached(("laptop", address), ("web", ROUTER)) == []


def test_the_host_is_asked_by_the_switch_alone(host: Host) -> None:
    """The kernel sees what comes out of a cable too, and would answer for the host past the switch."""
    host.berth(LAN6)
    host.container("web")
    assert "DUP" not in host.lab.run("web", ["ping", "-n", "-c3", "-i0.2", HOST], check=True).stdout
    said = host.lab.run("web", ["arping", "-c3", "-w3", "-I", "eth0", HOST]).stdout
    assert set(re.findall(r"\[([0-9A-F:]{17})\]", said)) == {"02:00:00:00:02:02"}
