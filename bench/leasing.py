"""How long it takes from an attach to an address that can be used, beside what the DHCP server itself takes.

A bare client (no check of the address, no endpoint) and Berth's daemon ask the same dnsmasq by turns.
"""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from statistics import median
from typing import Any

import lan_servers
from berth import spec
from berth.client import Client, reachable
from berth.kernel.netns import inside
from berth.lan.dhcp import Clients, client_id
from berth.lan.frames import claim
from berth.lan.packets import Packets, heard
from berth.model import LeaseRequest
from lan_servers import Lan

_MARGIN = 20  # milliseconds that an attach may take longer than the server, where the LAN is asked fast
_FULL = 3  # attaches with the full timing of RFC 5227: each takes 4 to 7 seconds
_RANGE = "10.77.0.50,10.77.0.250,255.255.255.0,120"

Json = dict[str, Any]


def measure(home: Lan, attaches: int) -> Json:
    """The medians, in milliseconds, of so many attaches; the LAN's server offers at once (--no-ping)."""
    bare: list[float] = []
    fast: list[float] = []
    with lan_servers.dnsmasq(home, f"--dhcp-range={_RANGE}", "--quiet-dhcp"), daemon(home) as (_, api):
        _make(api, "fast", "fast")
        for number in range(attaches):
            bare.append(asyncio.run(_bare(number)))
            fast.append(_attach(api, "fast", number))
        api.remove_network("fast")
        _make(api, "full", "full")
        full = [_attach(api, "full", number) for number in range(_FULL)]
        probes = _probes(home, api)
    return {
        "attaches": attaches,
        "server_ms": round(median(bare), 1),
        "attach_ms": round(median(fast), 1),
        "attach_beyond_server_ms": round(median(fast) - median(bare), 1),
        "attach_bar_ms": _MARGIN,
        "attach_rfc5227_ms": round(median(full)),
        "probes_of_a_fast_attach": probes,
    }


def within(facts: Json) -> bool:
    """Whether the bar is kept."""
    return bool(facts["attach_beyond_server_ms"] <= _MARGIN)


@contextmanager
def daemon(home: Lan) -> Iterator[tuple[int, Client]]:
    """Berth's daemon in the host's namespace, and a client of it; the thread is in that namespace meanwhile."""
    env = {**os.environ, "BERTH_STATE": str(home.dir / "state"), "BERTH_RUN": str(home.dir / "run")}
    env.pop("BERTH_STORE", None)
    berth = str(Path(sys.executable).with_name("berth"))
    with (home.dir / "daemon.log").open("wb") as log:
        running = subprocess.Popen(["nsenter", f"--net={home.host}", berth, "daemon"], env=env, stdout=log, stderr=log)
    socket = home.dir / "run/berth.sock"
    try:
        with inside(home.host):
            lan_servers.until(lambda: socket.exists() and reachable(socket) is not None, "the daemon answers", 30)
            api = reachable(socket)
            assert api is not None
            yield running.pid, api
            api.close()
    finally:
        lan_servers.stop(running)


def _make(api: Client, name: str, conflict: str) -> None:
    options = ("parent=br0", "addresses=dhcp", f"conflict={conflict}")
    api.create_network(spec.network_spec(name=name, driver="flat", options=options))


async def _bare(number: int) -> float:
    """Milliseconds that the server takes for a lease, from the first word to its last."""
    clients = Clients(lambda lease: None, lambda lease, why: None)
    mac = (0x02BE_0000_0000 + number).to_bytes(6, "big").hex(":")
    began = time.perf_counter()
    await clients.acquire(LeaseRequest("bare", "br0", mac, client_id(f"bare{number}")))
    took = time.perf_counter() - began
    await clients.release("bare")
    clients.close()
    return took * 1000


def _attach(api: Client, network: str, number: int) -> float:
    """Milliseconds of an attach; what it made is taken away again."""
    with sandbox(f"{network}-{number}") as name:
        began = time.perf_counter()
        api.attach(spec.attach_request(network=network, sandbox=name))
        took = time.perf_counter() - began
        api.detach(network, name)
    return took * 1000


def _probes(home: Lan, api: Client) -> int:
    """How many questions the LAN hears of an attach with fast checks: that they are asked at all."""
    api.remove_network("full")
    _make(api, "fast", "fast")
    with inside(home.server):
        packets = Packets(lan_servers.SERVER)
    try:
        _attach(api, "fast", 0)
        claims = filter(None, map(claim, heard(packets, time.monotonic() + 0.5)))
        return sum(said.probe for said in claims)
    finally:
        packets.close()


@contextmanager
def sandbox(tag: str) -> Iterator[str]:
    name = f"bt-{os.getpid()}-{tag}"
    subprocess.run(["ip", "netns", "add", name], check=True)
    try:
        yield name
    finally:
        subprocess.run(["ip", "netns", "del", name], check=True)
