"""The real managers leave Berth's links alone, once they are told; before, they do not."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from berth.hostconfig import File
from berth.hostconfig.keepaway import GLOBS, keep_away
from berth.model import Uplink

from .namespace_host import MAC, NamespaceHost, until

UPLINK = Uplink("eth0", "br0", MAC)
ANY = "[Match]\nType=ether\n\n[Network]\nDHCP=ipv4\n"


@pytest.fixture
def host(tmp_path: Path) -> Iterator[NamespaceHost]:
    with NamespaceHost(tmp_path) as running:
        running.sh("ip link set eth0 up; ip link add bv0123456789ab type veth peer name wild0")
        running.sh("ip link set bv0123456789ab up; ip link set wild0 up")
        yield running


def test_networkd(host: NamespaceHost) -> None:
    host.write({"etc/systemd/network/10-any.network": File(ANY)})
    networkd = host.networkd()
    until(lambda: host.link("bv0123456789ab").get("ADMIN_STATE") == "configuring", "networkd does not take every link")
    host.kill(networkd)
    host.edit(keep_away(host.files(GLOBS), UPLINK))
    host.sh("rm -f /run/systemd/netif/links/*")
    host.networkd()
    until(lambda: host.link("wild0").get("ADMIN_STATE") == "configuring", "networkd does not take every link")
    until(lambda: host.link("bv0123456789ab").get("ADMIN_STATE") == "unmanaged", "networkd takes a cable of ours")


def test_networkmanager(host: NamespaceHost) -> None:
    host.write({"etc/NetworkManager/conf.d/10-own.conf": File("[keyfile]\nunmanaged-devices=interface-name:wild*\n")})
    host.edit(keep_away(host.files(GLOBS), UPLINK))
    (line,) = (each for each in host.run(["NetworkManager", "--print-config"]).splitlines() if "unmanaged" in each)
    assert line == "unmanaged-devices=interface-name:wild*,interface-name:brt*,interface-name:bv*"


def test_dhcpcd(host: NamespaceHost) -> None:
    assert _solicits(host) == {"bv0123456789ab", "eth0", "wild0"}
    host.edit(keep_away(host.files(GLOBS), UPLINK))
    assert _solicits(host) == {"wild0"}


def _solicits(host: NamespaceHost) -> set[str]:
    """For which links dhcpcd asks for a lease."""
    host.sh("dhcpcd --nodev -4 -b --logfile /run/dhcpcd.log >/dev/null 2>&1")
    until(lambda: "soliciting" in host.sh("cat /run/dhcpcd.log"), "dhcpcd asks for nothing")
    time.sleep(3)  # it begins with each link after a random time of up to a second
    said = host.sh("dhcpcd -x >/dev/null 2>&1; cat /run/dhcpcd.log; rm /run/dhcpcd.log")
    return {line.split("]: ")[-1].partition(":")[0] for line in said.splitlines() if "soliciting" in line}
