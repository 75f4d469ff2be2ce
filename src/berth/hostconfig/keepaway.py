"""Files that keep a host's network managers away from Berth's own bridges and cables.

Left alone they take each new veth for a card: they ask for a lease on it and lead the default route there, and udev
gives it a MAC of its own making. dhcpcd is also kept away from a NIC that is a port: it is to ask on the bridge.
"""

from __future__ import annotations

import re
from fnmatch import fnmatchcase

from berth.hostconfig import Edits, File, Files
from berth.hostconfig.ini import Ini, Section
from berth.model import Uplink

#: What Berth's links are called: its bridges, and the host's ends of its cables.
LINKS = ("brt*", "bv*")
#: Where it can be seen which managers there are.
GLOBS = (
    "etc/NetworkManager/*.conf",
    "etc/NetworkManager/conf.d/*.conf",
    "usr/lib/NetworkManager/conf.d/*.conf",
    "etc/systemd/network/*",
    "usr/lib/systemd/network/*",
    "etc/dhcpcd.conf",
)
_NETWORKMANAGER = "etc/NetworkManager/conf.d/90-berth.conf"
_NETWORKD = "etc/systemd/network/05-berth.network"
_UDEV = "etc/systemd/network/05-berth.link"
_DHCPCD = "etc/dhcpcd.conf"
_BY = "# Berth's own links are none of a network manager's business."
_BLOCK = re.compile(r"\s*(interface|ssid|profile)\s")


def keep_away(files: Files, uplink: Uplink) -> Edits:
    """What to write for the managers that are there, so that they leave Berth's links alone."""
    wanted: Edits = {}
    if any("/NetworkManager/" in path for path in files):
        # += : what other files say stays. NetworkManager.conf(5)
        unmanaged = ";".join(f"interface-name:{each}" for each in LINKS)
        wanted[_NETWORKMANAGER] = _file(Section.new("keyfile", ("unmanaged-devices+", unmanaged)))
    if any("/systemd/network/" in path for path in files):
        names = " ".join(LINKS)
        wanted[_NETWORKD] = _file(Section.new("Match", ("Name", names)), Section.new("Link", ("Unmanaged", "yes")))
        link = Section.new("Link", ("NamePolicy", "keep"), ("MACAddressPolicy", "none"))
        wanted[_UDEV] = _file(Section.new("Match", ("OriginalName", names)), link)
    if _DHCPCD in files:
        file = files[_DHCPCD]
        wanted[_DHCPCD] = File(_dhcpcd(file.text, uplink), file.mode)
    return {path: file for path, file in wanted.items() if file != files.get(path)}


def _file(*sections: Section) -> File:
    return File(Ini("", [_BY], [*sections]).text())


def _dhcpcd(text: str, uplink: Uplink) -> str:
    """dhcpcd.conf with our links and the port denied, and the bridge allowed where the NIC was."""
    lines = text.splitlines()
    first_block = next((number for number, line in enumerate(lines) if _BLOCK.match(line)), len(lines))
    said = {number: words for number in range(first_block) if (words := lines[number].partition("#")[0].split())}
    denied = [number for number, words in said.items() if words[0] == "denyinterfaces"]
    have = {word for number in denied for word in said[number][1:]}
    missing = [each for each in (uplink.nic, *LINKS) if each not in have]
    if missing and denied:
        lines[denied[-1]] = _with(lines[denied[-1]], missing)
    for number in [number for number, words in said.items() if words[0] == "allowinterfaces"]:
        allowed = said[number][1:]
        if _named(uplink.nic, allowed) and not _named(uplink.bridge, allowed):
            lines[number] = _with(lines[number], [uplink.bridge])
    if missing and not denied:
        # Below `interface …` it would be that interface's; above the comments that belong to it, it is everybody's.
        while 0 < first_block < len(lines) and lines[first_block - 1].lstrip().startswith("#"):
            first_block -= 1
        lines[first_block:first_block] = [_BY, f"denyinterfaces {' '.join(missing)}"]
    return "\n".join(lines) + "\n"


def _with(line: str, words: list[str]) -> str:
    """A line with more words, before the comment at its end."""
    said, mark, comment = line.partition("#")
    return f"{said.rstrip()} {' '.join(words)}" + (f" {mark}{comment}" if mark else "")


def _named(name: str, patterns: list[str]) -> bool:
    return any(fnmatchcase(name, each) for each in patterns)
