"""RHEL's ifcfg files: the NIC's keeps what is the card's, and what it says of addresses goes to the bridge's.

Two programs read them: the scripts of the service `network`, and NetworkManager's plugin ifcfg-rh. The keys are
those that mean the same to both.
"""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import PurePosixPath
from typing import ClassVar

from berth.errors import Invalid
from berth.hostconfig import Commands, Edits, File, Files
from berth.hostconfig.networkmanager import uuids
from berth.hostconfig.switches import refuse_other_switches
from berth.model import Addressing, Uplink, UplinkRoute

DIRECTORY = "etc/sysconfig/network-scripts"
GLOBAL = "etc/sysconfig/network"

_ASSIGNMENT = re.compile(r"\s*(?:export\s+)?([A-Za-z_]\w*)=(.*)", re.DOTALL)
# What neither reader takes for a file of its own: editors' and package managers' leavings.
_LEAVINGS = re.compile(r".*(~|\.(bak|old|orig|rej|rpmnew|rpmorig|rpmsave|augnew|augtmp))")
# Keys about addresses, names and IP itself. All others are the card's and stay with it.
_BRIDGES = re.compile(
    r"(IPADDR|PREFIX|NETMASK|NETWORK|BROADCAST|GATEWAY|METRIC|SCOPE|SRCADDR|DNS)\d*"
    r"|DOMAIN|SEARCH|RES_OPTIONS|PEER(DNS|ROUTES|NTP)|DEFROUTE|GATEWAYDEV|NOZEROCONF|NISDOMAIN|ZONE|MDNS|LLMNR"
    r"|IPV[46].*|DHCP.*|DHCLIENT.*|PERSISTENT_DHCLIENT|ARPCHECK|ARPUPDATE|ARPING_WAIT|ACD_TIMEOUT"
    r"|ROUTING_RULE.*|STABLE_ID|NTPSERVERARGS|CONNECTION_METERED"
)
# Of these one gives the NIC an address, or has it look for one.
_ADDRESSES = re.compile(r"IPADDR\d*|IPV6ADDR|IPV6_AUTOCONF|DHCPV6C")

# Where NetworkManager has the card, and its plugin reads these files. Back too: the bridge's profile is gone then. The
# card's is begun anew in either case: it is one and the same, and goes on as it was until then.
_RELOAD = """
state=$(nmcli -g GENERAL.STATE device show "$2" 2>/dev/null) || exit 0
case $state in "10 "*) exit 0 ;; esac
nmcli connection reload
if nmcli connection show uuid "$1" >/dev/null 2>&1; then
    nmcli connection up uuid "$1"
    for try in $(seq 10); do
        case $(nmcli -g GENERAL.STATE device show "$3") in 100*) break ;; esac
        sleep 0.05
    done
fi
exec nmcli device connect "$2"
"""


class Ifcfg:
    """/etc/sysconfig/network-scripts."""

    name: ClassVar[str] = "ifcfg"
    regenerate: ClassVar[Commands] = ()  # the files are read later
    globs: ClassVar[tuple[str, ...]] = (
        GLOBAL,
        *(f"{DIRECTORY}/{kind}-*" for kind in ("ifcfg", "route", "route6", "rule", "rule6")),
    )

    def configures(self, files: Files, uplink: Uplink) -> bool:
        """Whether a file is the NIC's."""
        return _nics(_read(files), uplink) is not None

    def adopt(self, files: Files, uplink: Uplink) -> Edits:
        """The NIC's file without addresses, the bridge's with them, and the files beside them under its name.

        Raises `Invalid` for files that are not assignments throughout, for a NIC that is a port of something else,
        and for a bridge that has a file already.
        """
        refuse_other_switches(uplink, "ifcfg files")
        loaded = _read(files)
        nics, bridges = _nics(loaded, uplink), f"{DIRECTORY}/ifcfg-{uplink.bridge}"
        if nics is not None and nics.get("BRIDGE") == uplink.bridge and bridges in files:
            return {}
        _refuse(loaded, nics, uplink)
        if nics is None:
            return _new(uplink) | _routes(uplink) | _global(files, uplink)
        says_nothing = nics.get("BOOTPROTO") in ("", "none", "static") and not nics.have(_ADDRESSES)
        bridge = _bridge(nics, uplink, says_nothing)
        edits: Edits = {nics.path: File(nics.text(), files[nics.path].mode)}
        edits[bridges] = File(bridge.text(), files[nics.path].mode)
        edits |= _routes(uplink) if says_nothing else {}
        return edits | _beside(files, loaded, nics, uplink) | _global(files, uplink)

    def reload(self, uplink: Uplink) -> Commands:
        """For the scripts nothing: they read the files when they are called next. A NetworkManager is told of them."""
        return (("sh", "-ec", _RELOAD, "reload", uuids(uplink)[0], uplink.nic, uplink.bridge),)


@dataclass(slots=True)
class Settings:
    """One file of assignments in the shell's syntax, line by line: what is not changed keeps every byte."""

    path: str
    lines: list[str] = field(default_factory=list)

    @classmethod
    def parse(cls, path: str, text: str) -> Settings:
        """Read a file's text. Raises `Invalid` with path and line for what is no assignment, or has no end."""
        made = cls(path, text.splitlines())
        for number, line in enumerate(made.lines, 1):
            if not line.strip() or line.lstrip().startswith("#"):
                continue
            assignment = _ASSIGNMENT.fullmatch(line)
            if assignment is None:
                raise Invalid(f"{path}:{number}: `{line.strip()}` is not KEY=value: correct the file")
            try:
                words = shlex.split(assignment[2], comments=True)
            except ValueError as error:
                raise Invalid(f"{path}:{number}: `{line.strip()}` has a quote without end: correct the file") from error
            if len(words) > 1:
                raise Invalid(f"{path}:{number}: the value of `{line.strip()}` has a blank: put it in quotes")
        return made

    def text(self) -> str:
        """The file as it is to be written."""
        return "".join(f"{line}\n" for line in self.lines)

    def get(self, key: str) -> str:
        """A key's value, of the last assignment; the empty string where it has none."""
        found = [value for each, value in map(_assigned, self.lines) if each == key]
        return "".join(shlex.split(found[-1], comments=True)[:1]) if found else ""

    def set(self, key: str, value: str) -> None:
        """Give a key a value: where it is assigned now, or after all that is there."""
        if self.get(key) == value:
            return
        written = f"{key}={shlex.quote(value)}"
        at = [number for number, line in enumerate(self.lines) if _assigned(line)[0] == key]
        if at:
            self.lines[at[0]] = written
            self.lines = [line for number, line in enumerate(self.lines) if number not in at[1:]]
        else:
            self.lines.append(written)

    def have(self, keys: re.Pattern[str]) -> bool:
        """Whether a key that matches is assigned."""
        return any(keys.fullmatch(_assigned(line)[0]) for line in self.lines)

    def take(self, keys: re.Pattern[str]) -> list[str]:
        """Remove all assignments to keys that match, and return them as they are written."""
        taken = [line for line in self.lines if keys.fullmatch(_assigned(line)[0])]
        self.lines = [line for line in self.lines if line not in taken]
        return taken


def _assigned(line: str) -> tuple[str, str]:
    """A line's key and its value as it is written; a comment's are empty."""
    assignment = _ASSIGNMENT.fullmatch(line)
    return (assignment[1], assignment[2]) if assignment else ("", "")


def _read(files: Files) -> dict[str, Settings]:
    """All ifcfg files that are read at boot, by path."""
    return {
        path: Settings.parse(path, file.text)
        for path, file in sorted(files.items())
        if PurePosixPath(path).name.startswith("ifcfg-") and not _LEAVINGS.fullmatch(path)
    }


def _nics(loaded: dict[str, Settings], uplink: Uplink) -> Settings | None:
    """The NIC's file: by DEVICE, else by HWADDR, else by its name. None: it has none."""
    named = [each for each in loaded.values() if each.get("DEVICE") == uplink.nic]
    of_mac = [
        each for each in loaded.values() if not each.get("DEVICE") and each.get("HWADDR").lower() == uplink.mac.lower()
    ]
    own = loaded.get(f"{DIRECTORY}/ifcfg-{uplink.nic}")
    by_name = [own] if own is not None and not own.get("DEVICE") and not own.get("HWADDR") else []
    return next(iter((*named, *of_mac, *by_name)), None)


def _refuse(loaded: dict[str, Settings], nics: Settings | None, uplink: Uplink) -> None:
    """Refuse what the move would spoil."""
    for each in loaded.values():
        if uplink.bridge in (each.get("DEVICE"), PurePosixPath(each.path).name.removeprefix("ifcfg-")):
            raise Invalid(f"{each.path}: {uplink.bridge} has a file already: choose another name for the bridge")
    if nics is None and f"{DIRECTORY}/ifcfg-{uplink.nic}" in loaded:
        raise Invalid(f"{DIRECTORY}/ifcfg-{uplink.nic}: is about another card than {uplink.nic}: rename the file")
    for key in ("BRIDGE", "MASTER", "TEAM_MASTER", "BOND_MASTER"):
        if nics is not None and (master := nics.get(key)):
            raise Invalid(f"{nics.path}: {uplink.nic} is a port of {master} already: take it out there first")


def _bridge(nics: Settings, uplink: Uplink, says_nothing: bool) -> Settings:
    """The bridge's file: what the NIC's says of addresses, which it loses, or what the uplink says."""
    method = nics.get("BOOTPROTO") or "none"
    bridge, moved = Settings(nics.path), nics.take(_BRIDGES)
    for key, value in _head(uplink):
        bridge.set(key, value)
    if says_nothing:
        for key, value in _addressing(uplink):
            bridge.set(key, value)
    else:
        bridge.set("BOOTPROTO", method)
        # As in GATEWAYDEV=eth0 and IPV6_DEFAULTGW=fe80::1%eth0.
        bridge.lines += [
            re.sub(rf"(%|DEV=[\"']?){re.escape(uplink.nic)}\b", rf"\1{uplink.bridge}", each) for each in moved
        ]
    for key in ("MTU", "NM_CONTROLLED"):
        if value := nics.get(key):
            bridge.set(key, value)
    for key, value in _tail(uplink):
        bridge.set(key, value)
    nics.set("DEVICE", uplink.nic)  # its MAC alone would fit the bridge too
    nics.set("BOOTPROTO", "none")
    if nics.get("ONBOOT"):
        nics.set("ONBOOT", "yes")
    nics.set("BRIDGE", uplink.bridge)
    return bridge


def _head(uplink: Uplink) -> Iterator[tuple[str, str]]:
    yield from (("TYPE", "Bridge"), ("DEVICE", uplink.bridge), ("NAME", uplink.bridge))
    yield from (("UUID", uuids(uplink)[0]), ("ONBOOT", "yes"))


def _tail(uplink: Uplink) -> Iterator[tuple[str, str]]:
    """How the bridge is made. Not HWADDR: that is for finding a card."""
    yield from (("MACADDR", uplink.mac), ("STP", "no"), ("DELAY", "0"))


def _beside(files: Files, loaded: dict[str, Settings], nics: Settings, uplink: Uplink) -> Edits:
    """Routes, rules, aliases and ranges of addresses are found by the interface's name."""
    edits: Edits = {}
    stem = PurePosixPath(nics.path).name.removeprefix("ifcfg-")
    for path, file in files.items():
        kind, _, name = PurePosixPath(path).name.partition("-")
        if kind != "ifcfg" and name in (uplink.nic, stem):
            moved, text = f"{DIRECTORY}/{kind}-{uplink.bridge}", _dev(file.text, uplink)
        elif path in loaded and re.match(rf"{re.escape(uplink.nic)}(:|-range)", name):
            moved, text = _alias(loaded[path], name, uplink)
        else:
            continue
        if moved in files:
            raise Invalid(f"{moved}: {uplink.bridge} has a file already: choose another name for the bridge")
        edits |= {path: None, moved: File(text, file.mode)}
    return edits


def _dev(text: str, uplink: Uplink) -> str:
    """Routes and rules with the bridge for the NIC."""
    return re.sub(rf"\b(dev|iif|oif)(\s+){re.escape(uplink.nic)}(?=\s|$)", rf"\1\2{uplink.bridge}", text)


def _alias(settings: Settings, name: str, uplink: Uplink) -> tuple[str, str]:
    """The path and text of another address's file."""
    for key in ("DEVICE", "NAME"):
        value = settings.get(key)
        if value.startswith(uplink.nic):
            settings.set(key, uplink.bridge + value.removeprefix(uplink.nic))
    return f"{DIRECTORY}/ifcfg-{uplink.bridge}{name.removeprefix(uplink.nic)}", settings.text()


def _global(files: Files, uplink: Uplink) -> Edits:
    """The file of what all interfaces share: it may say by which one the default route goes."""
    if GLOBAL not in files:
        return {}
    settings = Settings.parse(GLOBAL, files[GLOBAL].text)
    for key in ("GATEWAYDEV", "IPV6_DEFAULTDEV"):
        if settings.get(key) == uplink.nic:
            settings.set(key, uplink.bridge)
    edited = File(settings.text(), files[GLOBAL].mode)
    return {} if edited == files[GLOBAL] else {GLOBAL: edited}


def _new(uplink: Uplink) -> Edits:
    """Both files for what the uplink says."""
    nics, bridge = Settings(""), Settings("")
    mtu = [("MTU", str(uplink.mtu))] if uplink.mtu else []
    card = [("TYPE", "Ethernet"), ("DEVICE", uplink.nic), ("NAME", uplink.nic), ("HWADDR", uplink.mac)]
    for key, value in [*card, ("ONBOOT", "yes"), ("BOOTPROTO", "none"), *mtu, ("BRIDGE", uplink.bridge)]:
        nics.set(key, value)
    for key, value in [*_head(uplink), *_addressing(uplink), *mtu, *_tail(uplink)]:
        bridge.set(key, value)
    return {
        f"{DIRECTORY}/ifcfg-{uplink.nic}": File(nics.text()),
        f"{DIRECTORY}/ifcfg-{uplink.bridge}": File(bridge.text()),
    }


def _routes(uplink: Uplink) -> Edits:
    """The files of routes for what the uplink says."""
    edits: Edits = {}
    for kind, version in (("route", 4), ("route6", 6)):
        lines = [_route(each, uplink.bridge) for each in uplink.routes if each.dst.version == version]
        if lines:
            edits[f"{DIRECTORY}/{kind}-{uplink.bridge}"] = File("".join(f"{line}\n" for line in lines))
    return edits


def _addressing(uplink: Uplink) -> Iterator[tuple[str, str]]:
    yield from (*_ipv4(uplink.ipv4), *_ipv6(uplink.ipv6), *_names(uplink))


def _ipv4(addressing: Addressing) -> Iterator[tuple[str, str]]:
    yield "BOOTPROTO", "dhcp" if addressing.method == "auto" else "none"
    for number, address in enumerate(addressing.addresses):
        yield f"IPADDR{number or ''}", str(address.ip)
        yield f"PREFIX{number or ''}", str(address.network.prefixlen)
    if addressing.gateway is not None:
        yield "GATEWAY", str(addressing.gateway)


def _ipv6(addressing: Addressing) -> Iterator[tuple[str, str]]:
    yield "IPV6INIT", "no" if addressing.method == "none" else "yes"
    if addressing.method == "none":
        return
    yield "IPV6_AUTOCONF", "yes" if addressing.method == "auto" else "no"
    if addressing.addresses:
        yield "IPV6ADDR", str(addressing.addresses[0])
    if addressing.addresses[1:]:
        yield "IPV6ADDR_SECONDARIES", " ".join(map(str, addressing.addresses[1:]))
    if addressing.gateway is not None:
        yield "IPV6_DEFAULTGW", str(addressing.gateway)


def _names(uplink: Uplink) -> Iterator[tuple[str, str]]:
    yield from ((f"DNS{number}", str(server)) for number, server in enumerate(uplink.dns, 1))
    if uplink.search:
        yield "DOMAIN", " ".join(uplink.search)


def _route(route: UplinkRoute, bridge: str) -> str:
    words = [str(route.dst), *([f"via {route.via}"] if route.via is not None else []), f"dev {bridge}"]
    words += [f"metric {route.metric}"] if route.metric else []
    words += [f"table {route.table}"] if route.table != 254 else []
    return " ".join(words)
