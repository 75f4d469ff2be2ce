"""The protobuf wire format, as far as etcd's messages need it, and messages by their fields' names.

Source: https://protobuf.dev/programming-guides/encoding/. A library for it wants classes made by its own compiler.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, TypeAlias

Value: TypeAlias = int | bytes
Said: TypeAlias = dict[str, Any]

_VARINT, _EIGHT, _BYTES, _FOUR = 0, 1, 2, 5
_FIXED = {_EIGHT: 8, _FOUR: 4}
_LONGEST = 10  # bytes of a varint
_NEGATIVE = 1 << 63  # from here on: the wire has 64-bit numbers without a sign


@dataclass(frozen=True, slots=True)
class Many:
    """A field that a message has any number of times: a list."""

    kind: Kind


class Message:
    """A kind of message, by its fields' names: number and kind of each."""

    __slots__ = ("_by_name", "_by_number", "_empty", "_lists")

    def __init__(self, **known: tuple[int, Kind | Many]) -> None:
        """A kind is `int` (and what the wire has as one: truth values, choices), `bytes`, `str` or a message's."""
        self._by_name = {name: (number, _one(kind)) for name, (number, kind) in known.items()}
        self._by_number = {number: (name, _one(kind), isinstance(kind, Many)) for name, (number, kind) in known.items()}
        self._empty = {name: kind() for name, (_, kind) in known.items() if isinstance(kind, type)}
        self._lists = tuple(name for name, (_, kind) in known.items() if isinstance(kind, Many))

    def encode(self, said: Mapping[str, Any]) -> bytes:
        """A message. Raises `KeyError` for a field that the kind does not have."""
        found = bytearray()
        for name, value in said.items():
            number, kind = self._by_name[name]
            for each in value if isinstance(value, list) else (value,):
                found += field(number, kind.encode(each) if isinstance(kind, Message) else _plain(each))
        return bytes(found)

    def decode(self, message: bytes) -> Said:
        """What a message says; what it leaves out is 0, empty, or (a message within) not there.

        Raises `ValueError` where it is none.
        """
        found: Said = {**self._empty, **{name: [] for name in self._lists}}
        for number, value in fields(message):
            if number not in self._by_number:
                continue  # a newer etcd's
            name, kind, many = self._by_number[number]
            said = _said(kind, value)
            if many:
                found[name].append(said)
            else:
                found[name] = said
        return found


Kind: TypeAlias = type[int] | type[bytes] | type[str] | Message


def _one(kind: Kind | Many) -> Kind:
    return kind.kind if isinstance(kind, Many) else kind


def _plain(value: int | bytes | str) -> Value:
    return value.encode() if isinstance(value, str) else value


def _said(kind: Kind, value: Value) -> Any:
    if isinstance(value, int):
        if kind is not int:
            raise ValueError("protobuf: a number in place of bytes")
        return value if value < _NEGATIVE else value - 2 * _NEGATIVE
    if isinstance(kind, Message):
        return kind.decode(value)
    if kind is int:
        raise ValueError("protobuf: bytes in place of a number")
    return value.decode() if kind is str else value


def field(number: int, value: Value) -> bytes:
    """One field of a message."""
    if isinstance(value, int):
        return _varint(number << 3 | _VARINT) + _varint(value)
    return _varint(number << 3 | _BYTES) + _varint(len(value)) + value


def fields(message: bytes) -> Iterator[tuple[int, Value]]:
    """A message's fields in their order. Raises `ValueError` where it is none."""
    at = 0
    while at < len(message):
        key, at = _read(message, at)
        kind = key & 7
        if kind == _VARINT:
            value, at = _read(message, at)
            yield key >> 3, value
            continue
        if kind == _BYTES:
            size, at = _read(message, at)
        elif kind in _FIXED:
            size = _FIXED[kind]
        else:
            raise ValueError(f"protobuf: field {key >> 3} is of unknown kind {kind}")
        if at + size > len(message):
            raise ValueError(f"protobuf: field {key >> 3} is cut off")
        yield key >> 3, message[at : at + size]
        at += size


def _varint(number: int) -> bytes:
    found = bytearray()
    while number > 0x7F:
        found.append(number & 0x7F | 0x80)
        number >>= 7
    found.append(number)
    return bytes(found)


def _read(message: bytes, at: int) -> tuple[int, int]:
    number = 0
    for shift in range(0, 7 * _LONGEST, 7):
        if at >= len(message):
            break
        byte = message[at]
        at += 1
        number |= (byte & 0x7F) << shift
        if byte < 0x80:
            return number, at
    raise ValueError("protobuf: a number is cut off")
