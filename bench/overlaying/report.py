"""Tables, ratios, and whether the aims were met."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Iterator, Sequence
from typing import Any

from docking.report import met, summary

_REACHED = 50.0  # milliseconds that an answer may take at most, the median
_LEAST = 0.95  # of the throughput of a VXLAN made by hand, and of its latency the other way round

Json = dict[str, Any]


def packets(facts: Json) -> Iterator[str]:
    """Each way, then each IP version of Berth's beside the one made by hand."""
    samples = facts["samples"]
    facts["summary"] = {way: {what: summary(values) for what, values in of.items()} for way, of in samples.items()}
    yield f"{'between two hosts: median (p25 to p75)':<42}{'GB/s, one stream':>26}{'round trip, µs':>26}"
    for way, of in samples.items():
        yield f"{_label(way):<42}" + f"{_spread(of['GB/s'], 2):>26}{_spread(of['µs'], 1):>26}"
    facts["ratios"] = {}
    for version in "46":
        ours, hand = samples[f"berth {version}"], samples[f"hand {version}"]
        for what, label, better in (("GB/s", "throughput", False), ("µs", "latency", True)):
            pairs = [b / a if better else a / b for a, b in zip(ours[what], hand[what], strict=True)]
            facts["ratios"][f"{label} {version}"] = pairs
            ratio = statistics.median(ours[what]) / statistics.median(hand[what])
            ratio = 1 / ratio if better else ratio
            yield (
                f"IPv{version} {label} is {ratio:.2f} × as good as a VXLAN made by hand (aim ≥ {_LEAST}):"
                f" {met(ratio >= _LEAST)}; round by round {_spread(pairs, 2)}"
            )
    if "docker 4" in samples:
        ours, theirs = (facts["summary"][way] for way in ("berth 4", "docker 4"))
        speed, wait = (ours[what]["median"] / theirs[what]["median"] for what in ("GB/s", "µs"))
        yield f"beside Docker's overlay: {speed:.2f} × its throughput, {wait:.2f} × its round trip"


def _label(way: str) -> str:
    kind, _, version = way.partition(" ")
    names = {"berth": "Berth's overlay", "hand": "VXLAN made by hand", "docker": "Docker's overlay"}
    return f"{names[kind]}, IPv{version}"


def _spread(values: Sequence[float], digits: int) -> str:
    low, middle, high = statistics.quantiles(values, n=4)
    return f"{middle:.{digits}f} ({low:.{digits}f} to {high:.{digits}f})"


def attach(facts: Json) -> Iterator[str]:
    """Each number of hosts; then what they cost."""
    yield f"{'ms from the beginning of an attach':<36}{'until it answers':>20}{'until it returns':>20}"
    yield f"{'':<36}{'median (p95)':>20}{'median (p95)':>20}"
    for size, of in facts.items():
        of["summary"] = {what: summary(of[what]) for what in ("answered", "returned")}
        cells = (f"{each['median']:.1f} ({each['p95']:.1f})" for each in of["summary"].values())
        yield f"{f'{int(size):,} hosts':<36}" + "".join(f"{cell:>20}" for cell in cells)
    yield ""
    yield f"{'what it takes meanwhile':<36}" + "".join(f"{f'{int(size):,} hosts':>14}" for size in facts)
    for label, value in _COSTS.items():
        yield f"{label:<36}" + "".join(f"{value(of):>14}" for of in facts.values())
    yield ""
    for size, of in facts.items():
        median = of["summary"]["answered"]["median"]
        yield f"at {int(size):,} hosts {median:.1f} ms (aim < {_REACHED:g}): {met(median < _REACHED)}"


def _bytes_of_a_message(of: Json) -> str:
    told = of["agents"]
    return f"{told['bytes'] / told['messages']:,.0f}" if told["messages"] else "-"


_COSTS: dict[str, Callable[[Json], str]] = {
    "daemon that attaches, % of a core": lambda of: f"{of['cpu']['h1'] * 100:.1f}",
    "daemon that follows, % of a core": lambda of: f"{of['cpu']['h2'] * 100:.1f}",
    "etcd, % of a core": lambda of: f"{of['cpu']['etcd'] * 100:.1f}",
    "daemon, MB": lambda of: f"{of['rss']['h2']:.1f}",
    "etcd, MB": lambda of: f"{of['rss']['etcd']:.1f}",
    "taken by other machines, % of all": lambda of: f"{of['stolen'] * 100:.1f}",
    "bytes of a change to a watch": _bytes_of_a_message,
    "etcd: bytes stored, of a host": lambda of: f"{of['stored']['host']:,}",
    "etcd: bytes stored, of an endpoint": lambda of: f"{of['stored']['endpoint']:,}",
    "endpoints elsewhere that h2 knows": lambda of: f"{of['known']:,}",
    "changes a second": lambda of: f"{of['changes'] / of['agents']['seconds']:.1f}",
}


def changes(facts: Json) -> Iterator[str]:
    """Bursts, then rates."""
    bursts = facts["bursts"]
    yield f"a burst of {bursts[0]['changes']:,} changes: etcd has them after {_middle(bursts, 'wrote')} ms,"
    yield f"all three kernels {_middle(bursts, 'lag')} ms later; a daemon takes {_each(bursts):.0f} µs a change"
    yield ""
    columns = ("asked for /s", "etcd took /s", "ms behind", "daemon's core", "etcd's core")
    yield "".join(f"{column:>16}" for column in columns)
    for run in facts["rates"]:
        cpu = [run["cpu"][name] / (run["wrote"] + run["lag"]) * 100 for name in ("h1", "etcd")]
        yield (
            f"{run['rate']:>16,.0f}{run['changes'] / run['wrote']:>16,.0f}{run['lag'] * 1e3:>16,.0f}"
            + "".join(f"{f'{share:.0f} %':>16}" for share in cpu)
        )


def _middle(runs: Sequence[Json], what: str) -> str:
    return f"{statistics.median(run[what] for run in runs) * 1e3:,.0f}"


def _each(runs: Sequence[Json]) -> float:
    seconds: float = statistics.median(run["cpu"]["h1"] / run["changes"] for run in runs)
    return seconds * 1e6
