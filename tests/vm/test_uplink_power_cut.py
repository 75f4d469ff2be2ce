"""A host that loses its power in the middle of an adoption starts as it was before, wholly."""

from __future__ import annotations

import pytest

from berth.lab.session import Lab

from .conftest import Power
from .guest import Guest
from .setups import SETUPS

_ADOPT = "setsid berth uplink adopt eth0 {how} >/root/adopt.log 2>&1 &"
_STATE = "berth uplink status eth0 --json | python3 -c \"import json, sys; print(json.load(sys.stdin)[0]['{field}'])\""

# What a system is told by is held up, as it might be on a busy host: the files are written, and nobody has read them.
# It is only below /run, and gone with the power.
_SLOW = """
mkdir /run/slow
for each in networkctl nmcli netplan; do
    printf '#!/bin/sh\\ntouch /run/slow/told\\nexec sleep 600\\n' >/run/slow/$each
    chmod 755 /run/slow/$each
done
"""

pytestmark = [pytest.mark.long, pytest.mark.timeout(900)]


@pytest.mark.parametrize("name", ["ifupdown-static", "networkd-dhcp", "networkmanager-dhcp", "netplan-static"])
def test_a_power_cut_before_the_operator_has_confirmed(machine: Power, lab: Lab, name: str) -> None:
    """The bridge is there and no file is written yet."""
    with machine(SETUPS[name]) as running:
        guest = Guest(running, lab, SETUPS[name])
        (address,) = guest.addresses("eth0")
        etc = guest.etc()
        running.sh(_ADOPT.format(how="--confirm-within 600"))
        running.until("grep -q 'keep it within' /root/adopt.log", 60)
        guest.is_adopted(address)

        running.cut_power()
        running.start()
        _is_wholly_as_before(guest, address, etc)


@pytest.mark.parametrize("name", ["networkd-static", "networkd-dhcp", "networkmanager-static", "netplan-static"])
def test_a_power_cut_when_the_files_are_written(machine: Power, lab: Lab, name: str) -> None:
    """All files are written and on the disk, but the change is not over."""
    with machine(SETUPS[name]) as running:
        guest = Guest(running, lab, SETUPS[name])
        (address,) = guest.addresses("eth0")
        etc = guest.etc()
        running.sh(_SLOW)
        running.sh("PATH=/run/slow:$PATH " + _ADOPT.format(how=""))
        running.until("test -e /run/slow/told || { cat /root/adopt.log; exit 1; }", 60)
        assert guest.etc() != etc

        running.cut_power()
        running.start()
        _is_wholly_as_before(guest, address, etc)


def test_a_power_cut_between_two_files(machine: Power, lab: Lab) -> None:
    """The first file is written; the second one is to be on a disk that takes nothing any more."""
    with machine(SETUPS["ifupdown-static"]) as running:
        guest = Guest(running, lab, SETUPS["ifupdown-static"])
        (address,) = guest.addresses("eth0")
        etc = guest.etc()
        running.sh(
            "truncate -s 8M /root/stuck && mkfs.ext4 -q /root/stuck && mount -o loop /root/stuck /etc/systemd/network"
            " && fsfreeze --freeze /etc/systemd/network"
        )
        running.sh(_ADOPT.format(how=""))
        running.until("grep -q br0 /etc/network/interfaces || { cat /root/adopt.log; exit 1; }", 60)

        running.cut_power()
        running.start()
        _is_wholly_as_before(guest, address, etc)


def test_the_second_belt(machine: Power, lab: Lab) -> None:
    """The command and its guard are killed before the operator has confirmed: systemd's timer puts the host back."""
    with machine(SETUPS["ifupdown-static"]) as running:
        guest = Guest(running, lab, SETUPS["ifupdown-static"])
        (address,) = guest.addresses("eth0")
        etc = guest.etc()
        running.sh(_ADOPT.format(how="--confirm-within 5"))
        running.until("grep -q 'keep it within' /root/adopt.log", 60)
        running.sh("pkill -9 -f 'berth[.]guard'; pkill -9 -f 'uplink ado[p]t'")
        guest.is_adopted(address)
        running.until("! ip link show dev br0 2>/dev/null | grep -q br0", 180)
        running.until("! systemctl --quiet is-active 'berth-uplink-guard-*.service'", 60)
        _is_wholly_as_before(guest, address, etc)


def _is_wholly_as_before(guest: Guest, address: str, etc: list[str]) -> None:
    """The network, the files, and what Berth knows; and the next adoption, and a reboot after it, are as the first."""
    guest.is_as_before(address)
    assert guest.etc() == etc
    assert guest.machine.sh(_STATE.format(field="adopted")) == "False\n"
    guest.machine.sh("berth uplink adopt eth0", timeout=120)
    guest.is_adopted(address)
    guest.machine.restart()
    guest.is_adopted(address)
