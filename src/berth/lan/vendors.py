"""Who makes a machine, by its MAC: from a list that the system has, if it has one. None is ever fetched."""

from __future__ import annotations

import re
from functools import lru_cache
from pathlib import Path

#: Lists of Debian's ieee-data, of hwdata, nmap, arp-scan and Wireshark.
_LISTS = (
    "/usr/share/ieee-data/oui.txt",
    "/usr/share/hwdata/oui.txt",
    "/var/lib/ieee-data/oui.txt",
    "/usr/share/nmap/nmap-mac-prefixes",
    "/usr/share/arp-scan/ieee-oui.txt",
    "/usr/share/wireshark/manuf",
)
_LONGEST = 60  # characters


@lru_cache(maxsize=256)
def vendor(mac: str, lists: tuple[str, ...] = _LISTS) -> str:
    """The vendor's name; "" for one that is not known, and for a MAC that was made up (IEEE 802 c, U/L bit)."""
    if int(mac[:2], 16) & 2:
        return ""
    begin = mac[:8]
    forms = "|".join((begin.replace(":", "-"), begin, begin.replace(":", "")))
    line = re.compile(rf"^(?:{forms})\s+(?:\((?:hex|base 16)\)\s+)?(.+)$", re.IGNORECASE)
    for name in lists:
        try:
            with Path(name).open(encoding="utf-8", errors="replace") as file:
                for found in filter(None, map(line.match, file)):
                    return found[1].split("\t")[-1].strip()[:_LONGEST]
        except OSError:
            continue
    return ""
