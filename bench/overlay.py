"""Networks over several hosts: their packets, how soon a new endpoint is reached, and how changes are followed.

    python bench/overlay.py [--part all|packets|attach|changes] [--quick] [--engine 20.10|26.1|none] [--json FILE]

Everything is in namespaces that end with it, with a real etcd. `packets`: between endpoints on two hosts, beside a
VXLAN made by hand between the same hosts and Docker's overlay of two real engines there. `attach`: from the attach on
one host to the first answer to an endpoint on another, with 3 real hosts and up to 997 simulated ones. `changes`: how
many changes of endpoints three hosts follow.
"""

from __future__ import annotations

import argparse
import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

from attaching.report import machine
from berth.errors import BerthError
from overlaying import KINDS, EngineError, packets, report

_RESULTS = Path(__file__).parent / "results" / "overlay.json"
_PARTS = ("packets", "attach", "changes")
_ALONE = ["unshare", "--mount", "--net", "--pid", "--fork", "--kill-child", "--mount-proc", "--"]
_HERE = Path(__file__).parent

Json = dict[str, Any]


def main() -> None:
    """Measure, print and write."""
    arguments = _arguments()
    if os.geteuid() != 0:
        sys.exit("bench overlay: namespaces need root")
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # by way of all that has to be removed
    facts: Json = {"machine": machine(), "quick": arguments.quick}
    try:
        for part in _PARTS if arguments.part == "all" else [arguments.part]:
            facts[part] = _MEASURES[part](arguments)
            print("\n".join(_TABLES[part](facts[part])), end="\n\n", flush=True)
    except KeyboardInterrupt:
        sys.exit(130)
    except (BerthError, EngineError, subprocess.CalledProcessError, TimeoutError) as error:
        sys.exit(f"bench overlay: {error}")
    arguments.json.parent.mkdir(parents=True, exist_ok=True)
    arguments.json.write_text(json.dumps(facts | {"load_after": os.getloadavg()}, indent=2) + "\n")
    _say(f"wrote {arguments.json}")


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="bench overlay", description="Networks over several hosts.")
    parser.add_argument("--part", choices=("all", *_PARTS), default="all", help="only one of them")
    parser.add_argument("--quick", action="store_true", help="few rounds: whether it works, not how well")
    parser.add_argument("--engine", choices=(*KINDS, "none"), default=KINDS[-1], help="the Docker beside which")
    parser.add_argument("--json", type=Path, default=_RESULTS, metavar="FILE", help="where to write the figures")
    return parser.parse_args()


def _packets(arguments: argparse.Namespace) -> Json:
    rounds, size = (3, 200_000_000) if arguments.quick else (25, 500_000_000)
    return packets.measure("" if arguments.engine == "none" else arguments.engine, rounds, size, _say)


def _attach(arguments: argparse.Namespace) -> Json:
    return _alone("reach.py", *(("5", "3,10,100") if arguments.quick else ("40", "3,10,100,1000")))


def _changes(arguments: argparse.Namespace) -> Json:
    return _alone("changes.py", *(("200", "50", "2") if arguments.quick else ("1000", "100,300,1000", "5")))


def _alone(script: str, *args: str) -> Json:
    """What a script says that runs in namespaces of its own."""
    argv = [*_ALONE, sys.executable, str(_HERE / "overlaying" / script), *args]
    env = os.environ | {"PYTHONPATH": str(_HERE)}
    found: Json = json.loads(subprocess.run(argv, stdout=subprocess.PIPE, text=True, check=True, env=env).stdout)
    return found


def _say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


_MEASURES = {"packets": _packets, "attach": _attach, "changes": _changes}
_TABLES = {"packets": report.packets, "attach": report.attach, "changes": report.changes}

if __name__ == "__main__":
    main()
