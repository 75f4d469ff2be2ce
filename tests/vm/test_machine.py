"""The virtual machine itself: what the tests of reboots stand on."""

from __future__ import annotations

import pytest

from .conftest import Power
from .machine import Machine
from .setups import ADDRESS, SETUPS


@pytest.mark.long
@pytest.mark.timeout(900)
@pytest.mark.parametrize("name", SETUPS)
def test_each_system_sets_the_card_up_again_after_a_reboot_and_a_power_cut(machine: Power, name: str) -> None:
    """Without Berth: what fails here is the fault of the machine or of its files."""
    with machine(SETUPS[name]) as guest:
        boots = [_look(guest)]
        assert guest.sh("berth --version").startswith("berth")
        guest.sh("echo kept >/root/kept; sync")
        guest.restart()
        boots.append(_look(guest))
        guest.cut_power()
        guest.start()
        boots.append(_look(guest))
        assert guest.sh("cat /root/kept") == "kept\n"
    ids, states = zip(*boots, strict=True)
    assert len(set(ids)) == 3
    assert len(set(states)) == 1, states
    assert (states[0] == ADDRESS) == SETUPS[name].fixed


def _look(guest: Machine) -> tuple[str, str]:
    """Which boot it is, and the card's one address, by which the router can be reached."""
    guest.until("ip -4 route show default | grep -q .")  # a DHCP client may not be waited for in a boot
    guest.sh("ping -nc1 -W2 192.168.2.1")
    boot, address = guest.sh("cat /proc/sys/kernel/random/boot_id; ip -4 -o address show eth0").splitlines()
    return boot, address.split()[3].partition("/")[0]
