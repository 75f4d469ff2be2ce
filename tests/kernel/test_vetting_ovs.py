"""A machine behind Open vSwitch that holds an address, and one that takes it later."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator
from ipaddress import ip_address
from pathlib import Path

import pytest

import hosts
import vswitch
from berth.lan.linux import LinuxLan
from berth.model import Claim
from vswitch import OpenVSwitch

from .conftest import Host, sh
from .running import until
from .test_vetting import STRANGER, hold, plug

pytestmark = pytest.mark.timeout(vswitch.patience(120))


@pytest.fixture(scope="module", autouse=True)
def debian() -> None:
    """The switch's programs, made before a test is in a namespace without a network."""
    if Path("/proc/self/uid_map").read_text().split()[:2] != ["0", "0"] or os.geteuid() != 0:
        pytest.skip("Open vSwitch needs the machine's root: its own links come from /dev/net/tun")
    hosts.net_tree()


@pytest.fixture
def switched(host: Host) -> Iterator[Host]:
    with OpenVSwitch(subprocess.Popen) as switch:
        host.sandbox("phone")
        plug(host, "phone", "", STRANGER)
        switch.vsctl("add-br", "lan0", "--", "set", "bridge", "lan0", "datapath_type=netdev")
        switch.vsctl("add-port", "lan0", "phone")
        sh("ip link set lan0 up")
        hold(host, "192.168.2.3/24", "fd00:2::3/64")
        yield host


def test_the_bridges_own_port_asks_and_hears(switched: Host) -> None:
    lan = LinuxLan()
    wanted = [ip_address(text) for text in ("192.168.2.3", "192.168.2.4", "fd00:2::3", "fd00:2::4")]
    held = {wanted[0]: STRANGER, wanted[2]: STRANGER}
    until(lambda: lan.holders("lan0", wanted, full=False, mine=()) == held)  # the switch takes a moment to learn
    assert lan.holders("lan0", wanted, full=False, mine=[STRANGER]) == {}
    watch = lan.watch("lan0")
    heard: set[Claim] = set()

    def claimed() -> bool:
        sh("ip -n phone addr replace 192.168.2.4/24 dev eth0; ip -n phone link set eth0 arp on up")
        sh("nsenter --net=/run/netns/phone ping -c1 -W1 192.168.2.99 >/dev/null || true")
        heard.update(watch.claims())
        return any(claim.mac == STRANGER for claim in heard)

    until(claimed)
    watch.close()
    lan.close()
