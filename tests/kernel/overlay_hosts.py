"""Several hosts on one underlay, each a namespace, and who runs Berth on them."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import time
import traceback
from collections.abc import Callable
from pathlib import Path

from berth import wire
from berth.cli.main import main
from berth.store.sqlite import SqliteStore

from .conftest import _NEWNET, _call, sh

UNDERLAY = {4: "10.0.0.0/24", 6: "fd0a::/64"}


class Hosts:
    """Hosts h1, h2, … with 10.0.0.N and fd0a::N, and the machine 10.0.0.254 on the same wire."""

    def __init__(self, number: int, store: Path) -> None:
        self.names = [f"h{i}" for i in range(1, number + 1)]
        self._store = store
        sh("ip link add lan type bridge; ip link set lan up")
        sh("ip addr add 10.0.0.254/24 dev lan; ip addr add fd0a::fe/64 dev lan nodad")
        for i, name in enumerate(self.names, 1):
            sh(
                f"ip netns add {name}; ip -n {name} link set lo up\n"
                f"ip link add p{i} master lan up type veth peer name eth0 netns {name}; ip -n {name} link set eth0 up\n"
                f"ip -n {name} addr add 10.0.0.{i}/24 dev eth0; ip -n {name} addr add fd0a::{i}/64 dev eth0 nodad\n"
                f"ip -n {name} route add default via 10.0.0.254"
            )

    def berth(self, name: str, line: str) -> str:
        """What a command prints on a host."""
        return self._on(name, lambda: main(line.split()))

    def settle(self, name: str) -> list[str]:
        """Have a host follow the others; what it did."""

        def follow() -> None:
            engine = wire.engine()
            print(engine.settle(), end="")
            engine.close()

        return self._on(name, follow).splitlines()

    def _on(self, name: str, what: Callable[[], None]) -> str:
        """What is printed on a host. The hosts share one file, and are told apart here: all but the store is real."""
        reader, writer = os.pipe()
        child = os.fork()
        if child == 0:
            code = 1
            try:
                with open(f"/run/netns/{name}") as there:
                    _call("setns", there.fileno(), _NEWNET)
                sys.stdout = sys.stderr = os.fdopen(writer, "w")
                os.environ["BERTH_STORE"] = f"sqlite:{self._store}"
                SqliteStore.host = name
                what()
                code = 0
            except SystemExit as end:
                code = end.code if isinstance(end.code, int) else 0
            except BaseException:
                traceback.print_exc()
            finally:
                sys.stdout.flush()
                os._exit(code)
        os.close(writer)
        with os.fdopen(reader) as said:
            text = said.read()
        _, status = os.waitpid(child, 0)
        assert os.waitstatus_to_exitcode(status) == 0, f"{name}: {text}"
        return text

    def attach(self, name: str, sandbox: str, more: str = "") -> tuple[str, ...]:
        """A new sandbox on a host's part of the network `ov`: its addresses."""
        sh(f"test -e /run/netns/{sandbox} || ip netns add {sandbox}")
        self.berth(name, f"attach ov {sandbox} {more}")
        found = sh(f"ip -n {sandbox} -o addr show dev eth0 scope global")
        return tuple(re.findall(r"inet6? ([0-9a-f.:]+)/", found))

    def tells(self, name: str) -> str:
        """What a host's tunnel knows."""
        links = f"ip -n {name} -o link show type vxlan | sed 's/^[0-9]*: \\([^:@]*\\).*/\\1/'"
        return sh(
            f"for link in $({links}); do nsenter --net=/run/netns/{name} bridge fdb show dev $link;"
            f" ip -n {name} -4 neigh show dev $link; ip -n {name} -6 neigh show dev $link; done"
        )

    def count(self, name: str) -> Callable[[], int]:
        """Begin to count the tunnels' packets that a host receives; what asks for the number."""
        where = f"nsenter --net=/run/netns/{name} nft"
        sh(
            f"{where} 'table inet counted {{ chain in {{ type filter hook input priority -300;"
            " udp dport { 4789, 14789 } counter; }; }'"
        )

        def packets() -> int:
            return int(re.findall(r"counter packets (\d+)", sh(f"{where} list table inet counted"))[0])

        return packets


def pings(sandbox: str, address: str, *options: str, within: float = 10) -> bool:
    """Whether an address answers before the time is over."""
    end = time.monotonic() + within
    argv = ["nsenter", f"--net=/run/netns/{sandbox}", "ping", "-n", "-c1", "-W1", *options, address]
    while subprocess.run(argv, capture_output=True, check=False).returncode != 0:
        if time.monotonic() > end:
            return False
    return True
