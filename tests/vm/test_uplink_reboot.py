"""An adopted network card over real reboots, with each of the systems that may set it up."""

from __future__ import annotations

from typing import Any

import pytest

from berth.lab.session import Lab

from .conftest import Power
from .guest import Guest
from .pings import pinged
from .setups import ADDRESS, SETUPS, Setup

_OUT_FOR = 5.0  # seconds at most that an emulated machine, which is some twenty times slower, is away in a move


def _each(quickest: str) -> list[Any]:
    """All set-ups; `./run test` takes the quickest, and leaves the others to `./run test-vm`."""
    return [
        pytest.param(setup, id=name, marks=() if name == quickest else pytest.mark.long)
        for name, setup in SETUPS.items()
    ]


@pytest.mark.timeout(900)
@pytest.mark.parametrize("setup", _each("ifupdown-static"))
def test_what_was_adopted_is_there_after_a_reboot_and_what_was_released_is_not(
    machine: Power, lab: Lab, setup: Setup, record_property: Any
) -> None:
    with machine(setup) as running:
        guest = Guest(running, lab, setup)
        (address,) = guest.addresses("eth0")
        assert (address == ADDRESS) == setup.fixed
        guest.is_as_before(address)
        etc = guest.etc()

        with pinged(lab, "laptop", address) as adopting:
            running.sh("berth uplink adopt eth0 --bridge br0", timeout=120)
        guest.is_adopted(address)
        running.sh("berth network create --driver flat --ip-range 192.168.2.128/27 -o parent=br0 lan")
        guest.flat("one")

        running.restart()
        guest.is_adopted(address)
        assert "not in effect" not in running.sh("berth uplink status eth0")
        running.sh("berth reconcile")
        guest.flat("two")
        running.sh("berth detach lan two; berth network rm lan")

        with pinged(lab, "laptop", address) as releasing:
            running.sh("berth uplink release eth0", timeout=120)
        guest.is_as_before(address)
        assert guest.etc() == etc

        running.restart()
        guest.is_as_before(address)
        assert guest.etc() == etc

    record_property("longest gap in adopt, ms", round(adopting.gap * 1000))
    record_property("longest gap in release, ms", round(releasing.gap * 1000))
    assert max(adopting.gap, releasing.gap) < _OUT_FOR
