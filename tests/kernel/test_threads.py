"""A thread in a sandbox takes nothing from the others: what they ask of the host stays the host's."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import TypeVar

import pytest

from berth import client
from berth.kernel import clients, netns, xtables
from berth.kernel.netns import inside

from .conftest import C1, C2, Host, sh

T = TypeVar("T")
#: A daemon's part: it listens, and each of its threads is then where it is told to be, "" for where it began.
LISTENER = """
import socket, sys, threading
from berth.kernel.netns import inside
path, *places = sys.argv[1:]
listening = socket.socket(socket.AF_UNIX)
listening.bind(path)
listening.listen()
there = threading.Barrier(len(places))
def stay(place):
    with inside(place):
        there.wait()
        if place == places[0]:
            print("there", flush=True)
        sys.stdin.read()
for place in places[1:]:
    threading.Thread(target=stay, args=(place,)).start()
stay(places[0])
"""


@contextmanager
def main_thread_away(host: Host) -> Iterator[Callable[[Callable[[], T]], T]]:
    """How to call something in a thread at home, while the main thread is in a sandbox."""
    host.sandbox("c1")
    with ThreadPoolExecutor(1) as pool:
        pool.submit(int).result()  # so that the thread begins at home
        with inside(C1):
            yield lambda call: pool.submit(call).result()


def test_tables_of_the_legacy_iptables_are_the_threads_own(host: Host) -> None:
    sh("iptables-legacy -w -N DOCKER")
    with main_thread_away(host) as asked:
        assert asked(lambda: xtables.loaded("ip"))
        assert not xtables.loaded("ip")  # in the sandbox there are none
        assert ["-N", "DOCKER"] in asked(lambda: xtables.listed("ip"))


def test_dhcp_clients_are_those_of_the_threads_namespace(host: Host) -> None:
    argv = ["udhcpc", "60"]
    with subprocess.Popen(argv, executable="/bin/sleep") as own:
        try:
            with main_thread_away(host) as asked:
                assert [each.pid for each in asked(lambda: list(clients.processes(("udhcpc",))))] == [own.pid]
                assert list(clients.processes(("udhcpc",))) == []
        finally:
            own.kill()


def test_home_is_where_the_thread_is_that_asks_first(host: Host) -> None:
    host.sandbox("c2")
    with main_thread_away(host) as asked:
        way_back = netns._home(os.getpid())  # the main thread's, which would keep this host for good

        def visited() -> tuple[str, str]:
            before = netns.who()
            netns._home.cache_clear()
            with inside(C2):
                pass
            return before, netns.who()

        before, after = asked(visited)
        assert after == before != netns.who()
    os.close(way_back)


@pytest.mark.parametrize(
    ("threads", "found"),
    [([""], True), ([C1, ""], True), (["", C1], True), ([C1], False), ([C1, C2], False)],
    ids=["home", "main-away", "other-away", "away", "all-away"],
)
def test_a_daemon_is_found_where_one_of_its_threads_is(
    host: Host, tmp_path: Path, threads: list[str], found: bool
) -> None:
    for name in ("c1", "c2"):
        host.sandbox(name)
    path, pipe = tmp_path / "berth.sock", subprocess.PIPE
    argv = [sys.executable, "-c", LISTENER, str(path), *threads]
    with subprocess.Popen(argv, stdin=pipe, stdout=pipe, text=True) as listener:
        assert listener.stdout is not None
        assert listener.stdout.readline() == "there\n"
        assert (client.reachable(path) is not None) is found
