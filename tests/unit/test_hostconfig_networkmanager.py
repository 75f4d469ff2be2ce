"""NetworkManager's keyfiles: golden cases, and files that make no sense."""

from __future__ import annotations

from dataclasses import replace

import pytest

from berth.errors import Invalid
from berth.hostconfig import File
from berth.hostconfig.networkmanager import DIRECTORY, NetworkManager, paths, uuids
from berth.model import Uplink
from hostconfig_cases import Case, applied, cases

UPLINK = Uplink("eth0", "br0", "00:50:56:aa:00:10")
LAN = f"{DIRECTORY}/lan.nmconnection"
HEAD = "[connection]\nid=lan\nuuid=7d1f7a9e-0c5c-4c8d-9d5c-3a0e1f0b9a11\ntype=ethernet\n"


def profile(text: str, mode: int = 0o600) -> dict[str, File]:
    return {LAN: File(f"{HEAD}{text}", mode)}


@pytest.mark.parametrize("case", cases("networkmanager"), ids=lambda case: case.name)
def test_a_golden_case(case: Case) -> None:
    edits = NetworkManager().adopt(case.before, case.uplink)
    assert applied(case.before, edits) == case.after
    assert NetworkManager().adopt(case.after, case.uplink) == {}, "what is adopted stays as it is"
    assert NetworkManager().configures(case.after, case.uplink)
    known = not case.name.startswith("nothing-configured") and case.name != "profile-of-its-own-making"
    assert NetworkManager().configures(case.before, case.uplink) == known


@pytest.mark.parametrize("case", cases("networkmanager"), ids=lambda case: case.name)
def test_no_uuid_is_in_two_files(case: Case) -> None:
    told = [line for file in case.after.values() for line in file.text.splitlines() if line.startswith("uuid=")]
    assert len(told) == len(set(told))
    assert {f"uuid={each}" for each in uuids(case.uplink)} <= set(told)


@pytest.mark.parametrize(
    "text, told",
    [
        ("interface-name\n", "lan.nmconnection:5: `interface-name` is not Key=value"),
        ("[ipv4\nmethod=auto\n", "lan.nmconnection:5: `[ipv4` is not a [Section]"),
        ("interface-name=eth0\nmaster=br7\nslave-type=bridge\n", "lan.nmconnection: eth0 is a port of br7 already"),
        ("interface-name=eth0\ncontroller=br7\n", "lan.nmconnection: eth0 is a port of br7 already"),
        ("interface-name=br0\n", "lan.nmconnection: br0 has a profile already"),
        ("autoconnect-priority=high\n", "lan.nmconnection: `autoconnect-priority=high` is not a number"),
    ],
)
def test_what_cannot_be_done_is_refused_with_the_file(text: str, told: str) -> None:
    with pytest.raises(Invalid) as refused:
        NetworkManager().adopt(profile(text), UPLINK)
    assert f"{DIRECTORY}/{told}" in str(refused.value)
    assert "\n" not in str(refused.value)


def test_somebody_elses_file_is_not_written_over() -> None:
    with pytest.raises(Invalid, match="br0 has a profile already"):
        NetworkManager().adopt({paths(UPLINK)[0]: File("[connection]\nid=mine\ntype=vpn\n", 0o600)}, UPLINK)


@pytest.mark.parametrize(
    "text, mode",
    [
        ("interface-name=eth1\n", 0o600),
        ("[ethernet]\nmac-address=00:50:56:aa:00:11\n", 0o600),
        ("[match]\ninterface-name=wl*;eth1;\n", 0o600),
        ("interface-name=eth0\n", 0o644),  # NetworkManager does not load what others may read
    ],
)
def test_profiles_that_the_nic_does_not_get(text: str, mode: int) -> None:
    files = profile(text, mode)
    assert not NetworkManager().configures(files, UPLINK)
    assert LAN not in NetworkManager().adopt(files, UPLINK)


def test_what_netplan_makes_is_netplans() -> None:
    path = "run/NetworkManager/system-connections/netplan-eth0.nmconnection"
    files = {path: File(f"{HEAD}interface-name=eth0\n[ipv4]\nmethod=manual\naddress1=10.77.0.5/24\n", 0o600)}
    assert not NetworkManager().configures(files, UPLINK)
    edited = NetworkManager().adopt(files, UPLINK)[paths(UPLINK)[0]]
    assert edited is not None and "10.77.0.5" not in edited.text


def test_open_vswitch_is_refused() -> None:
    with pytest.raises(Invalid, match="Open vSwitch"):
        NetworkManager().adopt({}, replace(UPLINK, switch="ovs"))
