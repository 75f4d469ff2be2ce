"""netplan: golden cases, which entry is about the NIC, and what cannot be done."""

from __future__ import annotations

import re

import pytest

from berth.errors import Invalid
from berth.hostconfig import File
from berth.hostconfig.netplan import Netplan
from berth.model import Addressing, Uplink
from hostconfig_cases import Case, applied, cases

ETC = "etc/netplan"
UPLINK = Uplink("eth0", "br0", "00:50:56:aa:00:10", ipv4=Addressing("auto"))
STATIC = "network:\n  ethernets:\n    eth0:\n      addresses: [10.77.0.5/24]\n"


@pytest.mark.parametrize("case", cases("netplan"), ids=lambda case: case.name)
def test_a_golden_case(case: Case) -> None:
    edits = Netplan().adopt(case.before, case.uplink)
    assert applied(case.before, edits).keys() == case.after.keys()
    assert {path: file.text for path, file in edits.items() if file} == {path: case.after[path].text for path in edits}
    assert Netplan().adopt(case.after, case.uplink) == {}, "what is adopted stays as it is"
    assert Netplan().configures(case.after, case.uplink)
    assert Netplan().configures(case.before, case.uplink) != case.name.startswith("nothing")
    assert any(re.search("stp: false\n +forward-delay: 0\n", file.text) for file in case.after.values())


@pytest.mark.parametrize(
    ("entry", "fits"),
    [
        ("eth0: {}", True),
        ("eth1: {}", False),
        ("lan: {match: {name: eth0}}", True),
        ("lan: {match: {name: 'e*'}}", True),
        ("eth0: {match: {name: 'wl*'}}", False),
        ("lan: {match: {macaddress: '00:50:56:AA:00:10'}}", True),
        ("lan: {match: {macaddress: '02:00:00:00:00:01'}}", False),
        ("lan: {match: {macaddress: '00:50:56:aa:00:10'}, set-name: eth0}", True),
        ("eth0: {match: {macaddress: '00:50:56:aa:00:10'}, set-name: lan0}", False),
        ("lan: {match: {driver: virtio_net}, set-name: eth0}", True),
        ("lan: {match: {driver: virtio_net, name: eth0}}", True),
        ("lan: {match: {}}", True),
    ],
)
def test_an_entry_is_about_the_nic(entry: str, fits: bool) -> None:
    files = {f"{ETC}/01.yaml": File(f"network:\n  ethernets:\n    {entry}\n")}
    assert Netplan().configures(files, UPLINK) is fits


def test_what_one_file_matches_another_one_may_give_addresses() -> None:
    files = {
        f"{ETC}/01.yaml": File("network:\n  ethernets:\n    lan:\n      match: {name: eth0}\n"),
        f"{ETC}/02.yaml": File(STATIC.replace("eth0", "lan"), 0o600),
        "usr/lib/netplan/02.yaml": File("network: {ethernets: {lan: {dhcp4: true}}}\n"),  # hidden
    }
    edits = Netplan().adopt(files, UPLINK)
    assert edits.keys() == {f"{ETC}/01.yaml", f"{ETC}/02.yaml"}
    assert (second := edits[f"{ETC}/02.yaml"]) is not None and second.mode == 0o600
    assert "    lan:\n      dhcp4: false\n  bridges:\n    br0:\n      addresses: [10.77.0.5/24]\n" in second.text


def test_a_new_file_is_for_root_only() -> None:
    assert (new := Netplan().adopt({}, UPLINK)[f"{ETC}/90-berth.yaml"]) is not None and new.mode == 0o600


def test_an_open_vswitch_is_netplans_own() -> None:
    edits = Netplan().adopt({}, Uplink("eth0", "br0", UPLINK.mac, switch="ovs", ipv4=Addressing("auto")))
    assert (new := edits[f"{ETC}/90-berth.yaml"]) is not None
    assert "openvswitch: {}" in new.text and "parameters" not in new.text


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("network:\n  ethernets:\n   eth0: [\n", "01.yaml:4: "),
        ("network:\n  ethernets:\n    eth0: {}\n    eth0: {}\n", '01.yaml:4: found duplicate key "eth0"'),
        ("network:\n\tversion: 2\n", "01.yaml:2: "),
        ("- network\n", "01.yaml:1: it does not begin with `network:`"),
        ("network: 2\n", "01.yaml: `network:` is not a mapping"),
        ("network:\n  ethernets: [eth0]\n", "01.yaml: `ethernets:` is not a mapping"),
        ("network:\n  ethernets:\n    eth0: yes\n", "01.yaml: `eth0:` is not a mapping"),
        (f"{STATIC}  bonds:\n    bond0: {{interfaces: [eth0]}}\n", "01.yaml: eth0 is in bond0 of `bonds:`"),
        (f"{STATIC}  bridges:\n    br1: {{interfaces: [eth0]}}\n", "01.yaml: eth0 is in br1 of `bridges:`"),
        (f"{STATIC}  vlans:\n    br0: {{link: eth0, id: 3}}\n", "01.yaml configures br0 already"),
        ("network: {ethernets: {a: {match: {driver: e1000}}}}\n", "01.yaml: whether `a` is eth0 depends on its driver"),
        ("network: {ethernets: {'!': {match: {name: 'e*'}}}}\n", "`!` of `ethernets:` sorts before any id for eth0"),
    ],
)
def test_what_cannot_be_done_is_refused_in_one_line(text: str, complaint: str) -> None:
    with pytest.raises(Invalid) as refused:
        Netplan().adopt({f"{ETC}/01.yaml": File(text)}, UPLINK)
    assert complaint in str(refused.value)
    assert "\n" not in str(refused.value)


def test_a_file_that_is_not_the_operators_is_not_edited() -> None:
    with pytest.raises(Invalid, match=r"run/netplan/01\.yaml configures eth0 and is not the operator's"):
        Netplan().adopt({"run/netplan/01.yaml": File(STATIC)}, UPLINK)


def test_cloud_init_is_told_once_to_leave_the_network_alone() -> None:
    files = {f"{ETC}/50-cloud-init.yaml": File(STATIC)}
    off = "etc/cloud/cloud.cfg.d/99-disable-network-config.cfg"
    assert Netplan().adopt(files, UPLINK)[off] == File("network: {config: disabled}\n")
    assert off not in Netplan().adopt(
        {**files, "etc/cloud/cloud.cfg.d/9.cfg": File("network:\n  config: disabled\n")}, UPLINK
    )
    assert off not in Netplan().adopt({f"{ETC}/01.yaml": File(STATIC)}, UPLINK)
