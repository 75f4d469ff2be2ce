"""Beside other firewalls, the real programs: NAT and flat networks go on working, and theirs are untouched."""

from __future__ import annotations

import os
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import pytest
from lab_ground import HOST, HOST6, INTERNET, INTERNET6, LAPTOP, LAPTOP6, Ground

from hosts import firewall_tree
from interop.debian import Debian

pytestmark = [
    pytest.mark.skipif(os.geteuid() != 0, reason="a Debian of one's own needs root"),
    pytest.mark.timeout(240),
]

NAT = "network create --subnet 10.20.0.0/24 --ipv6 --subnet fd20::/64 backend"
FLAT = "network create --driver flat --ipv6 -o parent=br0 lan"
FILTERED = "sysctl -qw net.bridge.bridge-nf-call-iptables={0} net.bridge.bridge-nf-call-ip6tables={0}"
OUT = (INTERNET, INTERNET6, LAPTOP, LAPTOP6)


def until(true: Callable[[], object], seconds: float = 15) -> float:
    """Wait for a condition, which is asked once more when time is up; for how long it took."""
    began = time.monotonic()
    while not true():
        assert time.monotonic() < began + seconds, f"not within {seconds} s"
        time.sleep(0.05)
    return time.monotonic() - began


class Harbour:
    """A lab's host with another firewall, and Berth's networks: backend (api, with a port) and lan (web)."""

    def __init__(self, ground: Ground, debian: Debian) -> None:
        self.ground, self.debian = ground, debian
        self.bus = {"DBUS_SYSTEM_BUS_ADDRESS": f"unix:path={debian.root}/run/dbus/system_bus_socket"}
        self.web: list[str] = []

    def networks(self) -> None:
        """Make them."""
        self.berth(NAT)
        self.ground.sandbox("api")
        self.berth("attach backend api -p 8080:80")
        on = FILTERED.format(1)
        self.ground.until_end(on, FILTERED.format(0))
        self.berth(FLAT)
        self.ground.sandbox("web")
        self.berth("attach lan web")
        told = next(ep for ep in self.ground.told("endpoint ls") if ep["name"] == "web")
        self.web = [address.partition("/")[0] for address in told["addresses"]]

    def berth(self, line: str) -> None:
        done = self.ground.lab.run("host", ["berth", *line.split()], env=self.bus)
        assert done.returncode == 0, done.stderr

    def clear(self) -> None:
        """Take the networks away, while their firewall is still there."""
        for line in ("detach backend api", "detach lan web", "network rm backend", "network rm lan"):
            self.berth(line)

    @contextmanager
    def daemon(self) -> Iterator[None]:
        """Have Berth's daemon run."""
        with self.ground.lab.popen("host", ["berth", "daemon"], env=self.bus, stdout=subprocess.DEVNULL) as process:
            try:
                until(
                    lambda: self.ground.lab.run("host", ["sh", "-c", 'test -S "$BERTH_RUN/berth.sock"']).returncode == 0
                )
                yield
            finally:
                process.kill()

    def failures(self, wait: int = 1) -> list[tuple[str, str]]:
        """The ways that do not work: out of both networks, into the flat one, and to the published port."""
        ways = [("api", address) for address in OUT] + [("web", address) for address in OUT]
        ways += [(node, address) for node in ("laptop", "router") for address in self.web]
        missing = self.ground.pings(*ways, wait=wait)
        with self.ground.serving("api"):
            answers = self.ground.ask("laptop", HOST, HOST6, port=8080)
        return missing + [("laptop", to) for to, said in zip((HOST, HOST6), answers, strict=True) if not said]

    def works(self) -> bool:
        """Whether all ways do."""
        return not self.failures()


@pytest.fixture
def harbour(ground: Ground) -> Iterator[Harbour]:
    with Debian(ground.lab, "host", {}, firewall_tree()) as debian:
        yield Harbour(ground, debian)


# --- firewalld ------------------------------------------------------------------------------------------


class Firewalld:
    """firewalld with its bus, in a Debian."""

    def __init__(self, debian: Debian) -> None:
        self.debian = debian
        debian.run(["mount", "-o", "remount,bind,ro", "/sys"], check=True)
        debian.popen(["dbus-daemon", "--system", "--nofork", "--nopidfile"], stderr=subprocess.DEVNULL)
        until(lambda: debian.run(["test", "-S", "/run/dbus/system_bus_socket"]).returncode == 0)
        self.start()

    def start(self) -> None:
        self.debian.popen(["sh", "-c", "exec firewalld --nofork --nopid >/tmp/log 2>&1"])
        until(lambda: self.debian.run(["firewall-cmd", "--state"]).returncode == 0, 30)

    def stop(self) -> None:
        self.debian.run(["sh", "-c", "kill $(pgrep -x firewalld)"], check=True)
        until(lambda: self.debian.run(["pgrep", "-x", "firewalld"]).returncode != 0)

    def cmd(self, *words: str) -> str:
        return self.debian.run(["firewall-cmd", *words], check=True).stdout


@pytest.fixture
def firewalld(harbour: Harbour) -> Iterator[Firewalld]:
    running = Firewalld(harbour.debian)
    try:
        yield running
    except BaseException as error:
        error.add_note(harbour.debian.run(["cat", "/tmp/log"]).stdout)
        raise
    finally:
        running.stop()  # it takes its table away


def test_firewalld_forwards_what_it_would_reject(harbour: Harbour, firewalld: Firewalld) -> None:
    before = firewalld.cmd("--list-all-zones")
    harbour.networks()
    bridge = firewalld.cmd("--zone=trusted", "--list-interfaces").strip()
    assert harbour.failures() == []
    firewalld.cmd("--zone=trusted", f"--remove-interface={bridge}")
    lost = harbour.failures()
    assert [way for way in lost if way[0] == "api"] == [("api", address) for address in OUT], "which this is for"
    harbour.berth("reconcile")
    assert harbour.failures() == []
    harbour.clear()
    assert firewalld.cmd("--list-all-zones") == before


def test_the_zone_that_an_operator_chose_stays(harbour: Harbour, firewalld: Firewalld) -> None:
    harbour.networks()
    bridge = firewalld.cmd("--zone=trusted", "--list-interfaces").strip()
    firewalld.cmd("--zone=internal", f"--change-interface={bridge}")
    harbour.berth("reconcile")
    assert firewalld.cmd(f"--get-zone-of-interface={bridge}").strip() == "internal"
    harbour.clear()


@pytest.mark.parametrize("how", ["reload", "complete-reload", "restart"])
def test_the_daemon_tells_firewalld_again(harbour: Harbour, firewalld: Firewalld, how: str) -> None:
    with harbour.daemon():
        harbour.networks()
        assert harbour.failures() == []
        if how == "restart":
            firewalld.stop()
            firewalld.start()
        else:
            firewalld.cmd(f"--{how}")
        took = until(lambda: firewalld.cmd("--zone=trusted", "--list-interfaces").strip())
        print(f"{how}: {took:.2f} s")
        assert harbour.failures() == []
        harbour.clear()


def test_a_firewalld_that_does_not_answer_is_named(harbour: Harbour, firewalld: Firewalld) -> None:
    bus = {"DBUS_SYSTEM_BUS_ADDRESS": "unix:path=/nowhere"}
    done = harbour.ground.lab.run("host", ["berth", *NAT.split()], env=bus)
    assert done.returncode == 1 and done.stderr.count("\n") == 1, done
    assert "firewalld does not answer on D-Bus" in done.stderr
    assert harbour.ground.told("network ls") == []
