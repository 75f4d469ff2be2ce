"""Whether a port of a LAN's bridge will be one after a reboot, and whether a running manager leaves it alone."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping, Sequence

from berth.doctor.facts import Keeping
from berth.hostconfig import File
from berth.hostconfig.systems import RENDERERS
from berth.kernel.uplink import MANAGED, LinuxUplink
from berth.uplink.persist import SYSTEMS


def keeping(host: LinuxUplink, pairs: Sequence[tuple[str, str]], adopted: Callable[[str], bool]) -> Iterator[Keeping]:
    """What there is to know of NICs and the bridges that they are ports of; nothing where the host has no files.

    Raises what `LinuxUplink.files` raises.
    """
    if not host.configured():
        return
    files = {each.name: host.files(each.globs) for each in RENDERERS}
    known = any(files.values())
    for nic, bridge in pairs:
        written = {name for name, found in files.items() if _says(found, bridge)}
        managers = tuple(
            name
            for name, said in _managing(host, nic).items()
            if MANAGED[name] in said and written.isdisjoint(SYSTEMS[name])
        )
        if known or managers:
            yield Keeping(nic, bridge, bool(written), managers, adopted(nic), host.path(""))


def _managing(host: LinuxUplink, nic: str) -> Mapping[str, str]:
    try:
        return host.managing(nic)
    except OSError:  # gone meanwhile
        return {}


def _says(files: Mapping[str, File], bridge: str) -> bool:
    """Whether a file names the bridge, other than in a comment."""
    word = re.compile(rf"(?<![\w.-]){re.escape(bridge)}(?![\w-])")
    lines = (line for file in files.values() for line in file.text.splitlines())
    return any(word.search(line) for line in lines if not line.lstrip().startswith(("#", ";")))
