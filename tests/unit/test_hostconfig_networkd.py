"""systemd-networkd: golden cases, which file counts, and what cannot be done."""

from __future__ import annotations

from fnmatch import fnmatchcase

import pytest

from berth.errors import Invalid
from berth.hostconfig import File
from berth.hostconfig.networkd import Networkd
from berth.model import Addressing, Uplink
from hostconfig_cases import Case, applied, cases

ETC = "etc/systemd/network"
UPLINK = Uplink("eth0", "br0", "00:50:56:aa:00:10", ipv4=Addressing("auto"))
STATIC = "[Match]\nName=eth0\n\n[Network]\nAddress=10.77.0.5/24\n"
ANY = "[Match]\nName=*\n\n[Network]\nDHCP=yes\n"


@pytest.mark.parametrize("case", cases("networkd"), ids=lambda case: case.name)
def test_a_golden_case(case: Case) -> None:
    edits = Networkd().adopt(case.before, case.uplink)
    assert applied(case.before, edits) == case.after
    assert Networkd().adopt(case.after, case.uplink) == {}, "what is adopted stays as it is"
    assert Networkd().configures(case.after, case.uplink)
    assert Networkd().configures(case.before, case.uplink) != case.name.startswith(("nothing", "unmanaged"))
    assert any("ForwardDelaySec=0" in file.text for path, file in case.after.items() if path.endswith(".netdev"))


@pytest.mark.parametrize("case", cases("networkd"), ids=lambda case: case.name)
def test_the_globs_name_all_that_is_needed(case: Case) -> None:
    seen = {path: file for path, file in case.before.items() if any(_matches(path, g) for g in Networkd.globs)}
    assert Networkd().adopt(seen, case.uplink) == Networkd().adopt(case.before, case.uplink)


@pytest.mark.parametrize(
    ("match", "fits"),
    [
        ("Name=eth0", True),
        ("Name=en* eth0", True),
        ("Name=eth[0-3]", True),
        ("Name=eth1", False),
        ("Name=!eth0 eth1", False),
        ("Name=!eth1 eth2", True),
        ("Name=eth*\nName=!eth0", False),
        ("Name=eth1\nName=eth0", True),
        ("Name=eth1\nName=\nName=eth0", True),
        ("MACAddress=00:50:56:AA:00:10", True),
        ("MACAddress=02:00:00:00:00:01 0050.56aa.0010", True),
        ("PermanentMACAddress=00-50-56-aa-00-10", True),
        ("MACAddress=02:00:00:00:00:01", False),
        ("Name=eth0\nMACAddress=02:00:00:00:00:01", False),
        ("Type=ether", True),
        ("Type=wlan", False),
        ("Type=!wlan", True),
        ("Type=ether\nKind=!*", True),
        ("Kind=veth", False),
        ("Name=eth1\nDriver=virtio_net", False),
        ("Name=eth0\nDriver=virtio_net", True),
        ("", False),
    ],
)
def test_a_match(match: str, fits: bool) -> None:
    files = {f"{ETC}/20.network": File(f"[Match]\n{match}\n\n[Network]\nDHCP=yes\n")}
    assert Networkd().configures(files, UPLINK) is fits


def test_the_first_file_counts_and_an_earlier_directory_hides_a_name_of_a_later_one() -> None:
    files = {
        "usr/lib/systemd/network/10-a.network": File(STATIC),
        f"{ETC}/10-a.network": File(""),  # masked
        "run/systemd/network/20-b.network": File(ANY),
        f"{ETC}/30-c.network": File(STATIC),
    }
    edits = Networkd().adopt(files, UPLINK)
    assert set(edits) == {f"{ETC}/10-berth-{each}" for each in ("br0.netdev", "br0.network", "eth0.network")}
    assert (bridge := edits[f"{ETC}/10-berth-br0.network"]) is not None and "DHCP=yes" in bridge.text


def test_ours_come_before_all_that_fits_the_bridge_too() -> None:
    edits = Networkd().adopt({f"{ETC}/05-any.network": File(ANY), f"{ETC}/01-eth0.network": File(STATIC)}, UPLINK)
    assert set(edits) == {f"{ETC}/00-berth-br0.netdev", f"{ETC}/00-berth-br0.network", f"{ETC}/01-eth0.network"}
    with pytest.raises(Invalid, match=r"!.network sorts before any name for the file of eth0"):
        Networkd().adopt({f"{ETC}/!.network": File(ANY)}, UPLINK)


@pytest.mark.parametrize(
    ("client", "kept"),
    [
        ("", "ClientIdentifier=mac\n"),
        ("ClientIdentifier=duid\n", "ClientIdentifier=duid\n"),
        ("ClientIdentifier=mac\n", "ClientIdentifier=mac\n"),
        ("IAID=7\n", "IAID=7\n"),
    ],
)
def test_the_client_identifier_where_no_lease_is_known(client: str, kept: str) -> None:
    text = f"[Match]\nName=eth0\n\n[Network]\nDHCP=yes\n\n[DHCPv4]\nUseMTU=yes\n{client}"
    edits = Networkd().adopt({f"{ETC}/a.network": File(text)}, UPLINK)
    assert (bridge := edits[f"{ETC}/10-berth-br0.network"]) is not None
    assert bridge.text.endswith(f"[DHCPv4]\nUseMTU=yes\n{kept}")


def test_a_file_that_only_the_systems_vendor_may_edit_is_left_alone() -> None:
    for path in ("usr/lib/systemd/network/20-eth0.network", "run/systemd/network/70-eth0.network"):
        assert path not in Networkd().adopt({path: File(STATIC)}, UPLINK)


def test_a_file_keeps_its_mode() -> None:
    edits = Networkd().adopt({f"{ETC}/20-eth0.network": File(STATIC, 0o640)}, UPLINK)
    assert (edited := edits[f"{ETC}/20-eth0.network"]) is not None and edited.mode == 0o640


@pytest.mark.parametrize(
    ("path", "text", "complaint"),
    [
        ("20-eth0.network", "[Match]\nName=eth0\n[Network\n", "20-eth0.network:3: `[Network` is not a [Section]"),
        ("20-eth0.network", "[Match]\nName eth0\n", "20-eth0.network:2: `Name eth0` is not Key=value"),
        ("20-eth0.network", "Name=eth0\n", "20-eth0.network:1: `Name=eth0` stands before the first [Section]"),
        ("20-eth0.network.d/a.conf", "[X]\nnonsense\n", "20-eth0.network.d/a.conf:2: `nonsense` is not Key=value"),
        ("10.network", "[Match]\nDriver=virtio*\n", "10.network: its [Match] does not tell whether it is for eth0"),
        ("10.network", "[Match]\nName=eth0\n[Network]\nBond=bond0\n", "makes eth0 a port of bond0"),
        ("10.network", "[Match]\nName=eth0\n[Network]\nBridge=br1\n", "makes eth0 a port of br1"),
        ("10.network", "[Match]\nName=br0\n", "10.network configures br0 already"),
        ("20.netdev", "[NetDev]\nName=br0\nKind=bridge\n", "20.netdev makes a br0 already"),
    ],
)
def test_what_cannot_be_done_is_refused_in_one_line(path: str, text: str, complaint: str) -> None:
    files = {f"{ETC}/{path}": File(text), f"{ETC}/20-eth0.network": File(STATIC)} | {f"{ETC}/{path}": File(text)}
    with pytest.raises(Invalid) as refused:
        Networkd().adopt(files, UPLINK)
    assert complaint in str(refused.value)
    assert "\n" not in str(refused.value)


def test_an_open_vswitch_remembers_its_ports_itself() -> None:
    uplink = Uplink("eth0", "br0", UPLINK.mac, switch="ovs", ipv4=Addressing("auto"))
    before = {f"{ETC}/20-eth0.network": File(STATIC)}
    edits = Networkd().adopt(before, uplink)
    assert set(edits) == {f"{ETC}/10-berth-br0.network", f"{ETC}/20-eth0.network"}
    assert (port := edits[f"{ETC}/20-eth0.network"]) is not None and "Bridge=" not in port.text
    assert Networkd().adopt(applied(before, edits), uplink) == {}


def test_cloud_init_is_told_to_leave_its_file_alone() -> None:
    files = {f"{ETC}/10-cloud-init-eth0.network": File(STATIC)}
    off = "etc/cloud/cloud.cfg.d/99-disable-network-config.cfg"
    assert Networkd().adopt(files, UPLINK)[off] == File("network: {config: disabled}\n")


def test_what_netplan_made_is_netplans() -> None:
    files = {"run/systemd/network/10-netplan-eth0.network": File(STATIC)}
    assert not Networkd().configures(files, UPLINK)
    with pytest.raises(Invalid, match="is made by netplan: use --persist netplan"):
        Networkd().adopt(files, UPLINK)


def _matches(path: str, glob: str) -> bool:
    parts, patterns = path.split("/"), glob.split("/")
    return len(parts) == len(patterns) and all(fnmatchcase(*pair) for pair in zip(parts, patterns, strict=True))
