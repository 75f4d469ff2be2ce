"""What the verbs of uplinks ask of the parts below them."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import AbstractContextManager
from typing import Protocol

from berth.hostconfig import File
from berth.state import TextFile
from berth.uplink.facts import Facts
from berth.uplink.record import Client, Record


class HostSide(Protocol):
    """The host, beside its kernel's objects: its LAN, its files, its programs."""

    def facts(self, nic: str, bridge: str, *, of: str = "") -> Facts:
        """All about a NIC, or with `of` about a NIC and what its bridge of that name carries. Raises `NotFound`."""
        ...

    def answers(self, dev: str, ip: str, within: float) -> bool:
        """Whether a neighbour answers on a link within some seconds."""
        ...

    def carrier(self, dev: str, within: float) -> bool:
        """Whether a link has a carrier within some seconds."""
        ...

    def datapath(self) -> str:
        """The datapath of a new bridge of Open vSwitch's. Raises `Unsupported` where none runs."""
        ...

    def acquaint(self, source: str, target: str) -> None:
        """Let a link know the neighbours of another, where both are there."""
        ...

    def solicit(self, dev: str) -> None:
        """Ask the routers of a link to advertise themselves."""
        ...

    def configured(self) -> bool:
        """Whether the host has files of its own: not a bare network namespace."""
        ...

    def files(self, globs: Sequence[str]) -> dict[str, File]:
        """The files of the host's configuration, by path below the root; none where it is not this host's."""
        ...

    def path(self, below: str) -> str:
        """The absolute path of such a file."""
        ...

    def managing(self, nic: str) -> dict[str, str]:
        """What running managers say of a link, by manager."""
        ...

    def run(self, argv: Sequence[str]) -> None:
        """Run a command of the host's. Raises `Refused` when it fails."""
        ...

    def hand_over(self, started: Sequence[Client], source: str, target: str) -> None:
        """Have what leases the address of one link lease it for another. Raises `Refused`."""
        ...

    def boot(self) -> str:
        """Which boot this is."""
        ...

    def now(self) -> float:
        """Seconds since the boot, suspended ones too."""
        ...

    def today(self) -> str:
        """The time, as RFC 3339 has it, in UTC."""
        ...


class Records(Protocol):
    """What is remembered of uplinks."""

    def load(self, nic: str) -> Record: ...
    def save(self, record: Record) -> None: ...
    def all(self) -> list[Record]: ...
    def keep(self, file: TextFile) -> None: ...
    def held(self, within: float = 0) -> AbstractContextManager[None]: ...


class Guard(Protocol):
    """Who puts the host back when nobody else does."""

    def arm(self, record: Record) -> None:
        """Start watching; returns when it does. Raises `Refused`."""
        ...

    def disarm(self, record: Record) -> None:
        """Stop the second belt; the watcher sees by itself that it is over."""
        ...
