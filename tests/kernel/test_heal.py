"""A firewall that others flush is put back: by the daemon, which is told of it, or by the next reconcile."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path

import pytest

from berth import spec, wire
from berth.client import reachable
from berth.engine.engine import Engine
from berth.kernel.linux import LinuxKernel
from berth.kernel.notices import Notices
from berth.plan import Plan

from .conftest import Host, sh
from .running import until
from .test_daemon import SOCKET, Daemon
from .test_faults import Killed

pytestmark = pytest.mark.timeout(90)

DOCKER = "iptables -N DOCKER-USER; iptables -I FORWARD -j DOCKER-USER; iptables -P FORWARD DROP"
LAN = "link add br0 type bridge\nlink set br0 up\naddr add 192.168.2.2/24 dev br0\nroute add default via 192.168.2.1\n"
#: What somebody does; all of it is undone.
DAMAGE = {
    "everything": "nft flush ruleset",
    "as-nftables.service": "printf 'flush ruleset\\ntable inet theirs { chain a { }; }\\n' | nft -f -",
    "table": "nft delete table inet berth",
    "bypass": "nft delete table netdev $(nft list tables netdev | cut -d' ' -f3 | grep -v berth_rate_)",
    "rate": "nft delete table netdev $(nft list tables netdev | cut -d' ' -f3 | grep berth_rate_)",
    "rate-flushed": "nft flush table netdev $(nft list tables netdev | cut -d' ' -f3 | grep berth_rate_)",
    "table-flushed": "nft flush table inet berth",
    "chain-flushed": "nft flush chain inet berth forward",
    "chain": "nft 'flush chain inet berth output; delete chain inet berth output'",
    "set-flushed": "nft flush set inet berth bridges",
    "map-flushed": "nft flush map inet berth anyport4",
    "element": "nft 'delete element inet berth anyport4 { tcp . 8080 }'",
    "rule": "nft delete rule inet berth postrouting handle"
    " $(nft -a list chain inet berth postrouting | sed -n 's/.*@masquerade4.*handle //p')",
    "rule-more": "nft insert rule inet berth forward drop",
    "docker-user": "iptables -F DOCKER-USER",
}


def ruleset() -> list[str]:
    """All rules of Berth's, and the chains that they are in."""
    listed = json.loads(sh("nft -j list ruleset"))["nftables"]
    text = [json.dumps(item, sort_keys=True) for item in listed if "metainfo" not in item and "theirs" not in str(item)]
    plain = [re.sub(r'"(handle|index|bytes|packets)": \d+', "", line) for line in text]
    # nft 1.0.6 writes whatever it finds in memory as the flag "owner".
    return sorted(line for line in plain if "berth" in line and "berth_steady" not in line)


@pytest.fixture
def engine(host: Host, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Engine]:
    """A NAT network with published ports, and a flat one with a bypass, on a host of Docker's."""
    monkeypatch.setenv("BERTH_STATE", str(tmp_path / "state"))
    host.batch(LAN)
    for name in ("c1", "c2"):
        host.sandbox(name)
    sh(DOCKER)
    engine = wire.engine()
    engine.create_network(spec.network_spec(name="nat", subnets=["10.77.0.0/24", "fd77::/64"]))
    asked = spec.network_spec(name="lan", driver="flat", options=["parent=br0", "bypass=always"])
    engine.create_network(asked)
    ports = ["8080:80", "127.0.0.9:5353:53/udp"]
    engine.attach(spec.attach_request(network="nat", sandbox="c1", ports=ports))
    engine.attach(spec.attach_request(network="lan", sandbox="c2", options=["egress_rate=10mbit"]))
    yield engine
    engine.close()


@pytest.fixture
def daemon(engine: Engine, tmp_path: Path) -> Iterator[Daemon]:
    daemon = Daemon(tmp_path / "state")
    daemon.start()
    assert daemon.ask("/v1/networks", method="GET")[0] == 200  # it has put all in order
    yield daemon
    daemon.end()


@pytest.mark.parametrize("damage", DAMAGE.values(), ids=DAMAGE)
def test_the_daemon_puts_it_back(daemon: Daemon, damage: str) -> None:
    before = ruleset()
    sh(damage)
    if "flush ruleset" in damage:
        sh(f"{DOCKER} || true")  # what Docker does then
    until(lambda: ruleset() == before)


@pytest.mark.parametrize("damage", DAMAGE.values(), ids=DAMAGE)
def test_healing_puts_it_back_and_finds_nothing_more_to_do(engine: Engine, damage: str) -> None:
    before = ruleset()
    sh(damage)
    if "flush ruleset" in damage:
        sh(DOCKER)
    assert engine.heal() and ruleset() == before
    assert not engine.heal() and not engine.reconcile().plan


def transactions(act: Callable[[], object]) -> list[str]:
    """The generations of the ruleset that are told of while something is done."""
    with subprocess.Popen(["nft", "monitor"], stdout=subprocess.PIPE, text=True) as monitor:
        time.sleep(0.5)
        act()
        time.sleep(0.5)
        monitor.terminate()
        assert monitor.stdout is not None
        return [line for line in monitor.stdout if line.startswith("# new generation")]


@pytest.mark.parametrize("how", ["heal", "reconcile"])
def test_what_was_flushed_comes_back_in_one_transaction(engine: Engine, how: str) -> None:
    before = ruleset()
    sh(f"nft flush ruleset; {DOCKER}")
    assert len(transactions(getattr(engine, how))) == 1
    assert ruleset() == before


def test_every_operation_of_a_repair_may_be_the_last(engine: Engine) -> None:
    """The whole is one transaction; should a part of it ever be sent alone, it is finished by the next repair."""
    before = ruleset()
    flush = f"nft flush ruleset; {DOCKER}"
    sh(flush)
    operations = len(engine.heal().ops)
    assert operations > 10 and ruleset() == before
    for stop in range(operations + 1):
        sh(flush)
        if (child := os.fork()) == 0:
            with suppress(BaseException):
                wire.engine(kernel=Killed(stop)).heal()
            os._exit(9)  # it was to be killed
        assert os.WTERMSIG(os.waitpid(child, 0)[1]) == signal.SIGKILL
        engine.heal()
        assert ruleset() == before, f"after {stop} of {operations} operations"


class Cut(LinuxKernel):
    """A kernel that never gets to send."""

    def send(self, plan: Plan) -> None:
        raise KeyboardInterrupt


def test_a_repair_that_dies_leaves_nothing_half_done(engine: Engine) -> None:
    before = ruleset()
    sh(f"nft flush ruleset; {DOCKER}")
    dying = wire.engine(kernel=Cut())
    with pytest.raises(KeyboardInterrupt):
        dying.heal()
    dying.close()
    assert not [line for line in ruleset() if "inet" in line]
    assert engine.heal() and ruleset() == before


def test_a_link_that_is_gone_keeps_nothing_else_from_coming_back(engine: Engine) -> None:
    gone = next(ep for ep in engine.endpoints("lan")).link
    sh(f"nft flush ruleset; ip link del {gone}; {DOCKER}")
    assert engine.heal()
    assert "dport map @port4" in sh("nft list table inet berth") and gone not in sh("nft list ruleset")
    assert not engine.heal()


def test_a_strangers_table_is_left_alone(engine: Engine) -> None:
    sh("nft add table ip theirs; nft 'add chain ip theirs a; add rule ip theirs a counter'")
    before = sh("nft list table ip theirs")
    sh("nft delete table inet berth")
    engine.heal()
    assert sh("nft list table ip theirs") == before


def test_only_others_changes_of_what_berth_relies_on_are_told(engine: Engine) -> None:
    notices = Notices(steady=True)
    sh("nft add table ip theirs; nft 'add chain ip theirs a; add rule ip theirs a counter'; nft delete table ip theirs")
    sh("iptables -N OTHER; iptables -A OTHER -j ACCEPT")
    engine.attach(spec.attach_request(network="nat", sandbox="c2", ifname="eth7", ports=["9090:90"]))  # our own
    assert not notices.pending()
    sh("nft add element inet berth bridges '{ other0 }'")
    assert notices.pending() and not notices.pending()
    sh("iptables -A FORWARD -j OTHER")
    assert notices.pending()
    notices.close()


def test_what_keeps_connections_translated_outlives_a_flush_and_goes_with_the_daemon(daemon: Daemon) -> None:
    def there() -> bool:
        return "inet berth_steady" in sh("nft list tables")

    until(there)
    sh("nft flush ruleset")
    assert there()
    daemon.stop()
    until(lambda: not there())


def test_it_goes_with_the_last_network_too(daemon: Daemon, engine: Engine) -> None:
    api = reachable(SOCKET)
    assert api is not None
    for network, sandbox in (("nat", "c1"), ("lan", "c2")):
        api.detach(network, sandbox)
    assert "inet berth_steady" in sh("nft list tables")
    api.remove_network("nat")
    api.close()
    until(lambda: "inet" not in sh("nft list tables"))


def test_nothing_is_kept_where_berth_translates_nothing(host: Host) -> None:
    sh("nft add table ip theirs")
    notices = Notices(steady=True)
    sh("nft add chain ip theirs a")
    assert not notices.pending()
    assert "berth" not in sh("nft list tables")
    sh("nft add table inet berth")
    assert notices.pending() and "berth_steady" in sh("nft list tables")
    notices.close()


def test_more_than_fits_is_a_change(engine: Engine) -> None:
    notices = Notices(steady=True)
    notices._socket.setsockopt(1, 8, 1)  # SOL_SOCKET, SO_RCVBUF: as small as may be
    elements = ", ".join(f"10.{i >> 8}.{i & 255}.1" for i in range(4000))
    sh("nft 'add table ip theirs; add set ip theirs s { type ipv4_addr; }'")
    Path("/run/many").write_text(f"add element ip theirs s {{ {elements} }}\n")
    sh("nft -f /run/many")
    assert notices.pending()
    notices.close()
