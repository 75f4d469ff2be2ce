"""Which .network file systemd-networkd applies to a link: systemd.network(5), [Match], and the order of directories."""

from __future__ import annotations

import fnmatch
import re
from dataclasses import dataclass, field
from pathlib import PurePosixPath

from berth.errors import Invalid
from berth.hostconfig import Files
from berth.hostconfig.ini import Ini

ETC = "etc/systemd/network"
#: A file in an earlier one hides those of its name in later ones.
DIRECTORIES = (ETC, "run/systemd/network", "usr/local/lib/systemd/network", "usr/lib/systemd/network")
_MACS = ("MACAddress", "PermanentMACAddress")


@dataclass(frozen=True, slots=True)
class Link:
    """What a [Match] may ask of a link."""

    name: str
    mac: str
    type: str = "ether"  # as networkctl shows it
    kind: str = ""  # the kernel's; "" for hardware
    permanent_mac: str = ""


@dataclass(slots=True)
class Network:
    """A .network file with its drop-ins, in the order in which they are read."""

    path: str
    base: Ini
    dropins: list[Ini] = field(default_factory=list)

    @property
    def basename(self) -> str:
        """What files are sorted by."""
        return PurePosixPath(self.path).name

    @property
    def parts(self) -> list[Ini]:
        """The file and its drop-ins."""
        return [self.base, *self.dropins]

    def values(self, section: str, key: str) -> list[str]:
        """All values of a key, in the order in which they are read."""
        return [value for part in self.parts for value in part.values(section, key)]

    def get(self, section: str, key: str) -> str | None:
        """The value that counts of a key that has one."""
        return next(iter(reversed(self.values(section, key))), None)

    @property
    def unmanaged(self) -> bool:
        """Whether it only tells networkd to keep its hands off."""
        return (self.get("Link", "Unmanaged") or "").lower() in ("yes", "true", "on", "1")

    @property
    def editable(self) -> bool:
        """Whether it and its drop-ins are the operator's, who is meant to edit them."""
        return all(part.path.startswith(f"{ETC}/") for part in self.parts)

    def only_for(self, link: Link) -> bool:
        """Whether it names this link and could not be meant for any other."""
        if self.patterns("Name") == [link.name]:
            return True
        macs = [mac for key in _MACS for mac in self.patterns(key)]
        return bool(macs) and set(macs) == {link.mac}

    def fits(self, link: Link) -> bool | None:
        """Whether its [Match] fits a link, as one that names it does; None where it depends on what is not known."""
        asked = {entry.key for part in self.parts for each in part.named("Match") for entry in each.entries}
        known = {
            "Name": link.name,
            "MACAddress": link.mac,
            "PermanentMACAddress": link.permanent_mac,
            "Type": link.type,
            "Kind": link.kind,
        }
        tried = [_fits(self.patterns(key), value) for key, value in known.items() if key in asked]
        if not asked or not all(tried):
            return False
        if self.patterns("Name") == [link.name]:
            return True
        return None if asked - {*known} else True

    def patterns(self, key: str) -> list[str]:
        """The words of a key in [Match]; those of an inverted list each with its exclamation mark."""
        found: list[str] = []
        for value in self.values("Match", key):
            if not value:
                found = []
            mark = "!" if value.startswith("!") else ""
            words = value.removeprefix("!").split()
            found += [mark + (_mac(word) if key in _MACS else word) for word in words]
        return found


def networks(files: Files) -> list[Network]:
    """All .network files that count, in the order in which networkd tries them. Raises `Invalid`, with file and line.

    One without content masks those of its name.
    """
    paths: dict[str, str] = {}
    for directory in DIRECTORIES:
        for path in files:
            here = PurePosixPath(path)
            if str(here.parent) == directory and here.suffix == ".network":
                paths.setdefault(here.name, path)
    return [
        Network(path, _read(files, path), _dropins(files, name))
        for name, path in sorted(paths.items())
        if files[path].text.strip()
    ]


def first_for(found: list[Network], link: Link) -> Network | None:
    """The file that networkd applies to a link. Raises `Invalid` where that cannot be told."""
    first = next((each for each in found if each.fits(link) is not False), None)
    if first is not None and first.fits(link) is None:
        raise Invalid(
            f"{first.path}: its [Match] does not tell whether it is for {link.name}:"
            f" write `Name={link.name}` into it, or into that of a file that sorts before it"
        )
    return first


def _dropins(files: Files, name: str) -> list[Ini]:
    paths: dict[str, str] = {}
    for directory in DIRECTORIES:
        for path in files:
            here = PurePosixPath(path)
            if str(here.parent) == f"{directory}/{name}.d" and here.suffix == ".conf":
                paths.setdefault(here.name, path)
    return [_read(files, path) for _, path in sorted(paths.items())]


def _read(files: Files, path: str) -> Ini:
    return Ini.parse(path, files[path].text, continued=True)


def _fits(patterns: list[str], value: str) -> bool:
    """Whether a value fits a list: none of the inverted ones, and one of the others if there are any."""
    wanted = [each for each in patterns if not each.startswith("!")]
    unwanted = [each[1:] for each in patterns if each.startswith("!")]
    same = [each for each in wanted if value and fnmatch.fnmatchcase(value, each)]
    return not any(value and fnmatch.fnmatchcase(value, each) for each in unwanted) and (bool(same) or not wanted)


def _mac(word: str) -> str:
    """A MAC as the kernel's tools write it: networkd also takes 00-50-56-AA-00-10 and 0050.56aa.0010."""
    digits = re.sub("[^0-9a-f]", "", word.lower())
    return ":".join(digits[at : at + 2] for at in range(0, len(digits), 2))
