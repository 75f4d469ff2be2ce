"""RHEL's ifcfg files: golden cases, and files that make no sense."""

from __future__ import annotations

from dataclasses import replace

import pytest

from berth.errors import Invalid
from berth.hostconfig import File
from berth.hostconfig.ifcfg import DIRECTORY, Ifcfg
from berth.model import Uplink
from hostconfig_cases import Case, applied, cases

UPLINK = Uplink("eth0", "br0", "00:50:56:aa:00:10")
ETH0 = f"{DIRECTORY}/ifcfg-eth0"


@pytest.mark.parametrize("case", cases("ifcfg"), ids=lambda case: case.name)
def test_a_golden_case(case: Case) -> None:
    edits = Ifcfg().adopt(case.before, case.uplink)
    assert applied(case.before, edits) == case.after
    assert Ifcfg().adopt(case.after, case.uplink) == {}, "what is adopted stays as it is"
    assert Ifcfg().configures(case.after, case.uplink)
    assert Ifcfg().configures(case.before, case.uplink) != case.name.startswith("nothing-configured")


@pytest.mark.parametrize(
    "text, told",
    [
        ("DEVICE=eth0\n. /etc/sysconfig/extra\n", "ifcfg-eth0:2: `. /etc/sysconfig/extra` is not KEY=value"),
        ("DEVICE=eth0\n\nIPADDR='10.77.0.5\n", "ifcfg-eth0:3: `IPADDR='10.77.0.5` has a quote without end"),
        ("DEVICE=eth0\nDOMAIN=a.example b.example\n", "ifcfg-eth0:2: the value of `DOMAIN=a.example b.example`"),
        ("DEVICE=eth0\nBRIDGE=br7\n", "ifcfg-eth0: eth0 is a port of br7 already"),
        ("DEVICE=eth0\nMASTER=bond0\nSLAVE=yes\n", "ifcfg-eth0: eth0 is a port of bond0 already"),
        ("DEVICE=br0\nTYPE=Bridge\n", "ifcfg-eth0: br0 has a file already"),
    ],
)
def test_what_cannot_be_done_is_refused_with_file_and_line(text: str, told: str) -> None:
    with pytest.raises(Invalid) as refused:
        Ifcfg().adopt({ETH0: File(text)}, UPLINK)
    assert f"{DIRECTORY}/{told}" in str(refused.value)
    assert "\n" not in str(refused.value)


def test_the_bridges_routes_are_not_written_over() -> None:
    files = {ETH0: File("DEVICE=eth0\nBOOTPROTO=dhcp\n")}
    files |= {f"{DIRECTORY}/route-{name}": File("10.80.0.0/16 via 10.77.0.254\n") for name in ("eth0", "br0")}
    with pytest.raises(Invalid, match="route-br0: br0 has a file already"):
        Ifcfg().adopt(files, UPLINK)


def test_a_file_of_another_card_is_not_the_nics() -> None:
    files = {ETH0: File("DEVICE=eth1\nBOOTPROTO=dhcp\n"), f"{DIRECTORY}/ifcfg-x": File("HWADDR=00:50:56:aa:00:11\n")}
    assert not Ifcfg().configures(files, UPLINK)
    with pytest.raises(Invalid, match="ifcfg-eth0: is about another card than eth0"):
        Ifcfg().adopt(files, UPLINK)


def test_both_files_are_as_secret_as_the_nics_was() -> None:
    edits = Ifcfg().adopt({ETH0: File("DEVICE=eth0\nBOOTPROTO=dhcp\n", 0o600)}, UPLINK)
    assert {path: file and file.mode for path, file in edits.items()} == {ETH0: 0o600, f"{DIRECTORY}/ifcfg-br0": 0o600}


def test_open_vswitch_is_refused() -> None:
    with pytest.raises(Invalid, match="Open vSwitch"):
        Ifcfg().adopt({}, replace(UPLINK, switch="ovs"))
