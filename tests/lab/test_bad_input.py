"""Whatever is wrong with a request: exit code 2, one line that says what, and nothing changed."""

from __future__ import annotations

import os
import shutil
import sqlite3
import sys
import tempfile
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import lab_nobody
import pytest
from lab_ground import Ground

from berth.lab.session import Lab

pytestmark = pytest.mark.timeout(60)

FLAT, CREATE = "network create --driver flat", "network create"
LONG = "n" * 129

#: (what is typed after `berth`, what the one line has to name)
REQUESTS = {
    # --- networks ---
    "overlaps-a-network": (f"{CREATE} --subnet 10.20.0.128/25 new", "backend"),
    "overlaps-a-network-v6": (f"{CREATE} --ipv6 --subnet fd20::/48 new", "backend"),
    "overlaps-the-lan": (f"{CREATE} --subnet 192.168.2.128/25 new", "network lan"),
    "overlaps-a-route": (f"{CREATE} --ipv6 --subnet fd00:2::/56 new", "parent=br0"),
    "overlaps-itself": (f"{CREATE} --subnet 10.1.0.0/16 --subnet 10.1.2.0/24 new", "10.1.2.0/24"),
    "gateway-outside": (f"{CREATE} --subnet 10.1.0.0/24 --gateway 10.2.0.1 new", "gateway 10.2.0.1"),
    "gateway-network": (f"{CREATE} --subnet 10.1.0.0/24 --gateway 10.1.0.0 new", "network address"),
    "gateway-broadcast": (f"{CREATE} --subnet 10.1.0.0/24 --gateway 10.1.0.255 new", "broadcast address"),
    "gateway-odd": (f"{CREATE} --subnet 10.1.0.0/24 --gateway 10.1.0 new", "'10.1.0'"),
    "range-outside": (f"{CREATE} --subnet 10.1.0.0/24 --ip-range 10.1.1.0/25 new", "ip-range 10.1.1.0/25"),
    "range-larger": (f"{CREATE} --subnet 10.1.0.0/24 --ip-range 10.1.0.0/16 new", "ip-range 10.1.0.0/16"),
    "aux-outside": (f"{CREATE} --subnet 10.1.0.0/24 --aux-address nas=10.2.0.9 new", "'nas'=10.2.0.9"),
    "aux-gateway": (
        f"{CREATE} --subnet 10.1.0.0/24 --gateway 10.1.0.1 --aux-address nas=10.1.0.1 new",
        "is the gateway",
    ),
    "aux-lan-router": (
        f"{FLAT} -o parent=br0 --aux-address nas=192.168.2.1 --subnet 192.168.2.0/24 new",
        "is the gateway",
    ),
    "aux-twice": (f"{CREATE} --subnet 10.1.0.0/24 --aux-address a=10.1.0.9 --aux-address b=10.1.0.9 new", "'b'"),
    "aux-nameless": (f"{CREATE} --subnet 10.1.0.0/24 --aux-address 10.1.0.9 new", "NAME=VALUE"),
    "small-31": (f"{CREATE} --subnet 10.1.0.0/31 new", "too small"),
    "small-32": (f"{CREATE} --subnet 10.1.0.1/32 new", "too small"),
    "small-127": (f"{CREATE} --ipv6 --subnet fd01::/127 new", "too small"),
    "subnet-odd": (f"{CREATE} --subnet 10.1.0.0 new", "'10.1.0.0'"),
    "subnet-multicast": (f"{CREATE} --subnet 224.1.0.0/16 new", "multicast"),
    "name-taken": (f"{CREATE} backend", "backend"),
    "name-long": (f"{CREATE} {LONG}", "129 characters"),
    "name-odd": (f"{CREATE} 'my net'", "'my net'"),
    "name-empty": (f"{CREATE} ''", "''"),
    "name-host": (f"{CREATE} host", "'host'"),
    "driver-unknown": (f"{CREATE} --driver brigde new", "did you mean bridge"),
    "driver-none": (f"{CREATE} --driver '' new", "driver"),
    "option-unknown": (f"{CREATE} -o com.docker.network.bridge.nmae=br7 new", "com.docker.network.bridge.name"),
    "option-value": (f"{CREATE} -o mtu=huge new", "'huge'"),
    "option-bare": (f"{CREATE} -o mtu new", "NAME=VALUE"),
    "bridge-long": (f"{CREATE} -o bridge=a-very-long-name new", "16 bytes"),
    "bridge-odd": (f"{CREATE} -o bridge=a/b new", "'a/b'"),
    "bridge-taken": (f"{CREATE} -o bridge=enp3s0 new", "enp3s0"),
    "mtu-v6": (f"{CREATE} --ipv6 -o mtu=1000 new", "1280"),
    "flat-without-parent": (f"{FLAT} new", "-o parent="),
    "flat-parent-missing": (f"{FLAT} -o parent=br7 new", "br7"),
    "flat-parent-no-bridge": (f"{FLAT} -o parent=enp3s0 new", "enp3s0"),
    "flat-parent-nat": (f"{FLAT} -o parent=natbr new", "natbr"),
    "flat-parent-lan-taken": (f"{FLAT} -o parent=br0 new", "lan"),
    "flat-gateway": (f"{FLAT} -o parent=br0 --gateway 192.168.2.254 --subnet 192.168.2.0/24 new", "192.168.2.1"),
    "flat-subnet": (f"{FLAT} -o parent=br0 --subnet 192.168.3.0/24 new", "192.168.2.0/24"),
    "rm-unknown": ("network rm nothing", "nothing"),
    "rm-in-use": ("network rm backend", "api"),
    "inspect-unknown": ("network inspect nothing", "nothing"),
    # --- endpoints ---
    "network-unknown": ("attach nothing web", "nothing"),
    "sandbox-unknown": ("attach backend nobody", "ip netns add nobody"),
    "sandbox-path": ("attach backend /run/netns/nobody", "/run/netns/nobody"),
    "sandbox-no-namespace": ("attach backend /etc/hosts", "/etc/hosts"),
    "sandbox-pid": ("attach backend pid:4194303", "4194303"),
    "sandbox-pid-odd": ("attach backend pid:one", "pid:one"),
    "sandbox-docker": ("attach backend docker:web", "docker"),
    "attached-already": ("attach backend api", "already"),
    "ifname-taken": ("attach lan api --ifname eth0", "eth0"),
    "ifname-foreign": ("attach backend web --ifname lo", "lo"),
    "ifname-long": ("attach backend web --ifname interface-number-1", "18 bytes"),
    "ifname-odd": ("attach backend web --ifname 'eth 0'", "'eth 0'"),
    "endpoint-name-taken": ("attach backend web --name api", "api"),
    "endpoint-name-odd": ("attach backend web --name -x", "'-x'"),
    "address-taken": ("attach backend web --ip 10.20.0.2", "10.20.0.2"),
    "address-gateway": ("attach backend web --ip 10.20.0.1", "the gateway"),
    "address-outside": ("attach backend web --ip 10.21.0.2", "10.20.0.0/24"),
    "address-other-version": ("attach lan web --ip fd00:2::77", "fd00:2::77"),
    "address-odd": ("attach backend web --ip 10.20.0.300", "'10.20.0.300'"),
    "mac-odd": ("attach backend web --mac 02:00:00:00:00", "02:00:00:00:00"),
    "mac-multicast": ("attach backend web --mac 03:00:00:00:00:01", "multicast"),
    "pool-exhausted": ("attach tiny web", "is full"),
    "port-taken": ("attach backend web -p 8080:81", "api"),
    "port-twice": ("attach backend web -p 8081:80 -p 8081:81", "8081"),
    "port-odd": ("attach backend web -p 8081:http", "'8081:http'"),
    "port-zero": ("attach backend web -p 0:80", "'0'"),
    "port-large": ("attach backend web -p 65536:80", "'65536'"),
    "port-on-flat": ("attach lan web -p 8081:80", "flat"),
    "detach-unattached": ("detach backend web", "web"),
    "detach-unknown": ("detach nothing api", "nothing"),
    # --- where it is kept ---
    "store-unknown": ("--store mysql://db/berth network ls", "mysql://db/berth"),
    "store-empty": ("--store sqlite: network ls", "sqlite:"),
}  # fmt: skip


class Guarded(Ground):
    """A host with networks in use, and a picture of all that must not change."""

    def __init__(self, lab: Lab) -> None:
        super().__init__(lab)
        for name in ("web", "api", "box"):
            self.sandbox(name)
        self.berth("network create --subnet 10.20.0.0/24 --ipv6 --subnet fd20::/64 -o bridge=natbr backend")
        self.berth("network create --driver flat -o parent=br0 lan")
        self.berth("network create --subnet 10.40.0.0/30 tiny")
        self.berth("attach backend api -p 8080:80")
        self.berth("attach tiny box")
        self.state = lab.work / "host/state"
        self.before = self.picture()

    def picture(self) -> str:
        """Links, addresses, routes, firewall, sandboxes' interfaces, and all that Berth remembers."""
        shown = self.sh("nft list ruleset; ip -n web -br address; ip -n api -br address; ip -n api route")
        with closing(sqlite3.connect(f"file:{self.state}/berth.db?mode=ro", uri=True)) as store:
            remembered = "\n".join(store.iterdump())
        return "\n".join([*self.look(), shown, remembered])


@pytest.fixture(scope="module")
def guarded(lab: Lab) -> Iterator[Guarded]:
    here = Guarded(lab)
    for _ in range(60):  # the kernel's own address configuration comes to rest
        if not here.sh("ip -6 address show tentative; ip -n api -6 address show tentative"):
            break
        here.sh("sleep 0.1")
    here.before = here.picture()
    yield here
    here.clear()


def assert_refused(guarded: Guarded, argv: list[str], named: str, env: dict[str, str] | None = None) -> None:
    done = guarded.lab.run("host", argv, env=env)
    assert (done.returncode, done.stdout) == (2, ""), done
    assert "Traceback" not in done.stderr
    (line,) = done.stderr.splitlines()
    assert line.startswith("berth: ")
    assert named in line
    before, guarded.before = guarded.before, guarded.picture()
    assert guarded.before == before


@pytest.mark.parametrize("request_", REQUESTS.values(), ids=REQUESTS)
def test_a_bad_request_changes_nothing(guarded: Guarded, request_: tuple[str, str]) -> None:
    line, named = request_
    assert_refused(guarded, ["sh", "-c", f"exec berth {line}"], named)


DRY = ("overlaps-a-network", "gateway-outside", "flat-gateway", "address-taken", "port-taken", "attached-already")


@pytest.mark.parametrize("kind", DRY)
def test_a_dry_run_refuses_as_well(guarded: Guarded, kind: str) -> None:
    line, named = REQUESTS[kind]
    assert_refused(guarded, ["sh", "-c", f"exec berth {line} --dry-run"], named)


# --- Who may not ---


@pytest.fixture(scope="module")
def nobody() -> Iterator[tuple[list[str], dict[str, str]]]:
    """What makes a command somebody's without privileges, and a state directory that they may write to."""
    if os.geteuid() != 0:
        pytest.skip("only root can become somebody else")
    directory = Path(tempfile.mkdtemp(prefix="berth-test-"))
    yield [sys.executable, lab_nobody.__file__, str(directory)], {"BERTH_STATE": str(directory)}
    shutil.rmtree(directory)


@pytest.mark.parametrize(
    "line", ["network create new", "network create --driver flat -o parent=br0 --subnet 192.168.2.0/24 new"]
)
def test_without_privileges_nothing_is_made(
    guarded: Guarded, nobody: tuple[list[str], dict[str, str]], line: str
) -> None:
    user, env = nobody
    assert_refused(guarded, [*user, "berth", *line.split()], "root", env)


def test_without_privileges_no_sandbox_is_entered(guarded: Guarded, nobody: tuple[list[str], dict[str, str]]) -> None:
    """Not even with records that one may write to."""
    user, env = nobody
    store = Path(env["BERTH_STATE"], "berth.db")
    with closing(sqlite3.connect(guarded.state / "berth.db")) as ours, closing(sqlite3.connect(store)) as theirs:
        ours.backup(theirs)
    shutil.chown(store, "nobody")
    assert_refused(guarded, [*user, "berth", "attach", "backend", "web"], "root", env)
    store.unlink()


@pytest.mark.parametrize("line", ["network ls", "network create new", "attach backend web", "detach backend api"])
def test_somebody_elses_state_is_not_for_everybody(
    guarded: Guarded, nobody: tuple[list[str], dict[str, str]], line: str
) -> None:
    user, _ = nobody
    assert_refused(guarded, [*user, "berth", *line.split()], "BERTH_STATE")


@pytest.mark.parametrize("state", ["/proc/berth", "/etc/hosts/berth", "/dev/null"])
@pytest.mark.parametrize("line", ["network ls", "network create new"])
def test_a_state_directory_must_be_writable(guarded: Guarded, state: str, line: str) -> None:
    assert_refused(guarded, ["berth", *line.split()], state, {"BERTH_STATE": state})
