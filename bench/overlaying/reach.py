"""How soon a new endpoint on one host answers an endpoint on another, as the number of hosts grows.

    unshare --mount --net --pid --fork --kill-child --mount-proc python reach.py SAMPLES SIZES

Three hosts are real; the others are simulated (`agents.py`), on the same etcd and the same machine, and so is all
that they cost. On h2 an endpoint pings the address from before the attach on h1 begins: every millisecond, and its
kernel asks for the MAC every few, where it would otherwise ask once a second. Prints JSON: milliseconds.
"""

from __future__ import annotations

import json
import multiprocessing
import select
import socket
import struct
import subprocess
import sys
import tempfile
import time
from contextlib import suppress
from functools import partial
from ipaddress import ip_address
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

from attaching import spaces
from berth.model import AttachRequest
from berth.store.gateway import after
from berth.store.rpc import RANGE
from overlaying.fleet import HOSTS, NETWORK, Fleet, until
from overlaying.herd import Herd

_FIRST = int(ip_address("10.80.8.0"))  # addresses of the samples
_WITHIN = 30  # seconds for an answer
_GROW_WITHIN = 180  # seconds for all to know all
_RATE = 2  # changes a second by the simulated hosts, meanwhile
_WARM = 2  # samples that are not counted
_IMPATIENT = "net.ipv4.neigh.eth0.retrans_time_ms=4 net.ipv4.neigh.eth0.mcast_solicit=30000"

Json = dict[str, Any]


def main() -> None:
    """Set up, measure, print."""
    samples, sizes = int(sys.argv[1]), [int(text) for text in sys.argv[2].split(",")]
    with tempfile.TemporaryDirectory(prefix="berth-bench-", dir="/var/tmp") as directory:
        with Fleet(Path(directory)) as fleet:
            print(json.dumps(_measure(fleet, samples, sizes)))


def _measure(fleet: Fleet, samples: int, sizes: list[int]) -> Json:
    net = fleet.clients["h1"].network(NETWORK)
    spaces.make(["pinger"])
    fleet.clients["h2"].attach(AttachRequest(NETWORK, "pinger"))
    subprocess.run(["nsenter", f"--net={spaces.NAMES}/pinger", "sysctl", "-qw", *_IMPATIENT.split()], check=True)
    here, far = multiprocessing.Pipe()
    context = multiprocessing.get_context("fork")
    pinger = context.Process(target=_ping, args=(far, fleet.home), daemon=True)
    pinger.start()
    found: Json = {}
    next_address = _FIRST
    with Herd(net.id) as herd:
        for size in sizes:
            print(f"{size:,} hosts", file=sys.stderr, flush=True)
            herd.ask("grow", size - len(HOSTS))
            until(partial(_all_know, fleet, size - len(HOSTS)), "hosts do not follow", _GROW_WITHIN)
            time.sleep(2)
            found[str(size)] = _samples(fleet, herd, here, samples, next_address)
            next_address += samples + _WARM
    return found


def _all_know(fleet: Fleet, number: int) -> bool:
    return all(fleet.entries(name) >= number for name in HOSTS)


def _samples(fleet: Fleet, herd: Herd, pinger: Connection, samples: int, first: int) -> Json:
    answered, returned, busy = [], [], 0.0
    herd.ask("heard")
    before = {name: fleet.cost(name)[0] for name in (*HOSTS, "etcd")}
    others, every = _processors()
    begun = time.monotonic()
    for number in range(samples + _WARM):
        start, back, end = _sample(fleet, pinger, first + number)
        if number >= _WARM:
            answered.append((end - start) / 1e6)
            returned.append((back - start) / 1e6)
        if herd.size:
            herd.ask("burst", 1, 1)
        time.sleep(1 / _RATE if herd.size else 0.05)
    lasted = time.monotonic() - begun
    others_then, every_then = _processors()
    heard, size, busy = herd.ask("heard")
    costs = {name: fleet.cost(name) for name in before}
    return {
        "answered": answered,
        "returned": returned,
        "cpu": {name: (cpu - before[name]) / lasted for name, (cpu, _) in costs.items()},
        "stolen": (others_then - others) / (every_then - every),
        "rss": {name: rss for name, (_, rss) in costs.items()},
        "agents": {"messages": heard, "bytes": size, "seconds": lasted, "cpu": busy},
        "changes": (samples + _WARM) * (3 if herd.size else 2),
        "stored": _stored(fleet),
        "known": fleet.entries("h2"),
    }


def _processors() -> tuple[int, int]:
    """What a virtual machine's processors were busy with for other machines, and all their time (proc_stat(5))."""
    fields = [int(text) for text in Path("/proc/stat").read_text().split("\n", 1)[0].split()[1:9]]
    return fields[7], sum(fields)


def _stored(fleet: Fleet) -> dict[str, int]:
    """Bytes that one host and one endpoint take in etcd, keys and values: of those that are there now."""
    sizes = {}
    gateway = fleet.gateway()
    for what, prefixes in (("host", ["seen/host/"]), ("endpoint", ["seen/endpoint/", "held/", "name/"])):
        sizes[what] = 0
        for prefix in prefixes:
            key = f"/berth/{prefix}".encode()
            found = gateway.call(RANGE, {"key": key, "range_end": after(key)})["kvs"]
            whole = sum(len(kv["key"]) + len(kv["value"]) for kv in found)
            sizes[what] += whole // max(1, len(found))
    gateway.close()
    return sizes


def _sample(fleet: Fleet, pinger: Connection, address: int) -> tuple[int, int, int]:
    """When the attach began and returned, and when the first answer came: nanoseconds."""
    name, ip = f"new-{address}", ip_address(address)
    spaces.make([name])
    pinger.send(str(ip))
    pinger.recv()
    start = time.monotonic_ns()
    fleet.clients["h1"].attach(AttachRequest(NETWORK, name, addresses=(ip,)))
    back = time.monotonic_ns()
    end = pinger.recv()
    if not end:
        raise TimeoutError(f"{ip} does not answer within {_WITHIN} s")
    fleet.clients["h1"].detach(NETWORK, name)
    subprocess.run(["ip", "netns", "del", name], check=True)
    return start, back, end


def _ping(pipe: Connection, home: int) -> None:
    """Ping what is asked for until it answers; tell when that was."""
    with spaces.visit("pinger", home):
        sock = socket.socket(socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_ICMP)
    sock.setblocking(False)
    echo = struct.pack("!BBHHH", 8, 0, 0xF7FF - 0x1234, 0x1234, 0)  # ICMP echo request (RFC 792), with its checksum
    while True:
        with suppress(EOFError):
            address = pipe.recv()
            pipe.send(True)
            pipe.send(_first_answer(sock, address, echo))
            continue
        return


def _first_answer(sock: socket.socket, address: str, echo: bytes) -> int:
    end = time.monotonic() + _WITHIN
    while time.monotonic() < end:
        with suppress(OSError):  # nobody has that address
            sock.sendto(echo, (address, 0))
        if select.select([sock], [], [], 0.001)[0]:
            while True:
                try:
                    data, (source, _) = sock.recvfrom(2048)
                except BlockingIOError:
                    break
                if source == address and data[20] == 0:
                    return time.monotonic_ns()
    return 0


if __name__ == "__main__":
    main()
