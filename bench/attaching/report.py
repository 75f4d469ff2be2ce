"""Medians, ratios and the table."""

from __future__ import annotations

import os
import platform
import statistics
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from attaching.ways import Samples

Results = dict[int, Samples]  # by how many endpoints stay attached
Json = dict[str, Any]

_LABELS = {
    "berth": "Berth, NAT",
    "berth-port": "Berth, NAT, 1 port",
    "berth-flat": "Berth, flat",
    "hand": "hand-packed batch",
    "hand-port": "hand-packed batch, 1 port",
    "hand-flat": "hand-packed batch, flat",
    "cni": "CNI bridge",
    "cni-masq": "CNI bridge, ipMasq",
}
_PEERS = {"berth": "hand", "berth-port": "hand-port", "berth-flat": "hand-flat"}
_REMOVALS = {
    "berth.sweep": "Berth's sweep, of the 20 cables of a round: each",
    "hand.sweep": "one delete by group, of the 20 cables of a round: each",
    "hand.sweep-many": "one delete by group, of all that stayed (150 at most): each",
    "hand.delete": "one delete of one cable",
    "process.start": "start of a process that does nothing",
}
_WAIT, _CPU = 0, 1  # the columns of a sample


def machine() -> Json:
    """What the figures were measured on."""
    models = [line for line in Path("/proc/cpuinfo").read_text().splitlines() if line.startswith("model name")]
    return {
        "kernel": platform.release(),
        "cpu": models[0].partition(":")[2].strip() if models else platform.machine(),
        "cpus": os.cpu_count(),
        "load": [round(figure, 2) for figure in os.getloadavg()],
        "python": platform.python_version(),
    }


def _summary(samples: list[tuple[float, float]]) -> Json:
    waits = sorted(wait for wait, _ in samples)
    return {
        "count": len(waits),
        "median": round(statistics.median(waits), 4),
        "p95": round(waits[min(len(waits) - 1, int(len(waits) * 0.95))], 4),
        "cpu_median": round(statistics.median(cpu for _, cpu in samples), 4),
    }


def summaries(results: Results) -> dict[int, dict[str, Json]]:
    """Count, median and p95 in milliseconds, by size and "way.verb"."""
    return {size: {name: _summary(values) for name, values in samples.items()} for size, samples in results.items()}


def ratios(results: Results, column: int = _WAIT) -> Json:
    """What the aims are about."""
    medians = {
        size: {name: statistics.median(value[column] for value in values) for name, values in samples.items()}
        for size, samples in results.items()
    }
    few, many = min(medians), max(medians)
    return {
        "flat": {way: medians[many][f"{way}.attach"] / medians[few][f"{way}.attach"] for way in _LABELS},
        "to_hand": {
            way: {size: found[f"{way}.attach"] / found[f"{peer}.attach"] for size, found in medians.items()}
            for way, peer in _PEERS.items()
        },
        "cni_masq": {size: found["cni-masq.attach"] / found["berth.attach"] for size, found in medians.items()},
        "cni": {size: found["cni.attach"] / found["berth.attach"] for size, found in medians.items()},
    }


def table(results: Results) -> Iterator[str]:
    """Every way at every size."""
    found = summaries(results)
    yield f"{'milliseconds: median (p95)':<28}" + "".join(f"{f'{size:,} attached':>34}" for size in found)
    yield " " * 28 + f"{'attach':>19}{'detach':>15}" * len(found)
    for way, label in _LABELS.items():
        yield f"{label:<28}" + "".join(
            f"{_pair(numbers[f'{way}.attach']):>19}{_pair(numbers[f'{way}.detach']):>15}" for numbers in found.values()
        )
    yield ""
    for name, label in _REMOVALS.items():
        yield f"{label:<62}" + "".join(f"{_pair(numbers[name]):>18}" for numbers in found.values() if name in numbers)
    yield ""
    compared = ratios(results)["to_hand"]
    for way in _PEERS:
        columns = (f"{ratio:>9.2f} ×" for ratio in compared[way].values())
        yield f"{_LABELS[way] + ': attach, of the hand-packed batch':<62}" + "".join(f"{c:>18}" for c in columns)


def _pair(summary: Json) -> str:
    return f"{summary['median']:.2f} ({summary['p95']:.2f})"


def verdicts(results: Results) -> Iterator[str]:
    """The aims, one a line; where sizes differ, the worst of them."""
    wait, cpu = ratios(results, _WAIT), ratios(results, _CPU)
    few, many = min(results), max(results)
    yield (
        f"attach at {_endpoints(many)} is {wait['flat']['berth']:.2f} × attach at {few:,} (aim ≤ 1.3)"
        f"; in CPU time {cpu['flat']['berth']:.2f} ×; the hand-packed batch itself: {wait['flat']['hand']:.2f} ×"
    )
    size, ratio = max(wait["to_hand"]["berth"].items(), key=lambda item: item[1])
    yield (
        f"attach takes {ratio:.2f} × the hand-packed batch (aim ≤ 2), at {_endpoints(size)}"
        f"; in CPU time {cpu['to_hand']['berth'][size]:.2f} ×"
    )
    size, ratio = min(wait["cni_masq"].items(), key=lambda item: item[1])
    yield f"CNI bridge with ipMasq takes {ratio:.1f} × Berth's time (aim ≥ 5), at {_endpoints(size)}"
    waits = {(way, size): _summary(results[size][f"{way}.detach"])["median"] for way in _PEERS for size in results}
    (way, size), longest = max(waits.items(), key=lambda item: item[1])
    yield f"a caller waits {longest:.2f} ms for a detach (aim ≤ 2): {_LABELS[way]}, at {_endpoints(size)}"


def _endpoints(size: int) -> str:
    return f"{size:,} endpoint{'' if size == 1 else 's'}"
