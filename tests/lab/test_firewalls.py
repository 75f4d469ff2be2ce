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
from trees import cache

pytestmark = [
    pytest.mark.skipif(os.geteuid() != 0, reason="a Debian of one's own needs root"),
    pytest.mark.timeout(240 if (cache() / "bookworm-firewalls").exists() else 900),  # it is made by whoever is first
]

NAT = "network create --subnet 10.20.0.0/24 --ipv6 --subnet fd20::/64 backend"
FLAT = "network create --driver flat --ipv6 -o parent=br0 lan"
FILTERED = "sysctl -qw net.bridge.bridge-nf-call-iptables={0} net.bridge.bridge-nf-call-ip6tables={0}"
TCP = (f"{LAPTOP}:80", f"{LAPTOP6}:80")
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
        with self.ground.serving("api", "web", "laptop"):  # there are firewalls that let pings through
            for node, addresses, port in (
                ("api", (LAPTOP, LAPTOP6), 80),
                ("web", (LAPTOP, LAPTOP6), 80),
                ("laptop", self.web, 80),
                ("laptop", (HOST, HOST6), 8080),
            ):
                answers = self.ground.ask(node, *addresses, port=port)
                missing += [(node, f"{to}:{port}") for to, said in zip(addresses, answers, strict=True) if not said]
        return missing

    def works(self) -> bool:
        """Whether all ways do."""
        return not self.failures()


@pytest.fixture
def harbour(ground: Ground) -> Iterator[Harbour]:
    with Debian(ground.lab, "host", {}, firewall_tree()) as debian:
        yield Harbour(ground, debian)
        ground.sh("nft flush ruleset")  # ufw leaves its chains, and the policy DROP while it is on


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
    lost = [way for way in harbour.failures() if way[0] == "api"]
    assert lost == [("api", address) for address in (*OUT, *TCP)], "which this is for"
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


# --- ufw ------------------------------------------------------------------------------------------------


def test_ufw_does_not_stop_what_is_berths(harbour: Harbour) -> None:
    """Its default is DROP for what is forwarded; its own rules and chains are as they would be without Berth."""
    harbour.networks()
    with harbour.daemon():
        ufw(harbour, "--force", "enable")
        until(harbour.works)
        ufw(harbour, "allow", "22/tcp")
        ufw(harbour, "reload")
        until(harbour.works)
        assert any("berth:in brt" in line for line in forward(harbour)), "ufw would have stopped it"
        ufw(harbour, "disable")
        until(harbour.works)
        ufw(harbour, "--force", "enable")
        until(harbour.works)
        harbour.clear()
    assert not any("berth" in line for line in forward(harbour))


def test_what_ufw_drops_without_berths_rules(harbour: Harbour) -> None:
    ufw(harbour, "--force", "enable")
    before = forward(harbour)
    harbour.networks()
    assert harbour.failures() == []
    for tool in ("iptables-nft", "ip6tables-nft"):
        harbour.ground.sh(f"{tool} -D FORWARD 1; {tool} -D FORWARD 1")
    assert forward(harbour) == before
    assert [way for way in harbour.failures() if way[0] == "api"] == [("api", address) for address in TCP]
    harbour.berth("reconcile")
    assert harbour.failures() == []
    harbour.clear()
    assert forward(harbour) == before


def ufw(harbour: Harbour, *words: str) -> None:
    harbour.debian.run(["ufw", *words], check=True)


def forward(harbour: Harbour) -> list[str]:
    return harbour.ground.sh("iptables-nft -S FORWARD; ip6tables-nft -S FORWARD").splitlines()


# --- iptables-legacy ------------------------------------------------------------------------------------

LEGACY = ("iptables-legacy", "ip6tables-legacy")
STOPS = {
    "policy": "{0} -P FORWARD DROP; {0} -A FORWARD -s {1} -j ACCEPT",
    "reject": "{0} -A FORWARD -s {1} -j ACCEPT; {0} -A FORWARD -j REJECT",
    "docker": "{0} -N DOCKER-USER; {0} -A DOCKER-USER -j RETURN; {0} -I FORWARD -j DOCKER-USER; {0} -P FORWARD DROP",
}


@pytest.mark.parametrize("stop", STOPS.values(), ids=STOPS)
def test_the_legacy_tables_let_a_nat_network_through(ground: Ground, stop: str) -> None:
    def rules() -> str:
        return ground.sh("iptables-legacy -S; ip6tables-legacy -S")

    for tool, source in zip(LEGACY, ("198.51.100.7", "2001:db8:ffff::7"), strict=True):
        undo = f"{tool} -P FORWARD ACCEPT; {tool} -F; {tool} -X"
        ground.until_end(stop.format(tool, source), undo)
    before = rules()
    ground.berth(NAT)
    ground.sandbox("api")
    ground.attach("backend", "api", "-p 8080:80")
    ways = [("api", address) for address in OUT]
    assert ground.pings(*ways) == []
    with ground.serving("api"):
        assert ground.ask("laptop", HOST, HOST6, port=8080) == [LAPTOP, LAPTOP6]
    assert ground.told("reconcile")["done"] == []
    for tool in LEGACY:  # as it would be without Berth's rules
        ground.sh(f"{tool}-save | grep -v berth: | {tool}-restore")
    assert rules() == before
    assert ground.pings(*ways, wait=1) == ways
    ground.berth("reconcile")
    assert ground.pings(*ways) == []
    ground.berth("detach backend api")
    ground.berth("network rm backend")
    assert rules() == before


# --- nftables.service -----------------------------------------------------------------------------------


def test_a_restart_of_nftables_service_is_healed(harbour: Harbour) -> None:
    """Its command with Debian's own file, which begins with `flush ruleset`; an open connection goes on."""
    ground = harbour.ground
    with harbour.daemon():
        harbour.networks()
        before = ground.sh("nft list table inet berth")
        with (
            ground.station("api", "echo", "80"),
            ground.station("laptop", "keep", HOST, "8080", "1000") as four,
        ):
            for _ in range(5):
                harbour.debian.run(["nft", "-f", "/etc/nftables.conf"], check=True)
                took = until(lambda: ground.sh("nft list table inet berth || true") == before)
                print(f"back after {took:.2f} s")
            until(lambda: four() == ["1000"])
        assert harbour.failures() == []
        assert "chain input" in ground.sh("nft list table inet filter")
        harbour.clear()
    assert "berth" not in ground.sh("nft list ruleset")
