"""Which switch a flat network is on, and what its cables are made of there."""

from __future__ import annotations

from dataclasses import replace
from ipaddress import ip_address, ip_interface, ip_network

import pytest

from berth import spec
from berth.drivers import DRIVERS, choose
from berth.errors import Invalid, Unsupported
from berth.model import Endpoint, Host, HostLink, HostRoute, Network, Placement, Sandbox
from berth.ovs import OvsPort, TxChecksums
from berth.schema import dump, load_network
from berth.state import HOST, State, Sysctl, Veth

FLAT = DRIVERS["flat"]
OVS = HostLink("br0", "ovs", 1500, True, addresses=(ip_interface("192.168.2.2/24"),), mac="02:00:00:00:00:02")
USERSPACE, BRIDGE = replace(OVS, userspace=True), replace(OVS, kind="bridge")
C1 = "/run/netns/c1"
MARK = "berth:" + "2" * 64


def host(link: HostLink) -> Host:
    route = HostRoute(ip_network("0.0.0.0/0"), "br0", ip_address("192.168.2.1"))
    return Host((link, HostLink("enp3s0", "", 1500, True, master="br0")), (route,), obstacles=("policy drop",))


def lan(link: HostLink, *options: str) -> Network:
    asked = spec.network_spec(name="lan", driver="flat", options=["parent=br0", *options])
    return FLAT.complete(asked, host(link), "1" * 64, "")


def cable(link: HostLink, placement: Placement = Placement.FULL) -> State:
    ns, dev = (C1, "eth0") if placement is Placement.FULL else (HOST, "bw2")
    made = Endpoint("2" * 64, "1" * 64, "web", Sandbox(ns, "c1"), "bv2", dev, "02:00:00:00:00:09", ())
    return FLAT.endpoint(lan(link), replace(made, placement=placement))


def test_the_kernels_bridge_is_the_cables_master() -> None:
    (veth,) = [obj for obj in cable(BRIDGE) if isinstance(obj, Veth)]
    assert veth.master == "br0"
    assert not [obj for obj in cable(BRIDGE) if isinstance(obj, OvsPort | TxChecksums)]


@pytest.mark.parametrize("placement", Placement)
def test_open_vswitch_is_told_of_the_cable(placement: Placement) -> None:
    state = cable(OVS, placement)
    assert [obj.master for obj in state if isinstance(obj, Veth)] == [""]
    assert OvsPort("br0", "bv2", MARK) in state
    assert not [obj for obj in state if isinstance(obj, TxChecksums)]


@pytest.mark.parametrize("placement", Placement)
def test_a_switch_outside_the_kernel_gets_whole_packets_and_the_host_stays_out_of_it(placement: Placement) -> None:
    state = cable(USERSPACE, placement)
    inner = TxChecksums(C1, "eth0") if placement is Placement.FULL else TxChecksums(HOST, "bw2")
    assert inner in state
    assert Sysctl(HOST, "net.ipv4.conf.bv2.arp_ignore", "8") in state
    assert Sysctl(HOST, "net.ipv6.conf.bv2.disable_ipv6", "1") in state


def test_no_chain_of_the_hosts_is_to_be_gone_past() -> None:
    assert lan(BRIDGE).bypass
    assert not lan(OVS).bypass
    assert not lan(OVS, "bypass=never").bypass
    with pytest.raises(Invalid, match=r"br0.*leave it out"):
        lan(OVS, "bypass=always")


@pytest.mark.parametrize("link", [OVS, USERSPACE])
@pytest.mark.parametrize("option", ["ingress_rate=1mbit", "egress_rate=1mbit"])
def test_open_vswitch_keeps_no_rates_of_berths(link: HostLink, option: str) -> None:
    assert lan(BRIDGE, option).rates
    with pytest.raises(Invalid, match=r"br0 is Open vSwitch's: leave it out"):
        lan(link, option)


def test_a_switch_that_does_not_run_is_told_from_a_link_that_is_none() -> None:
    with pytest.raises(Unsupported, match="systemctl start openvswitch-switch"):
        lan(replace(OVS, kind="openvswitch"))
    with pytest.raises(Invalid, match="br0 is not a bridge"):
        lan(replace(OVS, kind="tun"))


def test_the_posts_words_mean_the_lan_on_either_switch() -> None:
    asked = spec.network_spec(name="lan", options=["com.docker.network.bridge.name=br0"])
    assert [choose(asked, host(link)).name for link in (BRIDGE, OVS)] == ["flat", "flat"]
    assert choose(asked, host(replace(OVS, addresses=()))).name == "bridge"


def test_the_switch_is_remembered() -> None:
    net = lan(USERSPACE)
    assert (net.switch, net.userspace) == ("ovs", True)
    assert load_network(dump(net)) == net
