"""An adopted network card over real reboots, with each of the systems that may set it up."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any

import pytest

from berth.lab.session import Lab

from .conftest import Power
from .machine import MAC, Machine
from .pings import pinged
from .setups import ADDRESS, SETUPS, Setup

ROUTER = "192.168.2.1"
_OUT_FOR = 5.0  # seconds at most that an emulated machine, which is some twenty times slower, is away in a move
# All that is configured anywhere, with its rights, but for what DHCP clients write as they go.
_ETC = "cd /etc && find . -xdev ! -name resolv.conf ! -name .pwd.lock ! -type d -printf '%p %M %U %G %l\\n' | sort"
_ETC += "; find . -xdev -type f ! -name resolv.conf -print0 | sort -z | xargs -0 sha256sum"


@dataclass(frozen=True, slots=True)
class Guest:
    """What the tests ask of the machine."""

    machine: Machine
    lab: Lab

    def ip(self, *words: str) -> list[dict[str, Any]]:
        """What `ip -j …` says."""
        said = self.machine.sh(f"ip -j {' '.join(words)}")
        return [entry for entry in json.loads(said or "[]") if entry]

    def addresses(self, link: str) -> list[str]:
        """The IPv4 addresses of a link, and no others' that come from a moment when it had none yet."""
        self.machine.until(f"ip -4 -o address show dev {link} | grep -q .")
        (entry,) = self.ip("-4", "address", "show", "dev", link)
        return [info["local"] for info in entry["addr_info"]]

    def etc(self) -> list[str]:
        """All files of /etc."""
        return self.machine.sh(_ETC).splitlines()

    def flat(self, sandbox: str) -> None:
        """Plug a new sandbox into the network `lan`: it reaches the router, and the laptop reaches it."""
        self.machine.sh(f"ip netns add {sandbox}")
        said = json.loads(self.machine.sh(f"berth attach lan {sandbox} --json"))
        self.machine.sh(f"ip netns exec {sandbox} ping -nc3 -W2 {ROUTER}")
        address = said["addresses"][0].partition("/")[0]
        self.lab.run("laptop", ["ping", "-nc3", "-W2", address], check=True)

    def is_as_before(self, address: str) -> None:
        """The card carries the address by itself, is what the default route goes by, and there is no bridge."""
        assert self.addresses("eth0") == [address]
        assert [link["ifname"] for link in self.ip("link")] == ["lo", "eth0"]
        self._online("eth0")

    def is_adopted(self, address: str) -> None:
        """The bridge is as it should be and carries the address, and the card is its port and carries none."""
        assert self.addresses("br0") == [address]
        (bridge,) = self.ip("-d", "link", "show", "dev", "br0")
        data = bridge["linkinfo"]["info_data"]
        assert (bridge["address"], data["stp_state"], data["forward_delay"]) == (MAC, 0, 0)
        (card,) = self.ip("address", "show", "dev", "eth0")
        assert card["master"] == "br0"
        assert [info for info in card["addr_info"] if info["family"] == "inet"] == []
        self._online("br0")

    def _online(self, link: str) -> None:
        assert [(route["gateway"], route["dev"]) for route in self.ip("-4", "route", "show", "default")] == [
            (ROUTER, link)
        ]
        self.machine.sh(f"ping -nc1 -W2 {ROUTER}")


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
        guest = Guest(running, lab)
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
