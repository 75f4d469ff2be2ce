"""Three hosts with a daemon each and three members of etcd, on one wire: and everything that may happen to them."""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterable
from pathlib import Path

from berth.client import Client
from berth.errors import BerthError
from berth.spec import attach_request
from berth.store.gateway import Gateway, Members, authority
from berth.store.rpc import GRANT, RANGE

from .conftest import sh
from .overlay_hosts import Hosts

TTL, GRACE = 12, 6  # seconds: until a silent host is no longer seen, and from then until its addresses are free
_MEMBERS = {f"e{i}": f"10.0.0.24{i}" for i in (1, 2, 3)}
#: Frames between the switch's ports: who is cut off from what, by the names of the ports.
_CUTS = """table bridge cuts {
set store { type ifname; }
set wire { type ifname; }
chain forward {
    type filter hook forward priority 0
    iifname @store tcp dport 2379 drop
    oifname @store tcp sport 2379 drop
    iifname @wire udp dport 4789 drop
    oifname @wire udp dport 4789 drop
}
}"""


def until(true: Callable[[], object], what: str, within: float = 60) -> float:
    """Wait for something, which is told of when it does not come; the seconds that it took."""
    begun = time.monotonic()
    while not true():
        assert time.monotonic() < begun + within, what
        time.sleep(0.1)
    return time.monotonic() - begun


class World(Hosts):
    """Who is alive, who is cut off, and how to change that. Nothing here waits for what Berth makes of it."""

    def __init__(self, number: int, directory: Path) -> None:
        super().__init__(number, directory / "unused.db")
        self._directory = directory
        self._running: dict[str, subprocess.Popen[bytes]] = {}
        self._paused: set[str] = set()
        self.off: set[str] = set()  # hosts without power
        sh(f"nft '{_CUTS}'")
        for name, address in _MEMBERS.items():
            sh(
                f"ip netns add {name}; ip -n {name} link set lo up\n"
                f"ip link add p{name} master lan up type veth peer name eth0 netns {name}\n"
                f"ip -n {name} link set eth0 up; ip -n {name} addr add {address}/24 dev eth0"
            )

    # --- etcd -----------------------------------------------------------------------------------------------

    @property
    def members(self) -> tuple[str, ...]:
        return tuple(_MEMBERS)

    @property
    def where(self) -> Members:
        """For who asks from the machine on the wire."""
        return Members(tuple((address, 2379) for address in _MEMBERS.values()))

    def start_members(self, names: Iterable[str] = tuple(_MEMBERS)) -> None:
        """With what they had, where they ran before; and wait until they take writes."""
        everybody = ",".join(f"{name}=http://{address}:2380" for name, address in _MEMBERS.items())
        for name in names:
            client, peer = (f"http://{_MEMBERS[name]}:{port}" for port in (2379, 2380))
            options = [
                *("--name", name, "--data-dir", str(self._directory / name), "--initial-cluster", everybody),
                *("--listen-client-urls", client, "--advertise-client-urls", client),
                *("--listen-peer-urls", peer, "--initial-advertise-peer-urls", peer),
                *("--listen-peer-urls", peer, "--initial-advertise-peer-urls", peer),
                *("--heartbeat-interval", "100", "--election-timeout", "1000", "--logger", "zap"),
            ]
            self._start(name, ["nsenter", f"--net=/run/netns/{name}", "etcd", *options], {})
        until(self._takes_writes, "etcd takes no writes")

    def lose_etcd(self) -> None:
        """All members, with their disks; and new ones begin in their place."""
        for name in self.members:
            self.kill(name)
            shutil.rmtree(self._directory / name)
        self.start_members()

    def _takes_writes(self) -> bool:
        gateway = Gateway(self.where)
        try:
            gateway.call(GRANT, {"TTL": 5})
        except BerthError:
            return False
        finally:
            gateway.close()
        return True

    def compact(self) -> None:
        """Forget all of etcd's history but the present."""
        gateway = Gateway(self.where)
        revision = gateway.call(RANGE, {"key": b"\0"})["header"]["revision"]
        gateway.close()
        sh(f"ETCDCTL_API=3 etcdctl --endpoints={','.join(map(authority, self.where.endpoints))} compact {revision}")

    # --- hosts ----------------------------------------------------------------------------------------------

    @property
    def live(self) -> list[str]:
        """The hosts that have power."""
        return [name for name in self.names if name not in self.off]

    def start(self, name: str, skew: str = "") -> None:
        """A host's daemon; does not wait for it. `skew`: of its real-time clock, as +1d."""
        argv = ["nsenter", f"--net=/run/netns/{name}", sys.executable, "-m", "berth", "daemon"]
        places = ",".join(f"{address}:2379" for address in _MEMBERS.values())
        store = f"etcd://{places}?ttl={TTL}&grace={GRACE}"
        self._start(name, argv, {**self.places(name), "BERTH_STORE": store, **(_clock(skew) if skew else {})})

    def places(self, name: str) -> dict[str, str]:
        """Where a host keeps what is its own, as environment."""
        return {"BERTH_STATE": str(self._directory / name), "BERTH_RUN": str(self._directory / f"{name}.run")}

    def _start(self, name: str, argv: list[str], env: dict[str, str]) -> None:
        with open(self._directory / f"{name}.log", "ab") as log:
            self._running[name] = subprocess.Popen(argv, stdout=log, stderr=log, env={**os.environ, **env})

    def running(self, name: str) -> bool:
        """Whether a daemon or member runs, or only hangs."""
        return name in self._running

    def kill(self, name: str) -> None:
        """A daemon or member, at once and without a word."""
        if process := self._running.pop(name, None):
            self._paused.discard(name)
            process.kill()
            process.wait()

    def pause(self, name: str) -> None:
        """A daemon or member hangs: it takes connections and answers nothing."""
        if name in self._running:
            self._running[name].send_signal(signal.SIGSTOP)
            self._paused.add(name)

    def resume(self) -> None:
        """Whatever hangs goes on."""
        for name in list(self._paused):
            self._running[name].send_signal(signal.SIGCONT)
            self._paused.discard(name)

    def power_off(self, name: str, sandboxes: Iterable[str]) -> None:
        """All that the host's kernel had is gone, with its containers; its disk stays."""
        self.kill(name)
        self.off.add(name)
        sh(f"ip link del p{name[1]}; ip netns del {name}")
        for sandbox in sandboxes:
            sh(f"ip netns del {sandbox}")

    def power_on(self, name: str) -> None:
        """The host is there again, with its address, and its daemon starts."""
        i = name[1]
        sh(
            f"ip netns add {name}; ip -n {name} link set lo up\n"
            f"ip link add p{i} master lan up type veth peer name eth0 netns {name}; ip -n {name} link set eth0 up\n"
            f"ip -n {name} addr add 10.0.0.{i}/24 dev eth0; ip -n {name} addr add fd0a::{i}/64 dev eth0 nodad\n"
            f"ip -n {name} route add default via 10.0.0.254"
        )
        self.off.discard(name)
        self.start(name)

    def cut(self, name: str, what: str) -> None:
        """Cut a host off: from the `store`, or from the other hosts' tunnels (`wire`)."""
        sh(f"nft 'add element bridge cuts {what} {{ p{name[1]} }}'")

    def unplug(self, name: str) -> None:
        """Pull a host's cable."""
        sh(f"ip link set p{name[1]} down")

    def connect(self) -> None:
        """Nobody is cut off any more."""
        sh("nft 'flush set bridge cuts store; flush set bridge cuts wire'")
        for name in self.live:
            sh(f"ip link set p{name[1]} up")

    def mend(self) -> None:
        """All that has power works again; waits for etcd only."""
        self.connect()
        self.resume()
        self.start_members([name for name in self.members if not self.running(name)])
        for name in self.live:
            if not self.running(name):
                self.start(name)

    def close(self) -> None:
        """End all that runs."""
        for name in list(self._running):
            self.kill(name)

    # --- asking ---------------------------------------------------------------------------------------------

    def daemon(self, name: str, patience: float = 12) -> Client:
        """A host's daemon, over its socket. Raises `OSError` where none listens."""
        connection = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        connection.settimeout(patience)
        try:
            connection.connect(f"{self.places(name)['BERTH_RUN']}/berth.sock")
        except OSError:
            connection.close()
            raise
        return Client(connection)

    def answers(self, name: str) -> bool:
        """Whether a host's daemon does."""
        try:
            client = self.daemon(name)
            client.networks()
        except (OSError, BerthError):
            return False
        client.close()
        return True

    def plug(self, name: str, sandbox: str, *addresses: str) -> tuple[str, ...]:
        """Attach a sandbox on a host to the network `ov`: its addresses. Raises `OSError` and what the daemon says."""
        client = self.daemon(name)
        try:
            request = attach_request(network="ov", sandbox=f"/run/netns/{sandbox}", name=sandbox, ips=addresses)
            outcome = client.attach(request)
        finally:
            client.close()
        return tuple(str(interface.ip) for interface in outcome.value.addresses)

    def unplug_from(self, name: str, sandbox: str) -> None:
        """Detach it. Raises as `plug` does."""
        client = self.daemon(name)
        try:
            client.detach("ov", sandbox)
        finally:
            client.close()

    def log(self, name: str) -> str:
        """What a daemon or member has said, without those who only asked."""
        lines = (self._directory / f"{name}.log").read_text().splitlines()
        return "\n".join(line for line in lines if not line.startswith("GET "))


def _clock(skew: str) -> dict[str, str]:
    """The environment of a process whose real-time clock is wrong by that."""
    library = next(Path("/usr/lib").glob("*/faketime/libfaketimeMT.so.1"))
    return {"LD_PRELOAD": str(library), "FAKETIME": skew, "FAKETIME_DONT_FAKE_MONOTONIC": "1"}
