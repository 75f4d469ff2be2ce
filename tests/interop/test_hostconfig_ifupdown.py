"""What the renderer of ifupdown writes, read by Debian's own `ifup`: the kernel has on the bridge what the NIC had."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from berth.hostconfig import File
from berth.hostconfig.ifupdown import BRIDGE_UTILS, Ifupdown
from berth.hostconfig.interfaces import MAIN
from berth.model import Uplink
from hostconfig_cases import Case, cases

from .debian import Debian
from .lan import HOST, MAC, Lan, seen, told, until

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="a Debian of one's own needs root")

MEMORY = "var/lib/dhcp/dhclient.{}.leases"  # of the lease, and of what the client calls itself


def boot(lan: Lan, files: Mapping[str, File]) -> Debian:
    """A Debian with these files; those that only tell that bridge-utils is there, it has itself."""
    return Debian(lan.lab, HOST, {path: file for path, file in files.items() if path != BRIDGE_UTILS})


def lan_for(case: Case, directory: Path) -> Lan:
    return Lan(directory / "leases", advertise=case.uplink.ipv6.method == "auto")


def ifup(debian: Debian, case: Case) -> None:
    if BRIDGE_UTILS not in case.before:
        hooks = [f"etc/network/if-{phase}.d/bridge" for phase in ("pre-up", "down", "post-down")]
        debian.remove(BRIDGE_UTILS, *hooks)
    debian.run(["ifup", "-a", "--verbose"], check=True)
    debian.run(["ifup", "--allow=hotplug", "eth0"], check=True)  # as udev does when it finds the card


def handed_over(debian: Debian) -> dict[str, File]:
    """What the NIC's DHCP client remembers, for the bridge's: whoever moves a lease takes it along."""
    remembered = debian.run(["cat", f"/{MEMORY.format('eth0')}"]).stdout
    return {MEMORY.format("br0"): File(remembered.replace('"eth0"', '"br0"'))} if remembered else {}


def settled(lan: Lan, link: str, uplink: Uplink) -> dict[str, Any]:
    """What a link carries, when router advertisements have done their work."""
    if uplink.ipv6.method == "auto":
        until(lambda: any(each["family"] == "inet6" for each in lan.addresses(link)))
        until(lambda: any(each["dst"] == "default" for each in lan.json("-6", "route", "show", "dev", link)))
    return lan.look(link)


@pytest.mark.parametrize("case", cases("ifupdown"), ids=lambda case: case.name)
def test_the_bridge_carries_what_the_nic_did(case: Case, tmp_path: Path) -> None:
    written = case.name.startswith("nothing") or case.name == "card-without-address"
    had: dict[str, Any] = {}
    memory: dict[str, File] = {}
    if not written:
        with lan_for(case, tmp_path) as lan, boot(lan, case.before) as debian:
            ifup(debian, case)
            had = settled(lan, "eth0", case.uplink)
            assert had["addresses"], "else it would prove nothing"
            memory = handed_over(debian)
    with lan_for(case, tmp_path) as lan, boot(lan, case.after | memory) as debian:
        ifup(debian, case)
        has = settled(lan, "br0", case.uplink)
        lan.assert_bridge("br0", "eth0", case.uplink.mtu or 1500)
        assert lan.link("br0")["linkinfo"]["info_data"]["forward_delay"] == 0
        if not written:
            assert has == had
        elif case.uplink.ipv4.method == "static":
            assert seen(has) == told(case.uplink)
        assert lan.reaches("10.77.0.1")
        assert lan.json("-4", "route", "show", "default"), "no default route"
        debian.run(["ifdown", "-a"], check=True)
        assert not lan.link("br0"), "the bridge outlives ifdown"
        ifup(debian, case)
        assert settled(lan, "br0", case.uplink) == has


@pytest.mark.parametrize("method", ["static", "dhcp"])
def test_after_a_move_without_it_ifupdown_knows_of_the_bridge(method: str, tmp_path: Path) -> None:
    case = next(case for case in cases("ifupdown") if case.name == method)
    with lan_for(case, tmp_path) as lan, boot(lan, case.before) as debian:
        ifup(debian, case)
        lan.ip("link", "add", "br0", "address", MAC, "type", "bridge")
        lan.ip("link", "set", "dev", "eth0", "master", "br0")
        lan.ip("address", "flush", "dev", "eth0")
        debian.write({MAIN: case.after[MAIN]})
        for command in Ifupdown().reload(case.uplink):
            debian.run(command, check=True)
        state = debian.run(["ifquery", "--state"], check=True).stdout.split()
        assert sorted(state) == ["br0=br0", "lo=lo"]
        debian.run(["ifdown", "br0"], check=True)
        assert not lan.link("br0")
        debian.run(["ifup", "br0"], check=True)
        lan.assert_bridge("br0", "eth0", 1500)


@pytest.mark.parametrize("text", ["iface eth0 inet\n", "iface eth0 inte static\n", "address 10.77.0.5/24\n"])
def test_what_is_refused_is_refused_by_ifup_too(text: str, tmp_path: Path) -> None:
    with Lan(tmp_path / "leases") as lan, boot(lan, {MAIN: File(f"auto eth0\n{text}")}) as debian:
        assert debian.run(["ifup", "-a"]).returncode != 0
