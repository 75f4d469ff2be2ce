"""Rates and sizes as people type them to tc(8).

>>> rate("10mbit"), rate("1.5mbps"), size("64kb")
(1250000, 1500000, 65536)
"""

from __future__ import annotations

import re
from collections.abc import Mapping

from berth.errors import Invalid

SLOWEST, FASTEST = 1_000, 12_500_000_000  # bytes a second: 8 kbit/s and 100 Gbit/s
LARGEST = 256 << 20  # bytes

_NUMBER = re.compile(r"([0-9]{1,15})(?:\.([0-9]{1,9}))?([a-z]*)")
_DECIMAL = {"": 1, "k": 10**3, "m": 10**6, "g": 10**9, "t": 10**12}
_BINARY = {"ki": 1 << 10, "mi": 1 << 20, "gi": 1 << 30, "ti": 1 << 40}
_PREFIXES = _DECIMAL | _BINARY
#: tc's units, in bits; a number without one is bits too.
_RATES = {"": 1, **{f"{p}bit": n for p, n in _PREFIXES.items()}, **{f"{p}bps": 8 * n for p, n in _PREFIXES.items()}}
#: tc's units, in bytes: its k is 1,024 here.
_SIZES = {"": 1, "b": 1, "k": 1 << 10, "kb": 1 << 10, "m": 1 << 20, "mb": 1 << 20}


def rate(text: str) -> int:
    """A rate, in bytes a second. Raises `Invalid`."""
    bits = _number(text, _RATES)
    if bits is None:
        raise Invalid(f"{text!r} is no rate: write it as 10mbit, or as 1.5mbps for bytes (kbit, mbit, gbit; kbps …)")
    value = bits // 8
    if not SLOWEST <= value <= FASTEST:
        raise Invalid(f"rate {text!r} is out of range: give 8kbit to 100gbit")
    return value


def size(text: str) -> int:
    """A size, in bytes. Raises `Invalid`."""
    value = _number(text, _SIZES)
    if value is None:
        raise Invalid(f"{text!r} is no size: write it as 65536 or 64kb (b, kb, mb)")
    if not 1 <= value <= LARGEST:
        raise Invalid(f"size {text!r} is out of range: give 1 byte to {LARGEST >> 20}mb")
    return value


def _number(text: str, units: Mapping[str, int]) -> int | None:
    parsed = _NUMBER.fullmatch(text.lower())
    if parsed is None or parsed[3] not in units:
        return None
    whole, part = parsed[1], parsed[2] or ""
    scale: int = 10 ** len(part)
    return int(whole + part) * units[parsed[3]] // scale


def rate_text(text: str) -> str:
    """A rate in the one form in which it is kept, which `rate` reads. Raises `Invalid`."""
    return f"{rate(text)}bps"


def size_text(text: str) -> str:
    """A size in the one form in which it is kept, which `size` reads. Raises `Invalid`."""
    return f"{size(text)}b"
