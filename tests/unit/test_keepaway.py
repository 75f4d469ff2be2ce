"""Host managers are kept away from Berth's links: only those that are there, and without losing what they are told."""

from __future__ import annotations

import pytest

from berth.hostconfig import File
from berth.hostconfig.keepaway import keep_away
from berth.model import Uplink

UPLINK = Uplink("eth0", "br0", "00:50:56:aa:00:10")
BY = "# Berth's own links are none of a network manager's business.\n"
DENY = f"{BY}denyinterfaces eth0 brt* bv*\n"


def test_a_host_without_managers_gets_nothing() -> None:
    assert keep_away({"etc/network/interfaces": File("auto lo\n")}, UPLINK) == {}


def test_networkmanager() -> None:
    edits = keep_away({"etc/NetworkManager/NetworkManager.conf": File("[main]\n")}, UPLINK)
    text = f"{BY}\n[keyfile]\nunmanaged-devices+=interface-name:brt*;interface-name:bv*\n"
    assert edits == {"etc/NetworkManager/conf.d/90-berth.conf": File(text)}


def test_networkd_and_udev() -> None:
    edits = keep_away({"usr/lib/systemd/network/99-default.link": File("[Match]\n")}, UPLINK)
    link = "[Match]\nOriginalName=brt* bv*\n\n[Link]\nNamePolicy=keep\nMACAddressPolicy=none\n"
    assert edits == {
        "etc/systemd/network/05-berth.network": File(f"{BY}\n[Match]\nName=brt* bv*\n\n[Link]\nUnmanaged=yes\n"),
        "etc/systemd/network/05-berth.link": File(f"{BY}\n{link}"),
    }


@pytest.mark.parametrize(
    ("before", "after"),
    [
        ("", DENY),
        ("# all\nduid\n", f"# all\nduid\n{DENY}"),
        ("duid\n# the card\ninterface eth1\nnoarp\n", f"duid\n{DENY}# the card\ninterface eth1\nnoarp\n"),
        ("denyinterfaces wlan0 bv* # radio\nduid\n", "denyinterfaces wlan0 bv* eth0 brt* # radio\nduid\n"),
        ("#denyinterfaces eth0\n", f"#denyinterfaces eth0\n{DENY}"),
        ("interface eth1\ndenyinterfaces eth0\n", f"{DENY}interface eth1\ndenyinterfaces eth0\n"),
        ("allowinterfaces eth*\n", f"allowinterfaces eth* br0\n{DENY}"),
        ("allowinterfaces eth0 br*\n", f"allowinterfaces eth0 br*\n{DENY}"),
        ("allowinterfaces wlan0\n", f"allowinterfaces wlan0\n{DENY}"),
    ],
)
def test_dhcpcd(before: str, after: str) -> None:
    assert keep_away({"etc/dhcpcd.conf": File(before, 0o640)}, UPLINK) == {"etc/dhcpcd.conf": File(after, 0o640)}
    assert keep_away({"etc/dhcpcd.conf": File(after, 0o640)}, UPLINK) == {}


def test_what_is_there_already_is_not_written_again() -> None:
    files = {"etc/NetworkManager/NetworkManager.conf": File(""), "etc/systemd/network/a.network": File("")}
    edits = keep_away(files, UPLINK)
    assert keep_away({**files, **{path: file for path, file in edits.items() if file}}, UPLINK) == {}
