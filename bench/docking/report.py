"""Medians, ratios, the tables, and whether the aims were met."""

from __future__ import annotations

import random
import statistics
from collections import defaultdict
from collections.abc import Iterator, Sequence
from typing import Any

from docking.calls import Call
from docking.place import BASE, BERTH, LABELS
from docking.rig import VERBS, Found

Results = dict[int, Found]  # by how many containers stay on the network
Json = dict[str, Any]

BAR = 5.0  # milliseconds that a `docker run` may spend inside Berth
_RESAMPLES = 2000


def summary(values: Sequence[float]) -> Json:
    """Count, median and p95."""
    ordered = sorted(values)
    return {
        "count": len(ordered),
        "median": round(statistics.median(ordered), 3),
        "p95": round(ordered[min(len(ordered) - 1, int(len(ordered) * 0.95))], 3),
    }


def facts(results: Results) -> Json:
    """All figures in milliseconds, by size."""
    return {
        str(size): {
            "wait": {name: summary(values) for name, values in found.waits.items()},
            "ratio": {f"{way}.{verb}": round(_ratio(found, way, verb), 3) for way in LABELS for verb in VERBS},
            "inside_berth": {name: summary(values) for name, values in found.inside.items()},
            "calls": {
                name: {call: summary(took) for call, took in _by_call(calls).items()}
                for name, calls in found.calls.items()
            },
        }
        for size, found in results.items()
    }


def _ratio(found: Found, way: str, verb: str) -> float:
    return statistics.median(found.waits[f"{way}.{verb}"]) / statistics.median(found.waits[f"{BASE}.{verb}"])


def _by_call(calls: Sequence[Call]) -> dict[str, list[float]]:
    found: dict[str, list[float]] = defaultdict(list)
    for name, milliseconds in calls:
        found[name].append(milliseconds)
    return found


def tables(results: Results) -> Iterator[str]:
    """Every way at every size, then what of it Berth took."""
    for size, found in results.items():
        yield f"{_containers(size) + ' on the network':<28}" + "".join(f"{verb:^24}" for verb in VERBS)
        for way, label in LABELS.items():
            cells = (_pair(found.waits[f"{way}.{verb}"], 1) + f"{_ratio(found, way, verb):>7.2f} ×" for verb in VERBS)
            yield f"{label:<28}" + "".join(f"{cell:>24}" for cell in cells)
        yield ""
    yield f"{'of that inside Berth':<28}" + "".join(f"{verb:^24}" for verb in VERBS)
    for way in BERTH:
        for size, found in results.items():
            cells = (_pair(found.inside[f"{way}.{verb}"], 2) for verb in VERBS)
            yield f"{f'{LABELS[way]}, at {size:,}':<28}" + "".join(f"{cell:>24}" for cell in cells)
    yield ""
    yield from _calls(results)


def _calls(results: Results) -> Iterator[str]:
    """The calls of a run, one a line."""
    columns = [(way, size) for way in BERTH for size in results]
    taken = [_by_call(results[size].calls[f"{way}.run"]) for way, size in columns]
    yield f"{'the calls of one run':<46}" + "".join(f"{f'{LABELS[way]}, at {size:,}':>20}" for way, size in columns)
    for call in taken[0]:
        times = len(taken[0][call]) / len(results[min(results)].waits[f"{BERTH[0]}.run"])
        cells = "".join(f"{_pair(each[call], 2):>20}" for each in taken)
        yield f"{f'{call}, {times:.0f} ×':<46}" + cells


def _pair(values: Sequence[float], digits: int) -> str:
    of = summary(values)
    return f"{of['median']:.{digits}f} ({of['p95']:.{digits}f})"


def verdicts(results: Results, around: Sequence[float]) -> Iterator[str]:
    """The aims, one a line; of several sizes the worst."""
    many = max(results)
    outside = statistics.median(around)
    for way in BERTH:
        of = summary(results[many].inside[f"{way}.run"])
        count = len(results[many].calls[f"{way}.run"]) / of["count"]
        yield (
            f"a run on {LABELS[way]} spends {of['median']:.2f} ms inside Berth (aim < {BAR:g}), p95 {of['p95']:.2f}, at"
            f" {_containers(many)}: {met(of['median'] < BAR)}; with the HTTP around its {count:.0f} calls"
            f" {of['median'] + count * outside:.2f} ms"
        )
    for way in BERTH:
        size = max(results, key=lambda size: _ratio(results[size], way, "connect"))
        ratio = _ratio(results[size], way, "connect")
        low, high = _interval(results[size], way, "connect")
        yield (
            f"connect on {LABELS[way]} takes {ratio:.2f} × the one on Docker's bridge (aim ≤ 1), at"
            f" {_containers(size)}: {met(ratio <= 1)}; 95 % of resamples: {low:.2f} to {high:.2f}"
        )


def _interval(found: Found, way: str, verb: str) -> tuple[float, float]:
    """How far the ratio of medians is a matter of chance: a bootstrap, the same for the same samples."""
    chance = random.Random(0)

    def median(name: str) -> float:
        values = found.waits[f"{name}.{verb}"]
        return statistics.median(chance.choices(values, k=len(values)))

    ratios = sorted(median(way) / median(BASE) for _ in range(_RESAMPLES))
    return ratios[_RESAMPLES // 40], ratios[-_RESAMPLES // 40]


def met(holds: bool) -> str:
    """An aim, in a word."""
    return "met" if holds else "MISSED"


def _containers(size: int) -> str:
    return f"{size:,} container{'' if size == 1 else 's'}"
