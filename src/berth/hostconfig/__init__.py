"""The host's own network configuration, with a NIC made a port of a bridge: one renderer for each system.

Renderers are pure: they are given the files that are there and say what they should be. A renderer moves what the
files say about the NIC's addresses to the bridge, word for word where it can, and leaves comments, unknown keys and
whatever else is the NIC's (offloads, wake-on-LAN) where they are. Where the files say nothing about the NIC, it
writes what the kernel told (`Uplink`).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar, Protocol, TypeAlias

from berth.model import Uplink


@dataclass(frozen=True, slots=True)
class File:
    """A file of the host's configuration, owned by root."""

    text: str
    mode: int = 0o644


#: By path below the root directory, without a leading slash: "etc/network/interfaces".
Files: TypeAlias = Mapping[str, File]
#: What is to be written; None: removed. Files that stay as they are are not named.
Edits: TypeAlias = dict[str, File | None]

#: Each a program with its arguments.
Commands: TypeAlias = tuple[tuple[str, ...], ...]


class Renderer(Protocol):
    """One system that configures a host's network."""

    name: ClassVar[str]  # as `--persist` takes it
    globs: ClassVar[tuple[str, ...]]  # where its files are, below the root directory
    regenerate: ClassVar[Commands]  # to be run at a boot when files were put back, before the network is configured

    def configures(self, files: Files, uplink: Uplink) -> bool:
        """Whether the files say something about the NIC. Raises `Invalid`, with file and line."""
        ...

    def adopt(self, files: Files, uplink: Uplink) -> Edits:
        """The edits that make the NIC a port of the bridge, which takes its addresses over.

        Raises `Invalid` with file and line where the files do not parse, or where this cannot be said in them.
        """
        ...

    def reload(self, uplink: Uplink) -> Commands:
        """The commands by which a running system takes over what the files say now, without a cut.

        That is either way: a port of the bridge, which is there then, or the NIC by itself again. () for none.
        """
        ...
