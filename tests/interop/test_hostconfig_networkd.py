"""systemd-networkd reads what Berth wrote, and gives the bridge what it gave the NIC."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from berth.hostconfig import File
from berth.hostconfig.networkd import Networkd
from berth.model import Addressing, Uplink
from hostconfig_cases import Case, cases

from .namespace_host import MAC, NamespaceHost, but_for_the_lease, difference, until

ETC = "etc/systemd/network"
DHCP = "[Match]\nName=eth0\n\n[Network]\nDHCP=ipv4\nLinkLocalAddressing=no\n"
UPLINK = Uplink("eth0", "br0", MAC, ipv4=Addressing("auto"))


@pytest.fixture
def host(tmp_path: Path) -> Iterator[NamespaceHost]:
    with NamespaceHost(tmp_path) as running:
        running.leases()
        yield running


@pytest.mark.parametrize("case", cases("networkd"), ids=lambda case: case.name)
def test_the_bridge_gets_what_the_nic_had(host: NamespaceHost, case: Case) -> None:
    host.write(case.before)
    networkd = host.networkd()
    had = None
    if not case.name.startswith(("nothing", "unmanaged")):
        host.settled("eth0")
        host.leased("eth0", case.uplink)
        had, mtu = host.load("eth0"), host.ip("link show dev eth0")[0]["mtu"]
    host.crash(networkd)

    host.write(case.after)
    host.remove(*(case.before.keys() - case.after.keys()))
    host.networkd()
    host.settled("eth0", "br0")
    host.is_a_port("eth0", "br0")
    if had is None:
        host.has(case.uplink)
    else:
        assert host.ip("link show dev br0")[0]["mtu"] == host.ip("link show dev eth0")[0]["mtu"] == mtu
        until(
            lambda: but_for_the_lease(host.load("br0")) == but_for_the_lease(had),
            lambda: difference(host.load("br0"), had),
        )


def test_the_server_sees_the_client_that_it_knows(host: NamespaceHost) -> None:
    """The IAID of a lease is not the one that networkd would make up for the bridge, as with a NIC in a PCI slot."""
    host.write({f"{ETC}/20-eth0.network": File(DHCP), f"run/{ETC[4:]}/20-eth0.network.d/a.conf": File(IAID)})
    networkd = host.networkd()
    host.settled("eth0")
    had, client = host.load("eth0"), host.clients()
    files = host.files(Networkd.globs)
    host.crash(networkd)

    host.remove(f"run/{ETC[4:]}/20-eth0.network.d/a.conf")
    files = {path: file for path, file in files.items() if not path.endswith("a.conf")}
    host.edit(Networkd().adopt(files, UPLINK))
    host.networkd()
    host.settled("eth0", "br0")
    assert (host.load("br0"), host.clients()) == (had, client)


IAID = "[DHCPv4]\nIAID=305419896\n"


@pytest.mark.parametrize("name", ["static", "dual-stack", "dhcp-client-id", "catch-all"])
def test_a_running_networkd_takes_over_what_is_so_already(host: NamespaceHost, name: str) -> None:
    (case,) = [case for case in cases("networkd") if case.name == name]
    host.write(case.before)
    host.networkd()
    host.settled("eth0")
    host.leased("eth0", case.uplink)
    host.answered()
    had = host.load("eth0")
    with host.pings() as pings:
        host.move("eth0", "br0")
        host.answered()  # files are written when the gateway has answered
        host.edit(Networkd().adopt(host.files(Networkd.globs), case.uplink))
        for command in Networkd().reload(case.uplink):
            host.run(command)
        host.settled("eth0", "br0")
        host.is_a_port("eth0", "br0")
        until(lambda: host.load("br0") == had, lambda: f"{host.load('br0')} is not {had}")
    # networkd takes addresses away that it did not give, and gives them again a few milliseconds later. With the last
    # one go the neighbours; where a request for the gateway's MAC falls into that time, it is repeated a second later.
    assert pings.gap < 2.5
