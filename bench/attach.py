"""What attaching and detaching cost: Berth, the kernel's own work packed by hand, and the CNI plugin `bridge`.

    python bench/attach.py [--json FILE] [--sizes 1,100,1000] [--rounds N]

It runs in mount, network and process namespaces of its own and touches nothing outside but the file of results. Every
size and driver has a process of its own; they take turns, so that a busy moment of the machine falls on all alike.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import os
import shutil
import subprocess
import sys
import tempfile
import time
import traceback
from collections.abc import Sequence
from multiprocessing.connection import Connection
from pathlib import Path

from attaching import cni, report, rig, spaces
from attaching.ways import Samples

_RESULTS = Path(__file__).parent / "results" / "attach.json"
_SETTLE = 0.05  # seconds for what the kernel puts off until after a deletion
_QUIET = 5  # seconds for the links that were just made to be done with looking for IPv6 neighbours and routers


def main() -> None:
    """Measure, print and write."""
    arguments = _arguments()
    try:
        if arguments.inside is None:
            _step_into_own_namespaces()
        _mount_run(arguments.inside)
        before = report.machine()
        with tempfile.TemporaryDirectory(prefix="berth-bench-", dir="/var/tmp") as state:
            results = _measure(arguments.sizes, arguments.rounds, Path(state))
        _tell(results, arguments.json, before)
    except KeyboardInterrupt:
        sys.exit(130)


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="bench attach", description="What attaching and detaching cost.")
    parser.add_argument("--json", type=Path, default=_RESULTS, metavar="FILE", help="where to write the figures")
    parser.add_argument("--sizes", type=_sizes, default=(1, 100, 1000), help="how many endpoints stay attached")
    parser.add_argument("--rounds", type=_rounds, default=10, help=f"{rig.CYCLES} attaches by each way in a round")
    parser.add_argument("--inside", help=argparse.SUPPRESS)
    return parser.parse_args()


def _sizes(text: str) -> tuple[int, ...]:
    sizes = sorted({int(part) for part in text.split(",")})
    if not 1 <= sizes[0] <= sizes[-1] <= rig.LARGEST:
        raise argparse.ArgumentTypeError(f"sizes are 1 to {rig.LARGEST:,}: a Linux bridge takes 1,023 ports")
    return tuple(sizes)


def _rounds(text: str) -> int:
    if not 1 <= int(text) <= 100:
        raise argparse.ArgumentTypeError("rounds are 1 to 100")
    return int(text)


# --- a place of our own -----------------------------------------------------------------------------------


def _step_into_own_namespaces() -> None:
    """Run this program again, in namespaces that vanish with it."""
    for tool, package in (("unshare", "util-linux"), ("ip", "iproute2"), ("nft", "nftables"), ("iptables", "iptables")):
        if shutil.which(tool) is None:
            sys.exit(f"bench attach: {tool} is missing: install {package}")
    if (lacking := cni.missing()) is not None:
        sys.exit(f"bench attach: {lacking}")
    how = ["--mount", "--net", "--pid", "--fork", "--kill-child", "--mount-proc"]
    if os.geteuid() != 0:
        how = ["--user", "--map-root-user", *how]
    me = [sys.executable, str(Path(__file__).resolve()), *sys.argv[1:], "--inside", spaces.current()]
    sys.stdout.flush()
    os.execvp("unshare", ["unshare", *how, "--", *me])


def _mount_run(outside: str) -> None:
    if spaces.current() == outside:
        sys.exit("bench attach: not in a network namespace of its own; start it without --inside")
    subprocess.run(["mount", "-t", "tmpfs", "tmpfs", "/run"], check=True)


# --- measuring --------------------------------------------------------------------------------------------


def _measure(sizes: Sequence[int], rounds: int, state: Path) -> report.Results:
    """Set up one host a size and driver, then let them take turns."""
    kinds = [(size, driver) for size in sizes for driver in rig.DRIVERS]
    sandboxes = {kind: rig.sandbox_names(*kind, rounds) for kind in kinds}
    _say(f"making {sum(map(len, sandboxes.values())):,} sandboxes")
    spaces.make(name for kind in kinds for name in (*rig.host_names(*kind), *sandboxes[kind]))
    workers = {kind: _Worker(*kind, sandboxes[kind], state / "-".join(map(str, kind))) for kind in kinds}
    for (size, driver), worker in workers.items():
        _say(f"attaching {size:,} endpoints that stay to a {driver} network")
        worker.do("prepare")
    time.sleep(_QUIET)
    for number in range(rounds):
        _say(f"round {number + 1} of {rounds}")
        for worker in workers.values():
            time.sleep(_SETTLE)
            worker.do("round")
    results: report.Results = {size: {} for size in sizes}
    for (size, _), worker in workers.items():
        results[size] |= worker.finish()
    return results


class _Worker:
    """The process of one size and driver."""

    def __init__(self, size: int, driver: str, sandboxes: list[str], state: Path) -> None:
        context = multiprocessing.get_context("fork")
        self._pipe, far = context.Pipe()
        self._process = context.Process(target=_work, args=(far, size, driver, sandboxes, state), daemon=True)
        self._process.start()
        far.close()

    def do(self, verb: str) -> Samples:
        """Have one thing done and wait for it. Ends the program when it fails."""
        try:
            self._pipe.send(verb)
            failure, samples = self._pipe.recv()
        except (EOFError, BrokenPipeError):
            sys.exit("bench attach: the measuring process has died")
        if failure:
            sys.exit(f"bench attach: {failure}")
        found: Samples = samples
        return found

    def finish(self) -> Samples:
        """Everything measured."""
        samples = self.do("finish")
        self._process.join()
        return samples


def _work(pipe: Connection, size: int, driver: str, sandboxes: list[str], state: Path) -> None:
    """What a worker does until it is told to finish, or the other end of the pipe is gone."""
    host: rig.Rig | None = None
    try:
        while (verb := pipe.recv()) != "finish":
            if host is None:
                host = rig.Rig(size, driver, sandboxes, state)
                host.fill()
                if unlike := host.check():
                    pipe.send(("the ways do not make the same objects:\n" + "\n".join(unlike), {}))
                    return
            if verb == "round":
                host.round()
            pipe.send(("", {}))
        pipe.send(("", host.finish() if host is not None else {}))
    except (EOFError, KeyboardInterrupt):
        return
    except Exception:
        pipe.send((f"{driver} network with {size:,} endpoints:\n{traceback.format_exc()}", {}))


# --- telling ----------------------------------------------------------------------------------------------


def _tell(results: report.Results, file: Path, before: report.Json) -> None:
    print("\n".join(report.table(results)), end="\n\n")
    print("\n".join(report.verdicts(results)))
    file.parent.mkdir(parents=True, exist_ok=True)
    facts = {
        "machine": before,
        "load_after": os.getloadavg(),
        "note": "of the endpoints on the CNI plugin's bridge it made one itself; the others are cables packed by hand",
        "milliseconds": report.summaries(results),
        "ratios": report.ratios(results),
    }
    file.write_text(json.dumps(facts, indent=2) + "\n")
    _say(f"wrote {file}")


def _say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


if __name__ == "__main__":
    main()
