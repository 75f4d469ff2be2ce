"""A NIC joins a bridge of a real Open vSwitch, and leaves it."""

from __future__ import annotations

import os
from collections.abc import Iterator
from functools import partial

import pytest
from lab_home import HOST, LAPTOP, MAC, NIC, ROUTER, Home, bare, talking

import vswitch
from berth.errors import Unsupported
from berth.lab.session import Lab
from vswitch import OpenVSwitch

pytestmark = pytest.mark.timeout(vswitch.patience(90))


@pytest.fixture
def house(monkeypatch: pytest.MonkeyPatch) -> Iterator[Home]:
    """A fresh lab, and its host, where Open vSwitch runs."""
    if os.geteuid() != 0:
        pytest.skip("Open vSwitch needs root")
    try:
        lab = Lab(bare())
    except Unsupported as error:
        pytest.skip(str(error))
    with lab, OpenVSwitch(partial(lab.popen, "host")) as switch:
        monkeypatch.setenv("OVS_RUNDIR", str(switch.home))
        for node, nic in (("router", "lan0"), ("laptop", "eth0"), ("host", NIC)):
            # What a real wire carries is finished; that of a lab is not, as long as it stays in the kernel.
            lab.run(node, ["ethtool", "-K", nic, "tx", "off"], check=True)
        yield Home(lab)


def test_adopted_by_open_vswitch_and_released(house: Home) -> None:
    before = house.look()
    with talking(house.lab) as gaps:
        house.berth(f"uplink adopt {NIC} --switch ovs")
    print(f"adopt: {gaps}")
    assert max(gaps) < 2
    assert MAC in house.sh("ip link show br0")
    assert f"{HOST}/24" in house.sh("ip address show br0")
    assert "ovs" in house.berth("uplink status --json")
    house.berth("network create --driver flat -o parent=br0 lan")
    house.lab.sandbox("c1")
    house.berth("attach lan c1 --ip 192.168.2.60")
    for address in (ROUTER, LAPTOP, HOST, "203.0.113.10"):
        house.sh(f"ping -c1 -W2 {address}", "c1")
    house.sh("ping -c1 -W2 192.168.2.60", "laptop")
    assert "detach" in house.refused(f"uplink release {NIC}")
    house.berth("reconcile")
    house.sh(f"ping -c1 -W2 {ROUTER}")
    house.berth("detach lan c1")
    house.berth("network rm lan")
    house.berth(f"uplink release {NIC}")
    assert house.look() == before


def test_killed_at_every_step(house: Home) -> None:
    assert house.survives(f"uplink adopt {NIC} --switch ovs", house.look) > 10


def test_no_files_are_written_for_it(house: Home) -> None:
    assert "--persist none" in house.refused(f"uplink adopt {NIC} --switch ovs --persist networkd")


def test_without_open_vswitch(house: Home) -> None:
    before = house.look()
    said = house.refused(f"uplink adopt {NIC} --switch ovs", OVS_RUNDIR="/nowhere")
    assert "Open vSwitch" in said
    assert house.look() == before
