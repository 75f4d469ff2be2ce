"""Netplan's YAML as text: where each key of an interface stands, so that it can be moved with its comments and layout.

The parser only tells positions. A file is written anew by it only where the mappings in question are in flow style,
`eth0: {dhcp4: true}`, which has no lines to move.
"""

from __future__ import annotations

import io
from collections.abc import Mapping
from typing import Any, Self

from berth.errors import Invalid


class Yaml:
    """One file."""

    def __init__(self, path: str, text: str) -> None:
        """Raises `Invalid` with path and line for what is no YAML, or not netplan's."""
        self.path, self.text = path, text
        self._data = _load(path, text)

    @property
    def network(self) -> Mapping[str, Any]:
        """What is below `network:`."""
        found: Mapping[str, Any] = self._mapping()
        return found

    def kind(self, name: str) -> Mapping[str, Any]:
        """The interfaces of a kind: ethernets, bridges, …"""
        found: Mapping[str, Any] = self._mapping(name)
        return found

    def interface(self, kind: str, name: str) -> Mapping[str, Any]:
        """The keys of an interface; none where the file has none of it."""
        found: Mapping[str, Any] = self._mapping(kind, name)
        return found

    def blocks(self, kind: str, interface: str) -> dict[str, list[str]]:
        """The lines of each key of an interface, comments above it included, without their common indentation."""
        entry = self._entry(kind, interface)
        return {key: self._dedented(start, end) for key, (start, end) in self._spans(entry).items()}

    def without(self, kind: str, interface: str, keys: frozenset[str]) -> Self:
        """The file without these keys of an interface."""
        lines = self.text.splitlines()
        spans = self._spans(self._entry(kind, interface))
        for key in sorted(spans.keys() & keys, key=lambda each: spans[each], reverse=True):
            del lines[slice(*spans[key])]
        if not spans.keys() - keys:  # for the parser: an interface has to have something
            line, column = self._position(kind, interface)
            lines.insert(line + 1, " " * (column + 2) + "dhcp4: false")
        return type(self)(self.path, "\n".join(lines) + "\n")

    def added(self, kind: str, interface: str, new: list[str]) -> Self:
        """The file with more lines at the end of an interface, which may be new, and its kind too."""
        lines = self.text.splitlines()
        if interface in self.kind(kind):
            spans = self._spans(self._entry(kind, interface))
            at, indent = (
                max(end for _, end in spans.values()),
                self._entry(kind, interface).lc.data[next(iter(spans))][1],
            )
        else:
            new = [f"{interface}:", *(f"  {line}" for line in new)]
            siblings = self.kind(kind)
            if siblings:
                at, indent = self._end(kind), self._position(kind, next(iter(siblings)))[1]
            else:
                at, indent = self._end(), self._position(next(iter(self.network)))[1]
                new = [f"{kind}:", *(f"  {line}" for line in new)]
        lines[at:at] = [" " * indent + line if line else "" for line in new]
        return type(self)(self.path, "\n".join(lines) + "\n")

    def block_style(self, kind: str, interface: str) -> Self:
        """The file with these mappings in block style: itself where they are."""
        maps = [self._data, *(self._mapping(*names) for names in ((), (kind,), ("bridges",)))]
        maps += [self.kind(kind)[interface]] if interface in self.kind(kind) else []
        flow = [each for each in maps if each and each.fa.flow_style()]
        if not flow:
            return self
        for each in flow:
            each.fa.set_block_style()
        from ruamel.yaml import YAML

        writer, out = YAML(), io.StringIO()
        writer.preserve_quotes, writer.width = True, 1 << 16
        writer.dump(self._data, out)
        return type(self)(self.path, out.getvalue())

    # --- positions ---

    def _mapping(self, *names: str) -> Any:
        found = self._data
        for name in ("network", *names):
            found = (found or {}).get(name)
            if found is not None and not isinstance(found, Mapping):
                raise Invalid(f"{self.path}: `{name}:` is not a mapping: correct the file")
        return found or {}

    def _entry(self, kind: str, interface: str) -> Any:
        entry = self._mapping(kind, interface)
        if entry and entry.merge:
            raise Invalid(
                f"{self.path}: {interface} takes keys from an anchor (`<<`), as netplan does not: write them out"
            )
        return entry

    def _position(self, *names: str) -> tuple[int, int]:
        """Line and column of a key."""
        line, column = self._mapping(*names[:-1]).lc.key(names[-1])
        return line, column

    def _spans(self, entry: Any) -> dict[str, tuple[int, int]]:
        """From which line to which each key goes, comments above it included."""
        lines = self.text.splitlines()
        keys = sorted((entry.lc.key(key)[0], key) for key in entry) if entry else []
        starts = [line - _comments_above(lines, line) for line, _ in keys]
        column = entry.lc.key(keys[0][1])[1] if keys else 0
        ends = [*starts[1:], _end_of_value(lines, keys[-1][0], column)] if keys else []
        return {key: (start, end) for (_, key), start, end in zip(keys, starts, ends, strict=True)}

    def _end(self, *names: str) -> int:
        """The line after the value of `network:`, or of something in it."""
        line, column = self._position(*names) if names else self._data.lc.key("network")
        return _end_of_value(self.text.splitlines(), line, column)

    def _dedented(self, start: int, end: int) -> list[str]:
        lines = self.text.splitlines()[start:end]
        indent = min((len(line) - len(line.lstrip()) for line in lines if line.strip()), default=0)
        return [line[indent:] for line in lines]


def _load(path: str, text: str) -> Any:
    from ruamel.yaml import YAML
    from ruamel.yaml.error import MarkedYAMLError, YAMLError

    reader = YAML()
    reader.preserve_quotes = True
    try:
        data = reader.load(text)
    except MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        raise Invalid(
            f"{path}:{mark.line + 1 if mark else 1}: {error.problem or error.context}: correct the file"
        ) from error
    except YAMLError as error:
        raise Invalid(f"{path}: {' '.join(str(error).split())}: correct the file") from error
    if data is not None and not isinstance(data, Mapping):
        raise Invalid(f"{path}:1: it does not begin with `network:`: correct the file")
    return data


def _comments_above(lines: list[str], line: int) -> int:
    """How many lines right above one are comments that are indented as it is."""
    indent = len(lines[line]) - len(lines[line].lstrip())
    count = 0
    while line - count > 0 and lines[line - count - 1].startswith(" " * indent + "#"):
        count += 1
    return count


def _end_of_value(lines: list[str], line: int, column: int) -> int:
    """The line after the value of the key at a position: what follows is indented less, or as much and no item."""
    end = line + 1
    for number in range(line + 1, len(lines)):
        bare = lines[number].lstrip()
        indent = len(lines[number]) - len(bare)
        if not bare or bare.startswith("#"):
            continue
        if indent < column or (indent == column and not bare.startswith("- ")):
            break
        end = number + 1
    return end
