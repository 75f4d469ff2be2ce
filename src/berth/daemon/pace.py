"""How often the daemon looks: what takes long is done the less often, so that no look costs more than its share."""

from __future__ import annotations

import time
from types import TracebackType
from typing import Self

_SHARE = 0.0015  # of a core
_MOST = 6  # times the least pause: what takes long once (a thousand sockets to open) is not to be waited for ever after


class Pace:
    """The pause after each look of some kind; the look is what is done in the `with` block, in one thread."""

    def __init__(self, least: float) -> None:
        """`least`: seconds between looks that take no time to speak of."""
        self._least = self.pause = least  # seconds
        self._begun = 0.0

    def __enter__(self) -> Self:
        self._begun = time.thread_time()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        took = time.thread_time() - self._begun
        self.pause = min(max(self._least, took / _SHARE), self._least * _MOST)
