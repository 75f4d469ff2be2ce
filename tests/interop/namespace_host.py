"""A small host for the real programs that read our files: a Debian of its own, in namespaces of its own.

    with NamespaceHost(tmp_path) as host:
        host.write(case.after)
        host.networkd()
        host.settled("eth0", "br0")

It has one NIC, eth0, in a LAN with a router that may give leases. There is no init: what a test needs, it starts.
All processes are in one process namespace, and die with the first of it.
"""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from itertools import pairwise
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from berth.hostconfig import Edits, File, Files
from berth.model import Uplink
from hosts import net_tree

MAC = "00:50:56:aa:00:10"
ROUTER = "10.77.0.1"
_WITHIN = 10  # seconds
_VARIABLES = {"PATH": "/usr/sbin:/usr/bin:/sbin:/bin", "LC_ALL": "C.UTF-8"}

# $1 the tree, $2 a directory to build the root in. A /sys that cannot be written to tells networkd that there is no
# udev to wait for.
_ROOT = """
mount --make-rprivate /
mount -t tmpfs tmpfs "$2"
mkdir "$2/upper" "$2/work" "$2/root"
mount -t overlay overlay -o "lowerdir=$1,upperdir=$2/upper,workdir=$2/work" "$2/root"
cd "$2/root"
mount -t proc proc proc
mount -t sysfs -o ro sysfs sys
mount --rbind /dev dev
mount -t tmpfs tmpfs run
mkdir -p old run/dbus run/systemd/netif/links run/systemd/netif/leases run/systemd/netif/lldp
pivot_root . old
umount -l old
chown -R systemd-network: /run/systemd/netif
echo 0123456789abcdef0123456789abcdef > /etc/machine-id
ip link set lo up
dbus-daemon --system --fork
unshare --net sh -ec '
    ip link add lan address 02:00:00:00:77:01 type bridge
    ip link set lan up
    ip addr add 10.77.0.1/24 dev lan
    ip addr add 2001:db8:77::1/64 dev lan nodad
    echo 1 > /proc/sys/net/ipv6/conf/all/forwarding
    echo $$ > /run/lan.draft
    mv /run/lan.draft /run/lan
    exec sleep infinity
' &
while [ ! -e /run/lan ]; do sleep 0.01; done
echo ready
exec sleep infinity
"""
_CAPABILITIES = "-all,+net_admin,+net_bind_service,+net_broadcast,+net_raw"  # as the unit has it
_NETWORKD = (
    *("setpriv", "--reuid=systemd-network", "--regid=systemd-network", "--init-groups"),
    *(f"--{kind}={_CAPABILITIES}" for kind in ("bounding-set", "inh-caps", "ambient-caps")),
    "/lib/systemd/systemd-networkd",
)
_DNSMASQ = (
    *("dnsmasq", "--keep-in-foreground", "--conf-file=/dev/null", "--port=0", "--interface=lan", "--user=root"),
    *("--pid-file=", "--dhcp-range=10.77.0.100,10.77.0.150,1h", "--dhcp-leasefile=/run/dnsmasq.leases"),
    *("--enable-ra", "--dhcp-range=::,constructor:lan,ra-stateless,64,1h", "--dhcp-authoritative"),
    "--dhcp-option=option:dns-server,10.77.0.1",
)


@dataclass(slots=True)
class Pings:
    """What came of pinging the router."""

    gap: float = 0.0  # seconds, the longest time without an answer


class NamespaceHost:
    """The host, for the length of a `with` block."""

    def __init__(self, home: Path) -> None:
        """`home`: an empty directory."""
        self._log = home / "log"
        self._mount = home / "mount"
        self._mount.mkdir()
        self._daemons: list[subprocess.Popen[bytes]] = []

    def __enter__(self) -> Self:
        argv = ["unshare", "--net", "--mount", "--pid", "--fork", "--kill-child", "sh", "-ec", _ROOT, "host"]
        with self._log.open("wb") as log:
            argv += [str(net_tree()), str(self._mount)]
            self._keeper = subprocess.Popen(argv, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=log)
        assert self._keeper.stdout is not None
        if not self._keeper.stdout.readline():
            raise RuntimeError(f"no host: {self.log()}")
        tasks = Path(f"/proc/{self._keeper.pid}/task/{self._keeper.pid}/children")
        self._pid = tasks.read_text().split()[0]
        self._lan = (self.root / "run/lan").read_text().strip()
        self.plug()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if error is not None:
            error.add_note(f"the host's log:\n{self.log()}\n{self.sh('ip -d address; ip route show table all')}")
        self._keeper.kill()
        self._keeper.wait()
        for each in self._daemons:
            each.wait()

    # --- what is in it ---

    @property
    def root(self) -> Path:
        """Its root directory, from outside."""
        return Path(f"/proc/{self._pid}/root")

    def write(self, files: Files) -> None:
        """Write files below its root directory, except those of the kernel."""
        for path, file in files.items():
            if not path.startswith("sys/"):
                target = self.root / path
                target.parent.mkdir(parents=True, exist_ok=True)
                target.write_text(file.text)
                target.chmod(file.mode)

    def remove(self, *paths: str) -> None:
        """Remove files below its root directory."""
        for path in paths:
            (self.root / path).unlink()

    def plug(self) -> None:
        """Plug eth0 into the LAN."""
        self.lan(f"ip link add eth0 address {MAC} type veth peer name lan0")
        self.lan("ip link set lan0 master lan up")
        self.lan("ip link set eth0 netns 1")

    def log(self) -> str:
        """What its daemons said."""
        return self._log.read_text(errors="replace")

    # --- what runs in it ---

    def run(self, argv: Sequence[str]) -> str:
        """What a command on the host prints; it must succeed."""
        return self._told(argv)

    def sh(self, line: str) -> str:
        """What a line of shell on the host prints; it must succeed."""
        return self.run(["sh", "-ec", line])

    def lan(self, line: str) -> str:
        """The same on the LAN's router."""
        return self._told(["sh", "-ec", line], lan=True)

    def ip(self, line: str) -> Any:
        """What `ip -j …` on the host says."""
        return json.loads(self.sh(f"ip -j {line}") or "[]")

    def leases(self) -> None:
        """Have the router give leases, and advertise a prefix."""
        self._start(_DNSMASQ, lan=True)
        until(lambda: "\n" in self.lan("ss -lnu 'sport = 67'").strip(), "dnsmasq does not listen")

    def networkd(self) -> subprocess.Popen[bytes]:
        """Start systemd-networkd."""
        return self._start(_NETWORKD)

    def networkmanager(self) -> subprocess.Popen[bytes]:
        """Start NetworkManager."""
        return self._start(["NetworkManager", "--no-daemon"])

    def settled(self, *links: str) -> None:
        """Wait until networkd calls these links configured."""
        until(lambda: all(self.link(each).get("ADMIN_STATE") == "configured" for each in links), f"{links} unsettled")

    def link(self, name: str) -> dict[str, str]:
        """What networkd says of a link; nothing where there is none, or it has not looked at it yet."""
        index = next((each["ifindex"] for each in self.ip("link") if each["ifname"] == name), 0)
        state = self.root / f"run/systemd/netif/links/{index}"
        lines = state.read_text().splitlines() if state.exists() else []
        return dict(line.split("=", 1) for line in lines if "=" in line)

    def kill(self, daemon: subprocess.Popen[bytes]) -> None:
        """Kill a daemon, which is the child of the process that entered the namespaces for it."""
        children = Path(f"/proc/{daemon.pid}/task/{daemon.pid}/children")
        until(lambda: bool(children.read_text()), "it has not started")
        os.kill(int(children.read_text()), signal.SIGKILL)
        daemon.wait()

    def crash(self, daemon: subprocess.Popen[bytes]) -> None:
        """End a daemon without a chance to say anything, and forget what it knew: as after a loss of power."""
        self.kill(daemon)
        self.sh("rm -rf /run/systemd/netif/leases/* /run/systemd/netif/links/*")
        for each in self.ip("link"):
            if each["ifname"] != "lo":
                self.sh(f"ip link del {each['ifname']} 2>/dev/null || true")
        self.plug()

    def load(self, link: str) -> dict[str, list[str]]:
        """What a link carries, without its own name, what counts down, and which program said so."""
        (shown,) = self.ip(f"address show dev {link}")
        addresses = [_line(each) for each in shown["addr_info"]]
        routes = [_line(each) for v in "46" for each in self.ip(f"-{v} route show table all") if each["dev"] == link]
        rules = [_line(each) for v in "46" for each in self.ip(f"-{v} rule")]
        return {
            kind: sorted(each.replace(link, "NIC") for each in found)
            for kind, found in (("addresses", addresses), ("routes", routes), ("rules", rules))
        }

    def files(self, globs: Sequence[str]) -> dict[str, File]:
        """The files that a renderer wants to see; those of the kernel as on the host."""
        listed = self.sh(f"cd /; find -L {' '.join(globs)} -maxdepth 0 -type f 2>/dev/null || true").split()
        return {path: File(self.sh(f"cat /{path}"), int(self.sh(f"stat -Lc %a /{path}"), 8)) for path in listed}

    def edit(self, edits: Edits) -> None:
        """Write and remove files as a renderer says."""
        self.write({path: file for path, file in edits.items() if file is not None})
        self.remove(*(path for path, file in edits.items() if file is None))

    def clients(self) -> set[tuple[str, ...]]:
        """Whom the router has given leases of IPv4: address and client identifier."""
        rows = [line.split() for line in (self.root / "run/dnsmasq.leases").read_text().splitlines()]
        return {(row[2], row[4]) for row in rows if row[0].isdigit() and "." in row[2]}

    def answered(self) -> None:
        """Wait for an answer of the router."""
        until(lambda: self.sh(f"ping -c1 -W1 {ROUTER} || true").count("bytes from") > 0, "the router does not answer")

    # --- what should be so ---

    def is_a_port(self, nic: str, bridge: str) -> None:
        """A bridge with the NIC's MAC, pinned, that forwards at once; the NIC is its port, and carries nothing."""
        (made,) = self.ip(f"-d link show dev {bridge}")
        info = made["linkinfo"]["info_data"]
        assert (made["linkinfo"]["info_kind"], made["address"]) == ("bridge", MAC)
        assert (info["stp_state"], info["forward_delay"]) == (0, 0)
        assert (self.root / f"sys/class/net/{bridge}/addr_assign_type").read_text() == "3\n"
        (port,) = self.ip(f"address show dev {nic}")
        assert (port["master"], port["addr_info"]) == (bridge, [])

    def has(self, uplink: Uplink) -> None:
        """The bridge carries what was said of the uplink."""
        self.leased(uplink.bridge, uplink)
        load = self.load(uplink.bridge)
        for each in (*uplink.ipv4.addresses, *uplink.ipv6.addresses):
            assert any(
                f"local {each.ip} prefixlen {each.network.prefixlen} " in f"{line} " for line in load["addresses"]
            )
        for family in (uplink.ipv4, uplink.ipv6):
            if family.gateway is not None:
                assert any(f"dst default gateway {family.gateway}" in line for line in load["routes"]), load
        for route in uplink.routes:
            said = f"dst {route.dst}" + (f" gateway {route.via}" if route.via else "")
            (line,) = [line for line in load["routes"] if said in line]
            assert (f"metric {route.metric}" in line or not route.metric) and (
                f"table {route.table}" in line or route.table == 254
            )
        if uplink.mtu:
            assert {self.ip(f"link show dev {each}")[0]["mtu"] for each in (uplink.nic, uplink.bridge)} == {uplink.mtu}

    def leased(self, link: str, uplink: Uplink) -> None:
        """Wait until a link has the addresses that the LAN gives: networkd may call it configured before that."""
        for family, auto in ((uplink.ipv4, "local 10.77.0.1"), (uplink.ipv6, "local 2001:db8:77:0:250:56ff:feaa:10")):
            if family.method == "auto":
                until(partial(self._carries, link, auto), f"no {auto}… on {link}")

    def _carries(self, link: str, text: str) -> bool:
        return any(text in line for line in self.load(link)["addresses"])

    # --- a move, as it is made before the files are written ---

    def move(self, nic: str, bridge: str) -> None:
        """Make the NIC a port of a new bridge that has its addresses and routes, in a moment."""
        (shown,) = self.ip(f"address show dev {nic}")
        self.sh(f"ip link add {bridge} address {MAC} mtu {shown['mtu']} type bridge stp_state 0 forward_delay 0")
        # Where a daemon listens to routers for the NIC, the kernel is not to listen for the bridge.
        self.sh(f"cd /proc/sys/net/ipv6/conf; cat {nic}/accept_ra >{bridge}/accept_ra")
        lines = [f"link set {bridge} up", f"link set {nic} master {bridge}"]
        old = []
        for each in shown["addr_info"]:
            if each["scope"] == "link" and each["family"] == "inet6":
                continue
            text = f"{each['local']}/{each['prefixlen']}"
            life = (
                ""
                if each["valid_life_time"] > 2**31
                else f" valid_lft {each['valid_life_time']} preferred_lft {each['preferred_life_time']}"
            )
            label = f" label {each['label'].replace(nic, bridge)}" if "label" in each else ""
            flags = " nodad" if each["family"] == "inet6" else ""
            flags += "".join(f" {flag}" for flag in ("noprefixroute", "mngtmpaddr") if each.get(flag))
            flags += f" brd {each['broadcast']}" if "broadcast" in each else ""
            lines.append(f"address add {text} dev {bridge}{label}{flags}{life}")
            old.append(f"address del {text} dev {nic}")
        for version in "46":
            by_hand = version == "4" and any(
                each.get("noprefixroute") and each["family"] == "inet" for each in shown["addr_info"]
            )
            shown_routes = self.sh(f"ip -{version} route show table all dev {nic}").splitlines()
            for line in sorted(shown_routes, key=lambda each: "via" in each):  # the way to a gateway before the gateway
                if (
                    "local" not in line.split()[0]
                    and "table local" not in line
                    and ("proto kernel" not in line or by_hand)
                ):
                    words = line.replace(" linkdown", "").split(" expires ")[0]
                    lines.append(f"-{version} route replace {words} dev {bridge}".replace("-4 ", "").replace("-6 ", ""))
        script = self.root / "run/move"
        script.write_text("\n".join([*lines, *old]) + "\n")
        self.sh("ip -force -batch /run/move")

    @contextmanager
    def pings(self) -> Iterator[Pings]:
        """Ping the router every 10 ms meanwhile; on leaving, the longest time without an answer is known."""
        found = Pings()
        told = self.root / "run/pings"
        ping = self._start(["sh", "-c", f"exec ping -D -i 0.01 {ROUTER} >/run/pings"])
        until(lambda: told.exists() and told.read_text().count("icmp_seq") > 5, "no ping")
        yield found
        count = told.read_text().count("icmp_seq")
        until(lambda: told.read_text().count("icmp_seq") > count + 20, "no ping any more")
        self.kill(ping)
        times = [float(line[1:].split("]")[0]) for line in told.read_text().splitlines() if "bytes from" in line]
        found.gap = max(later - earlier for earlier, later in pairwise(times))

    # --- how ---

    def _start(self, argv: Sequence[str], *, lan: bool = False) -> subprocess.Popen[bytes]:
        """Start a process that ends with the host."""
        with self._log.open("ab") as log:
            process = subprocess.Popen(
                self._enter(argv, lan), stdin=subprocess.DEVNULL, stdout=log, stderr=log, env=_VARIABLES
            )
        self._daemons.append(process)
        return process

    def _enter(self, argv: Sequence[str], lan: bool) -> list[str]:
        door = ["nsenter", f"--target={self._pid}", "--mount", "--pid", "--net", "--wdns=/", "--"]
        return [*door, *(["nsenter", f"--target={self._lan}", "--net", "--"] if lan else []), *argv]

    def _told(self, argv: Sequence[str], lan: bool = False) -> str:
        full = self._enter(argv, lan)
        done = subprocess.run(
            full, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=60, check=False, env=_VARIABLES
        )
        assert done.returncode == 0, f"`{' '.join(argv)}` ended with {done.returncode}: {done.stdout}{done.stderr}"
        return done.stdout


def _line(shown: dict[str, Any]) -> str:
    """An object of `ip -j` in one line."""
    passing = (
        "valid_life_time",
        "preferred_life_time",
        "expires",
        "protocol",
        "hoplimit",
        "flags",
        "tentative",
        "nodad",
        "metrics",
    )
    return " ".join(f"{key} {shown[key]}" for key in sorted(shown) if key not in passing)


def but_for_the_lease(load: dict[str, list[str]]) -> dict[str, list[str]]:
    """A golden case cannot know the client identifier of this machine."""
    return {kind: [re.sub(r"10\.77\.0\.1[0-5][0-9]", "LEASE", line) for line in lines] for kind, lines in load.items()}


def difference(found: dict[str, list[str]], wanted: dict[str, list[str]]) -> str:
    """Where two loads differ."""
    lines = [
        *(f"+ {line}" for kind in found for line in found[kind] if line not in wanted[kind]),
        *(f"- {line}" for kind in found for line in wanted[kind] if line not in found[kind]),
    ]
    return "\n".join(lines)


def until(ready: Callable[[], bool], complaint: str | Callable[[], str]) -> None:
    """Wait for something that takes its time."""
    give_up = time.monotonic() + _WITHIN
    while not ready():
        assert time.monotonic() < give_up, complaint if isinstance(complaint, str) else complaint()
        time.sleep(0.02)
