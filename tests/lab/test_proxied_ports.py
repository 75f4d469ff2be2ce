"""Published ports that the proxy passes on, for networks of a daemon's."""

from __future__ import annotations

import re
import subprocess
import time
from collections.abc import Callable, Iterator

import pytest
from lab_ground import HOST, HOST6, LAPTOP6, NULL, PIPE, Ground

V4 = "network create --subnet 10.20.0.0/24 --gateway 10.20.0.1"
BOTH = f"{V4} --ipv6 --subnet fd20::/64 --gateway fd20::1"


@pytest.fixture(autouse=True)
def daemon(ground: Ground) -> Iterator[None]:
    """A daemon on the lab's host, with its proxy; both are gone at the end."""
    with ground.lab.popen("host", ["berth", "daemon"], stdin=NULL, stdout=PIPE, stderr=PIPE, text=True) as process:
        try:
            until(lambda: proxies(ground) != [])
            yield
        finally:
            process.terminate()
            process.communicate(timeout=30)
    assert proxies(ground) == []


def until(ready: Callable[[], bool], within: float = 10) -> None:
    give_up = time.monotonic() + within
    while not ready():
        assert time.monotonic() < give_up, "it does not come about"
        time.sleep(0.05)


def proxies(ground: Ground) -> list[str]:
    """The proxies of the host, by pid."""
    held = ground.sh('cat "$BERTH_RUN"/proxy.lock 2>/dev/null || true').split()
    return [pid for pid in held if "berth-proxy" in ground.sh(f"cat /proc/{pid}/comm 2>/dev/null || true")]


def listening(ground: Ground, kind: str = "tcp") -> set[str]:
    """Where the proxy waits."""
    told = ground.sh(f"ss -Hln{kind[0]}p | grep berth-proxy || true")
    return set(re.findall(r"(\S+:\d+)\s+\S+:\*", told))


def test_ipv6_clients_reach_a_container_that_has_ipv4_only(ground: Ground) -> None:
    ground.berth(f"{V4} backend")
    ground.container("backend", "api", "-p 8080:80 -p 5353:80/udp")
    until(lambda: listening(ground) == {"[::]:8080"} and listening(ground, "udp") == {"[::]:5353"})
    with ground.serving("api"):
        for proto, port in (("tcp", 8080), ("udp", 5353)):
            assert ground.ask("host", "::1", HOST6, port=port, proto=proto) == ["10.20.0.1"] * 2
            assert ground.ask("laptop", HOST6, port=port, proto=proto) == ["10.20.0.1"]
            assert ground.ask("laptop", HOST, port=port, proto=proto) == ["192.168.2.50"], "the kernel's own way"


def test_the_hosts_own_loopback_address_and_nothing_else_where_there_is_ipv6(ground: Ground) -> None:
    ground.berth(f"{BOTH} backend")
    ground.container("backend", "api", "-p 8080:80 -p 8081:80/udp")
    until(lambda: listening(ground) == {"[::1]:8080"} and listening(ground, "udp") == {"[::1]:8081"})
    with ground.serving("api"):
        assert ground.ask("host", "::1", port=8080) == ["fd20::1"]
        assert ground.ask("host", "::1", port=8081, proto="udp") == ["fd20::1"]
        assert ground.ask("laptop", HOST6, port=8080) == [LAPTOP6], "the kernel's own way"


def test_always_and_never(ground: Ground) -> None:
    ground.berth(f"{BOTH} -o proxy=always one")
    ground.berth("network create --subnet 10.30.0.0/24 -o proxy=never two")
    ground.container("one", "api", "-p 8080:80 -p 9000-9009:9000-9009")
    ground.container("two", "web", "-p 8090:80")
    want = {f"{ip}:{port}" for ip in ("0.0.0.0", "[::]") for port in (8080, *range(9000, 9010))}
    until(lambda: listening(ground) == want)
    with ground.serving("api", "web"), ground.serving("api", port=9004):
        for port in (8080, 9004):
            assert ground.ask("laptop", HOST, HOST6, port=port) == ["10.20.0.1", "fd20::1"]
            assert ground.ask("host", "127.0.0.1", "::1", port=port) == ["10.20.0.1", "fd20::1"]
        assert ground.ask("host", "127.0.0.1", "::1", port=8090) == ["10.30.0.1", ""]


def test_a_port_that_is_given_to_another_is_free_at_once(ground: Ground) -> None:
    """The proxy may not have heard yet that it is not to wait there any more."""
    ground.berth(f"{V4} backend")
    for _ in range(5):
        ground.container("backend", "api", "-p 8080:80")
        until(lambda: listening(ground) == {"[::]:8080"})
        ground.berth("detach backend api")
        ground.attach("backend", "api", "-p 8080:80")
        ground.berth("port unpublish api -p 8080:80")
        ground.berth("port publish api -p 8080:80")
        ground.berth("detach backend api")
        ground.sh("ip netns delete api")
        ground.forget("api")
    until(lambda: listening(ground) == set())


def test_somebody_elses_port_is_left_alone_and_had_when_it_is_free(ground: Ground) -> None:
    ground.berth(f"{BOTH} backend")
    squat = "import socket; s = socket.create_server(('::1', 8080), family=socket.AF_INET6); input()"
    with ground.lab.popen("host", ["python3", "-c", squat], stdin=PIPE) as squatter:
        until(lambda: "8080" in ground.sh("ss -Hlnt"))
        ground.container("backend", "api", "-p 8080:80 -p 8081:80")
        until(lambda: listening(ground) == {"[::1]:8081"})
        squatter.communicate(b"\n")
    until(lambda: listening(ground) == {"[::1]:8080", "[::1]:8081"})


def test_a_killed_proxy_is_back_and_the_kernels_own_connections_go_on(ground: Ground) -> None:
    ground.berth(f"{V4} backend")
    ground.container("backend", "api", "-p 8080:80")
    (pid,) = proxies(ground)
    with ground.serving("api"):
        until(lambda: ground.ask("host", "::1", port=8080) == ["10.20.0.1"])
        ground.sh(f"kill -9 {pid}")
        assert ground.ask("laptop", HOST, port=8080) == ["192.168.2.50"]
        until(lambda: ground.ask("host", "::1", port=8080) == ["10.20.0.1"])
    assert proxies(ground) not in ([], [pid])


def test_a_flushed_firewall_ends_no_proxied_connection(ground: Ground) -> None:
    ground.berth(f"{V4} backend")
    ground.container("backend", "api", "-p 8080:80")
    serve = "import socket; s = socket.create_server(('', 80)); c, _ = s.accept()\nwhile d := c.recv(99): c.send(d)"
    talk = (
        "import socket, sys; s = socket.create_connection(('::1', 8080))\n"
        "for line in sys.stdin: s.send(line.encode()); print(s.recv(99).decode(), end='', flush=True)"
    )
    with ground.lab.popen("api", ["python3", "-c", serve], stdin=NULL, stdout=NULL) as server:
        try:
            until(lambda: "80" in ground.sh("ss -Hlnt | grep -o ':80 ' || true", "api"))
            until(lambda: listening(ground) == {"[::]:8080"})
            with ground.lab.popen("host", ["python3", "-c", talk], stdin=PIPE, stdout=PIPE, text=True) as client:
                try:
                    assert said(client, "before") == "before"
                    ground.sh("nft flush ruleset")
                    until(lambda: "proxied64" in ground.sh("nft list ruleset"))
                    time.sleep(0.3)  # for the proxy to have looked
                    assert said(client, "after") == "after"
                finally:
                    client.kill()
        finally:
            server.kill()


def said(client: subprocess.Popen[str], line: str) -> str:
    """What comes back of a line."""
    assert client.stdin is not None and client.stdout is not None
    client.stdin.write(f"{line}\n")
    client.stdin.flush()
    return client.stdout.readline().strip()
