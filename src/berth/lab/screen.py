"""A terminal for the demo: prompts, check marks and a little colour where somebody looks."""

from __future__ import annotations

import os
import sys
from typing import TextIO

_BOLD, _DIM, _RED, _GREEN, _CYAN = "1", "2", "31", "32", "36"


class Screen:
    """Writes to a stream, in colour if it is a terminal and nobody objects (no-color.org)."""

    def __init__(self, out: TextIO | None = None) -> None:
        self._out = sys.stdout if out is None else out
        plain = os.environ.get("NO_COLOR") or os.environ.get("TERM") == "dumb"
        self._colour = self._out.isatty() and not plain

    def heading(self, text: str) -> None:
        """The next part begins."""
        self.line(f"\n{self._paint(_BOLD, text)}")

    def line(self, text: str = "") -> None:
        """Words of our own. Where the stream cannot say `✓`, it says `?`."""
        encoding = self._out.encoding or "utf-8"
        print(text.encode(encoding, "replace").decode(encoding), file=self._out, flush=True)

    def remark(self, text: str) -> None:
        """What a command cannot say of itself."""
        self.line(self._paint(_DIM, f"# {text}"))

    def typed(self, node: str, command: str) -> None:
        """A command, as it was typed at a machine's prompt."""
        self.line(f"{self._paint(_CYAN, f'{node}$')} {command}")

    def verdict(self, holds: bool, claim: str, said: str) -> None:
        """A claim, whether it holds, and the measured fact."""
        mark = self._paint(_GREEN, "✓") if holds else self._paint(_RED, "✗")
        self.line(f"  {mark} {claim:<42} {self._paint(_DIM if holds else _RED, said)}")

    def _paint(self, code: str, text: str) -> str:
        return f"\033[{code}m{text}\033[0m" if self._colour else text
