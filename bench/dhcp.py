"""What DHCP leases cost: how long an attach takes with one, and a thousand and more kept in one loop; against dnsmasq.

    python bench/dhcp.py [--part attach|daemon|keep] [--attaches N] [--leases N] [--seconds N] [--json FILE]

dnsmasq gives no lease of less than two minutes, but says when to renew: every lease is renewed after half a minute, and
counted as expired if that was in vain for a minute, as one with a lifetime of 60 seconds would be. All of it is in
namespaces of its own.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import docking  # noqa: F401  # the tests' modules are found after it
import keeping
import lan_servers
import leasing
from attaching.report import machine
from berth.errors import BerthError
from berth.kernel.netns import inside
from berth.lan.dhcp import Clients, client_id
from berth.model import Lease, LeaseRequest

_RESULTS = Path(__file__).parent / "results" / "dhcp.json"
_LIFETIME = 60  # seconds
_PAGE = os.sysconf("SC_PAGE_SIZE")

Json = dict[str, Any]


def main() -> None:
    """Measure, print and write."""
    arguments = _arguments()
    if os.geteuid() != 0:
        sys.exit("bench dhcp: namespaces need root")
    try:
        facts: Json = {"machine": machine()}
        if arguments.part in ("attach", None):
            with tempfile.TemporaryDirectory(prefix="berth-bench-") as state, lan_servers.lan(Path(state)) as home:
                facts |= leasing.measure(home, arguments.attaches)
        if arguments.part in ("daemon", None):
            with tempfile.TemporaryDirectory(prefix="berth-bench-") as state, lan_servers.lan(Path(state)) as home:
                facts |= keeping.measure(home, min(arguments.leases, 1000), arguments.seconds)
        if arguments.part in ("keep", None):
            facts |= _measure(arguments.leases, arguments.seconds)
    except KeyboardInterrupt:
        sys.exit(130)
    except (BerthError, subprocess.CalledProcessError) as error:
        sys.exit(f"bench dhcp: {error}")
    for what, figure in facts.items():
        if what != "machine":
            print(f"{what.replace('_', ' '):32} {figure:>12,}")
    arguments.json.parent.mkdir(parents=True, exist_ok=True)
    arguments.json.write_text(json.dumps(facts | {"load_after": os.getloadavg()}, indent=2) + "\n")
    print(f"wrote {arguments.json}", file=sys.stderr)
    kept = not facts.get("expired") and not facts.get("daemon_expired") and not facts.get("daemon_losses_logged")
    prompt = "attaches" not in facts or leasing.within(facts)
    sys.exit(0 if kept and prompt else 1)


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="bench dhcp", description="What DHCP leases cost.")
    parser.add_argument("--part", choices=("attach", "daemon", "keep"), help="only this part")
    parser.add_argument("--attaches", type=int, default=40, help="how many attaches are timed")
    parser.add_argument("--leases", type=int, default=1000, help="how many, 5,000 at most")
    parser.add_argument("--seconds", type=float, default=300, help="how long they are kept")
    parser.add_argument("--json", type=Path, default=_RESULTS, metavar="FILE", help="where to write the figures")
    return parser.parse_args()


def _measure(leases: int, seconds: float) -> Json:
    with tempfile.TemporaryDirectory(prefix="berth-bench-") as state, lan_servers.lan(Path(state)) as home:
        home.run(home.server, "ip", "address", "add", "10.78.0.1/16", "dev", lan_servers.SERVER)
        options = (
            "--dhcp-range=10.78.1.0,10.78.40.255,255.255.0.0,120", "--dhcp-lease-max=10000", "--quiet-dhcp",
            f"--dhcp-option=58,{_LIFETIME // 2}", f"--dhcp-option=59,{_LIFETIME * 7 // 8}",
        )  # fmt: skip
        with lan_servers.dnsmasq(home, *options), inside(home.host):
            return asyncio.run(_keep(min(leases, 5000), seconds))


async def _keep(number: int, seconds: float) -> Json:
    last: dict[str, float] = {}
    gaps: list[float] = []
    lost: list[str] = []

    def changed(lease: Lease) -> None:
        now = time.monotonic()
        gaps.append(now - last[lease.request.key])
        last[lease.request.key] = now

    clients = Clients(changed, lambda lease, why: lost.append(why))
    before, began, cpu = _resident(), time.monotonic(), time.process_time()

    async def acquire(each: int) -> Lease:
        mac = (0x02BE_0000_0000 + each).to_bytes(6, "big").hex(":")
        lease = await clients.acquire(LeaseRequest(f"e{each}", "br0", mac, client_id(f"bench{each}")), 120)
        last[lease.request.key] = time.monotonic()
        return lease

    held = await asyncio.gather(*(acquire(each) for each in range(number)))
    acquired, acquired_cpu = time.monotonic() - began, time.process_time() - cpu
    began, cpu = time.monotonic(), time.process_time()
    await asyncio.sleep(seconds)
    kept, kept_cpu = time.monotonic() - began, time.process_time() - cpu
    gaps += [time.monotonic() - at for at in last.values()]
    facts: Json = {
        "leases": len({lease.address for lease in held}),
        "acquired_per_second": round(number / acquired),
        "acquire_cpu_us_each": round(acquired_cpu / number * 1e6),
        "kept_seconds": round(kept),
        "renewals": len(gaps) - number,
        "expired": len(lost) + sum(gap > _LIFETIME for gap in gaps),
        "longest_gap_seconds": round(max(gaps), 1),
        "cpu_percent_of_one_core": round(100 * kept_cpu / kept, 2),
        "memory_kib_per_lease": round((_resident() - before) / 1024 / number, 1),
        "peak_mib": round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024),
    }
    clients.close()
    return facts


def _resident() -> int:
    return int(Path("/proc/self/statm").read_text().split()[1]) * _PAGE


if __name__ == "__main__":
    main()
