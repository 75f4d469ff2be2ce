"""What `docker network connect`, `disconnect`, `run` and `rm -f` take on Berth's networks and on Docker's own.

    python bench/docker.py [--engine 20.10|26.1] [--containers N] [--rounds N] [--json FILE]

Asked over the engine's socket, so that no client has to start; on one real engine, on a lab's host. For each of two
sizes, 1 and N containers that stay, there is a network of each kind; they take turns in an order that differs from
round to round, so that a busy moment of the machine falls on all alike. The lab, the engine and all its containers
are gone afterwards.
"""

from __future__ import annotations

import argparse
import json
import os
import signal
import sys
from pathlib import Path

from attaching.report import machine
from berth.errors import BerthError
from docking import report
from docking.rig import CONNECTS, Rig, rig
from interop.engines import KINDS

_RESULTS = Path(__file__).parent / "results"
_NOTES = (
    "milliseconds: median (p95), × the median on Docker's bridge. connect and disconnect: of a running container that"
    " is on Docker's default network as well, and keeps its default route there. run: create and start. remove: of the"
    " running container, by force.",
    "macvlan's parent is a card of its own: a port of a bridge, as the flat network's card is, can be no parent.",
    "Not in these figures is what Berth puts off. After 0.2 s it deletes cables and announces addresses to the LAN: in"
    " the pause between two samples. After 1 s it asks Docker for names: that falls into whatever comes then.",
)


def main() -> None:
    """Measure, print and write."""
    arguments = _arguments()
    if os.geteuid() != 0:
        sys.exit("bench docker: dockerd needs root")
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # by way of all that has to be removed
    before = machine()
    try:
        with rig(arguments.engine, tuple(sorted({1, arguments.containers}))) as place:
            facts = _measure(place, arguments)
    except KeyboardInterrupt:
        sys.exit(130)
    except BerthError as error:
        sys.exit(f"bench docker: {error}")
    _tell(place, facts | {"machine": before, "load_after": os.getloadavg()}, arguments)


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="bench docker", description="What Docker's verbs take, with and without us.")
    parser.add_argument("--engine", choices=KINDS, default=KINDS[0], help="the version of Docker")
    parser.add_argument("--containers", type=_containers, default=100, help="how many stay on the larger networks")
    parser.add_argument("--rounds", type=_rounds, default=15, help=f"{CONNECTS} connects and a run by each in a round")
    parser.add_argument("--json", type=Path, metavar="FILE", help="where to write the figures")
    return parser.parse_args()


def _containers(text: str) -> int:
    if not 1 <= int(text) <= 500:
        raise argparse.ArgumentTypeError("containers are 1 to 500: each has some 10 MB of memory")
    return int(text)


def _rounds(text: str) -> int:
    if not 1 <= int(text) <= 100:
        raise argparse.ArgumentTypeError("rounds are 1 to 100")
    return int(text)


def _measure(place: Rig, arguments: argparse.Namespace) -> report.Json:
    _say(f"starting {arguments.containers:,} containers that stay, each on every network")
    place.prepare()
    place.check()
    facts = place.facts()
    for number in range(arguments.rounds):
        _say(f"round {number + 1} of {arguments.rounds}")
        place.round(number)
    return facts


def _tell(place: Rig, facts: report.Json, arguments: argparse.Namespace) -> None:
    print(
        f"Docker {facts['engine']}, {facts['containers']} containers, load {facts['machine']['load'][0]} when it began"
    )
    print("\n".join(_NOTES), end="\n\n")
    print("\n".join(report.tables(place.found)), end="\n\n")
    print("\n".join(report.verdicts(place.found, place.around)))
    facts |= {"notes": _NOTES, "around_a_call": report.summary(place.around), "sizes": report.facts(place.found)}
    file: Path = arguments.json or _RESULTS / f"docker-{arguments.engine}.json"
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(json.dumps(facts, indent=2) + "\n")
    _say(f"wrote {file}")


def _say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


if __name__ == "__main__":
    main()
