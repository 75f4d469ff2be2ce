"""The protobuf wire format, as far as a watch needs it: numbers and bytes, by their field's number.

Source: https://protobuf.dev/programming-guides/encoding/. A library for it wants classes made by its own compiler.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TypeAlias

Value: TypeAlias = int | bytes

_VARINT, _EIGHT, _BYTES, _FOUR = 0, 1, 2, 5
_FIXED = {_EIGHT: 8, _FOUR: 4}
_LONGEST = 10  # bytes of a varint


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
