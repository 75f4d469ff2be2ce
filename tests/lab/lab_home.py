"""A host at home whose NIC carries its addresses itself, and what is compared before and after."""

from __future__ import annotations

import re
import shlex
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from itertools import pairwise
from pathlib import Path

from berth.lab.session import Inside, Session
from berth.lab.topology import Host, Topology, home

NIC, MAC = "enp3s0", "02:00:00:00:02:02"
HOST, LAPTOP, ROUTER = "192.168.2.2", "192.168.2.50", "192.168.2.1"
WIRE = (sys.executable, str(Path(__file__).with_name("lab_wire.py")))
KILLED = (sys.executable, str(Path(__file__).with_name("lab_killed.py")))

#: As much as a host can carry: labels, a lifetime, a peer, secondary addresses, metrics, tables, rules, neighbours.
LOAD = f"""
ip address add 192.168.2.77/24 dev {NIC} label {NIC}:web
ip address add 192.168.2.78/24 dev {NIC} noprefixroute metric 7
ip address add 10.6.0.1/24 dev {NIC} noprefixroute
ip route add 10.6.0.0/24 dev {NIC} proto kernel scope link src 10.6.0.1 metric 100
ip route add 10.66.0.0/16 via 10.6.0.9
ip address add 10.9.0.1/24 broadcast 10.9.0.255 dev {NIC} valid_lft 900 preferred_lft 600
ip address add 10.8.0.1 peer 10.8.0.2/32 dev {NIC} metric 50
ip address add fd00:2::7/64 dev {NIC} nodad valid_lft 900 preferred_lft 600
ip address add fd00:3::7/128 dev {NIC} nodad noprefixroute
ip route add 10.80.0.0/16 via 192.168.2.50 metric 50 proto static
ip route add 10.81.0.0/16 via 192.168.2.50 table 100 src 192.168.2.77
ip route add 10.82.0.0/16 via 10.7.7.7 dev {NIC} onlink mtu 1400 advmss 1300
ip route add 10.83.0.0/16 dev {NIC} scope link
ip route add 10.84.0.0/16 nexthop via 192.168.2.50 weight 2 nexthop via 192.168.2.1
ip route add default via 192.168.2.50 metric 900
ip -6 route add fd77::/64 via fd00:2::50
ip -6 route add fd78::/64 via fd00:2::50 dev {NIC} table 100 metric 20 pref high
ip rule add iif {NIC} lookup 100 pref 1000
ip rule add oif {NIC} from 192.168.2.77 fwmark 0x7/0xff lookup 101 pref 1001
ip -6 rule add oif {NIC} lookup 100 pref 1000
ip neigh replace 192.168.2.99 lladdr 02:00:00:00:99:99 dev {NIC} nud permanent
ip neigh add proxy 192.168.2.98 dev {NIC}
ip -6 neigh replace fd00:2::99 lladdr 02:00:00:00:99:99 dev {NIC} nud permanent router
sysctl -qw net.ipv4.conf.{NIC}.rp_filter=2 net.ipv4.conf.{NIC}.arp_ignore=1 net.ipv6.conf.{NIC}.accept_ra=2
"""
#: Some of it, of each kind.
SOME = "\n".join(
    line for line in LOAD.splitlines() if re.search("77|78::|99 lladdr 02:00:00:00:99:99 dev .* perm", line)
)
_LOOK = f"""
ip -d address show; ip route show table all; ip -6 route show table all; ip rule; ip -6 rule
ip neigh show nud permanent; ip -6 neigh show nud permanent; ip neigh show proxy
sysctl -a 2>/dev/null | grep 'conf.{NIC}'
"""
_PASSING = re.compile(r"^\d+: |(?<=@if)\d+|\d+sec\b|\w+_timer +\S+")


def bare() -> Topology:
    """The default lab, but that the host has no bridge."""
    return Topology(tuple(_bare(node) if isinstance(node, Host) else node for node in home().nodes))


def _bare(host: Host) -> Host:
    return replace(host, nics=tuple(replace(nic, bridge=None) for nic in host.nics))


class Home:
    """The host, as a person at its keyboard sees it."""

    def __init__(self, lab: Session) -> None:
        self.lab = lab
        # The link-local address is new, and the kernel still asks whether it is unique.
        self.until("! ip -6 address show tentative | grep -q .")

    def sh(self, script: str, node: str = "host", **env: str) -> str:
        """What a shell prints for a script that must succeed."""
        return self.lab.run(node, ["sh", "-ec", script], env=env, check=True).stdout

    def tried(self, line: str, **env: str) -> subprocess.CompletedProcess[str]:
        """Type `berth …`, whatever comes of it."""
        return self.lab.run("host", ["berth", *shlex.split(line)], env=env, timeout=90)

    def berth(self, line: str, **env: str) -> str:
        """Type `berth …`, which must succeed."""
        done = self.tried(line, **env)
        assert done.returncode == 0, done
        return done.stdout

    def refused(self, line: str, code: int = 2, **env: str) -> str:
        """Type `berth …`, which must be refused in one line; that line."""
        done = self.tried(line, **env)
        assert (done.returncode, done.stdout) == (code, ""), done
        complaint = done.stderr.splitlines()[-1]
        assert complaint.startswith("berth: ")
        return complaint

    def killed(self, step: int, line: str, **env: str) -> bool:
        """Type `berth …` and kill it after so many operations; False when it came to its end before."""
        done = self.lab.run("host", [*KILLED, str(step), *shlex.split(line)], env=env, timeout=90)
        assert done.returncode in (0, -9), done
        return done.returncode == -9

    def survives(self, line: str, look: Callable[[], object], **env: str) -> int:
        """That all is as before, wherever `berth …` is killed on its way; after how many steps it came to its end."""
        before, step = look(), 0
        while self.killed(step, line, **env):
            self.until_over()
            assert look() == before, f"after step {step} of {line}"
            step += 1
        assert look() != before
        return step

    def look(self) -> list[str]:
        """All that must be the same before and after, without link numbers and what is left of lifetimes."""
        return [_PASSING.sub("", line).rstrip() for line in self.sh(_LOOK).splitlines()]

    def until(self, script: str, within: float = 20) -> None:
        """Wait until a script succeeds."""
        until = time.monotonic() + within
        while self.lab.run("host", ["sh", "-c", script]).returncode:
            assert time.monotonic() < until, f"never: {script}"
            time.sleep(0.05)

    def until_over(self, within: float = 20) -> None:
        """Wait until no change is under way."""
        self.until('! grep -q \'"phase"\' "$BERTH_STATE"/uplinks/*.json', within)


@contextmanager
def talking(lab: Session, address: str = HOST) -> Iterator[list[float]]:
    """A TCP connection and a ping from the laptop, for the block; the longest gaps of both, in seconds."""
    gaps: list[float] = []
    pipe = subprocess.PIPE
    server = lab.popen("host", [*WIRE, "serve"], stdout=pipe, text=True)
    _ready(server)
    talker = lab.popen("laptop", [*WIRE, "talk", address], stdin=pipe, stdout=pipe, text=True)
    _ready(talker)
    ping = lab.popen("laptop", ["ping", "-D", "-i", "0.01", address], stdout=pipe, text=True)
    try:
        time.sleep(0.5)
        yield gaps
        time.sleep(0.5)
        said, _ = talker.communicate("\n", 30)
        assert talker.returncode == 0, "the connection was lost"
        ping.terminate()
        echoes = [float(at) for at in re.findall(r"^\[([\d.]+)\] .* time=", ping.communicate()[0], re.MULTILINE)]
        gaps += [float(said.split()[0]), max(later - at for at, later in pairwise(echoes))]
    finally:
        for process in (ping, talker, server):
            process.kill()
            process.wait()


def _ready(process: Inside) -> None:
    assert process.stdout is not None
    assert process.stdout.readline() == "ready\n"
