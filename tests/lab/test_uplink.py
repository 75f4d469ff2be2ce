"""A NIC joins a bridge and leaves it, and nobody who talks to the host notices; or all is as before."""

from __future__ import annotations

import json
import os
import pty
import signal
import subprocess
import time

import pytest
from lab_home import HOST, LAPTOP, LOAD, MAC, NIC, ROUTER, SOME, Home, talking

pytestmark = pytest.mark.timeout(120)


# --- there and back -------------------------------------------------------------------------------------


def test_the_bridge_is_made_as_one_should_be(house: Home) -> None:
    house.berth(f"uplink adopt {NIC}")
    (bridge,) = json.loads(house.sh("ip -d -j link show br0"))
    assert bridge["address"] == MAC
    data = bridge["linkinfo"]["info_data"]
    assert (data["stp_state"], data["forward_delay"]) == (0, 0)
    # A port with a lower MAC would take over the MAC of a bridge whose own is not pinned.
    house.sh("ip link add low address 00:00:00:00:00:01 type veth; ip link set low master br0")
    assert MAC in house.sh("ip link show br0")
    house.sh("ip link del low")
    assert "inet" not in house.sh(f"ip address show {NIC}").replace("inet6_addr", "")


@pytest.mark.parametrize("load", ["", LOAD], ids=["plain", "all that a host can carry"])
def test_release_is_the_inverse_of_adopt(house: Home, load: str) -> None:
    house.sh(load or "true")
    before = house.look()
    house.berth(f"uplink adopt {NIC}")
    assert house.look() != before
    assert f"{HOST}/24" in house.sh("ip address show br0")
    house.berth(f"uplink release {NIC}")
    assert house.look() == before


def test_all_that_the_nic_carried_is_on_the_bridge(house: Home) -> None:
    house.sh(LOAD)
    before = [line for line in house.look() if "conf." not in line]
    house.berth(f"uplink adopt {NIC}")
    carried = "\n".join(house.look())
    for line in before:
        if NIC in line and "mtu" not in line and "ff00::/8" not in line:
            assert line.replace(NIC, "br0") in carried
    for setting in ("ipv4.conf.br0.rp_filter=2", "ipv4.conf.br0.arp_ignore=1", "ipv6.conf.br0.accept_ra=2"):
        name, _, value = setting.partition("=")
        assert house.sh(f"sysctl -n net.{name}").strip() == value


GAP = 0.2  # seconds
#: The least that can be done by hand.
BARE = f"""
link add br0 address {MAC} type bridge stp_state 0 forward_delay 0
link set br0 up
link set {NIC} master br0
address add {HOST}/24 dev br0
route replace default via {ROUTER} dev br0
address del {HOST}/24 dev {NIC}
"""
UNDO = f"ip link del br0; ip address add {HOST}/24 dev {NIC}; ip route add default via {ROUTER}"


@pytest.mark.parametrize("how", ["adopt", "release", "bare"])
def test_nobody_who_talks_to_the_host_notices(house: Home, how: str) -> None:
    """The longest gaps, of a few tries: one that the machine itself makes, being busy, does not come every time."""
    house.sh(LOAD)
    tries: list[list[float]] = []
    while not tries or (len(tries) < 4 and max(tries[-1]) >= GAP):
        if how == "release":
            house.berth(f"uplink adopt {NIC}")
        with talking(house.lab) as gaps:
            if how == "bare":
                house.lab.run("host", ["ip", "-batch", "-"], input=BARE, check=True)
            else:
                house.berth(f"uplink {how} {NIC}")
        tries.append(gaps)
        if how == "adopt":
            house.berth(f"uplink release {NIC}")
        elif how == "bare":
            house.sh(UNDO)
    tcp, ping = tries[-1]
    print(f"{how}: longest gap of a TCP connection {1000 * tcp:.1f} ms, of a ping every 10 ms {1000 * ping:.1f} ms")
    assert max(tcp, ping) < GAP, tries


def test_a_flat_network_works_on_an_adopted_nic(house: Home) -> None:
    house.berth(f"uplink adopt {NIC}")
    house.berth("network create --driver flat -o parent=br0 lan")
    house.sh("ip netns add c1")
    try:
        house.berth("attach lan c1 --ip 192.168.2.60")
        for address in (ROUTER, LAPTOP, HOST):
            house.sh(f"ip netns exec c1 ping -c1 -W2 {address}")
        house.sh("ping -c1 -W2 192.168.2.60", "laptop")
        assert "detach" in house.refused(f"uplink release {NIC}")
        house.berth("reconcile")
        house.sh("ip netns exec c1 ping -c1 -W2 192.168.2.1")
        house.berth("detach lan c1")
        house.berth("network rm lan")
        house.berth(f"uplink release {NIC}")
    finally:
        house.sh("ip netns del c1")


def test_routers_are_heard_on_the_bridge(house: Home) -> None:
    """Addresses and routes from router advertisements go along, and the kernel renews them there."""
    house.sh(f"ip -6 route del default; sysctl -qw net.ipv6.conf.{NIC}.accept_ra=2")
    house.sh("ip address add fd00:5::1/64 dev lan0 nodad", "router")
    advertise = ["dnsmasq", "--keep-in-foreground", "--conf-file=/dev/null", "--port=0", "--user=", "--group="]
    advertise += ["--pid-file=", "--interface=lan0", "--enable-ra", "--dhcp-range=fd00:5::,ra-only,64,1h"]
    router = house.lab.popen("router", advertise, stderr=subprocess.DEVNULL)
    try:
        house.until(f"ip -6 route show default proto ra dev {NIC} | grep -q .")
        house.until(f"ip -6 address show dev {NIC} | grep -q fd00:5")
        house.until("! ip -6 address show tentative | grep -q .")
        before = house.look()
        house.berth(f"uplink adopt {NIC}")
        learnt = house.sh("ip -6 route show default")
        assert "proto ra" in learnt
        assert "dev br0" in learnt
        assert NIC not in learnt
        assert "fd00:5" in house.sh("ip -6 address show dev br0")
        house.until("ip -6 route show default dev br0 | grep -q 'metric 1024'")
        house.sh("ping -6 -c1 -W2 2001:db8::10")
        house.berth(f"uplink release {NIC}")
        house.until(f"ip -6 route show default dev {NIC} | grep -q 'metric 1024'")
        # A router that speaks in that very moment has its address made before the others.
        assert sorted(house.look()) == sorted(before)
    finally:
        router.kill()
        router.wait()


# --- what goes wrong is taken back ----------------------------------------------------------------------


def test_a_gateway_that_falls_silent(house: Home) -> None:
    house.sh(LOAD)
    before = house.look()
    # It answers the NIC, but not the bridge: as behind a switch that knows the NIC by more than its MAC.
    house.sh("nft add table bridge b; nft add chain bridge b i '{ type filter hook input priority 0; policy drop; }'")
    said = house.refused(f"uplink adopt {NIC}", 1)
    assert f"gateway {ROUTER} does not answer on br0" in said
    assert "all is as it was" in said
    assert house.look() == before
    assert ROUTER in house.berth("uplink status")


@pytest.mark.parametrize("verb", ["adopt", "release"])
def test_killed_at_every_step(house: Home, verb: str) -> None:
    house.sh(SOME)
    if verb == "release":
        house.berth(f"uplink adopt {NIC}")
    assert house.survives(f"uplink {verb} {NIC}", house.look) > 10


def test_a_terminal_that_hangs_up(house: Home) -> None:
    before = house.look()
    ours, theirs = pty.openpty()
    command = ["berth", "uplink", "adopt", NIC, "--confirm-within", "20"]
    heeded = signal.signal(signal.SIGHUP, signal.SIG_DFL)  # whoever runs the tests under nohup has it ignored
    process = house.lab.popen("host", command, stdin=theirs, stdout=theirs, stderr=theirs, start_new_session=True)
    signal.signal(signal.SIGHUP, heeded)
    os.close(theirs)
    house.until("ip link show br0 2>/dev/null | grep -q br0 && grep -q waiting $BERTH_STATE/uplinks/*.json")
    os.close(ours)
    process.send_signal(signal.SIGHUP)
    process.wait(10)
    assert house.look() != before
    house.until_over(within=40)
    assert house.look() == before
    assert "not confirmed within 20 s" in house.berth("uplink status")


def test_not_confirmed_in_time(house: Home) -> None:
    before = house.look()
    begun = time.monotonic()
    said = house.refused(f"uplink adopt {NIC} --confirm-within 2", 1)
    assert "not confirmed within 2 s" in said
    assert 2 <= time.monotonic() - begun < 15
    assert house.look() == before


def test_confirmed_in_time(house: Home) -> None:
    adopting = house.lab.popen("host", ["berth", "uplink", "adopt", NIC, "--confirm-within", "30"])
    house.until("grep -q waiting $BERTH_STATE/uplinks/*.json")
    assert "waits" in house.refused(f"uplink adopt {NIC}")
    assert "left to confirm" in house.berth("uplink status")
    assert f"{NIC} is a port of br0" in house.berth(f"uplink confirm {NIC}")
    assert adopting.wait(10) == 0
    time.sleep(0.3)  # the guard sees that it is over
    assert f"{HOST}/24" in house.sh("ip address show br0")
    assert "nothing waits" in house.refused(f"uplink confirm {NIC}")


def test_a_guard_that_is_ended_leaves_it_to_the_next_who_comes(house: Home) -> None:
    before = house.look()
    adopting = house.lab.popen("host", ["berth", "uplink", "adopt", NIC, "--confirm-within", "2"])
    house.until("grep -q waiting $BERTH_STATE/uplinks/*.json")
    for pid in house.sh("pgrep -f 'm berth[.]guard'").split():
        house.sh(f"kill -9 {pid}")
    adopting.kill()
    adopting.wait()
    time.sleep(2)
    assert house.look() != before
    house.berth("uplink recover")
    assert house.look() == before


def test_two_at_once(house: Home) -> None:
    first = house.lab.popen("host", ["berth", "uplink", "adopt", NIC], stderr=subprocess.PIPE, text=True)
    second = house.tried(f"uplink adopt {NIC} --bridge br1")
    _, said = first.communicate(timeout=30)
    assert sorted([first.returncode, second.returncode]) == [0, 2], (said, second)
    assert house.sh("ip -br link show type bridge").split()[0] in ("br0", "br1")


# --- what is refused ------------------------------------------------------------------------------------

BAD = {
    "uplink adopt nic9": "no link nic9",
    "uplink adopt lo": "is no Ethernet link",
    f"uplink adopt {NIC} --bridge lo": "lo is taken by",
    "uplink adopt down0": "down0 is down",
    "uplink adopt idle0": "idle0 has no carrier",
    "uplink adopt port0": "is a port of bridge br9",
    "uplink adopt br9": "br9 is a bridge itself",
    f"uplink adopt {NIC} --bridge br9": "br9 is taken by a bridge",
    f"uplink adopt {NIC} --bridge a-name-that-is-too-long": "a-name-that-is-too-long",
    f"uplink adopt {NIC} --persist networkd": "BERTH_ROOT",
    f"uplink release {NIC}": "was not adopted",
    f"uplink confirm {NIC}": "nothing waits",
}


def test_bad_input_changes_nothing(house: Home) -> None:
    house.sh(
        "ip link add down0 type veth peer down1; ip link add idle0 type veth peer idle1; ip link set idle0 up;"
        "ip link add br9 up type bridge; ip link add port0 type veth peer port1; ip link set port1 up;"
        "ip link set port0 up master br9"
    )
    house.until("ip link show br9 | grep -q 'state UP' && ! ip -6 address show tentative | grep -q .")
    before = house.look()
    for line, said in BAD.items():
        assert said in house.refused(line), line
    assert house.look() == before


def test_adopted_already(house: Home) -> None:
    house.berth(f"uplink adopt {NIC}")
    before = house.look()
    assert "already" in house.refused(f"uplink adopt {NIC} --bridge br1")
    assert house.look() == before


def test_the_plan_changes_nothing_and_says_all(house: Home) -> None:
    before = house.look()
    plan = json.loads(house.berth(f"uplink plan {NIC} --json"))
    assert house.look() == before
    commands = [step["command"] for step in plan["plan"]]
    assert f"ip addr del {HOST}/24 dev {NIC}" in commands
    assert f"ip route replace default via {ROUTER} dev br0 proto boot" in commands
    assert plan["risks"] == []
