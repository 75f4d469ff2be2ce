"""The kernel's own WireGuard, which Debian's kernel has: what is sent is what is read, and tunnels go through it."""

from __future__ import annotations

import pytest

from .conftest import Power
from .setups import SETUPS

#: Run on each of two hosts, in its namespace: makes all that an encrypted network has there, and reads it back.
_MAKE = """import subprocess, sys
from ipaddress import ip_address
from berth import x25519
from berth.drivers import seals
from berth.kernel import read, send
from berth.model import HostRecord, SealKey
from berth.overlaid import Fdb, Neigh, Vxlan
from berth.plan import diff
from berth.seams import Scope
from berth.state import Addr, Bridge, keys

me, prefix = int(sys.argv[1]), sys.argv[2]
other = 3 - me
seal, hosts = {}, []
for number in (1, 2):
    file = f"/run/w{number}.key"
    with open(file) as text:
        public = x25519.public(text.read().strip())
    seal[number] = seals.seal(f"w{number}", SealKey(public, file, 51820 + number))
    hosts.append(HostRecord(f"w{number}", "", (ip_address(f"{prefix}{number}"),), public, 51820 + number))
own, macs = seal[me], {number: f"02:00:00:00:01:0{number}" for number in (1, 2)}
want = seals.own(own) | seals.peers(own, f"w{me}", hosts) | {
    Bridge("brt0", macs[me], 1338, "berth:1"),
    Addr("", "brt0", f"10.9.0.{me}/24"),
    Vxlan("bvx0", "brt0", 77, own.address, 4789, f"02:00:00:00:00:0{me}", 1338, "berth:1", own.link),
    Fdb("bvx0", macs[other], seal[other].address, via=own.link),
    Fdb.of_bridge("bvx0", macs[other]),
    Neigh("bvx0", f"10.9.0.{other}", macs[other]),
}
send.send(diff(want, ()))
have = read.read(Scope(keys(want), marked=True, tunnels=frozenset({own.link, "bvx0"})))
assert have == want, (have - want, want - have)
assert " wireguard " in subprocess.run(["ip", "-d", "link", "show", own.link], capture_output=True, text=True).stdout
"""
_CHANGE = """import subprocess
from berth import x25519
from berth.kernel import read, send
from berth.plan import diff
from berth.seams import Scope
from berth.sealed import WireGuard

name = subprocess.run("ip -o link | grep -o bwg[0-9a-f]*", shell=True, capture_output=True, text=True).stdout.split()[0]
scope = Scope(frozenset({("link", "", name)}))
(old,) = read.read(scope)
private = x25519.fresh()
with open(old.key_file, "w") as text:
    text.write(private)
new = WireGuard(old.name, x25519.public(private), 51900, 9000, old.key_file)
send.send(diff({new}, {old}))
assert read.read(scope) == {new}
"""
_REMOVE = """from berth.kernel import read, send
from berth.plan import diff
from berth.sealed import WireGuard
from berth.seams import Scope

(seal,) = (obj for obj in read.read(Scope(frozenset(), marked=True)) if isinstance(obj, WireGuard))
send.send(diff((), {seal}))
assert not read.read(Scope(frozenset({("link", "", seal.name), ("link", "", "bvx0")}))), "the tunnel goes with it"
"""
_HOSTS = """for n in w1 w2; do ip netns add $n; ip -n $n link set lo up; done
ip -n w1 link add eth0 type veth peer name eth0 netns w2
for i in 1 2; do
    ip -n w$i addr add 10.0.0.$i/24 dev eth0; ip -n w$i link set eth0 up; ip -n w$i addr add fd0a::$i/64 dev eth0 nodad
    PYTHONPATH=$(echo /opt/berth/lib/python3*/site-packages) python3 -c \
        'from berth import x25519; print(x25519.fresh())' >/run/w$i.key
done
"""


@pytest.mark.long
@pytest.mark.timeout(900)
def test_the_kernels_own_wireguard_in_both_versions(machine: Power) -> None:
    with machine(SETUPS["ifupdown-static"]) as guest:
        for name, script in (("make", _MAKE), ("change", _CHANGE), ("remove", _REMOVE)):
            guest.sh(f"cat >/root/{name}.py <<'END'\n{script}END")

        def on(host: int, line: str) -> str:
            packages = "export PYTHONPATH=$(echo /opt/berth/lib/python3*/site-packages)"
            return guest.sh(f"{packages}; nsenter --net=/run/netns/w{host} {line}", timeout=240)

        for prefix in ("10.0.0.", "fd0a::"):
            guest.sh(_HOSTS, timeout=240)
            for host in (1, 2):
                on(host, f"python3 /root/make.py {host} {prefix}")
            for size in (56, 1310):
                guest.until(f"nsenter --net=/run/netns/w1 ping -n -c1 -W5 -M do -s {size} 10.9.0.2", within=60)
            on(1, "python3 /root/change.py")
            assert on(1, "ping -n -c1 -W2 10.9.0.2 >/dev/null || echo silence") == "silence\n"
            on(1, "python3 /root/remove.py")
            guest.sh("ip netns del w1; ip netns del w2", timeout=60)
