"""How wide a text is at most, where nobody can measure it: a picture is drawn before any font is known."""

from __future__ import annotations

from unicodedata import east_asian_width

_WIDE = 0.68  # of the font's size: what common sans-serif fonts in bold take on average, with room to spare
_MONO = 0.62  # of the font's size: the widest of the common monospaced fonts


def width(text: str, size: float, *, mono: bool = False) -> float:
    """Pixels that a text of that size takes at most."""
    return sum(_width(char, mono=mono) for char in text) * size


def _width(char: str, *, mono: bool) -> float:
    if east_asian_width(char) in "WF" or ord(char) > 0x2FFF:
        return 1.1
    if mono:
        return _MONO
    return 0.95 if char in "mwMW@%→…—" else _WIDE


def fit(text: str, room: float, size: float, *, mono: bool = False) -> str:
    """The text, or as much of its beginning as there is room for, and an ellipsis."""
    if width(text, size, mono=mono) <= room:
        return text
    while text and width(text + "…", size, mono=mono) > room:
        text = text[:-1]
    return text + "…"
