"""The virtual machine itself: what the tests of reboots stand on."""

from __future__ import annotations

import pytest

from berth.lab.session import Lab

from .conftest import Power
from .setups import ADDRESS, SETUPS


@pytest.mark.long
@pytest.mark.timeout(900)
@pytest.mark.parametrize("name", SETUPS)
def test_each_system_sets_the_card_up_again_after_a_reboot_and_a_power_cut(machine: Power, lab: Lab, name: str) -> None:
    """Without Berth: what fails here is the fault of the machine or of its files."""
    with machine(SETUPS[name]) as guest:
        boots = [guest.sh("cat /proc/sys/kernel/random/boot_id; ip -4 -br address show eth0; ip -4 route")]
        assert guest.sh("berth --version").startswith("berth")
        guest.sh("echo kept >/root/kept; sync")
        guest.restart()
        boots.append(guest.sh("cat /proc/sys/kernel/random/boot_id; ip -4 -br address show eth0; ip -4 route"))
        guest.cut_power()
        guest.start()
        boots.append(guest.sh("cat /proc/sys/kernel/random/boot_id; ip -4 -br address show eth0; ip -4 route"))
        assert guest.sh("cat /root/kept") == "kept\n"
        ids, states = zip(*(boot.split("\n", 1) for boot in boots), strict=True)
        assert len(set(ids)) == 3
        assert len(set(states)) == 1, states
        assert (f"{ADDRESS}/24" in states[0]) == SETUPS[name].fixed
        lab.run("laptop", ["ping", "-nc1", "-W2", states[0].split()[2].partition("/")[0]], check=True)
