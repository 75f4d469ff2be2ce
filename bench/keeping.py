"""What many endpoints with leases cost a real daemon, sandboxes and all, against Kea, whose leases last a minute."""

from __future__ import annotations

import os
import sys
import time
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import lan_servers
import leasing
from berth import spec
from lan_servers import Lan

_LIFETIME = 60  # seconds; renewed after half of it
_SETTLE = 10  # seconds
_TICKS = os.sysconf("SC_CLK_TCK")
_KEA = {
    "valid-lifetime": _LIFETIME,
    "renew-timer": _LIFETIME // 2,
    "rebind-timer": _LIFETIME * 7 // 8,
    "subnet4": [
        {
            "id": 1,
            "subnet": "10.78.0.0/16",
            "pools": [{"pool": "10.78.1.0 - 10.78.40.255"}],
            "option-data": [{"name": "routers", "data": "10.78.0.1"}],
        }
    ],
}

Json = dict[str, Any]


def measure(home: Lan, leases: int, seconds: float) -> Json:
    """What so many endpoints take in so many seconds, once all are attached."""
    for where, dev, address in ((home.server, lan_servers.SERVER, "10.78.0.1"), (home.host, "br0", "10.78.0.2")):
        home.run(where, "ip", "-4", "address", "flush", "dev", dev)
        home.run(where, "ip", "address", "add", f"{address}/16", "dev", dev)
    home.run(home.host, "ip", "route", "add", "default", "via", "10.78.0.1")
    with lan_servers.kea(home, 4, dict(_KEA)), leasing.daemon(home) as (pid, api), ExitStack() as sandboxes:
        options = ("parent=br0", "addresses=dhcp")
        api.create_network(spec.network_spec(name="lan", driver="flat", options=options))
        names = [sandboxes.enter_context(leasing.sandbox(f"k{number}")) for number in range(leases)]
        begun = time.monotonic()
        for number, name in enumerate(names):
            api.attach(spec.attach_request(network="lan", sandbox=name))
            if number % 100 == 99:
                print(f"{number + 1:,} endpoints", file=sys.stderr, flush=True)
        attached = time.monotonic() - begun
        time.sleep(_SETTLE)
        begun, cpu, acked = time.monotonic(), _cpu(pid), _acknowledged(home)
        time.sleep(seconds)
        took, used = time.monotonic() - begun, _cpu(pid) - cpu
        records = api.leases()
        return {
            "endpoints": len(names),
            "attach_ms_each": round(attached / leases * 1000, 1),
            "daemon_kept_seconds": round(took),
            "daemon_renewals": _acknowledged(home) - acked,
            "daemon_expired": sum(record.over or bool(record.trouble) for record in records) + leases - len(records),
            "daemon_losses_logged": (home.dir / "daemon.log").read_text().count("op=lose"),
            "daemon_cpu_percent_of_one_core": round(100 * used / took, 2),
            "daemon_mib": _resident(pid),
        }


def _acknowledged(home: Lan) -> int:
    """Leases that the server has written down, first ones and renewals."""
    return sum(path.read_text().count("\n") for path in home.dir.glob("kea4.csv*"))


def _cpu(pid: int) -> float:
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / _TICKS


def _resident(pid: int) -> int:
    line = next(line for line in Path(f"/proc/{pid}/status").read_text().splitlines() if line.startswith("VmRSS"))
    return round(int(line.split()[1]) / 1024)
