"""What `berth run` was asked for."""

from __future__ import annotations

import re
from dataclasses import dataclass
from enum import Enum, auto
from pathlib import Path

from berth.errors import Invalid
from berth.model import AttachRequest

LONGEST_HOSTNAME = 64  # bytes: the kernel's __NEW_UTS_LEN

_HOSTNAME = re.compile(r"[a-zA-Z0-9_]([a-zA-Z0-9_.-]*[a-zA-Z0-9_])?")


class Mode(Enum):
    """Which network namespace the command is put in."""

    NETWORK = auto()  # a new one, attached to a network
    NONE = auto()  # a new one, with its loopback only
    HOST = auto()  # the caller's
    JOIN = auto()  # that of an endpoint or sandbox which is there already


@dataclass(frozen=True, slots=True)
class RunRequest:
    """A command to run, and where."""

    command: tuple[str, ...]
    mode: Mode
    attach: AttachRequest | None = None  # for NETWORK, with any sandbox: its real one is not born yet
    join: str = ""  # for JOIN: an endpoint's name or id, or a sandbox
    name: str | None = None  # None: a short random id
    hostname: str | None = None  # None: the name
    rootfs: Path | None = None  # None: the caller's own root file system, as a plain process
    interactive: bool = False  # the command reads the caller's standard input
    terminal: bool = False  # the command gets a pseudo-terminal
    remove: bool = False  # with a rootfs: keep nothing of the container after its end

    def __post_init__(self) -> None:
        if not self.command:
            raise Invalid("no command was given: write it after `--`, as in `berth run --network lan -- sh`")
        if (self.attach is not None) != (self.mode is Mode.NETWORK) or bool(self.join) != (self.mode is Mode.JOIN):
            raise Invalid("only a network can give an address, a MAC or a port: leave --ip, --mac and -p out")
        if self.hostname is not None:
            _refuse_bad_hostname(self.hostname)
        if self.rootfs is not None and not self.rootfs.is_dir():
            raise Invalid(f"--rootfs {self.rootfs} is not a directory: give one that holds a root file system")


def network_word(text: str) -> tuple[Mode, str]:
    """What `--network` asks for, and the name in it.

    >>> network_word("container:web")
    (<Mode.JOIN: 4>, 'web')
    """
    if text in ("host", "none"):
        return (Mode.HOST if text == "host" else Mode.NONE), ""
    kind, colon, name = text.partition(":")
    if kind == "container" and colon:
        if not name:
            raise Invalid("--network container: lacks a name: write it as container:NAME")
        return Mode.JOIN, name
    return Mode.NETWORK, text


def _refuse_bad_hostname(text: str) -> None:
    if len(text) > LONGEST_HOSTNAME:
        raise Invalid(f"hostname {text[:20]!r}… has {len(text)} characters: give it at most {LONGEST_HOSTNAME}")
    if _HOSTNAME.fullmatch(text) is None:
        raise Invalid(f"hostname {text!r} is not valid: use letters, digits and _ . -, not ending in . or -")
