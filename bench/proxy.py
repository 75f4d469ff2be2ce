"""Berth's proxy beside Docker's: bytes, connections, and what they take.

    python bench/proxy.py [--engine 20.10|26.1] [--gigabytes N] [--rounds N] [--json FILE]

The same clients and the same server, through one and then the other, in namespaces of their own.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import statistics
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from attaching.report import machine
from berth.errors import BerthError
from docking.report import met, summary
from interop.engines import KINDS, tree
from proxying import measure

_RESULTS = Path(__file__).parent / "results" / "proxy.json"
_ALONE = ["unshare", "--mount", "--net", "--pid", "--fork", "--kill-child", "--mount-proc", "--"]
_MEMORY = 200  # megabytes that 10,000 connections may take
_DECIMALS = {"GB/s": 2, "CPU s/GB": 3, "/s": 0, "µs": 0}

Json = dict[str, Any]


def main() -> None:
    """Measure, print and write."""
    arguments = _arguments()
    if os.geteuid() != 0:
        sys.exit("bench proxy: namespaces need root")
    try:
        facts: Json = {"machine": machine(), "engine": arguments.engine} | _measure(arguments)
    except KeyboardInterrupt:
        sys.exit(130)
    except (BerthError, subprocess.CalledProcessError) as error:
        sys.exit(f"bench proxy: {error}")
    print("\n".join(_table(facts)), flush=True)
    arguments.json.parent.mkdir(parents=True, exist_ok=True)
    arguments.json.write_text(json.dumps(facts | {"load_after": os.getloadavg()}, indent=2) + "\n")
    print(f"wrote {arguments.json}", file=sys.stderr)


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="bench proxy", description="Berth's proxy beside Docker's.")
    parser.add_argument("--engine", choices=KINDS, default=KINDS[-1], help="the version of Docker")
    parser.add_argument("--gigabytes", type=_bounded(0.1, 10), default=0.5, help="of each transfer")
    parser.add_argument("--rounds", type=_bounded(1, 50), default=25, help="of each")
    parser.add_argument("--json", type=Path, default=_RESULTS, metavar="FILE", help="where to write the figures")
    return parser.parse_args()


def _bounded(least: float, most: float) -> Any:
    def number(text: str) -> float:
        if not least <= float(text) <= most:
            raise argparse.ArgumentTypeError(f"{least} to {most}")
        return float(text)

    return number


def _measure(arguments: argparse.Namespace) -> Json:
    script = Path(measure.__file__)
    docker_proxy = next(
        path for where in ("usr/bin", "usr/sbin") if (path := tree(arguments.engine) / where / "docker-proxy").exists()
    )
    argv = [
        *_ALONE,
        sys.executable,
        str(script),
        str(docker_proxy),
        str(arguments.gigabytes),
        str(int(arguments.rounds)),
    ]
    env = os.environ | {"PYTHONPATH": str(script.parents[1])}
    found: Json = json.loads(subprocess.run(argv, stdout=subprocess.PIPE, text=True, check=True, env=env).stdout)
    return found


def _table(facts: Json) -> Iterator[str]:
    samples = facts["samples"]
    yield f"{'medians':<36}{'Berth':>12}{'Docker ' + facts['engine']:>16}{'ratio':>10}"
    ratios = {}
    for what in samples["berth"]:
        ours, theirs = (statistics.median(samples[name][what]) for name in ("berth", "docker"))
        ratios[what] = ours / theirs if theirs else float("inf")
        places = next(places for unit, places in _DECIMALS.items() if what.endswith(unit))
        yield f"{what:<36}{ours:>12,.{places}f}{theirs:>16,.{places}f}{ratios[what]:>10.2f}"
    facts["medians"] = {name: {what: summary(values) for what, values in of.items()} for name, of in samples.items()}
    for name, of in facts["memory"].items():
        yield f"{name}: {of['before']:.1f} MB alone, {of['after']:.1f} MB with {of['connections']:,} connections"
    spans = {what: _span(samples, what) for what in ratios if what.endswith("GB/s") and "CPU" not in what}
    for what, (low, high) in spans.items():
        yield f"{what}: round for round {low:.2f} to {high:.2f} × Docker's (95 % of the medians)"
    facts["spans"] = spans
    yield f"throughput nowhere below Docker's: {met(all(high >= 1 for _, high in spans.values()))}"
    many = facts["memory"]["berth-many"]
    each = (many["after"] - many["before"]) / many["connections"]
    whole = many["before"] + each * 10_000
    yield f"10,000 connections would take {whole:.0f} MB (aim < {_MEMORY}): {met(whole < _MEMORY)}"


def _span(samples: dict[str, dict[str, list[float]]], what: str) -> tuple[float, float]:
    """Where the median of the rounds' ratios lies with a confidence of 95 %, by bootstrap."""
    ratios = [ours / theirs for ours, theirs in zip(samples["berth"][what], samples["docker"][what], strict=True)]
    chance = random.Random(1)
    medians = sorted(statistics.median(chance.choices(ratios, k=len(ratios))) for _ in range(2000))
    return medians[50], medians[-51]


if __name__ == "__main__":
    main()
