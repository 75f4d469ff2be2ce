"""netplan's own generator reads what Berth wrote, and networkd and NetworkManager what that makes of it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from configparser import ConfigParser
from dataclasses import replace
from pathlib import Path

import pytest

from berth.hostconfig import File
from berth.hostconfig.netplan import Netplan
from berth.model import Addressing, Uplink
from hostconfig_cases import Case, cases

from .namespace_host import MAC, NamespaceHost, but_for_the_lease, difference, until

UPLINK = Uplink("eth0", "br0", MAC, ipv4=Addressing("auto"))
DHCP = "network:\n  version: 2\n  ethernets:\n    eth0: {dhcp4: true, link-local: []}\n"
IAID = "[DHCPv4]\nIAID=305419896\n"
CASES = [case for case in cases("netplan") if case.name != "networkmanager"]


@pytest.fixture
def host(tmp_path: Path) -> Iterator[NamespaceHost]:
    with NamespaceHost(tmp_path) as running:
        running.leases()
        yield running


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_the_bridge_gets_what_the_nic_had(host: NamespaceHost, case: Case) -> None:
    host.write(_by_name(case.before))
    host.run(["netplan", "generate"])
    networkd = host.networkd()
    had = None
    if not case.name.startswith("nothing"):
        host.settled("eth0")
        host.leased("eth0", case.uplink)
        had, mtu = host.load("eth0"), host.ip("link show dev eth0")[0]["mtu"]
    host.crash(networkd)

    host.write(_by_name(case.after))
    host.run(["netplan", "generate"])
    host.networkd()
    host.settled("eth0", "br0")
    host.is_a_port("eth0", "br0")
    if had is None:
        host.has(case.uplink)
    else:
        assert host.ip("link show dev br0")[0]["mtu"] == host.ip("link show dev eth0")[0]["mtu"] == mtu
        wanted = but_for_the_lease(had)
        until(lambda: but_for_the_lease(host.load("br0")) == wanted, lambda: difference(host.load("br0"), had))


def test_the_server_sees_the_client_that_it_knows(host: NamespaceHost) -> None:
    host.write({"etc/netplan/01.yaml": File(DHCP, 0o600)})
    passing = "run/systemd/network/10-netplan-eth0.network.d/a.conf"
    host.write({passing: File(IAID)})
    host.run(["netplan", "generate"])
    networkd = host.networkd()
    host.settled("eth0")
    had, client = host.load("eth0"), host.clients()
    edits = Netplan().adopt(host.files(Netplan.globs), UPLINK)
    host.crash(networkd)

    host.edit(edits)
    host.run(["netplan", "generate"])
    host.networkd()
    host.settled("eth0", "br0")
    assert (host.load("br0"), host.clients()) == (had, client)


def test_networkmanagers_profiles_say_it_too(host: NamespaceHost) -> None:
    (case,) = (case for case in cases("netplan") if case.name == "networkmanager")
    host.write(case.after)
    host.run(["netplan", "generate"])
    bridge, port = (_profile(host, link) for link in ("br0", "eth0"))
    assert bridge["connection"]["type"] == "bridge"
    assert (bridge["bridge"]["stp"], bridge["bridge"]["forward-delay"]) == ("false", "0")
    assert bridge["ethernet"]["cloned-mac-address"] == MAC
    assert (bridge["ipv4"]["method"], bridge["ipv6"]["method"]) == ("auto", "ignore")
    assert (port["connection"]["master"], port["connection"]["slave-type"]) == ("br0", "bridge")


def _by_name(files: Mapping[str, File]) -> dict[str, File]:
    """netplan has networkd match the permanent MAC, which a card has and half of a cable has not."""
    return {
        path: File(file.text.replace(f"macaddress: {MAC}", "name: eth0"), file.mode) for path, file in files.items()
    }


def _profile(host: NamespaceHost, link: str) -> ConfigParser:
    parser = ConfigParser(interpolation=None)
    path = f"/run/NetworkManager/system-connections/netplan-{link}.nmconnection"
    parser.read_string(host.sh(f"cat {path}"))
    return parser


def test_an_open_vswitch(host: NamespaceHost) -> None:
    host.edit(Netplan().adopt({}, replace(UPLINK, switch="ovs")))
    host.run(["netplan", "generate"])
    unit = host.sh("cat /run/systemd/system/netplan-ovs-br0.service")
    assert "ovs-vsctl --may-exist add-br br0\n" in unit and "add-port br0 eth0\n" in unit
    assert "DHCP=ipv4" in host.sh("cat /run/systemd/network/10-netplan-br0.network")


def test_a_running_networkd_takes_over_what_is_so_already(host: NamespaceHost) -> None:
    (case,) = (case for case in cases("netplan") if case.name == "dual-stack")
    host.write(case.before)
    host.run(["netplan", "generate"])
    host.networkd()
    host.settled("eth0")
    host.leased("eth0", case.uplink)
    host.answered()
    had = host.load("eth0")
    with host.pings() as pings:
        host.move("eth0", "br0")
        host.answered()
        host.edit(Netplan().adopt(host.files(Netplan.globs), case.uplink))
        for command in Netplan().reload(case.uplink):
            host.run(command)
        host.settled("eth0", "br0")
        host.is_a_port("eth0", "br0")
        until(lambda: host.load("br0") == had, lambda: difference(host.load("br0"), had))
    assert pings.gap < 2.5  # see networkd's own test


def test_a_running_networkmanager_takes_over_what_is_so_already(host: NamespaceHost) -> None:
    (case,) = (case for case in cases("netplan") if case.name == "networkmanager")
    host.write(case.before)
    host.run(["netplan", "generate"])
    host.networkmanager()
    until(lambda: "inet 10.77.0.1" in host.sh("ip address show dev eth0"), "no lease")
    client = host.clients()
    with host.pings() as pings:
        host.move("eth0", "br0")
        host.answered()
        host.edit(Netplan().adopt(host.files(Netplan.globs), case.uplink))
        for command in Netplan().reload(case.uplink):
            host.run(command)
        until(lambda: "netplan-br0" in host.sh("nmcli -g NAME connection show --active"), "the bridge has no profile")
        until(lambda: "proto dhcp" in host.sh("ip route show dev br0"), "no lease on the bridge")
    assert host.ip("address show dev eth0")[0]["addr_info"] == []
    assert host.ip("link show dev eth0")[0]["master"] == "br0"
    assert host.clients() == client
    assert pings.gap < 2.5  # NetworkManager takes the port off the bridge and on again, and asks for the lease anew
