"""A `Ledger` in memory that counts its look-ups and refuses what a caller must not do."""

from __future__ import annotations

from bisect import bisect_right, insort


class MemoryLedger:
    """Runs as a sorted list."""

    def __init__(self) -> None:
        self.last: int | None = None
        self.lookups = 0
        self._runs: list[tuple[int, int]] = []

    def runs(self) -> list[tuple[int, int]]:
        """What is recorded, by rising number."""
        return list(self._runs)

    def covering(self, number: int) -> tuple[int, int] | None:
        self.lookups += 1
        run = self._before(number)
        return run if run is not None and number <= run[1] else None

    def add(self, first: int, last: int) -> None:
        assert first <= last
        below = self._before(last)
        assert below is None or below[1] < first, f"{first}-{last} overlaps {below}"
        insort(self._runs, (first, last))

    def remove(self, first: int) -> None:
        position = self._position(first)
        assert position and self._runs[position - 1][0] == first, f"no run starts at {first}"
        del self._runs[position - 1]

    def _before(self, number: int) -> tuple[int, int] | None:
        """The last run that starts at or before the number."""
        position = self._position(number)
        return self._runs[position - 1] if position else None

    def _position(self, number: int) -> int:
        """How many runs start at or before the number."""
        return bisect_right(self._runs, number, key=lambda run: run[0])
