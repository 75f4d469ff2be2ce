"""The host's side of a move: what there is to know of a NIC, and the programs that have a hand in it."""

from __future__ import annotations

import fcntl
import glob
import os
import socket
import struct
import subprocess
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime
from pathlib import Path

from berth import durable
from berth.errors import NotFound, Refused
from berth.hostconfig import File
from berth.kernel import clients, moved, neighbours, netns, ovs, rtnl, sysctl
from berth.kernel.netlink import ROUTE, Netlink, attrs
from berth.moved import Moved, MovedAddr, MovedRoute
from berth.state import HOST, Sysctl
from berth.uplink.facts import Facts, Nic
from berth.uplink.record import Client as Started

_POLL = 0.01  # seconds
_COMMAND_WITHIN = 90.0
_IFLA_CARRIER = 33
_SIOCGIWNAME = 0x8B01  # linux/wireless.h
_RTA_OIF, _RTA_NH_ID = 4, 30
#: Settings of a link that are not its own: set by the kernel, by a router, or by `Port`.
_NOT_CARRIED = frozenset({"addr_gen_mode", "mc_forwarding", "mtu", "stable_secret", "ndisc_notify"})
_CLOUDS = (
    "Amazon EC2",
    "Google",
    "DigitalOcean",
    "Hetzner",
    "OpenStack Foundation",
    "Alibaba Cloud",
    "OracleCloud.com",
)
#: Where running managers say of a link, by its number, whether they manage it.
_TOLD = (("NetworkManager", "run/NetworkManager/devices"), ("systemd-networkd", "run/systemd/netif/links"))
MANAGED = {"NetworkManager": "managed=true", "systemd-networkd": "ADMIN_STATE=configur"}
_AZURE = "7783-7084-3265-9085-8269-3286-77"  # its chassis asset tag


class LinuxUplink:
    """The host that Berth runs on. `root`: where its files are; None: a bare network namespace, which has none."""

    def __init__(self, root: Path | None) -> None:
        self.root = root

    def facts(self, nic: str, bridge: str, *, of: str = "") -> Facts:
        """All about a NIC, or with `of` about a NIC and what its bridge of that name carries. Raises `NotFound`."""
        with Netlink(ROUTE) as nl:
            every = {link.index: link for link in rtnl.links(nl)}
            link = next((found for found in every.values() if found.name == nic), None)
            if link is None:
                raise NotFound(f"no link {nic} on this host: see `ip link`")
            carrier = of or nic
            load = frozenset(noun for noun in moved.read(nl) if carrier in noun.links)
            there = next((found for found in every.values() if found.name == bridge), None)
            master = every.get(link.master)
            odd = tuple(_unmovable(nl, carrier, load))
            return Facts(
                nic=_nic(nl, link, every, master),
                bridge_there="" if there is None else f"a {there.kind or 'link'} of that name",
                bridge_ports=_ports(there, every),
                carried=load,
                settings=tuple(_settings(carrier)),
                unmovable=odd,
                clients=tuple(clients.running(carrier)),
                managers=tuple(self._managers(link.index)),
                session=_session(load),
                cloud=_cloud() if self.root == Path("/") else "",
                dot1x=_dot1x(nic),
            )

    def answers(self, dev: str, ip: str, within: float) -> bool:
        """Whether a neighbour answers on a link within some seconds."""
        return neighbours.answers(dev, ip, within)

    def datapath(self) -> str:
        """The datapath of a new bridge of Open vSwitch's. Raises `Unsupported` where none runs."""
        return ovs.datapath()

    def acquaint(self, source: str, target: str) -> None:
        """Let a link know the neighbours of another, where both are there."""
        neighbours.acquaint(source, target)

    def solicit(self, dev: str) -> None:
        """Ask the routers of a link to advertise themselves."""
        neighbours.solicit(dev)

    def carrier(self, dev: str, within: float) -> bool:
        """Whether a link has a carrier within some seconds."""
        until = time.monotonic() + within
        with Netlink(ROUTE) as nl:
            while not _carrier(nl, dev):
                if time.monotonic() >= until:
                    return False
                time.sleep(_POLL)
        return True

    def configured(self) -> bool:
        """Whether the host has files of its own."""
        return self.root is not None

    def files(self, globs: Sequence[str]) -> dict[str, File]:
        """The files of the host's configuration, by path below the root. Raises `Invalid`, `Denied`, `Refused`."""
        if self.root is None:
            return {}
        found = {}
        for pattern in globs:
            for path in glob.glob(pattern, root_dir=self.root, recursive=True):
                if (self.root / path).is_file() and (content := durable.read(self.root / path)) is not None:
                    found[path] = File(*content)
        return found

    def run(self, argv: Sequence[str]) -> None:
        """Run a command of the host's. Raises `Refused` when it fails."""
        line = " ".join(argv)
        pipe, null = subprocess.PIPE, subprocess.DEVNULL
        try:
            done = subprocess.run(
                argv, stdin=null, stdout=pipe, stderr=subprocess.STDOUT, timeout=_COMMAND_WITHIN, check=False
            )
        except (OSError, subprocess.TimeoutExpired) as error:
            raise Refused(f"cannot run `{line}`: {error}") from None
        if done.returncode:
            raise Refused(f"`{line}` failed ({done.returncode}): {done.stdout.decode(errors='replace').strip()[-300:]}")

    def hand_over(self, started: Sequence[Started], source: str, target: str) -> None:
        """Have what leases the address of one link lease it for another."""
        clients.hand_over(started, source, target)

    def boot(self) -> str:
        """Which boot this is."""
        return netns.boot()

    def now(self) -> float:
        """Seconds since the boot, suspended ones too."""
        return time.clock_gettime(time.CLOCK_BOOTTIME)

    def path(self, below: str) -> str:
        """The absolute path of a file below the root."""
        return str((self.root or Path("/")) / below)

    def today(self) -> str:
        """The time, as RFC 3339 has it, in UTC."""
        return datetime.now(UTC).isoformat(timespec="seconds").replace("+00:00", "Z")

    def managing(self, nic: str) -> dict[str, str]:
        """What running managers say of a link, by manager."""
        return dict(self._told(socket.if_nametoindex(nic)))

    def _managers(self, index: int) -> Iterator[str]:
        if clients.manages_all():
            yield "dhcpcd"
        for name, text in self._told(index):
            if MANAGED[name] in text:
                yield name

    def _told(self, index: int) -> Iterator[tuple[str, str]]:
        for name, directory in _TOLD if self.root is not None else ():
            found = sysctl.content(self.path(f"{directory}/{index}"))
            if found is not None:
                yield name, found


def _ports(bridge: rtnl.Link | None, every: dict[int, rtnl.Link]) -> tuple[str, ...]:
    if bridge is None:
        return ()
    if bridge.kind == "bridge":
        return tuple(link.name for link in every.values() if link.master == bridge.index)
    return ovs.ports(bridge.name)


def _nic(nl: Netlink, link: rtnl.Link, every: dict[int, rtnl.Link], master: rtnl.Link | None) -> Nic:
    over = [(found.name, found.kind) for found in every.values() if found.peer == link.index and found.peer_nsid == -1]
    return Nic(
        name=link.name,
        kind=link.kind,
        type=rtnl.IFINFO.unpack_from(rtnl.told(nl, link.name))[1],
        mac=link.mac,
        mtu=link.mtu,
        up=link.up,
        carrier=_carrier(nl, link.name),
        address_mode=link.address_mode,
        master=master.name if master else "",
        master_kind=master.kind if master else "",
        wireless=_wireless(link),
        over=tuple(sorted((name, kind) for name, kind in over if kind != "veth")),
    )


def _carrier(nl: Netlink, name: str) -> bool:
    return rtnl.details(nl, name).get(_IFLA_CARRIER) == b"\1"


def _wireless(link: rtnl.Link) -> bool:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        try:
            fcntl.ioctl(probe, _SIOCGIWNAME, link.name.encode().ljust(40, b"\0"))
            return True
        except OSError:
            pass
    there = Path("/sys/class/net", link.name)  # which may show another namespace's links
    return sysctl.content(str(there / "ifindex")) == str(link.index) and (there / "phy80211").exists()


def _settings(dev: str) -> Iterator[Sysctl]:
    """A link's settings where they differ from a new link's; and always the one that a move touches."""
    for family in ("ipv4", "ipv6"):
        directory = f"/proc/sys/net/{family}/conf"
        if not os.path.isdir(f"{directory}/{dev}"):
            continue
        for name in sorted(set(os.listdir(f"{directory}/{dev}")) - _NOT_CARRIED):
            value = sysctl.content(f"{directory}/{dev}/{name}")
            if value and (name == "accept_dad" or value != sysctl.content(f"{directory}/default/{name}")):
                yield Sysctl(HOST, f"net.{family}.conf.{dev.replace('.', '/')}.{name}", value)


def _unmovable(nl: Netlink, dev: str, load: frozenset[Moved]) -> Iterator[str]:
    index = nl.index(dev)
    for data in nl.dump(rtnl.GETROUTE, bytes(rtnl.RTMSG.size)):
        found = attrs(data, rtnl.RTMSG.size)
        if _RTA_NH_ID in found and found.get(_RTA_OIF) == struct.pack("=I", index or 0):
            yield f"a route through {dev} uses an object of `ip nexthop`, which cannot be moved: make it a plain route"
            break
    for key, count in Counter(noun.key for noun in load if isinstance(noun, MovedRoute)).items():
        if count > 1:
            yield f"{count} routes to {key[3]} through {dev} have metric {key[6]}: delete all but one"


def _session(load: frozenset[Moved]) -> str:
    """From where the one who asks is logged in through one of the addresses; "" for from nowhere."""
    own = {noun.ip.partition("/")[0] for noun in load if isinstance(noun, MovedAddr)}
    pid = os.getpid()
    while pid > 1:
        try:
            environment = Path(f"/proc/{pid}/environ").read_bytes().decode(errors="replace").split("\0")
            words = (
                next((line for line in environment if line.startswith("SSH_CONNECTION=")), "=").split("=", 1)[1].split()
            )
            if len(words) == 4 and words[2].partition("%")[0] in own:
                return words[0]
            pid = int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[1])
        except (OSError, ValueError, IndexError):
            return ""
    return ""


def _cloud() -> str:
    vendor = sysctl.content("/sys/class/dmi/id/sys_vendor") or ""
    if sysctl.content("/sys/class/dmi/id/chassis_asset_tag") == _AZURE:
        return "Azure"
    return next((cloud for cloud in _CLOUDS if cloud in vendor), "")


def _dot1x(nic: str) -> bool:
    """Whether wpa_supplicant drives the NIC by its driver for wires."""
    return any(
        client.program == "wpa_supplicant" and any(word in (nic, f"-i{nic}") for word in client.argv)
        for client in clients.processes(("wpa_supplicant",))
    )
