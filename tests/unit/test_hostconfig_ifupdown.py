"""Debian's ifupdown: golden cases, and files that it would not take."""

from __future__ import annotations

from dataclasses import replace

import pytest

from berth.errors import Invalid
from berth.hostconfig import File
from berth.hostconfig.ifupdown import BRIDGE_UTILS, Ifupdown
from berth.hostconfig.interfaces import MAIN
from berth.model import Uplink
from hostconfig_cases import Case, applied, cases

UPLINK = Uplink("eth0", "br0", "00:50:56:aa:00:10")
STATIC = "iface eth0 inet static\n    address 10.77.0.5/24\n"


@pytest.mark.parametrize("case", cases("ifupdown"), ids=lambda case: case.name)
def test_a_golden_case(case: Case) -> None:
    edits = Ifupdown().adopt(case.before, case.uplink)
    assert applied(case.before, edits) == case.after
    assert Ifupdown().adopt(case.after, case.uplink) == {}, "what is adopted stays as it is"
    assert Ifupdown().configures(case.after, case.uplink)
    assert Ifupdown().configures(case.before, case.uplink) != case.name.startswith("nothing-configured")


@pytest.mark.parametrize(
    "text, told",
    [
        ("address 10.77.0.5/24\n", "etc/network/interfaces:1: `address` stands outside a stanza"),
        ("auto lo\n\niface eth0 inet\n", "etc/network/interfaces:3: `iface eth0 inet` is not"),
        ("iface eth0 inte static\n", "etc/network/interfaces:1: `iface eth0 inte static` is not"),
        (f"{STATIC}    gateway\n", "etc/network/interfaces:3: option `gateway` has no value"),
        (f"source /srv/net/eth0\n{STATIC}", "etc/network/interfaces:1: sources `/srv/net/eth0`"),
        (f"{STATIC}\niface br0 inet manual\n", "etc/network/interfaces:4: br0 has a stanza, without eth0"),
        ("iface br7 inet manual\n    bridge-ports eth0\n", "etc/network/interfaces:1: eth0 is a port of br7 already"),
        ("mapping eth*\n    script /bin/which-lan\n", "etc/network/interfaces:1: eth0 gets its stanza by a mapping"),
        ("auto eth0=home\niface home inet dhcp\n", "etc/network/interfaces:1: eth0 gets a stanza of another name"),
        (f"{STATIC}    up ethtool -K eth0 gro off; ip route add 10.0.0.0/8 dev eth0\n", "interfaces:3: `ethtool -K"),
        ("source interfaces.d/*\n", "run/network/interfaces.d"),
    ],
)
def test_what_cannot_be_done_is_refused_with_file_and_line(text: str, told: str) -> None:
    files = {MAIN: File(text + "source /run/network/interfaces.d/*\n")}
    if told.startswith("run"):
        files["run/network/interfaces.d/eth0"] = File("auto eth0\niface eth0 inet dhcp\n")
        told += "/eth0:2: eth0 is configured by a file that is made anew at each boot"
    with pytest.raises(Invalid) as refused:
        Ifupdown().adopt(files, UPLINK)
    assert told in str(refused.value)
    assert "\n" not in str(refused.value)


def test_files_that_are_not_sourced_say_nothing() -> None:
    files = {MAIN: File("auto lo\n"), "etc/network/interfaces.d/eth0": File(STATIC)}
    assert not Ifupdown().configures(files, UPLINK)
    assert list(Ifupdown().adopt(files, UPLINK)) == [MAIN]


def test_a_file_keeps_its_mode() -> None:
    edits = Ifupdown().adopt({MAIN: File(STATIC, 0o600)}, UPLINK)
    assert (edited := edits[MAIN]) is not None and edited.mode == 0o600


def test_a_name_that_only_begins_like_the_nics_is_another_one() -> None:
    text = f"{STATIC}    up ip route add 10.1.0.0/16 dev eth0.30\n    up ip route add 10.2.0.0/16 dev eth01\n"
    edits = Ifupdown().adopt({MAIN: File(f"{text}iface eth0.30 inet manual\n"), BRIDGE_UTILS: File("")}, UPLINK)
    assert (edited := edits[MAIN]) is not None
    assert "dev eth0.30\n" in edited.text and "dev eth01\n" in edited.text and "iface eth0.30 inet" in edited.text


def test_a_comment_with_a_backslash_ends_with_its_line() -> None:
    files = {MAIN: File(f"# all of it \\\n{STATIC}")}
    assert Ifupdown().configures(files, UPLINK)


def test_open_vswitch_is_refused() -> None:
    with pytest.raises(Invalid, match="Open vSwitch"):
        Ifupdown().adopt({}, replace(UPLINK, switch="ovs"))


def test_a_file_that_is_not_about_the_nic_is_not_touched_even_without_a_last_line_end() -> None:
    files = {MAIN: File(f"source interfaces.d/*\n{STATIC}"), "etc/network/interfaces.d/lo": File("auto lo")}
    assert list(Ifupdown().adopt(files, UPLINK)) == [MAIN]
