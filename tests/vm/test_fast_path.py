"""A network's fast path on a kernel that has flow tables, as this machine's own may not have."""

from __future__ import annotations

import json
import sys

import pytest

from berth.lab.session import Lab

from .conftest import Power
from .machine import Machine
from .setups import ADDRESS, SETUPS

_SIZE = 4 << 20
_SERVER = f"""import socket, threading
def serve(client):
    with client:
        client.sendall(b"d" * {_SIZE})
        left = {_SIZE}
        while left and (data := client.recv(1 << 16)):
            left -= len(data)
        client.sendall(b"." * (not left))
with socket.create_server(("::", 80), family=socket.AF_INET6, dualstack_ipv6=True) as server:
    while True:
        threading.Thread(target=serve, args=(server.accept()[0],)).start()
"""
# Takes all the server sends, and sends as much; prints what it got.
_CLIENT = f"""import socket, sys
with socket.create_connection((sys.argv[1], 8081), 60) as client:
    left = {_SIZE}  # neither closes its side: a connection that begins to end leaves the fast path
    while left and (data := client.recv(min(left, 1 << 16))):
        left -= len(data)
    client.sendall(b"u" * {_SIZE})
    print(client.recv(10).decode())
"""
# Whoever forwards packets by rules sees them; those of the fast path nobody does.
_WATCH = """nft -f - <<'END'
table inet watch {
    counter seen { }
    chain forward { type filter hook forward priority 0; counter name seen; }
}
END"""


def _seen(guest: Machine) -> int:
    """Bytes that were forwarded the long way, since last asked."""
    said = json.loads(guest.sh("nft -j reset counter inet watch seen"))
    return int(next(entry["counter"]["bytes"] for entry in said["nftables"] if "counter" in entry))


def _move(lab: Lab, address: str) -> None:
    """Move both ways through the published port."""
    argv = [sys.executable, "-c", _CLIENT, address]
    done = lab.run("laptop", argv, check=True, timeout=120)
    assert done.stdout == ".\n"


@pytest.mark.long
@pytest.mark.timeout(900)
def test_what_is_under_way_takes_the_fast_path(machine: Power, lab: Lab) -> None:
    with machine(SETUPS["ifupdown-static"]) as guest:
        guest.sh("ip addr add fd00:77::2/64 dev eth0 nodad", timeout=60)
        lab.run("laptop", ["ip", "addr", "add", "fd00:77::9/64", "dev", "eth0", "nodad"], check=True)
        guest.sh(f"cat >/root/server.py <<'END'\n{_SERVER}END")
        guest.sh(_WATCH)
        for options, fast in (("", False), ("-o offload=auto", True)):
            guest.sh(f"berth network create --ipv6 {options} back", timeout=120)
            guest.sh("ip netns add c1; berth attach back c1 -p 8081:80", timeout=120)
            guest.sh("systemd-run --unit echo nsenter --net=/run/netns/c1 python3 /root/server.py")
            guest.until("nsenter --net=/run/netns/c1 ss -tln | grep -q :80", within=60)
            for address in (ADDRESS, "fd00:77::2"):
                _seen(guest)
                _move(lab, address)
                seen = _seen(guest)
                assert (seen < _SIZE // 4) == fast, (options, address, seen)
            if fast:
                _is_kept(guest)
            guest.sh("systemctl stop echo; berth detach back c1; berth network rm back; ip netns del c1", timeout=120)
        assert "berth_flows" not in guest.sh("nft list tables")


def _is_kept(guest: Machine) -> None:
    """Nothing is missing of it, and what is taken from it comes back."""
    assert _repaired(guest) == []
    table = guest.sh("nft list tables | grep berth_flows").split()[-1]
    for harm in ("nft flush ruleset", f"nft flush table inet {table}", f"nft delete table inet {table}"):
        guest.sh(harm)
        assert any(table in step for step in _repaired(guest)), harm
        assert _repaired(guest) == []
    # A link that is not there takes no part, and lacks nothing; one that comes back does.
    guest.sh("ip link add up1 type veth peer name up2; berth network create -o offload=up1 spare", timeout=120)
    guest.sh("ip link del up1")
    assert _repaired(guest) == []
    guest.sh("ip link add up1 type veth peer name up2")
    assert any("up1" in step for step in _repaired(guest))
    assert _repaired(guest) == []
    guest.sh("berth network rm spare; ip link del up1", timeout=120)


def _repaired(guest: Machine) -> list[str]:
    """What reconcile found to do."""
    done: list[dict[str, str]] = json.loads(guest.sh("berth reconcile --json", timeout=120))["done"]
    return [str(step) for step in done]
