"""What the proxy carries: for each port a small file that `berth proxy` reads, and the noun of it.

The file `tcp.[::1].8080` with the text `172.18.0.2 80` says: what comes to [::1]:8080 goes on to 172.18.0.2:80. A
range whose ports keep their distance is one file: `tcp.[::1].8000-8999` with `172.18.0.2 8000`.
"""

from __future__ import annotations

import os
import re
import shlex
from ipaddress import IPv4Address, IPv6Address, ip_address
from pathlib import Path
from typing import ClassVar

from berth.errors import Invalid
from berth.noun import HOST, Key, Noun

PROTOCOLS = ("tcp", "udp")  # the kernel has SCTP sockets only where its module is loaded: those are not proxied
_NAME = re.compile(r"(tcp|udp)\.(\[[0-9a-f:.]+\]|[0-9.]+)\.([0-9]{1,5})(?:-([0-9]{1,5}))?")
_TEXT = re.compile(r"([0-9a-f:.]+) ([0-9]{1,5})\n")
_LAST_PORT = 65535


def directory() -> Path:
    """Where the files are: `proxy` in $BERTH_RUN, else in /run/berth."""
    return Path(os.environ.get("BERTH_RUN") or "/run/berth").absolute() / "proxy"


class Proxied(Noun, frozen=True, tag=True):
    """That the proxy takes what comes to ports of the host on to a container."""

    rank: ClassVar[int] = 90  # after all that leads to the container
    proto: str  # "tcp", "udp"
    ip: str  # the host's; "0.0.0.0" or "::" for any of that family
    first: int
    last: int  # the same as `first` for a single port
    target: str  # an address of either family
    port: int  # of the target, for `first`; the others follow it

    @property
    def name(self) -> str:
        """The name of its file."""
        ports = str(self.first) if self.first == self.last else f"{self.first}-{self.last}"
        return f"{self.proto}.{_bracketed(self.ip)}.{ports}"

    @property
    def text(self) -> str:
        """What its file says."""
        return f"{self.target} {self.port}\n"

    @property
    def key(self) -> Key:
        return ("proxied", HOST, self.name)

    @property
    def in_the_way(self) -> bool:
        return True  # a range that is about to come may have the port as well

    def describe(self) -> str:
        return f"echo {self.text.strip()} >{_path(self.name)}  # {self._socat()}"

    def describe_removal(self) -> str:
        return f"rm {_path(self.name)}"

    def _socat(self) -> str:
        """The program that would do the same for the first port."""
        here, there = ("6" if ":" in ip else "4" for ip in (self.ip, self.target))
        kind = self.proto.upper()
        listen = f"{kind}{here}-LISTEN:{self.first},bind={_bracketed(self.ip)},fork"
        more = f", and so on until {self.last}" if self.last > self.first else ""
        return f"socat {listen} {kind}{there}:{_bracketed(self.target)}:{self.port}{more}"


def parse(name: str, text: str) -> Proxied:
    """What a file says. Raises `Invalid` for one that Berth has not written so."""
    named, said = _NAME.fullmatch(name), _TEXT.fullmatch(text)
    if named is None or said is None:
        raise Invalid(f"{name!r} with {text[:80]!r} is no port for the proxy: like tcp.[::1].8080 with 172.18.0.2 80")
    proto, ip, first, last = named.groups()
    found = Proxied(proto, ip.strip("[]"), int(first), int(last or first), said[1], int(said[2]))
    if not (_canonical(found.ip) and _canonical(found.target) and found.name == name and found.text == text):
        raise Invalid(f"{name!r} with {text[:80]!r} is no port for the proxy: write addresses and ports as Berth does")
    if not (0 < found.first <= found.last <= _LAST_PORT and 0 < found.port <= _LAST_PORT - (found.last - found.first)):
        raise Invalid(f"{name!r} with {text[:80]!r} is no port for the proxy: ports are 1 to {_LAST_PORT}")
    return found


def _canonical(text: str) -> bool:
    """Whether an address is written in the one way that Berth writes it."""
    try:
        address: IPv4Address | IPv6Address = ip_address(text)
    except ValueError:
        return False
    return str(address) == text and getattr(address, "ipv4_mapped", None) is None


def _bracketed(ip: str) -> str:
    return f"[{ip}]" if ":" in ip else ip


def _path(name: str) -> str:
    return shlex.quote(str(directory() / name))
