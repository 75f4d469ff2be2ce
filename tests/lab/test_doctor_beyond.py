"""`berth doctor`, what others do to a host's networks: machines of the LAN, servers, managers, programs."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from lab_ground import INTERNET, LAPTOP, NULL, ROUTER, Ground
from lab_home import NIC, Home
from test_proxied_ports import until

from berth.lab.session import Lab

pytestmark = pytest.mark.timeout(240)

LAN = "network create --driver flat --ip-range 192.168.2.128/26 -o parent=br0 lan"
DOCTOR = ["berth", "doctor", "--json", "--internet", INTERNET]
#: A machine that hears nothing of some kind any more: family and match.
DEAF = (
    "nft 'add table {0} deaf; add chain {0} deaf in {{ type filter hook input priority 0; }};"
    " add rule {0} deaf in {1} drop'"
)
INTERFACES = "auto br0\niface br0 inet static\n    address 192.168.2.2/24\n    gateway 192.168.2.1\n"


def examined(ground: Ground, **env: str) -> list[dict[str, Any]]:
    """What the doctor finds on the host."""
    done = ground.lab.run("host", DOCTOR, env=env, timeout=60)
    assert done.stderr == "", done
    found: list[dict[str, Any]] = json.loads(done.stdout)
    assert done.returncode == (1 if found else 0)
    return found


def only(ground: Ground, check: str, **env: str) -> dict[str, Any]:
    """The one finding, which must be of that check."""
    found = examined(ground, **env)
    assert [each["check"] for each in found] == [check], found
    return found[0]


@contextmanager
def running(ground: Ground) -> Iterator[None]:
    """A daemon for the length of a block."""
    with ground.lab.popen("host", ["berth", "daemon"], stdin=NULL, stdout=NULL, stderr=NULL) as process:
        try:
            until(lambda: ground.tried("network ls").returncode == 0 and "berth.sock" in ground.sh("ls $BERTH_RUN"))
            yield
        finally:
            process.terminate()
            process.wait(30)


@contextmanager
def fault(ground: Ground, make: str, undo: str, node: str) -> Iterator[None]:
    """A fault for the length of a block."""
    ground.sh(make, node)
    try:
        yield
    finally:
        ground.sh(undo, node)


@pytest.fixture(scope="module")
def both(lab: Lab) -> Iterator[Ground]:
    """A healthy host with a NAT network, a LAN, and a container on each: every test leaves it so."""
    here = Ground(lab)
    here.berth("network create back")
    here.berth(LAN)
    here.container("back", "inner")
    here.container("lan", "outer")
    yield here
    here.clear()


def address(ground: Ground, name: str) -> str:
    (found,) = [ep["addresses"][0] for ep in ground.told("endpoint ls") if ep["name"] == name]
    return str(found).partition("/")[0]


# --- while others work ---------------------------------------------------------------------------------


def test_nobody_is_kept_waiting_and_nothing_is_seen_half_done(both: Ground) -> None:
    done = both.lab.run("host", ["sh", "-c", "flock $BERTH_STATE/berth.lock berth doctor"], timeout=60)
    assert (done.returncode, done.stdout) == (0, "nothing wrong was found\n"), done
    both.sandbox("busy")
    verbs = "while :; do berth attach back busy >&2; berth detach back busy >&2; done"
    with both.lab.popen(
        "host", ["setpriv", "--pdeathsig", "KILL", "sh", "-c", verbs], stdout=NULL, stderr=NULL
    ) as at_work:
        try:
            for _ in range(3):
                assert examined(both) == []
        finally:
            at_work.kill()
    both.tried("detach back busy")


# --- who is reached -------------------------------------------------------------------------------------


def test_a_router_that_does_not_answer_a_container(both: Ground) -> None:
    assert examined(both) == []
    deaf = DEAF.format("arp", f"arp saddr ip {address(both, 'outer')}")
    with fault(both, deaf, "nft delete table arp deaf", "router"):
        finding = only(both, "reach-router")
        assert ROUTER in finding["message"] and NIC in finding["message"]
        assert finding["fix"] == f"berth trace outer {ROUTER}"
    assert examined(both) == []


def test_a_machine_of_the_lan_that_does_not_answer_a_container(both: Ground) -> None:
    both.sh(f"ping -n -c1 -W5 {LAPTOP}")  # so that the host knows it
    deaf = DEAF.format("arp", f"arp saddr ip {address(both, 'outer')}")
    with fault(both, deaf, "nft delete table arp deaf", "laptop"):
        finding = only(both, "reach-peer")
        assert LAPTOP in finding["message"] and "nobody on network lan answers" in finding["message"]
    assert examined(both) == []


def test_the_internet_is_not_reached_and_the_rule_is_named(both: Ground) -> None:
    table = (
        "nft 'add table inet theirs; add chain inet theirs out { type filter hook forward priority 0; };"
        f' add rule inet theirs out iifname "brt*" ip daddr {INTERNET} drop\''
    )
    with fault(both, table, "nft delete table inet theirs", "host"):
        finding = only(both, "reach-internet")
        assert "inner" in finding["message"] and "chain inet theirs out" in finding["message"]
        assert both.lab.run("host", ["sh", "-c", finding["fix"]]).returncode == 1
    assert examined(both) == []


# --- who gives addresses and names ----------------------------------------------------------------------


def test_a_range_that_a_server_leases_from(both: Ground) -> None:
    """As most do, and unlike the lab's router, it pings an address for three seconds before it offers it."""
    leasing = (
        "dnsmasq --conf-file=/dev/null --port=0 --interface=eth0 --bind-interfaces --dhcp-range=192.168.2.130,"
        "192.168.2.180 --dhcp-leasefile=/dev/null --user= --group= --pid-file=$HOME/pid"
    )
    home = both.lab.work / "laptop"
    with fault(both, leasing.replace("$HOME", str(home)), f"kill $(cat {home}/pid)", "laptop"):
        finding = only(both, "pool-overlaps-dhcp")
        assert LAPTOP in finding["message"] and "network lan" in finding["message"]
    assert examined(both) == []


def test_a_name_server_that_is_not_heard_in_a_sandbox(both: Ground) -> None:
    nsenter = "nsenter --net=/run/netns/inner"
    with running(both):
        until(lambda: examined(both) == [], 60)
        with fault(
            both, f"{nsenter} {DEAF.format('inet', 'udp dport 53')}", f"{nsenter} nft delete table inet deaf", "host"
        ):
            finding = only(both, "dns-in-sandbox")
            assert "127.0.0.11" in finding["message"] and "inner" in finding["message"]
        assert examined(both) == []


def test_a_lease_that_nobody_renewed(both: Ground) -> None:
    with running(both):
        both.container("lan", "leased", "--driver-opt addresses=dhcp")
    try:
        assert examined(both) == []
        with sqlite3.connect(Path(both.lab.work) / "host/state/berth.db") as db:
            (key, body) = db.execute("SELECT key, body FROM lease").fetchone()
            record = json.loads(body)
            record["lease"]["acquired"] -= 86400
            db.execute("UPDATE lease SET body = ? WHERE key = ?", (json.dumps(record).encode(), key))
        db.close()
        finding = only(both, "stale-lease")
        assert address(both, "leased") in finding["message"] and "ran out" in finding["message"]
        assert "berth daemon" in finding["fix"]
        with running(both):
            until(lambda: examined(both) == [], 60)
    finally:
        with running(both):
            both.berth("detach lan leased")


# --- who else manages the host --------------------------------------------------------------------------


@pytest.fixture
def root(both: Ground) -> Path:
    """The host's own root directory, with an ifupdown that makes the bridge."""
    root = Path(both.lab.work) / "host/root"
    (root / "etc/network").mkdir(parents=True, exist_ok=True)
    (root / "etc/network/interfaces").write_text(INTERFACES + f"    bridge_ports {NIC}\n")
    return root


def test_a_bridge_that_no_file_names(both: Ground, root: Path) -> None:
    assert examined(both, BERTH_ROOT=str(root)) == []
    file = root / "etc/network/interfaces"
    text = file.read_text()
    file.write_text(f"# br0 was here\nauto {NIC}\niface {NIC} inet dhcp\n")
    finding = only(both, "not-persistent", BERTH_ROOT=str(root))
    assert "br0" in finding["message"] and NIC in finding["message"]
    file.write_text(text)
    assert examined(both, BERTH_ROOT=str(root)) == []


def test_a_manager_that_takes_the_nic_for_its_own(both: Ground, root: Path) -> None:
    """NetworkManager's part is played by its state file (src/core/nm-config.c), and by who writes it for `nmcli`."""
    index = both.sh(f"ip -o link show {NIC}").partition(":")[0]
    state, tools = root / f"run/NetworkManager/devices/{index}", root / "tools"
    for directory in (state.parent, tools):
        directory.mkdir(parents=True, exist_ok=True)
    state.write_text("[device]\nmanaged=true\nconnection-uuid=\n")
    (tools / "nmcli").write_text(
        f"#!/bin/sh\n[ \"$*\" = 'device set {NIC} managed no' ] && echo '[device]\nmanaged=false' >{state}\n"
    )
    (tools / "nmcli").chmod(0o755)
    try:
        finding = only(both, "manager-takes-nic", BERTH_ROOT=str(root))
        assert "NetworkManager" in finding["message"] and finding["command"]
        both.sh(f"PATH={tools}:$PATH; {finding['fix']}")
        assert examined(both, BERTH_ROOT=str(root)) == []
    finally:
        state.unlink()


def test_docker_has_left_rules_in_the_other_iptables(both: Ground) -> None:
    made = "{0} -N DOCKER && {0} -A FORWARD -o docker0 -j DOCKER && {0} -A FORWARD -o docker0 -j ACCEPT"
    both.sh(" && ".join(made.format(tool) for tool in ("iptables-nft", "iptables-legacy")))
    try:
        finding = only(both, "docker-backend-changed")
        assert "iptables-legacy" in finding["message"] and finding["command"]
        both.sh(finding["fix"])
        assert examined(both) == []
        assert "DOCKER" in both.sh("iptables-nft -S") and "DOCKER" not in both.sh("iptables-legacy -S")
    finally:
        both.sh("for each in iptables-nft iptables-legacy; do $each -F FORWARD; $each -X DOCKER || true; done")


def test_an_adopted_nic_is_adopted_anew_for_its_files(house: Home) -> None:
    root = Path(house.lab.work) / "root"
    (root / "etc/network").mkdir(parents=True)
    (root / "etc/network/interfaces").write_text(
        f"auto {NIC}\niface {NIC} inet static\n    address 192.168.2.2/24\n    gateway 192.168.2.1\n"
    )
    (root / "lib/bridge-utils").mkdir(parents=True)
    (root / "lib/bridge-utils/ifupdown.sh").write_text("")
    house.berth(f"uplink adopt {NIC} --persist none", BERTH_ROOT=str(root))
    house.berth("network create --driver flat --ip-range 192.168.2.128/26 -o parent=br0 lan")
    done = house.tried(f"doctor --json --internet {INTERNET}", BERTH_ROOT=str(root))
    (finding,) = json.loads(done.stdout)
    assert (finding["check"], finding["command"]) == ("not-persistent", True)
    house.sh(finding["fix"], BERTH_ROOT=str(root))
    assert "br0" in (root / "etc/network/interfaces").read_text()
    done = house.tried(f"doctor --json --internet {INTERNET}", BERTH_ROOT=str(root))
    assert json.loads(done.stdout) == []
