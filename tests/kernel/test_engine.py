"""The verbs on the real kernel: many at once, order after a crash or a reboot, and what is not Berth's."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from berth import spec, wire
from berth.engine.engine import Engine
from berth.errors import Exhausted, Taken

from .conftest import Host


@pytest.fixture
def state(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("BERTH_STATE", str(tmp_path))
    return tmp_path


@pytest.fixture
def engine(host: Host, state: Path) -> Iterator[Engine]:
    engine = wire.engine()
    yield engine
    engine.close()


def make(engine: Engine, name: str = "nat", **asked: object) -> None:
    asked.setdefault("subnets", ["10.77.0.0/24"])
    engine.create_network(spec.network_spec(name=name, **asked))  # type: ignore[arg-type]


def plug(engine: Engine, sandbox: str, network: str = "nat", **asked: object) -> list[str]:
    request = spec.attach_request(network=network, sandbox=sandbox, **asked)  # type: ignore[arg-type]
    return [str(address) for address in engine.attach(request).value.addresses]


def links() -> set[str]:
    out = subprocess.run(["ip", "-br", "link"], check=True, capture_output=True, text=True).stdout
    return {line.split()[0].split("@")[0] for line in out.splitlines()}


def ruleset() -> str:
    return subprocess.run(["nft", "list", "ruleset"], check=True, capture_output=True, text=True).stdout


PROCESSES, EACH = 8, 12

_MANY = """
import sys
from berth import spec, wire
engine = wire.engine()
for name in sys.argv[1:]:
    print(engine.attach(spec.attach_request(network="nat", sandbox=name)).value.addresses[0].ip)
engine.close()
"""


def test_eight_processes_at_once_get_distinct_addresses(host: Host, engine: Engine) -> None:
    make(engine)
    names = [f"s{number}" for number in range(PROCESSES * EACH)]
    host.batch("".join(f"netns add {name}\n" for name in names))
    started = [
        subprocess.Popen([sys.executable, "-c", _MANY, *names[first::PROCESSES]], stdout=subprocess.PIPE, text=True)
        for first in range(PROCESSES)
    ]
    answers = [process.communicate(timeout=60)[0].split() for process in started]
    assert all(process.returncode == 0 for process in started)
    given = [address for answer in answers for address in answer]
    assert len(set(given)) == PROCESSES * EACH
    assert sorted(str(a.ip) for ep in engine.endpoints() for a in ep.addresses) == sorted(given)
    assert len([name for name in links() if name.startswith("bv")]) == PROCESSES * EACH


def test_a_sandbox_that_is_gone_gives_its_address_back(host: Host, engine: Engine) -> None:
    make(engine, subnets=["10.77.0.0/30"])  # room for one
    host.sandbox("c1")
    plug(engine, "c1")
    host.sandbox("c2")
    with pytest.raises(Exhausted):
        plug(engine, "c2")
    host.batch("netns del c1\n")
    assert [line.split(":")[0] for line in engine.reconcile().value] == ["endpoint c1"]
    assert plug(engine, "c2") == ["10.77.0.2/30"]


def test_a_sandbox_of_the_same_name_is_another_one(host: Host, engine: Engine) -> None:
    make(engine)
    host.sandbox("c1")
    plug(engine, "c1")
    host.batch("netns del c1\nnetns add c1\n")
    assert len(engine.reconcile().value) == 1
    assert plug(engine, "c1") == ["10.77.0.3/24"]  # not .2: a freed address is not used at once


def test_after_a_reboot_networks_are_back_and_endpoints_forgotten(host: Host, engine: Engine) -> None:
    make(engine, ipv6=True)
    host.sandbox("c1")
    plug(engine, "c1", ports=["8080:80"])
    published = re.compile(r"\b8080\b")  # a word of its own: digits of a bridge's name may be the same
    assert published.search(ruleset())
    before = links() - {link for link in links() if link.startswith("bv")}
    bridge = engine.network("nat").bridge
    host.batch(f"netns del c1\nlink del {bridge}\n")
    subprocess.run(["nft", "flush", "ruleset"], check=True)
    assert engine.reconcile().value
    assert links() == before
    assert f'"{bridge}"' in ruleset() and not published.search(ruleset())
    assert engine.endpoints() == []
    assert not engine.reconcile().plan


@pytest.mark.parametrize(
    "damage",
    [
        "nft flush ruleset",
        "nft delete table inet berth",
        "nft insert rule inet berth forward drop",
        "nft flush chain inet berth postrouting",
        "nft 'delete element inet berth bridges { \"%(bridge)s\" }'",
        "nft 'add element inet berth internal { \"%(bridge)s\" }'",
        "ip link set %(bridge)s down",
        "ip link set %(bridge)s mtu 1300",
        "ip link set %(bridge)s type bridge stp_state 1",
        "ip addr flush dev %(bridge)s",
        "ip link set %(cable)s nomaster",
        "ip link set %(cable)s down",
        "ip link del %(cable)s",
        "ip -n c1 link set eth0 down",
        "ip -n c1 addr del 10.77.0.2/24 dev eth0",
        "ip -n c1 route del default",
        "sysctl -w net.ipv4.ip_forward=0",
    ],
)
def test_reconcile_mends(host: Host, engine: Engine, damage: str) -> None:
    make(engine)
    host.sandbox("c1")
    host.sandbox("c2")
    plug(engine, "c1", ports=["8080:80"])
    plug(engine, "c2")
    names = {"bridge": engine.network("nat").bridge, "cable": engine.endpoints()[0].link}
    subprocess.run(["sh", "-c", damage % names], check=True)
    plan = engine.reconcile().plan
    assert plan.ops
    assert not engine.reconcile().plan
    enter = ["nsenter", "--net=/run/netns/c1", "ping", "-c1", "-W2"]
    for address in ("10.77.0.3", "10.77.0.1"):
        subprocess.run([*enter, address], check=True, stdout=subprocess.DEVNULL)


def test_reconcile_removes_what_has_the_mark_and_nothing_else(host: Host, engine: Engine) -> None:
    make(engine)
    host.batch(
        "link add stray type bridge\nlink set stray alias berth:nobody\n"
        "link add lost type veth peer name lost2\nlink set lost alias berth:nobody\n"
        "link add br7 type bridge\naddr add 10.99.0.1/24 dev br7\nlink set br7 alias not-berth:1\n"
    )
    subprocess.run(["nft", "add", "table", "inet", "mine"], check=True)
    engine.reconcile()
    assert {"stray", "lost", "lost2"}.isdisjoint(links())
    assert "br7" in links() and "table inet mine" in ruleset()
    assert [a["local"] for a in host.ip("addr", "show", "br7")[0]["addr_info"]] == ["10.99.0.1"]


def test_a_foreign_table_of_our_name_is_left_alone(host: Host, engine: Engine) -> None:
    subprocess.run(["nft", "add table inet berth { chain c { accept; }; }"], check=True)
    before = ruleset()
    with pytest.raises(Taken, match="berth"):
        make(engine)
    assert ruleset() == before and list(engine.networks()) == [] and links() == {"lo"}


def test_a_full_bridge_says_so_and_leaves_nothing(host: Host, engine: Engine) -> None:
    ports = 1022
    host.batch(
        "link add br0 type bridge\nlink set br0 up\naddr add 192.168.2.2/24 dev br0\n"
        + "".join(f"link add p{n} type veth peer name q{n}\nlink set p{n} master br0\n" for n in range(ports))
    )
    make(engine, "lan", driver="flat", options=["parent=br0"], subnets=[], gateways=["192.168.2.1"])
    host.sandbox("c1")
    host.sandbox("c2")
    plug(engine, "c1", "lan")
    before = links()
    with pytest.raises(Exhausted, match="1,023"):
        plug(engine, "c2", "lan")
    assert links() == before
    assert [ep.name for ep in engine.endpoints()] == ["c1"]
    assert host.ip("link", ns="/run/netns/c2") == [] or len(host.ip("link", ns="/run/netns/c2")) == 1


def test_one_process_at_a_time(host: Host, engine: Engine, state: Path) -> None:
    """A change waits for the lock, which the kernel frees when its holder dies."""
    import fcntl

    holder = os.open(state / "berth.lock", os.O_RDWR)
    fcntl.flock(holder, fcntl.LOCK_EX)
    waiting = subprocess.Popen([sys.executable, "-c", "from berth import wire; wire.engine().reconcile()"])
    with pytest.raises(subprocess.TimeoutExpired):
        waiting.wait(timeout=1)
    os.close(holder)
    assert waiting.wait(timeout=10) == 0
