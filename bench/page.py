"""What an open page costs the daemon while nothing happens.

    python bench/page.py [--endpoints N] [--seconds N] [--json FILE]

A host with so many sandboxes on a NAT network, in namespaces of its own; the daemon's processor time by /proc, first
with nobody looking, then with a browser's stream open. The doctor's own looks are in it.
"""

from __future__ import annotations

import argparse
import http.client
import json
import os
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from attaching.report import machine

_RESULTS = Path(__file__).parent / "results" / "page.json"
_BERTH = Path(sys.executable).parent / "berth"
_RUN = Path("/run/berth")
_TICK = os.sysconf("SC_CLK_TCK")
_INSIDE = "BERTH_BENCH_INSIDE"

Json = dict[str, Any]


def main() -> None:
    """Measure, print and write."""
    arguments = _arguments()
    if os.geteuid() != 0:
        sys.exit("bench page: namespaces need root")
    if _INSIDE not in os.environ:  # once more, in namespaces that end with the process
        os.environ[_INSIDE] = "1"
        os.execvp("unshare", ["unshare", "--net", "--mount", sys.executable, *sys.argv])
    for line in ("mount -t tmpfs run /run", "ip link set lo up"):
        subprocess.run(line.split(), check=True)
    facts: Json = {"machine": machine(), "endpoints": arguments.endpoints, "seconds": arguments.seconds}
    with tempfile.TemporaryDirectory(prefix="berth-bench-") as state:
        facts |= _measure(Path(state), arguments.endpoints, arguments.seconds)
    for what, figure in facts.items():
        if what != "machine":
            print(f"{what.replace('_', ' '):32} {figure:>12,}")
    arguments.json.parent.mkdir(parents=True, exist_ok=True)
    arguments.json.write_text(json.dumps(facts | {"load_after": os.getloadavg()}, indent=2) + "\n")
    print(f"wrote {arguments.json}", file=sys.stderr)


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="bench page", description="What an open page costs the daemon.")
    parser.add_argument("--endpoints", type=int, default=300, help="how many sandboxes there are")
    parser.add_argument("--seconds", type=float, default=20, help="how long is looked on")
    parser.add_argument("--json", type=Path, default=_RESULTS, metavar="FILE", help="where to write the figures")
    return parser.parse_args()


def _measure(state: Path, endpoints: int, seconds: float) -> Json:
    environment = {**os.environ, "BERTH_STATE": str(state), "BERTH_RUN": str(_RUN)}
    with (state / "log").open("wb") as log:
        daemon = subprocess.Popen([_BERTH, "daemon"], env=environment, stdout=log, stderr=log)
    try:
        _until_it_listens()
        _ask("/v1/networks", {"name": "n1", "subnets": ["10.9.0.0/16"]})
        for number in range(endpoints):
            subprocess.run(["ip", "netns", "add", f"s{number}"], check=True)
            _ask("/v1/endpoints", {"network": "n1", "sandbox": f"s{number}", "name": f"s{number}"})
        time.sleep(5)  # what the attaches have left to do
        alone = _percent(daemon.pid, seconds)
        link = _ask("/v1/web", {})["link"]
        stream = _look_on(link)
        time.sleep(10)  # until the page is drawn, and the doctor has looked once
        looking = _percent(daemon.pid, seconds)
        stream.close()
        return {"alone_percent": alone, "page_open_percent": looking}
    finally:
        daemon.send_signal(signal.SIGTERM)
        daemon.wait(30)


def _until_it_listens() -> None:
    end = time.monotonic() + 20
    while not (_RUN / "berth.sock").exists():
        if time.monotonic() > end:
            sys.exit("bench page: the daemon does not start")
        time.sleep(0.05)


def _ask(path: str, body: Json) -> Json:
    connection = http.client.HTTPConnection("berth")
    connection.sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    connection.sock.connect(str(_RUN / "berth.sock"))
    connection.request("POST", path, json.dumps(body))
    response = connection.getresponse()
    said: Json = json.loads(response.read())
    connection.close()
    if response.status != 200:
        sys.exit(f"bench page: {said}")
    return said


def _look_on(link: str) -> http.client.HTTPConnection:
    """As a browser does: the page once, and its stream; what changes is fetched anew."""
    where = urlsplit(link)
    connection = http.client.HTTPConnection(where.netloc)
    connection.request("GET", f"/?{where.query}")
    entered = connection.getresponse()
    entered.read()
    cookie = {"Cookie": str(entered.headers["Set-Cookie"]).partition(";")[0]}
    connection.request("GET", "/web/stream", headers=cookie)
    answer = connection.getresponse()

    def follow() -> None:
        parts = http.client.HTTPConnection(where.netloc)
        try:
            while line := answer.readline():
                if line in (b"event: hello\n", b"event: change\n"):
                    parts.request("GET", "/web/parts", headers=cookie)
                    parts.getresponse().read()
        except (OSError, ValueError, AttributeError, http.client.HTTPException):  # it was closed
            return

    threading.Thread(target=follow, daemon=True).start()
    return connection


def _percent(pid: int, seconds: float) -> float:
    """How much of a core a process takes."""
    before, start = _used(pid), time.monotonic()
    time.sleep(seconds)
    return round(100 * (_used(pid) - before) / (time.monotonic() - start), 2)


def _used(pid: int) -> float:
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / _TICK


if __name__ == "__main__":
    main()
