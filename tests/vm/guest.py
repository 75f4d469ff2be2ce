"""What the tests ask of a virtual machine whose network card is adopted."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any

from berth.lab.session import Lab

from .machine import MAC, Machine
from .setups import Setup

ROUTER = "192.168.2.1"
# All that is configured anywhere, with its rights, but for what DHCP clients write as they go.
_ETC = "cd /etc && find . -xdev ! -name resolv.conf ! -name .pwd.lock ! -type d -printf '%p %M %U %G %l\\n' | sort"
_ETC += "; find . -xdev -type f ! -name resolv.conf -print0 | sort -z | xargs -0 sha256sum"


@dataclass(frozen=True, slots=True)
class Guest:
    """What the tests ask of the machine."""

    machine: Machine
    lab: Lab
    setup: Setup

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
        assert (bridge["address"], data["stp_state"]) == (MAC, 0)
        assert data["forward_delay"] in (0, self.setup.delay), "as Berth makes it, or as the system does"
        (card,) = self.ip("-d", "address", "show", "dev", "eth0")
        assert card["master"] == "br0"
        assert card["linkinfo"]["info_slave_data"]["state"] == "forwarding"
        assert [info for info in card["addr_info"] if info["family"] == "inet"] == []
        self._online("br0")

    def _online(self, link: str) -> None:
        assert [(route["gateway"], route["dev"]) for route in self.ip("-4", "route", "show", "default")] == [
            (ROUTER, link)
        ]
        self.machine.sh(f"ping -nc1 -W2 {ROUTER}")
