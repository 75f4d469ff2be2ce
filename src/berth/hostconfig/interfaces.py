"""/etc/network/interfaces and what it sources, edited stanza by stanza: whatever is not changed keeps every byte.

The grammar is that of interfaces(5) of Debian's ifupdown.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from pathlib import PurePosixPath

from berth.errors import Invalid
from berth.hostconfig import File, Files

MAIN = "etc/network/interfaces"
DIRECTORIES = ("etc/network/interfaces.d", "run/network/interfaces.d")

_KEYWORDS = ("auto", "iface", "mapping", "template", "rename", "no-auto-down", "no-scripts")
_SOURCES = ("source", "source-directory", "source-dir")
_PLAIN_NAME = re.compile(r"[\w-]+", re.ASCII)  # of files that source-directory reads


@dataclass(slots=True)
class Line:
    """One line as ifupdown sees it, as it is written: with what continues it, and the line ends."""

    number: int
    text: str

    @property
    def words(self) -> list[str]:
        """Its words; none of a comment or a blank line."""
        joined = self.text.replace("\\\n", " ")
        return [] if joined.lstrip().startswith("#") else joined.split()

    @property
    def key(self) -> str:
        """Its first word, spelt as ifupdown does: it takes `bridge-ports` for `bridge_ports` and the other way."""
        return self.words[0].replace("_", "-") if self.words else ""

    @property
    def value(self) -> str:
        """What follows the first word."""
        return " ".join(self.words[1:])


@dataclass(slots=True)
class Stanza:
    """A stanza: the blank lines and comments above it, its first line, and its options with comments among them."""

    head: Line
    lead: list[Line] = field(default_factory=list)
    body: list[Line] = field(default_factory=list)

    @property
    def kind(self) -> str:
        """Its keyword: auto, allow-hotplug, iface, …"""
        return self.head.words[0]

    @property
    def names(self) -> list[str]:
        """What it is about: the interfaces of an `auto`, or the one of an `iface`."""
        return self.head.words[1:2] if self.kind == "iface" else self.head.words[1:]

    @property
    def method(self) -> str:
        """Of an `iface`: static, dhcp, auto, manual, …; inherited from another where it has none of its own."""
        return "" if "inherits" in self.head.words else self.head.words[3]

    @property
    def indent(self) -> str:
        """What its options are indented with."""
        first = next((line.text for line in self.body if line.words), "    ")
        return first[: len(first) - len(first.lstrip())] or "    "

    def option(self, key: str) -> Line | None:
        """Its option of a name, spelt with hyphens."""
        return next((line for line in self.body if line.key == key), None)

    def add(self, *options: str) -> None:
        """Write options below those it has; the blank lines that follow it stay below."""
        self.body += [Line(0, f"{self.indent}{option}\n") for option in options]

    def put_first(self, *options: str) -> None:
        """Write options above those it has."""
        self.body[:0] = [Line(0, f"{self.indent}{option}\n") for option in options]


def made(*lines: str) -> Stanza:
    """A stanza written by us: its first line and its options, set off by a blank line."""
    stanza = Stanza(Line(0, f"{lines[0]}\n"), [Line(0, "\n")])
    stanza.add(*lines[1:])
    return stanza


@dataclass(slots=True)
class Interfaces:
    """One file: its stanzas, and what follows the last one."""

    path: str
    stanzas: list[Stanza] = field(default_factory=list)
    tail: list[Line] = field(default_factory=list)

    def text(self) -> str:
        """The file as it is to be written."""
        lines = [line for each in self.stanzas for line in (*each.lead, each.head, *each.body)]
        return "".join(line.text for line in (*lines, *self.tail)).lstrip("\n" if self._begins_anew() else "")

    def _begins_anew(self) -> bool:
        """Whether the first stanza is ours: no blank line sets it off from anything."""
        return bool(self.stanzas) and not self.stanzas[0].head.number

    def where(self, line: Line) -> str:
        """How a message names a line."""
        return f"{self.path}:{line.number}"


def read(files: Files) -> list[Interfaces]:
    """The main file and all it sources, in the order that ifupdown reads them.

    Raises `Invalid`, with file and line, for what ifupdown would refuse, and for a file sourced from elsewhere.
    """
    found: dict[str, Interfaces] = {}
    _read(MAIN, files, found)
    return list(found.values())


def _read(path: str, files: Files, found: dict[str, Interfaces]) -> None:
    if path in found or path not in files:
        return
    found[path] = parsed = parse(path, files[path])
    for stanza in parsed.stanzas:
        if stanza.kind in _SOURCES:
            for each in _sourced(parsed, stanza, files):
                _read(each, files, found)


def _sourced(parsed: Interfaces, stanza: Stanza, files: Files) -> Iterator[str]:
    for word in stanza.head.words[1:]:
        pattern = str(PurePosixPath("/", parsed.path).parent / word).lstrip("/")
        directory = pattern if stanza.kind != "source" else str(PurePosixPath(pattern).parent)
        if directory.rstrip("/") not in (*DIRECTORIES, str(PurePosixPath(MAIN).parent)):
            raise Invalid(
                f"{parsed.where(stanza.head)}: sources `{word}`, and Berth reads /{DIRECTORIES[0]} alone:"
                " put what it says there"
            )
        for path in sorted(files):
            name = PurePosixPath(path).name
            if str(PurePosixPath(path).parent) != directory.rstrip("/"):
                continue
            if _PLAIN_NAME.fullmatch(name) if stanza.kind != "source" else _globbed(name, pattern):
                yield path


def _globbed(name: str, pattern: str) -> bool:
    """Whether a shell's pattern finds a file: hidden ones only by their dot."""
    wanted = PurePosixPath(pattern).name
    return fnmatchcase(name, wanted) and (not name.startswith(".") or wanted.startswith("."))


def parse(path: str, file: File) -> Interfaces:
    """One file's stanzas. Raises `Invalid` with path and line for what ifupdown does not take."""
    result, pending = Interfaces(path), list[Line]()
    for line in _lines(file.text):
        if not line.words:
            pending.append(line)
        elif _begins(line):
            _check(result, line)
            result.stanzas.append(Stanza(line, pending))
            pending = []
        else:
            if not result.stanzas or result.stanzas[-1].kind not in ("iface", "mapping", "template"):
                raise Invalid(f"{result.where(line)}: `{line.words[0]}` stands outside a stanza: correct the file")
            if not line.value:
                raise Invalid(f"{result.where(line)}: option `{line.words[0]}` has no value: correct the file")
            result.stanzas[-1].body += [*pending, line]
            pending = []
    result.tail = pending
    return result


def _lines(text: str) -> Iterator[Line]:
    """Lines with what continues them. A comment is not continued."""
    physical = iter(enumerate(text.splitlines(keepends=True), 1))
    for number, line in physical:
        whole = line if line.endswith("\n") else line + "\n"
        while whole.endswith("\\\n") and not whole.lstrip().startswith("#"):
            following = next(physical, (0, ""))[1]
            if not following:
                break
            whole += following if following.endswith("\n") else following + "\n"
        yield Line(number, whole)


def _begins(line: Line) -> bool:
    word = line.words[0]
    return word in _KEYWORDS or word in _SOURCES or word.startswith("allow-")


def _check(parsed: Interfaces, line: Line) -> None:
    words = line.words
    if words[0] == "iface" and (len(words) < 4 or words[2] not in ("inet", "inet6", "inherits", "ipx", "can")):
        raise Invalid(
            f"{parsed.where(line)}: `{' '.join(words)}` is not `iface NAME inet|inet6 METHOD`: correct the file"
        )
    if words[0] in _SOURCES and len(words) < 2:
        raise Invalid(f"{parsed.where(line)}: `{words[0]}` names no file: correct the file")
