"""What publishing ports takes, through Berth and through Docker, and what a published port costs a connection.

    python bench/ports.py [--engine 20.10|26.1] [--connections N] [--part all|publish|connect] [--json FILE]

Publishing: on one lab's host with a real Docker engine, its docker-proxy as by default; a container with so many
ports is started and removed, and Berth publishes as many of a live endpoint's and takes them back. Connections: in
namespaces of their own, through the last of so many ports in Berth's map, and in as many DNAT rules of iptables.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from attaching.report import machine
from berth.errors import BerthError
from docking.report import met, summary
from publishing.beside import KINDS, WAYS, beside

_RESULTS = Path(__file__).parent / "results" / "ports.json"
_COUNTS = (0, 1, 100, 1000)
_CONNECT = Path(__file__).parent / "publishing" / "connect.py"
_ALONE = ["unshare", "--mount", "--net", "--pid", "--fork", "--kill-child", "--mount-proc", "--"]

_LABELS = {"berth": "Berth", "range": "Berth, a range", "iptables": "iptables"}

Json = dict[str, Any]


def main() -> None:
    """Measure, print and write."""
    arguments = _arguments()
    if os.geteuid() != 0:
        sys.exit("bench ports: dockerd needs root")
    facts: Json = {"machine": machine()}
    try:
        if arguments.part != "publish":
            facts["connect"] = _connect(arguments.connections)
            print("\n".join(_connections(facts["connect"])), end="\n\n", flush=True)
        if arguments.part != "connect":
            facts |= _publish(arguments.engine)
            print("\n".join(_publishing(facts)), flush=True)
    except KeyboardInterrupt:
        sys.exit(130)
    except (BerthError, subprocess.CalledProcessError) as error:
        sys.exit(f"bench ports: {error}")
    arguments.json.parent.mkdir(parents=True, exist_ok=True)
    arguments.json.write_text(json.dumps(facts | {"load_after": os.getloadavg()}, indent=2) + "\n")
    _say(f"wrote {arguments.json}")


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="bench ports", description="What publishing ports takes.")
    parser.add_argument("--engine", choices=KINDS, default=KINDS[-1], help="the version of Docker")
    parser.add_argument("--connections", type=_connection_count, default=2000, help="through each port")
    parser.add_argument("--part", choices=("all", "publish", "connect"), default="all", help="only one of the two")
    parser.add_argument("--json", type=Path, default=_RESULTS, metavar="FILE", help="where to write the figures")
    return parser.parse_args()


def _connection_count(text: str) -> int:
    if not 100 <= int(text) <= 20_000:
        raise argparse.ArgumentTypeError("connections are 100 to 20,000")
    return int(text)


# --- connections ---


def _connect(connections: int) -> Json:
    _say("connecting")
    argv = [*_ALONE, sys.executable, str(_CONNECT), str(connections)]
    env = os.environ | {"PYTHONPATH": str(_CONNECT.parents[1])}
    done = subprocess.run(argv, stdout=subprocess.PIPE, text=True, check=True, env=env)
    return {name: summary(values) for name, values in json.loads(done.stdout).items()}


def _connections(found: Json) -> Iterator[str]:
    yield f"{'connection set-up, µs':<34}{'median':>10}{'p95':>10}"
    for name, of in found.items():
        way, _, count = name.partition(" ")
        label = f"{_LABELS[way]}, port {int(count):,}"
        yield f"{label:<34}{of['median']:>10.1f}{of['p95']:>10.1f}"
    ratio = found["berth 40000"]["median"] / found["berth 1"]["median"]
    yield f"at 40,000 ports {ratio:.3f} × that at 1 (aim ≤ 1.1): {met(ratio <= 1.1)}"


# --- publishing ---


def _publish(engine: str) -> Json:
    with beside(engine, _say) as place:
        facts: Json = {**place.facts(), "berth": {}, **{way: {} for way in WAYS}, "proxies": {}}
        for count in _COUNTS:
            _say(f"{count:,} ports")
            for way in WAYS:
                times, proxies = place.docker(way, count)
                facts[way][count] = {name: summary(values) for name, values in times.items()}
                facts["proxies"][f"{way} {count}"] = proxies
            if count:
                found = place.berth(count)
                before, after = found.pop("processes")
                facts["proxies"][f"berth {count}"] = after - before
                facts["berth"][count] = {name: summary(values) for name, values in found.items()}
        return facts


def _publishing(facts: Json) -> Iterator[str]:
    counts = [count for count in _COUNTS if count]
    yield f"{'ms, Docker ' + facts['engine']:<34}" + "".join(f"{f'{count:,} ports':>24}" for count in counts)
    yield " " * 34 + f"{'on':>12}{'off':>12}" * len(counts)
    cells = ((facts["berth"][count][verb]["median"] for verb in ("publish", "unpublish")) for count in counts)
    yield f"{'Berth, live endpoint':<34}" + "".join(f"{on:>12,.2f}{off:>12,.2f}" for on, off in cells)
    for way, label in WAYS.items():
        row = f"{label + ' *':<34}"
        for count in counts:
            row += "".join(f"{_beyond(facts, way, count, verb):>12,.1f}" for verb in ("start", "remove"))
        yield row
    yield "* what a container with so many ports takes longer than one without, to start and to remove"
    many = counts[-1]
    ranged = facts["berth"][many]["publish-range"]["median"], facts["berth"][many]["unpublish-range"]["median"]
    yield f"Berth, {many:,} ports as one range: {ranged[0]:,.2f} on, {ranged[1]:,.2f} off"
    for name, verb, other in (("published", "publish", "start"), ("taken back", "unpublish", "remove")):
        ratio = _beyond(facts, "bridge", many, other) / facts["berth"][many][verb]["median"]
        yield f"{many:,} ports {name} {ratio:,.0f} × faster than Docker's bridge (aim ≥ 100): {met(ratio >= 100)}"
    by_way = {way: facts["proxies"][f"{way} {many}"] for way in ("berth", *WAYS)}
    yield f"processes for {many:,} ports: " + ", ".join(f"{way} {number}" for way, number in by_way.items())


def _beyond(facts: Json, way: str, count: int, verb: str) -> float:
    """Milliseconds more than without a port."""
    more: float = facts[way][count][verb]["median"] - facts[way][0][verb]["median"]
    return more


def _say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


if __name__ == "__main__":
    main()
