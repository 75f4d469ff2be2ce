"""What the renderer of NetworkManager writes, read by a real NetworkManager; and how a running one takes it over."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from ipaddress import ip_interface
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

from berth.hostconfig import File, Renderer
from berth.hostconfig.ifcfg import Ifcfg
from berth.hostconfig.networkmanager import DIRECTORY, NetworkManager, uuids
from berth.model import Uplink
from hostconfig_cases import Case, cases

from .debian import Debian
from .lan import HOST, MAC, Lan, seen, told, until

pytestmark = [
    pytest.mark.skipif(os.geteuid() != 0, reason="a Debian of one's own needs root"),
    pytest.mark.timeout(180),
]

CASES = cases("networkmanager")
# NetworkManager's metrics go by the kind of link: 100 an Ethernet card's, 425 a bridge's.
_BY_KIND = (100, 425)
_PING = ["ping", "-D", "-i", "0.02"]


@contextmanager
def running(lan: Lan, files: Mapping[str, File]) -> Iterator[Debian]:
    """A Debian with these files and a NetworkManager, as after a boot."""
    with Debian(lan.lab, HOST, files) as debian:
        # Without udev, which NetworkManager takes to be there where it may write to /sys.
        debian.run(["mount", "-o", "remount,bind,ro", "/sys"], check=True)
        debian.popen(["dbus-daemon", "--system", "--nofork", "--nopidfile"], stderr=subprocess.DEVNULL)
        until(lambda: debian.run(["test", "-S", "/run/dbus/system_bus_socket"]).returncode == 0)
        debian.popen(["sh", "-c", "exec NetworkManager --debug >/tmp/log 2>&1"])
        try:
            yield debian
        except BaseException as error:
            error.add_note(
                debian.run(
                    ["sh", "-c", "grep '<[^d]' /tmp/log | tail -130; nmcli device; nmcli connection; ip a"]
                ).stdout
            )
            raise


def settled(lan: Lan, link: str, uplink: Uplink) -> dict[str, Any]:
    """What a link carries once its addresses are there; a learnt IPv6 address goes by the link's name: its prefix."""

    def complete() -> bool:
        found = lan.json("address", "show", "dev", link)[0]["addr_info"] if lan.link(link) else []
        ready = [each["family"] for each in found if each["scope"] == "global" and "tentative" not in each]
        routes = lan.json("-4", "route", "show", "default")
        return "inet" in ready and bool(routes) and (uplink.ipv6.method == "none" or "inet6" in ready)

    until(complete, 30)
    look = lan.look(link)
    for each in look["addresses"]:
        if each["family"] == "inet6" and uplink.ipv6.method == "auto":
            each["local"] = str(ip_interface(f"{each['local']}/{each['prefixlen']}").network)
    for each in look["routes"]:
        if each.get("metric") in _BY_KIND:
            del each["metric"]
    return look


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_the_bridge_carries_what_the_nic_did(case: Case, tmp_path: Path) -> None:
    router_tells = case.uplink.ipv6.method == "auto"
    had: dict[str, Any] = {}
    if case.name != "nothing-configured":  # without a file it has a profile of its own making
        with Lan(tmp_path / "leases", advertise=router_tells) as lan, running(lan, case.before):
            had = settled(lan, "eth0", case.uplink)
    with Lan(tmp_path / "leases", advertise=router_tells) as lan, running(lan, case.after) as debian:
        has = settled(lan, "br0", case.uplink)
        lan.assert_bridge("br0", "eth0", case.uplink.mtu or 1500)
        if had:
            assert has == had
        else:
            assert seen(has) == told(case.uplink)
        assert active(debian) == {"br0": uuids(case.uplink)[0], "eth0": uuids(case.uplink)[1]}
        assert lan.reaches("10.77.0.1")
    leased = (tmp_path / "leases").read_text().splitlines() if case.uplink.ipv4.method == "auto" else []
    assert len([line for line in leased if MAC in line]) <= 1, leased


@pytest.mark.parametrize("name", ["static", "dhcp", "nothing-configured-dhcp"])
def test_a_running_one_takes_over_and_back(name: str, tmp_path: Path) -> None:
    case = next(case for case in CASES if case.name == name)
    router_tells = case.uplink.ipv6.method == "auto"
    with Lan(tmp_path / "leases", advertise=router_tells) as lan, running(lan, case.before) as debian:
        had = settled(lan, "eth0", case.uplink)
        until(lambda: debian.run(["nmcli", "-g", "STATE", "general"]).stdout.startswith("connected"))
        names, before = resolvers(debian), active(debian)
        address = next(each["local"] for each in had["addresses"])
        ping = lan.lab.popen("router", [*_PING, address], stdout=subprocess.PIPE, text=True)
        adopted(lan)
        index = lan.link("br0")["ifindex"]
        found = files(debian)
        edits = NetworkManager().adopt(found, case.uplink)
        write(debian, edits)
        reload(debian, NetworkManager(), case.uplink)
        assert settled(lan, "br0", case.uplink) == had
        lan.assert_bridge("br0", "eth0", 1500)
        assert lan.link("br0")["ifindex"] == index, "it has made the bridge anew"
        assert active(debian) == {"br0": uuids(case.uplink)[0], "eth0": uuids(case.uplink)[1]}
        until(lambda: resolvers(debian) == names)
        there = answers(ping)
        debian.run(["nmcli", "connection", "up", "uuid", uuids(case.uplink)[0]], check=True)  # as an operator may
        until(lambda: active(debian).get("eth0") == uuids(case.uplink)[1])
        assert settled(lan, "br0", case.uplink) == had

        ping = lan.lab.popen("router", [*_PING, address], stdout=subprocess.PIPE, text=True)
        lan.ip("link", "set", "dev", "eth0", "nomaster")
        lan.move("br0", "eth0")
        lan.ip("link", "delete", "dev", "br0")
        write(debian, {path: found.get(path) for path in edits})
        reload(debian, NetworkManager(), case.uplink)
        assert settled(lan, "eth0", case.uplink) == had
        assert not lan.link("br0")
        assert {link: uuid for link, uuid in active(debian).items() if link == "eth0"} == before
        until(lambda: resolvers(debian) == names)
        back = answers(ping)
        print(f"{name}: longest gap {there:.3f} s, and back {back:.3f} s")
        assert max(there, back) < 3, "a person would notice"


def test_a_running_one_takes_ifcfg_files_over_and_back(tmp_path: Path) -> None:
    """Debian's NetworkManager does not read them: here are the profiles that its plugin makes of them on RHEL."""
    case = next(case for case in CASES if case.name == "static")
    path = next(iter(case.before))
    text = case.before[path].text
    card, addressing = text[: text.index("[ipv4]")], text[text.index("[ipv4]") :]
    port = card.replace("interface-name=eth0\n", "interface-name=eth0\nmaster=br0\nslave-type=bridge\n")
    bridge = f"[connection]\nid=System br0\nuuid={uuids(case.uplink)[0]}\ntype=bridge\ninterface-name=br0\n"
    bridge += f"[ethernet]\ncloned-mac-address={MAC}\n[bridge]\nstp=false\n{addressing}"
    with Lan(tmp_path / "leases") as lan, running(lan, case.before) as debian:
        had, before = settled(lan, "eth0", case.uplink), active(debian)
        adopted(lan)
        edits = {path: File(port, 0o600), f"{DIRECTORY}/br0.nmconnection": File(bridge, 0o600)}
        write(debian, edits)
        reload(debian, Ifcfg(), case.uplink)
        assert settled(lan, "br0", case.uplink) == had
        lan.assert_bridge("br0", "eth0", 1500)
        assert active(debian) == before | {"br0": uuids(case.uplink)[0]}
        write(debian, {each: case.before.get(each) for each in edits})
        reload(debian, Ifcfg(), case.uplink)
        assert settled(lan, "eth0", case.uplink) == had


def adopted(lan: Lan) -> None:
    """What an adoption has done when the files are written."""
    lan.ip("link", "add", "br0", "up", "address", MAC, "type", "bridge", "forward_delay", "0", "stp_state", "0")
    lan.ip("link", "set", "dev", "eth0", "master", "br0")
    lan.move("eth0", "br0")


def files(debian: Debian) -> dict[str, File]:
    """The files that the renderer wants to see, as they are."""
    globs = " ".join(f"/{each}" for each in NetworkManager.globs)
    found = debian.run(["sh", "-c", f'for each in {globs}; do [ ! -f "$each" ] || echo "$each"; done'], check=True)
    paths = found.stdout.splitlines()
    return {path[1:]: File(debian.run(["cat", path], check=True).stdout, 0o600) for path in paths}


def write(debian: Debian, edits: Mapping[str, File | None]) -> None:
    debian.write({path: file for path, file in edits.items() if file is not None})
    debian.remove(*(path for path, file in edits.items() if file is None))


def reload(debian: Debian, renderer: Renderer, uplink: Uplink) -> None:
    for command in renderer.reload(uplink):
        debian.run(command, check=True)


def active(debian: Debian) -> dict[str, str]:
    """The uuids of the profiles in use, by link."""
    done = debian.run(["nmcli", "-t", "-f", "DEVICE,UUID", "connection", "show", "--active"], check=True)
    found = dict(line.split(":", 1) for line in done.stdout.splitlines())
    return {link: uuid for link, uuid in found.items() if link != "lo"}


def resolvers(debian: Debian) -> list[str]:
    lines = debian.run(["cat", "/etc/resolv.conf"], check=True).stdout.splitlines()
    return [line for line in lines if line and not line.startswith("#")]


def answers(ping: subprocess.Popen[str]) -> float:
    """End a ping; the longest time from one answer to the next, in seconds."""
    ping.terminate()
    said, _ = ping.communicate()
    times = [float(line[1 : line.index("]")]) for line in said.splitlines() if "time=" in line]
    assert len(times) > 10, said
    return max(later - earlier for earlier, later in pairwise(times))
