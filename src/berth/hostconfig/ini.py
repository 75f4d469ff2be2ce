"""Files of [Section] and Key=value, edited line by line: whatever is not changed keeps every byte.

    ini = Ini.parse("etc/systemd/network/20-eth0.network", text, continued=True)
    moved = ini.section("Network").take("Address", "Gateway")   # out of this file, with the comments above them …
    other.section("Network").entries += moved                   # … and into another one
    ini.section("Network").set("Bridge", "br0")
    ini.text()

A section's name and a key may occur several times. Comments and blank lines above a key belong to it, and comments
right above a [Section] to that section.
"""

from __future__ import annotations

import copy
from dataclasses import dataclass, field
from typing import Self

from berth.errors import Invalid

_COMMENT = ("#", ";")


@dataclass(slots=True)
class Entry:
    """One assignment. `lines` is how it is written: comments and blank lines above it, then itself."""

    key: str
    value: str
    lines: list[str]

    @classmethod
    def new(cls, key: str, value: str, comment: str = "") -> Self:
        """An assignment written by us, with a comment above it or none."""
        return cls(key, value, [*([f"# {comment}"] if comment else []), f"{key}={value}"])


@dataclass(slots=True)
class Section:
    """A [Section]. `head` is its title as written, with the comments right above it; `tail` follows its last key."""

    name: str
    head: list[str]
    entries: list[Entry] = field(default_factory=list)
    tail: list[str] = field(default_factory=list)

    @classmethod
    def new(cls, name: str, *pairs: tuple[str, str]) -> Self:
        """A section written by us."""
        return cls(name, ["", f"[{name}]"], [Entry.new(key, value) for key, value in pairs])

    def apart(self) -> Self:
        """Itself, set off from whatever comes before it, and with no blank lines after its last key."""
        if self.head[0].strip():
            self.head.insert(0, "")
        _trim(self.tail)
        return self

    def values(self, key: str) -> list[str]:
        """All values of a key, in order."""
        return [each.value for each in self.entries if each.key == key]

    def get(self, key: str) -> str | None:
        """The last value of a key; None where it has none."""
        return next(iter(reversed(self.values(key))), None)

    def set(self, key: str, value: str) -> None:
        """Give a key this one value: where it has it nothing changes, else its first assignment does, others go."""
        if self.values(key) == [value]:
            return
        entries: list[Entry] = []
        done = False
        for each in self.entries:
            if each.key != key:
                entries.append(each)
            elif not done:
                entries.append(Entry(key, value, [*_above(each), f"{key}={value}"]))
                done = True
        self.entries = entries if done else [*entries, Entry.new(key, value)]

    def add(self, key: str, value: str) -> None:
        """Assign to a key once more, after what is there."""
        self.entries.append(Entry.new(key, value))

    def take(self, *keys: str) -> list[Entry]:
        """Remove all assignments to these keys and return them."""
        taken = [each for each in self.entries if each.key in keys]
        self.entries = [each for each in self.entries if each.key not in keys]
        return taken


@dataclass(slots=True)
class Ini:
    """A whole file. `path` is for messages only; `first` is what comes before the first section."""

    path: str
    first: list[str] = field(default_factory=list)
    sections: list[Section] = field(default_factory=list)
    end: str = "\n"  # of the last line

    @classmethod
    def parse(cls, path: str, text: str, *, continued: bool = False) -> Self:
        """Read a file's text; `continued`: a line that ends with a backslash goes on in the next one, as systemd's do.

        Raises `Invalid` with path and line for what is neither comment, [Section] nor Key=value in a section.
        """
        made = cls(path, end="\n" if not text or text.endswith("\n") else "")
        above: list[str] = []
        lines = iter(enumerate(text.removesuffix("\n").split("\n") if text else [], 1))
        for number, line in lines:
            bare = line.strip()
            if not bare or bare.startswith(_COMMENT):
                above.append(line)
            elif bare.startswith("["):
                if not bare.endswith("]") or not bare[1:-1].strip():
                    raise Invalid(f"{path}:{number}: `{bare}` is not a [Section]: correct the file")
                above = made._begin(bare[1:-1], above, line)
            else:
                key, equals, value = bare.partition("=")
                if not equals or not key.strip():
                    raise Invalid(f"{path}:{number}: `{bare}` is not Key=value: correct the file")
                if not made.sections:
                    raise Invalid(f"{path}:{number}: `{bare}` stands before the first [Section]: correct the file")
                written = [line]
                while continued and (written[-1].endswith("\\") or _is_comment(written[-1])):
                    following = next(lines, None)
                    if following is None:
                        break
                    written.append(following[1])
                made.sections[-1].entries.append(Entry(key.strip(), _joined(value, written), [*above, *written]))
                above = []
        made._end(above)
        return made

    def _begin(self, name: str, above: list[str], line: str) -> list[str]:
        """Start a section: of the lines above it those after the last blank one are its own. Returns no lines."""
        own = next((index for index in range(len(above), 0, -1) if not above[index - 1].strip()), 0)
        self._end(above[:own])
        self.sections.append(Section(name, [*above[own:], line]))
        return []

    def _end(self, lines: list[str]) -> None:
        (self.sections[-1].tail if self.sections else self.first).extend(lines)

    def text(self) -> str:
        """The file as it is to be written. A section made by us is set off by a blank line."""
        lines = [*self.first]
        for section in self.sections:
            blank_enough = not lines or not lines[-1].strip()
            lines += section.head[1:] if blank_enough and not section.head[0] else section.head
            for each in section.entries:
                lines += each.lines
            lines += section.tail
        return "\n".join(lines) + self.end if lines else ""

    def named(self, name: str) -> list[Section]:
        """All sections of a name, in order."""
        return [each for each in self.sections if each.name == name]

    def section(self, name: str) -> Section:
        """The last section of a name; a new one at the end of the file where there is none."""
        for each in reversed(self.sections):
            if each.name == name:
                return each
        self.sections.append(Section.new(name))
        return self.sections[-1]

    def values(self, name: str, key: str) -> list[str]:
        """All values of a key in all sections of a name."""
        return [value for each in self.named(name) for value in each.values(key)]

    def get(self, name: str, key: str) -> str | None:
        """The last value of a key in all sections of a name; None where it has none."""
        return next(iter(reversed(self.values(name, key))), None)

    def take(self, *names: str) -> list[Section]:
        """Remove all sections of these names and return them, each set off by a blank line."""
        taken = [each for each in self.sections if each.name in names]
        if taken and taken[-1] is self.sections[-1]:
            self.sections = [each for each in self.sections if each.name not in names]
            _trim(self.sections[-1].tail if self.sections else self.first)
        self.sections = [each for each in self.sections if each.name not in names]
        return [each.apart() for each in taken]

    def copy(self, path: str) -> Ini:
        """The same content as another file."""
        made = copy.deepcopy(self)
        made.path = path
        return made


def _above(entry: Entry) -> list[str]:
    """The comments and blank lines above an assignment."""
    own = next((index for index, line in enumerate(entry.lines) if line.strip() and not _is_comment(line)), 0)
    return entry.lines[:own]


def _trim(lines: list[str]) -> None:
    """Remove the blank lines at the end."""
    while lines and not lines[-1].strip():
        lines.pop()


def _is_comment(line: str) -> bool:
    return line.strip().startswith(_COMMENT)


def _joined(value: str, written: list[str]) -> str:
    """The value of an assignment that may go on over several lines; comments between them are none of it."""
    if len(written) == 1:
        return value.strip()
    parts = [value.removesuffix("\\"), *(line.removesuffix("\\") for line in written[1:] if not _is_comment(line))]
    return " ".join(part.strip() for part in parts).strip()
