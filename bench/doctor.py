"""What an examination costs: `berth doctor` on a host with many endpoints.

    python bench/doctor.py [--json FILE] [--sizes 10,100,1000] [--rounds N]

It runs in mount, network and process namespaces of its own and touches nothing outside but the file of results. Every
endpoint has a published port of its own, on which nobody listens: that is found too.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from ipaddress import IPv4Network
from pathlib import Path
from typing import Any

from attaching import report, rig, spaces
from berth import wire
from berth.model import AttachRequest, NetworkSpec, PortMapping

_RESULTS = Path(__file__).parent / "results" / "doctor.json"
_SUBNET = IPv4Network("10.77.0.0/16")
_QUIET = 3  # seconds for what was just attached to be done with looking for IPv6 neighbours and routers

Json = dict[str, Any]


def main() -> None:
    """Measure, print and write."""
    arguments = _arguments()
    try:
        if not arguments.inside:
            _step_into_own_namespaces()
        subprocess.run(["mount", "-t", "tmpfs", "tmpfs", "/run"], check=True)
        before = report.machine()
        with tempfile.TemporaryDirectory(prefix="berth-bench-", dir="/var/tmp") as state:
            sizes = {size: _measure(size, arguments.rounds, Path(state) / str(size)) for size in arguments.sizes}
    except KeyboardInterrupt:
        sys.exit(130)
    print(f"{'endpoints':>9} {'seconds':>8} {'of a core':>10} {'findings':>9}")
    for size, said in sizes.items():
        print(f"{size:>9,} {said['seconds']:>8.2f} {said['cpu']:>10.2f} {said['findings']:>9,}")
    arguments.json.parent.mkdir(parents=True, exist_ok=True)
    facts = {"machine": before, "load_after": os.getloadavg(), "sizes": sizes}
    arguments.json.write_text(json.dumps(facts, indent=2) + "\n")
    print(f"wrote {arguments.json}", file=sys.stderr)


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="bench doctor", description="What an examination costs.")
    parser.add_argument("--json", type=Path, default=_RESULTS, metavar="FILE", help="where to write the figures")
    parser.add_argument("--sizes", type=_sizes, default=(10, 100, 1000), help="how many endpoints there are")
    parser.add_argument("--rounds", type=int, default=5, help="how often each is examined")
    parser.add_argument("--inside", action="store_true", help=argparse.SUPPRESS)
    return parser.parse_args()


def _sizes(text: str) -> Sequence[int]:
    sizes = sorted({int(part) for part in text.split(",")})
    if not 1 <= sizes[0] <= sizes[-1] <= rig.LARGEST:
        raise argparse.ArgumentTypeError(f"sizes are 1 to {rig.LARGEST:,}: a Linux bridge takes 1,023 ports")
    return sizes


def _step_into_own_namespaces() -> None:
    """Run this program again, in namespaces that vanish with it."""
    how = ["--mount", "--net", "--pid", "--fork", "--kill-child", "--mount-proc"]
    if os.geteuid() != 0:
        how = ["--user", "--map-root-user", *how]
    sys.stdout.flush()
    os.execvp("unshare", ["unshare", *how, "--", sys.executable, str(Path(__file__).resolve()), *sys.argv[1:],
                          "--inside"])  # fmt: skip


def _measure(size: int, rounds: int, state: Path) -> Json:
    """Fill a host of its own and examine it; medians in seconds."""
    host = f"host-{size}"
    sandboxes = [f"box-{size}-{number}" for number in range(size)]
    spaces.make([host, *sandboxes])
    env = {**os.environ, "BERTH_STATE": str(state), "BERTH_RUN": str(state / "run")}
    argv = ["nsenter", f"--net={spaces.NAMES}/{host}", sys.executable, "-m", "berth"]
    state.mkdir(parents=True)
    print(f"attaching {size:,} endpoints", file=sys.stderr)
    filling = multiprocessing.get_context("fork").Process(target=_fill, args=(host, state, sandboxes))
    filling.start()
    filling.join()
    if filling.exitcode:
        sys.exit("bench doctor: the host could not be filled")
    time.sleep(_QUIET)
    samples = [_examine([*argv, "doctor", "--json"], env) for _ in range(rounds)]
    return {
        "seconds": round(statistics.median(wall for wall, _, _ in samples), 3),
        "cpu": round(statistics.median(cpu for _, cpu, _ in samples), 3),
        "slowest": round(max(wall for wall, _, _ in samples), 3),
        "findings": samples[-1][2],
    }


def _fill(host: str, state: Path, sandboxes: Sequence[str]) -> None:
    """Attach all sandboxes, in a process of its own: Berth manages the namespace that a process begins in."""
    spaces.setns(spaces.opened(host))
    engine = wire.engine(f"sqlite:{state / 'berth.db'}")
    engine.create_network(NetworkSpec("net", subnets=(_SUBNET,)))
    for number, sandbox in enumerate(sandboxes):
        port = PortMapping(host_ip=None, host_port=10_000 + number, port=80)
        engine.attach(AttachRequest("net", sandbox, ports=(port,)))
    engine.close()


def _examine(argv: Sequence[str], env: dict[str, str]) -> tuple[float, float, int]:
    """(seconds, seconds of a core, findings) of one examination by the command."""
    before, began = os.times(), time.perf_counter()
    done = subprocess.run(argv, env=env, capture_output=True, text=True, check=False)
    took, after = time.perf_counter() - began, os.times()
    if done.returncode not in (0, 1) or done.stderr:
        sys.exit(f"bench doctor: {done.stderr.strip()}")
    cpu = after.children_user + after.children_system - before.children_user - before.children_system
    return took, cpu, len(json.loads(done.stdout))


if __name__ == "__main__":
    main()
