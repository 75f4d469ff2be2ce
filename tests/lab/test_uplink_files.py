"""What keeps an adopted NIC over a reboot: written after all else has succeeded, taken back with it, undone exactly."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest
from lab_home import HOST, MAC, NIC, Home

pytestmark = pytest.mark.timeout(120)

INTERFACES = f"""# This file is kept by hand.
auto lo
iface lo inet loopback

allow-hotplug {NIC}
iface {NIC} inet static
    address {HOST}/24   # the printer knows it
    gateway 192.168.2.1
    dns-nameservers 192.168.2.1
    up sysctl -qw vm.swappiness=10
"""


@pytest.fixture
def root(house: Home) -> Path:
    """The host's own root directory, with Debian's ifupdown."""
    root = house.lab.work / "root"
    (root / "etc/network").mkdir(parents=True)
    (root / "etc/network/interfaces").write_text(INTERFACES)
    (root / "lib/bridge-utils").mkdir(parents=True)
    (root / "lib/bridge-utils/ifupdown.sh").write_text("")
    return root


def content(root: Path) -> dict[str, tuple[str, int]]:
    """Every file, with its mode."""
    files = (path for path in sorted(root.rglob("*")) if path.is_file())
    return {str(path.relative_to(root)): (path.read_text(), path.stat().st_mode & 0o777) for path in files}


def test_files_follow_and_are_restored(house: Home, root: Path) -> None:
    before, looked = content(root), house.look()
    plan = json.loads(house.berth(f"uplink plan {NIC} --json", BERTH_ROOT=str(root)))
    assert plan["persist"] == "ifupdown"
    assert plan["files"] == [f"{root}/etc/network/interfaces"]
    assert content(root) == before
    house.berth(f"uplink adopt {NIC}", BERTH_ROOT=str(root))
    text = (root / "etc/network/interfaces").read_text()
    for line in (
        "auto br0",
        "iface br0 inet static",
        f"bridge_ports {NIC}",
        "bridge_fd 0",
        f"bridge_hw {MAC}",
        "# the pr",
    ):
        assert line in text
    assert "ifupdown" in house.berth("uplink status", BERTH_ROOT=str(root))
    house.berth(f"uplink release {NIC}", BERTH_ROOT=str(root))
    assert content(root) == before
    assert house.look() == looked


def test_killed_at_every_step_with_files(house: Home, root: Path) -> None:
    before = content(root)

    def look() -> object:
        return content(root), house.look()

    house.survives(f"uplink adopt {NIC}", look, BERTH_ROOT=str(root))
    assert content(root) != before
    house.survives(f"uplink release {NIC}", look, BERTH_ROOT=str(root))
    assert content(root) == before


@pytest.mark.parametrize("disk", ["full", "read-only"])
def test_a_disk_that_takes_no_more(house: Home, root: Path, disk: str) -> None:
    etc = root / "etc/network"
    spoil = f"head -c 16384 /dev/zero >{etc}/big || true" if disk == "full" else f"mount -o remount,ro {etc}"
    house.sh(f"mount -t tmpfs -o size=8k none {etc}; cat >{etc}/interfaces <<'END'\n{INTERFACES}END\n{spoil}")
    try:
        looked, text = house.look(), house.sh(f"cat {etc}/interfaces")
        said = house.refused(f"uplink adopt {NIC}", 1, BERTH_ROOT=str(root))
        assert "cannot write" in said
        assert {"full": "No space left", "read-only": "Read-only"}[disk] in said
        assert "all is as it was" in said
        assert house.look() == looked
        assert house.sh(f"cat {etc}/interfaces") == text
    finally:
        house.sh(f"umount {etc}")


def test_a_configuration_that_does_not_parse(house: Home, root: Path) -> None:
    (root / "etc/network/interfaces").write_text("auto lo\niface lo inet loopback\naddress what?\niface\n")
    before = house.look()
    for verb in ("plan", "adopt"):
        said = house.refused(f"uplink {verb} {NIC}", BERTH_ROOT=str(root))
        assert "etc/network/interfaces:4" in said
    assert house.look() == before


def test_a_system_that_cannot_be_told(house: Home, root: Path) -> None:
    """systemd-networkd does not run here: the files are written, and taken back with all the rest."""
    (root / "etc/systemd/network").mkdir(parents=True)
    (root / "etc/systemd/network/lan.network").write_text(f"[Match]\nName={NIC}\n[Network]\nAddress={HOST}/24\n")
    before, looked = content(root), house.look()
    said = house.refused(f"uplink adopt {NIC} --persist networkd", 1, BERTH_ROOT=str(root))
    assert "`networkctl reload`" in said
    assert "all is as it was" in said
    assert (content(root), house.look()) == (before, looked)


def test_what_was_changed_meanwhile_is_kept_aside(house: Home, root: Path) -> None:
    house.berth(f"uplink adopt {NIC}", BERTH_ROOT=str(root))
    path = root / "etc/network/interfaces"
    path.write_text(path.read_text() + "# a later thought\n")
    house.berth(f"uplink release {NIC}", BERTH_ROOT=str(root))
    assert path.read_text() == INTERFACES
    kept = house.sh(f"cat $BERTH_STATE/uplinks/kept{path}")
    assert "# a later thought" in kept


def test_the_host_goes_down_in_the_middle(house: Home, root: Path) -> None:
    """After a power cut nothing of the kernel's state is left, nor the guard; the files are put back at the boot."""
    before = content(root)
    adopting = house.lab.popen("host", ["berth", "uplink", "adopt", NIC, "--confirm-within", "60"], env=env(root))
    house.until("grep -q waiting $BERTH_STATE/uplinks/*.json")
    house.sh("kill -9 $(pgrep -f 'm berth[.]guard')")
    adopting.kill()
    adopting.wait()
    (root / "etc/network/interfaces").write_text("half of it")
    house.sh('sed -i \'s/"boot": "[^"]*"/"boot": "another"/\' $BERTH_STATE/uplinks/*.json')
    house.sh(f"ip link set {NIC} nomaster; ip link del br0")
    looked = house.look()
    written = f"{root}/etc/network/interfaces"
    house.sh(f"{sys.executable} -m berth.guard --boot", BERTH_ROOT=str(root))
    assert house.look() == looked, "what the files say is brought up by whoever does so at every boot"
    assert content(root) == before, written
    assert "went down in the middle" in house.berth("uplink status")


def env(root: Path) -> dict[str, str]:
    return {"BERTH_ROOT": str(root)}


def test_none_is_written_when_asked(house: Home, root: Path) -> None:
    before = content(root)
    house.berth(f"uplink adopt {NIC} --persist none", BERTH_ROOT=str(root))
    assert content(root) == before
    house.berth(f"uplink release {NIC}", BERTH_ROOT=str(root))
