"""What the renderer of ifcfg files writes, beside what cloud-init's own renderer makes of the same intent.

No system that reads these files can be run here. Cloud-init writes them on every RHEL in the cloud, from a model of
its own: where it says something else, either it or we are wrong. Each difference has its reason below.
"""

from __future__ import annotations

import json
import os
import re
import shlex
from collections.abc import Iterator
from ipaddress import ip_network
from pathlib import PurePosixPath
from typing import Any

import pytest

from berth.hostconfig.ifcfg import DIRECTORY
from berth.model import Uplink
from hostconfig_cases import Case, cases

from .debian import Debian
from .lan import HOST, Lan

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="a Debian of one's own needs root")

CASES = cases("ifcfg")
RENDER = """
import json, pathlib, sys
from cloudinit.distros.rhel import Distro
from cloudinit.net import network_state, sysconfig
config = dict(Distro.renderer_configs["sysconfig"], dns_path=None, networkmanager_conf_path=None, netrules_path=None)
state = network_state.parse_net_config_data(json.load(sys.stdin))
sysconfig.Renderer(config).render_network_state(state, target="/tmp/rendered")
print(json.dumps({path.name: path.read_text() for path in pathlib.Path("/tmp/rendered").rglob("*-*0")}))
"""
#: What we say and it does not.
LOST = {
    ("ifcfg-br0", "NAME"): "a name for people",
    ("ifcfg-br0", "UUID"): "NetworkManager's, so that it can be told which profile to bring up",
    ("ifcfg-br0", "MACADDR"): "it has no MAC for a bridge: the host's lease would depend on the order of the ports",
    ("ifcfg-br0", "DELAY"): "it has no forward delay for a bridge, be it 0 or not",
    ("ifcfg-br0", "IPV6_AUTOCONF"): "it does not say that addresses are learnt: the default",
    ("ifcfg-eth0", "NAME"): "a name for people",
    ("ifcfg-eth0", "UUID"): "NetworkManager's, kept",
}
#: What it says and we do not.
ADDED = {
    "USERCTL": "its default, which is also the scripts'",
    "NM_CONTROLLED": "its way to have the scripts alone read it; ours stays as the NIC's file has it",
    "DEFROUTE": "the default where there is a gateway",
    "IPV6_FORCE_ACCEPT_RA": "it was not asked",
    "DHCPV6C": "it has no router advertisements but with DHCPv6; NetworkManager does what they say by itself",
    "HWADDR": "the NIC's file had none, and is found by DEVICE",
    "TYPE": "the NIC's file had none: Ethernet is the default",
}


@pytest.fixture(scope="module")
def debian(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Debian]:
    with Lan(tmp_path_factory.mktemp("lan") / "leases") as lan, Debian(lan.lab, HOST, {}) as running:
        yield running


def intent(uplink: Uplink) -> dict[str, Any]:
    """The uplink as cloud-init takes it (network configuration, version 2). Of tables it knows only the main one."""
    bridge: dict[str, Any] = {"interfaces": [uplink.nic], "macaddress": uplink.mac}
    bridge["parameters"] = {"stp": False, "forward-delay": 0}
    for number, each in ((4, uplink.ipv4), (6, uplink.ipv6)):
        bridge.setdefault("addresses", []).extend(str(address) for address in each.addresses)
        if each.method == "auto":
            bridge[f"dhcp{number}"] = True
        if each.gateway is not None:
            bridge[f"gateway{number}"] = str(each.gateway)
    bridge["nameservers"] = {"addresses": [str(each) for each in uplink.dns], "search": list(uplink.search)}
    routes = [each for each in uplink.routes if each.table == 254]
    bridge["routes"] = [{"to": str(each.dst), "via": str(each.via), "metric": each.metric} for each in routes]
    mtu = {"mtu": uplink.mtu} if uplink.mtu else {}
    card = {"match": {"macaddress": uplink.mac}, "set-name": uplink.nic}
    return {"version": 2, "ethernets": {uplink.nic: card | mtu}, "bridges": {uplink.bridge: bridge | mtu}}


def settings(text: str) -> dict[str, str]:
    """A file's keys and values as the shell has them; netmasks as lengths."""
    found = {}
    for word in shlex.split(text, comments=True):
        key, _, value = word.partition("=")
        if re.fullmatch(r"NETMASK\d*", key):
            key, value = key.replace("NETMASK", "PREFIX"), str(ip_network(f"0.0.0.0/{value}").prefixlen)
        found[key] = value.lower() if key in ("HWADDR", "MACADDR") else value
    return found


def routes(files: dict[str, str]) -> set[tuple[str, str]]:
    """Destinations and routers of the bridge's route files, in either of their two ways to be written."""
    found = set()
    for name in ("route-br0", "route6-br0"):
        text = files.get(name, "")
        found |= set(re.findall(r"(?m)^(\S+) via (\S+)", re.sub(r"(?m)^.* table 100$", "", text)))
        for number, address in re.findall(r"(?m)^ADDRESS(\d+)=(\S+)", text):
            assigned = settings(text)
            network = ip_network(f"{address}/{assigned[f'PREFIX{number}']}")
            found.add((str(network), assigned[f"GATEWAY{number}"]))
    return found


def differences(
    name: str, ours: dict[str, str], theirs: dict[str, str]
) -> set[tuple[str, str, str | None, str | None]]:
    """What is not the same, and has no reason."""
    found = set()
    for key in ours.keys() | theirs.keys():
        mine, other = ours.get(key), theirs.get(key)
        explained = (other is None and (name, key) in LOST) or (mine is None and key in ADDED)
        if mine != other and not explained:
            found.add((name, key, mine, other))
    return found


#: What one case alone has otherwise.
EXPECTED: dict[str, set[tuple[str, str, str | None, str | None]]] = {
    # Word for word what the NIC's file said: the scripts know static and none as one.
    "static": {("ifcfg-br0", "BOOTPROTO", "static", "none")},
    # A file for each alias stays one.
    "several-addresses": {
        ("ifcfg-br0", "IPADDR2", None, "10.77.0.7"),
        ("ifcfg-br0", "PREFIX2", None, "32"),
    },
    # A link-local router without its link is none.
    "dual-stack": {("ifcfg-br0", "IPV6_DEFAULTGW", "fe80::1%br0", "fe80::1")},
    # What the NIC's file said, word for word.
    "dhcp": {
        ("ifcfg-br0", "IPV4_FAILURE_FATAL", "no", None),
        ("ifcfg-br0", "IPV6INIT", "no", None),
        ("ifcfg-br0", "PERSISTENT_DHCLIENT", "1", None),
        ("ifcfg-br0", "DHCP_HOSTNAME", "db 1", None),
        ("ifcfg-br0", "DEFROUTE", "yes", None),
        ("ifcfg-eth0", "PROXY_METHOD", "none", None),
        ("ifcfg-eth0", "BROWSER_ONLY", "no", None),
    },
    "card-without-address": {
        ("ifcfg-br0", "IPV6INIT", "no", None),
        ("ifcfg-eth0", "ETHTOOL_OPTS", "-G eth0 rx 4096", None),
    },
    "comments-and-unknown-keys": {
        ("ifcfg-eth0", "ETHTOOL_OPTS", "-K ${DEVICE} gro off; wol g", None),
        ("ifcfg-eth0", "X_RACK", "7 of 'nine'", None),
    },
}


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_cloud_init_says_the_same(case: Case, debian: Debian) -> None:
    debian.run(["rm", "-rf", "/tmp/rendered"], check=True)
    done = debian.run(["python3", "-c", RENDER], input=json.dumps(intent(case.uplink)), check=True)
    theirs: dict[str, str] = json.loads(done.stdout)
    ours = {PurePosixPath(path).name: file.text for path, file in case.after.items() if path.startswith(DIRECTORY)}
    nics = next(name for name, text in ours.items() if "BRIDGE=br0" in text.splitlines())
    found = differences("ifcfg-br0", settings(ours["ifcfg-br0"]), settings(theirs["ifcfg-br0"]))
    found |= differences("ifcfg-eth0", settings(ours[nics]), settings(theirs["ifcfg-eth0"]))
    assert found == EXPECTED.get(case.name, set())
    assert routes(ours) == routes(theirs)
    assert settings(ours["ifcfg-br0"])["DELAY"] == "0"
