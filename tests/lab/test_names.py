"""Names, asked for with real queries in a lab whose router has a DNS server of its own."""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from lab_ground import LAPTOP, NULL, ROUTER, Ground

pytestmark = pytest.mark.timeout(90)

ASK = (sys.executable, str(Path(__file__).with_name("lab_asker.py")))
RESOLVER = "127.0.0.11"
PATIENCE = 10


def until(true: Callable[[], bool]) -> None:
    deadline = time.monotonic() + PATIENCE
    while not true():
        assert time.monotonic() < deadline, "it never came true"
        time.sleep(0.1)


@contextmanager
def running(ground: Ground) -> Iterator[None]:
    """A daemon for the length of a block."""
    with ground.lab.popen("host", ["berth", "daemon"], stdin=NULL, stdout=NULL, stderr=NULL) as process:
        try:
            until(lambda: ground.sh("ls $BERTH_RUN").find("berth.sock") >= 0)
            yield
        finally:
            process.terminate()
            process.wait(PATIENCE)


@pytest.fixture
def daemon(ground: Ground) -> Iterator[None]:
    with running(ground):
        yield


def dig(ground: Ground, node: str, *words: str, at: str = RESOLVER) -> list[str]:
    """What dig(1) prints in short."""
    argv = ["dig", f"@{at}", "+short", "+tries=1", "+time=5", *words]
    return ground.lab.run(node, argv, check=True).stdout.split()


def code(ground: Ground, node: str, *words: str, at: str = RESOLVER) -> str:
    """The code of an answer."""
    said = ground.lab.run(node, ["dig", f"@{at}", "+tries=1", "+time=5", *words], check=True).stdout
    return said.partition("status: ")[2].partition(",")[0]


def test_between_containers(ground: Ground, daemon: None) -> None:
    for line in ("one --ipv6", "two -o allow_from=one", "three -o host_access=false"):
        ground.berth(f"network create {line}")
    web = ground.container("one", "web", "--alias www")
    web2 = ground.container("one", "web2", "--alias www")
    db = ground.container("two", "db")
    far = ground.container("three", "far")
    assert dig(ground, "web2", "WEB") == dig(ground, "web2", "web.one") == dig(ground, "web2", "+tcp", "web") == [web]
    assert {tuple(dig(ground, "web", "www")) for _ in range(4)} == {(web, web2), (web2, web)}
    assert dig(ground, "web", "-x", web2) == ["web2.one."]
    (web6,) = dig(ground, "web", "web2", "AAAA")
    assert dig(ground, "web", "-x", web6) == ["web2.one."]
    assert code(ground, "db", "db", "AAAA") == "NOERROR"
    assert dig(ground, "web", "db") == [db]  # let in
    assert code(ground, "db", "web") == code(ground, "far", "db") == "NXDOMAIN"
    assert dig(ground, "db", "web.one") == dig(ground, "far", "db.two") == []
    assert dig(ground, "far", "far", "laptop.lab") == [far, LAPTOP]  # which does not reach the host itself
    (ident,) = [ep["id"] for ep in ground.told("endpoint ls") if ep["name"] == "db"]
    assert dig(ground, "web", ident[:12]) == [db]
    ground.berth("detach one web2")
    assert dig(ground, "web", "www") == [web]


def test_from_the_host(ground: Ground, daemon: None) -> None:
    ground.berth("network create --subnet 10.61.0.0/24 --gateway 10.61.0.1 back")
    ground.berth("network create --subnet 10.62.0.0/24 --gateway 10.62.0.1 other")
    web = ground.container("back", "web")
    ground.container("other", "stranger")
    until(lambda: dig(ground, "host", "web", at="10.61.0.1") == [web])
    assert dig(ground, "web", "web", at="10.61.0.1") == [web]
    assert ground.berth("resolve web").split() == json.loads(ground.berth("resolve --json web.back")) == [web]
    assert ground.tried("resolve --network other web").returncode == 1
    # Who is on another network gets nothing there.
    silent = ground.lab.run("stranger", ["dig", "@10.61.0.1", "+tries=1", "+time=1", "web"])
    assert silent.returncode == 9, silent


def test_others_are_asked_for_the_rest(ground: Ground, daemon: None) -> None:
    ground.berth("network create out")
    ground.berth("network create --internal shut")
    ground.berth(f"network create -o dns=192.168.2.77,{ROUTER} -o domain=home failing")
    for net, name in (("out", "a"), ("shut", "b"), ("failing", "c")):
        ground.container(net, name)
    for how in ("+notcp", "+tcp", "+noedns", "+bufsize=4096"):
        assert dig(ground, "a", how, "laptop.lab") == [LAPTOP]
    assert code(ground, "a", "nobody.lab") == "NXDOMAIN"
    assert code(ground, "b", "laptop.lab") == "REFUSED"
    assert dig(ground, "b", "b") != []
    assert dig(ground, "c", "laptop.lab") == [LAPTOP]  # by the second server: the first is not there
    assert dig(ground, "c", "c.home") == dig(ground, "c", "c")


def test_what_was_said_is_remembered(ground: Ground, daemon: None) -> None:
    """Of a server that is gone by the second time; one datagram too small for it is cut off, and asked for by TCP."""
    ground.berth("network create -o dns=127.0.0.9 out")
    ground.container("out", "a")
    lines = "\n".join(f"host-record=many.lab,10.1.0.{n}" for n in range(1, 120))
    work = ground.sh("mktemp -d").strip()
    ground.sh(f"cat > {work}/conf <<E\n{lines}\naddress=/short.lab/10.3.3.3\nE")
    options = "--no-hosts --no-resolv --bind-interfaces --listen-address=127.0.0.9 --local-ttl=300 --user= --group="
    ground.until_end(f"dnsmasq -C {work}/conf {options} --pid-file={work}/pid", f"kill $(cat {work}/pid); rm -r {work}")
    assert dig(ground, "a", "short.lab") == ["10.3.3.3"]
    assert len(dig(ground, "a", "+noedns", "+ignore", "many.lab")) < 119
    assert len(dig(ground, "a", "+noedns", "many.lab")) == 119
    ground.sh(f"kill $(cat {work}/pid)")
    until(lambda: code(ground, "a", f"{time.monotonic_ns()}.lab") == "SERVFAIL")
    assert dig(ground, "a", "SHORT.lab") == ["10.3.3.3"]


def test_the_daemon_comes_and_goes(ground: Ground) -> None:
    ground.berth("network create n")
    web = ground.container("n", "web")  # before there is a daemon
    with running(ground):
        until(lambda: dig_or_none(ground, "web", "web") == [web])
    assert dig_or_none(ground, "web", "web") is None
    with running(ground):
        until(lambda: dig_or_none(ground, "web", "web") == [web])
        # A sandbox that goes without a word is not kept by the sockets in it.
        ground.sh("ip netns delete web")
        ground.forget("web")
        until(lambda: "bv" not in ground.sh("ip -o link show type veth"))


def dig_or_none(ground: Ground, node: str, name: str) -> list[str] | None:
    done = ground.lab.run(node, ["dig", f"@{RESOLVER}", "+short", "+tries=1", "+time=1", name])
    return done.stdout.split() if done.returncode == 0 else None


def test_run_has_the_resolver(ground: Ground, daemon: None) -> None:
    ground.berth("network create -o domain=home n")
    web = ground.container("n", "web")
    said = ground.berth("run --network n -- sh -c 'cat /etc/resolv.conf; getent ahostsv4 web; getent ahostsv4 laptop'")
    assert "nameserver 127.0.0.11\nsearch home lab\noptions ndots:0\n" in said
    assert web in said and LAPTOP in said
    ground.berth("network create -o names=false quiet")
    assert "127.0.0.11" not in ground.berth("run --network quiet -- cat /etc/resolv.conf")


def test_damaged_queries_by_the_hundred_thousand(ground: Ground, daemon: None) -> None:
    ground.berth("network create --internal n")
    web = ground.container("n", "web")
    assert ground.lab.run("web", [*ASK, RESOLVER, "100000"], check=True, timeout=60)
    assert dig(ground, "web", "web") == dig(ground, "web", "+tcp", "web") == [web]
