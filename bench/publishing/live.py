"""Publish and unpublish ports of an endpoint that is there, with Berth; run on a lab's host.

    python live.py ENDPOINT COUNT ROUNDS

Prints JSON: milliseconds of each, and how many processes the host had before and with the ports.
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable
from pathlib import Path

from berth import wire
from berth.model import PortRequest

FIRST = 10_000


def main() -> None:
    """Measure and print."""
    identity, count, rounds = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])
    engine = wire.engine()
    ports = range(FIRST, FIRST + count)
    wanted = [PortRequest(None, port, port, 80) for port in ports]  # each is an element of its own
    ranged = [PortRequest(None, port, port, port) for port in ports]  # all are one
    found: dict[str, list[float]] = {name: [] for name in ("publish", "unpublish", "publish-range", "unpublish-range")}
    found["processes"] = [_processes()]
    for number in range(rounds):
        found["publish"].append(_took(lambda: engine.publish(identity, wanted)))
        if number == 0:
            found["processes"].append(_processes())
        found["unpublish"].append(_took(lambda: engine.publish(identity, ())))
        found["publish-range"].append(_took(lambda: engine.publish(identity, ranged)))
        found["unpublish-range"].append(_took(lambda: engine.publish(identity, ())))
    engine.close()
    print(json.dumps(found))


def _took(work: Callable[[], object]) -> float:
    start = time.perf_counter_ns()
    work()
    return (time.perf_counter_ns() - start) / 1e6


def _processes() -> int:
    return len(list(Path("/proc").glob("[0-9]*")))


if __name__ == "__main__":
    main()
