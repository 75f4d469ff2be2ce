"""Berth as a plugin that Docker runs by itself, made as `./run build-plugin` makes it."""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from berth.lab.session import Session
from trees import cache

from .engines import Dockerd

BUILD = Path(__file__).parents[2] / "packaging/docker-plugin/build"
BERTH = "--driver=berth:latest --ipam-driver=berth:latest"
LAN = (
    f"{BERTH} --ip-range=192.168.2.0/24 --subnet=192.168.2.0/24 --aux-address=ip1=192.168.2.10"
    " -o com.docker.network.bridge.name=br0 br0"
)
ROUTER, LAPTOP = "192.168.2.1", "192.168.2.50"
DAEMON = "/usr/bin/python3 -m berth daemon"
NET_ADMIN, SYS_ADMIN = 12, 21  # linux/capability.h

pytestmark = pytest.mark.timeout(300)  # the first of them makes the plugin


@pytest.fixture(scope="session")
def built() -> Iterator[Path]:
    """The plugin, of the sources as they are now. What it has of Debian is kept until the recipe changes."""
    if os.geteuid() != 0:
        pytest.skip("to make a plugin needs root")
    directory = Path(tempfile.mkdtemp(prefix="berth-plugin-", dir="/tmp"))  # where every engine sees it
    recipe = hashlib.sha256(BUILD.read_bytes()).hexdigest()[:12]
    cache().mkdir(parents=True, exist_ok=True)
    try:
        with (cache() / "plugin.lock").open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            base = cache() / f"plugin-{recipe}"
            for outdated in {*cache().glob("plugin-*")} - {base}:
                shutil.rmtree(outdated)
            variables = os.environ | {"BERTH_PLUGIN_BASE": str(base)}
            subprocess.run([BUILD, directory, Path(sys.executable).with_name("pip")], env=variables, check=True)
        yield directory
    finally:
        shutil.rmtree(directory)


@pytest.fixture(scope="module")
def managed(engine: Dockerd, built: Path) -> Iterator[Dockerd]:
    """An engine that runs the plugin."""
    enable(engine, built)
    yield engine
    remove(engine)


def enable(engine: Dockerd, built: Path) -> None:
    """Give the plugin to an engine."""
    engine.docker("plugin", "create", "berth", str(built))
    state = Path(engine.lab.record.work, engine.node, "state")  # of `berth` commands on the lab's host
    state.mkdir(parents=True, exist_ok=True)
    engine.docker("plugin", "set", "berth", f"state.source={state}")
    engine.docker("plugin", "enable", "berth")


def remove(engine: Dockerd) -> None:
    """Take the plugin from an engine, whatever uses it."""
    engine.docker("plugin", "disable", "-f", "berth")
    engine.docker("plugin", "rm", "-f", "berth")


def pings(lab: Session, node: str, address: str) -> bool:
    """Whether a machine of the lab's gets an answer."""
    return lab.run(node, ["ping", "-c1", "-W2", address]).returncode == 0


def sleeper(engine: Dockerd, network: str) -> tuple[str, str]:
    """A container that stays, and its address."""
    container = engine.docker("run", "-d", f"--network={network}", "bb", "sleep", "1000").strip()
    told = engine.api("GET", f"/containers/{container}/json")["NetworkSettings"]["Networks"][network]
    return container, told["IPAddress"]


def holdings(engine: Dockerd) -> list[str]:
    """What a plugin could leave behind on a host: links, tables, sockets, processes, and what Docker has of it."""
    links = engine.lab.run("host", ["ip", "-j", "link"], check=True).stdout
    tables = engine.lab.run("host", ["nft", "list", "tables"], check=True).stdout
    commands = engine.run(["ps", "-e", "-o", "args="]).stdout.splitlines()
    return [
        *(link["ifname"] for link in json.loads(links)),
        *tables.splitlines(),
        *engine.run(["find", "/run/docker/plugins", "-mindepth", "1"]).stdout.split(),
        *(command for command in commands if command == DAEMON),
        *engine.docker("plugin", "ls", "--no-trunc", "-q").split(),
    ]


def control_groups(identity: str) -> list[Path]:
    """A plugin's control groups: of version 1, one for each controller, or of version 2."""
    return [*Path("/sys/fs/cgroup").glob(f"*/{identity}"), *Path("/sys/fs/cgroup").glob(identity)]


def test_what_it_is_made_of(built: Path) -> None:
    assert sorted(path.name for path in built.iterdir()) == ["config.json", "rootfs"]
    asked = subprocess.run(["chroot", built / "rootfs", "/usr/bin/python3", "-m", "berth", "--version"], check=False)
    assert asked.returncode == 0
    for program in ("/usr/sbin/nft", "/usr/bin/setpriv"):
        subprocess.run(["chroot", built / "rootfs", program, "--version"], check=True)
    size = sum(path.lstat().st_size for path in built.rglob("*"))
    assert size < 80e6


def test_it_has_no_more_rights_than_it_needs(managed: Dockerd) -> None:
    """Docker's own for any container, and that to change the host's network; not that to enter namespaces."""
    pid = managed.run(["pgrep", "--full", "--exact", DAEMON]).stdout.strip()
    status = managed.run(["cat", f"/proc/{pid}/status"]).stdout
    rights = next(int(line.split()[1], 16) for line in status.splitlines() if line.startswith("CapEff"))
    assert rights >> NET_ADMIN & 1
    assert not rights >> SYS_ADMIN & 1


def test_nat(managed: Dockerd) -> None:
    # Docker and the tests before this one have switched it on; in a plugin, /proc/sys is read-only.
    managed.lab.run("host", ["sysctl", "-qw", "net.ipv4.ip_forward=0"], check=True)
    managed.docker("network", "create", *BERTH.split(), "nat")
    web = managed.docker("run", "-d", "--network=nat", "-p", "8080:80", "bb", "httpd", "-f", "-h", "/etc").strip()
    managed.docker("exec", web, "ping", "-c1", "-W2", ROUTER)
    fetched = managed.lab.run("laptop", ["busybox", "wget", "-qO-", "http://192.168.2.2:8080/hostname"], check=True)
    assert fetched.stdout.strip() == web[:12]
    managed.docker("rm", "-f", web)
    managed.docker("network", "rm", "nat")


def test_lan(managed: Dockerd) -> None:
    """With the words of the well-known recipe, a container is a member of the LAN, and the host stays one."""
    managed.docker("network", "create", *LAN.split())
    container, address = sleeper(managed, "br0")
    assert address == "192.168.2.3"
    for machine in (ROUTER, LAPTOP):
        managed.docker("exec", container, "ping", "-c1", "-W2", machine)
    assert pings(managed.lab, "laptop", address)
    assert pings(managed.lab, "laptop", "192.168.2.2")
    managed.docker("rm", "-f", container)
    managed.docker("network", "rm", "br0")


def test_containers_go_on_without_it_and_it_goes_on_with_them(managed: Dockerd) -> None:
    managed.docker("network", "create", *LAN.split())
    first, address = sleeper(managed, "br0")
    managed.docker("plugin", "disable", "-f", "berth")
    assert pings(managed.lab, "laptop", address)
    managed.docker("plugin", "enable", "berth")
    assert pings(managed.lab, "laptop", address)
    second, other = sleeper(managed, "br0")
    assert other != address
    assert pings(managed.lab, "laptop", other)
    managed.docker("rm", "-f", first, second)
    managed.docker("network", "rm", "br0")


def test_it_leaves_alone_what_berth_commands_attached(fresh_lab: Session, engine_kind: str, built: Path) -> None:
    """It shares their records, but not their view: no sandbox of the host's can be seen from within a plugin."""
    with Dockerd(fresh_lab, engine_kind) as engine:
        fresh_lab.sandbox("web")
        fresh_lab.berth("network", "create", "--driver=flat", "-oparent=br0", "lan", check=True)
        fresh_lab.berth("attach", "lan", "web", check=True)
        assert pings(fresh_lab, "web", LAPTOP)
        enable(engine, built)
        engine.docker("network", "create", *BERTH.split(), "nat")  # it has looked round by now
        remove(engine)
        assert pings(fresh_lab, "web", LAPTOP)
        assert "web" in fresh_lab.berth("endpoint", "ls", check=True).stdout


def test_nothing_is_left_of_it(fresh_lab: Session, engine_kind: str, built: Path) -> None:
    with Dockerd(fresh_lab, engine_kind) as engine:
        before = holdings(engine)
        enable(engine, built)
        for words in (f"{BERTH} nat", LAN):
            engine.docker("network", "create", *words.split())
            engine.docker("run", "--rm", f"--network={words.split()[-1]}", "bb", "ping", "-c1", "-W2", ROUTER)
        assert DAEMON in holdings(engine)
        (identity,) = engine.docker("plugin", "ls", "--no-trunc", "-q").split()
        assert control_groups(identity)
        engine.docker("network", "rm", "nat", "br0")
        remove(engine)
        assert holdings(engine) == before
        assert not control_groups(identity)
