"""How many changes of endpoints a second three hosts follow, and when all have taken in a burst of them.

    unshare --mount --net --pid --fork --kill-child --mount-proc python changes.py ENDPOINTS RATES SECONDS

Endpoints of hosts that are not there move from host to host, by writes to the real etcd: at a rate each in a
transaction, in a burst a hundred together. What is watched is the kernel of each of the three. Prints JSON.
"""

from __future__ import annotations

import json
import sys
import tempfile
import time
from functools import partial
from pathlib import Path
from typing import Any

from overlaying.fleet import HOSTS, NETWORK, Fleet, until
from overlaying.herd import Herd

_BURSTS = 5
_WITHIN = 120  # seconds

Json = dict[str, Any]


def main() -> None:
    """Set up, measure, print."""
    endpoints, rates, seconds = int(sys.argv[1]), [float(text) for text in sys.argv[2].split(",")], float(sys.argv[3])
    with tempfile.TemporaryDirectory(prefix="berth-bench-", dir="/var/tmp") as directory:
        with Fleet(Path(directory)) as fleet, Herd(fleet.clients["h1"].network(NETWORK).id) as herd:
            print("filling", file=sys.stderr, flush=True)
            herd.ask("deaf", endpoints)
            until(partial(_all_have, fleet, endpoints, ""), "hosts do not follow", _WITHIN)
            runs = [(endpoints, 0.0)] * _BURSTS + [(int(rate * seconds), rate) for rate in rates]
            found = [_run(fleet, herd, *run, min(endpoints, run[0]), tag) for tag, run in enumerate(runs, 2)]
            print(json.dumps({"bursts": found[:_BURSTS], "rates": found[_BURSTS:]}))


def _run(fleet: Fleet, herd: Herd, changes: int, rate: float, moved: int, tag: int) -> Json:
    """Have so many changes made; how long that took, and how much later all three hosts had them."""
    print(f"{changes:,} changes" + (f", {rate:g} a second" if rate else " at once"), file=sys.stderr, flush=True)
    before = {name: fleet.cost(name)[0] for name in (*HOSTS, "etcd")}
    wrote = herd.ask("change", changes, rate, tag) if rate else herd.ask("burst", changes, tag)
    start = time.monotonic()
    until(partial(_all_have, fleet, moved, f"10.{tag}."), "hosts do not follow", _WITHIN, 0.01)
    lag = time.monotonic() - start
    cpu = {name: fleet.cost(name)[0] - used for name, used in before.items()}
    return {"changes": changes, "rate": rate, "wrote": wrote, "lag": lag, "cpu": cpu}


def _all_have(fleet: Fleet, number: int, begin: str) -> bool:
    return all(fleet.entries(name, begin) >= number for name in HOSTS)


if __name__ == "__main__":
    main()
