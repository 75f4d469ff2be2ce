"""A LAN with a host that has nothing but a card, and what the kernel has there once somebody has configured it.

The router is 10.77.0.1 and fd77::1, and 10.77.0.254 and fd77::fe for routes to elsewhere. It leases addresses.
"""

from __future__ import annotations

import json
import subprocess
import time
from collections.abc import Callable, Mapping
from ipaddress import ip_interface
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from berth.lab.session import Inside, Lab
from berth.lab.topology import Host, Nic, Node, Switch, Topology
from berth.model import Uplink

MAC = "00:50:56:aa:00:10"
HOST = "host"

_ROUTER = ("10.77.0.1/24", "10.77.0.2/24", "10.77.0.254/24", "fd77::1/64", "fd77::fe/64")
_SERVER = "dnsmasq --keep-in-foreground --conf-file=/dev/null --user= --group= --pid-file= --port=0 --no-ping"
_LEASES = "--interface=lan0 --bind-interfaces --dhcp-authoritative --dhcp-range=10.77.0.100,10.77.0.200,1h"
_ADVERTISE = "--enable-ra --dhcp-range=fd77::,ra-only,64,1h"
#: What differs from one look at the same to the next, or has the link's name.
_FLEETING = ("valid_life_time", "preferred_life_time", "expires", "tentative", "flags", "dynamic", "mngtmpaddr", "dev")
_NOT_SETTINGS = (*_FLEETING, "protocol", "pref", "iif", "error", "noprefixroute")


class Lan:
    """The LAN, for the length of a `with` block. The server's leases outlive it, in a file."""

    def __init__(self, leases: Path, *, advertise: bool = False) -> None:
        """`advertise`: the router tells its prefix (SLAAC)."""
        self._leases, self._advertise = leases, advertise
        card = Nic("lan0", "switch", tuple(ip_interface(each) for each in _ROUTER), "02:00:00:00:77:01")
        host = Host(HOST, (Nic("eth0", "switch", mac=MAC),))
        self.lab = Lab(Topology((Switch("switch"), Node("router", (card,)), host)))
        self._server: Inside | None = None

    def __enter__(self) -> Self:
        self.lab.__enter__()
        self.ip("link", "set", "dev", "eth0", "down")  # as at boot
        argv = f"{_SERVER} {_LEASES} --dhcp-leasefile={self._leases} {_ADVERTISE if self._advertise else ''}".split()
        self._server = self.lab.popen("router", argv, stderr=subprocess.DEVNULL)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        assert self._server is not None
        self._server.kill()
        self._server.wait()
        self.lab.__exit__(kind, error, trace)

    def ip(self, *args: str) -> str:
        """What `ip …` prints on the host."""
        return self.lab.run(HOST, ["ip", *args], check=True).stdout

    def json(self, *args: str) -> list[dict[str, Any]]:
        """What `ip -json …` prints on the host."""
        found: list[dict[str, Any]] = json.loads(self.ip("-json", *args) or "[]")
        return found

    def link(self, name: str) -> dict[str, Any]:
        """A link in detail; nothing where there is none."""
        return next((each for each in self.json("-details", "link") if each["ifname"] == name), {})

    def addresses(self, name: str) -> list[dict[str, Any]]:
        """A link's addresses, without the link-local ones: every link makes its own."""
        found = [address for each in self.json("address", "show", "dev", name) for address in each["addr_info"]]
        return [_settings(each, name) for each in found if each["scope"] != "link"]

    def look(self, name: str) -> dict[str, Any]:
        """What a link carries: addresses, routes of all tables, rules and permanent neighbours; its own name aside."""
        routes = [
            {"family": family} | _settings(each, name)
            for family in ("-4", "-6")
            for each in self.json(family, "route", "show", "table", "all", "dev", name)
            if each.get("table") != "local" and each["dst"] not in ("fe80::/64", "ff00::/8", "multicast")
        ]
        rules = [each for family in ("-4", "-6") for each in self.json(family, "rule")]
        neighbours = [_settings(each, name) for each in self.json("neigh", "show", "dev", name, "nud", "permanent")]
        return {
            "addresses": sorted(self.addresses(name), key=str),
            "routes": sorted(routes, key=str),
            "rules": rules,
            "neighbours": neighbours,
        }

    def move(self, source: str, target: str) -> None:
        """Move IPv4 addresses and routes from one link to another in one go, as an adoption does."""
        addresses = self.json("-4", "address", "show", "dev", source)[0]["addr_info"]
        routes = sorted(self.json("-4", "route", "show", "dev", source), key=lambda each: "gateway" in each)
        lines = [
            f"address add {each['local']}/{each['prefixlen']} brd + dev {target} noprefixroute" for each in addresses
        ]
        for each in routes:
            via = f"via {each['gateway']}" if "gateway" in each else f"scope link src {each['prefsrc']}"
            lines.append(f"route replace {each['dst']} {via} dev {target} metric {each.get('metric', 0)}")
        lines += [f"address flush dev {source}"]
        self.lab.run(HOST, ["ip", "-batch", "-"], input="\n".join(lines), check=True)

    def reaches(self, address: str) -> bool:
        """Whether the host has an answer from an address."""
        return self.lab.run(HOST, ["ping", "-c1", "-W2", address]).returncode == 0

    def assert_bridge(self, name: str, nic: str, mtu: int) -> None:
        """The bridge has the card as its port, has pinned its MAC, and forwards at once: it does without STP."""
        bridge, card = self.link(name), self.link(nic)
        data = bridge["linkinfo"]["info_data"]
        mine = f"mount -t sysfs sysfs /sys; cat /sys/class/net/{name}/addr_assign_type"  # the lab's shows the machine's
        kept = self.lab.run(HOST, ["unshare", "--mount", "sh", "-ec", mine], check=True).stdout
        assert (bridge["address"], data["stp_state"]) == (MAC, 0), bridge
        assert kept.strip() == "3", "the bridge's MAC may change with its ports"
        assert (card["master"], "UP" in card["flags"], "UP" in bridge["flags"]) == (name, True, True), card
        assert (card["mtu"], bridge["mtu"]) == (mtu, mtu)
        assert self.addresses(nic) == []


def until(true: Callable[[], object], seconds: float = 20) -> None:
    """Wait for a condition; it is asked once more when time is up, and then has to hold."""
    give_up = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < give_up, f"not within {seconds} s"
        time.sleep(0.1)


def told(uplink: Uplink) -> tuple[set[str], set[tuple[str, str]]]:
    """An uplink's static addresses, and its routes by destination and router."""
    families = (uplink.ipv4, uplink.ipv6)
    routes = {("default", str(each.gateway)) for each in families if each.gateway is not None}
    routes |= {(str(each.dst), str(each.via)) for each in uplink.routes}
    return {str(address) for each in families for address in each.addresses}, routes


def seen(look: Mapping[str, Any]) -> tuple[set[str], set[tuple[str, str]]]:
    """The same of what the kernel has; routes by a router only."""
    addresses = {f"{each['local']}/{each['prefixlen']}" for each in look["addresses"]}
    return addresses, {(each["dst"], each["gateway"]) for each in look["routes"] if "gateway" in each}


def _settings(found: dict[str, Any], name: str) -> dict[str, Any]:
    """What somebody has set, with the link's own name left out."""
    kept = {key: value for key, value in found.items() if key not in _NOT_SETTINGS and value is not None}
    return {key: value.replace(name, "LINK") if key == "label" else value for key, value in kept.items()}
