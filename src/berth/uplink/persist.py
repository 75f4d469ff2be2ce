"""How an adopted NIC is kept over a reboot: by the system that configures it."""

from __future__ import annotations

from collections.abc import Iterable
from ipaddress import ip_address, ip_interface, ip_network

from berth.errors import Invalid
from berth.hostconfig import Edits, Files, Renderer
from berth.model import Addressing, Uplink, UplinkRoute
from berth.moved import FOREVER, FROM_ROUTER, RA, MovedAddr, MovedRoute
from berth.uplink.facts import Facts

RESOLV_CONF = "etc/resolv.conf"


def choose(
    asked: str, told: dict[str, str], files: Files, uplink: Uplink, renderers: Iterable[Renderer]
) -> Renderer | None:
    """The renderer of the system that configures the NIC; None for none.

    `asked`: a renderer's name, "none" or "auto". `told`: what running managers say of the NIC, by manager.
    Raises `Invalid` for a configuration that does not parse.
    """
    known = {renderer.name: renderer for renderer in renderers}
    if asked != "auto":
        return known.get(asked)
    running = [name for manager in told for name in SYSTEMS.get(manager, ())]
    order = [name for name in (*running, *_ORDER) if name in known]
    return next((known[name] for name in order if known[name].configures(files, uplink)), _unwritten(told, known))


#: Systems whose files a running manager may have been configured by.
SYSTEMS = {"NetworkManager": ("netplan", "ifcfg", "networkmanager"), "systemd-networkd": ("netplan", "networkd")}
_ORDER = ("netplan", "ifupdown", "ifcfg", "networkmanager", "networkd")


def _unwritten(told: dict[str, str], known: dict[str, Renderer]) -> Renderer | None:
    """NetworkManager configures NICs that no file speaks of too."""
    managed = "managed=true" in told.get("NetworkManager", "")
    return known.get("networkmanager") if managed else None


def described(facts: Facts, bridge: str, switch: str, resolv_conf: str) -> Uplink:
    """What the kernel tells of a NIC, in the words of configuration."""
    nic = facts.nic
    addresses = [noun for noun in facts.carried if isinstance(noun, MovedAddr)]
    routes = [noun for noun in facts.carried if isinstance(noun, MovedRoute)]
    lines = [line.split() for line in resolv_conf.splitlines()]
    servers = [words[1] for words in lines if len(words) > 1 and words[0] == "nameserver"]
    return Uplink(
        nic=nic.name,
        bridge=bridge,
        mac=nic.mac,
        mtu=0 if nic.mtu == 1500 else nic.mtu,
        switch=switch,
        ipv4=_addressing(4, addresses, routes, leased=bool(facts.clients)),
        ipv6=_addressing(6, addresses, routes, leased=False),
        routes=tuple(_routes(routes)),
        dns=tuple(ip_address(server) for server in servers if _is_address(server)),
        search=tuple(word for words in lines if words and words[0] == "search" for word in words[1:]),
    )


def _addressing(version: int, addresses: list[MovedAddr], routes: list[MovedRoute], *, leased: bool) -> Addressing:
    own = sorted((a for a in addresses if (":" in a.ip) == (version == 6)), key=lambda a: a.place)
    defaults = [r for r in routes if r.dst.endswith("/0") and (":" in r.dst) == (version == 6) and r.via]
    learnt = leased or any(a.valid != FOREVER or a.protocol == FROM_ROUTER for a in own)
    learnt = learnt or any(route.protocol == RA for route in defaults)
    static = tuple(ip_interface(a.ip) for a in own if a.valid == FOREVER and not ip_interface(a.ip).is_link_local)
    if learnt:
        return Addressing("auto", () if version == 4 else static)
    gateway = ip_address(min(defaults, key=lambda r: r.metric).via) if defaults else None
    return Addressing("static", static, gateway) if static else Addressing()


def _routes(routes: Iterable[MovedRoute]) -> Iterable[UplinkRoute]:
    for route in sorted(routes, key=lambda route: route.key):
        if not route.dst.endswith("/0") and route.protocol != RA and not route.hops:
            via = ip_address(route.via) if route.via else None
            yield UplinkRoute(ip_network(route.dst), via, route.metric, route.table)


def _is_address(text: str) -> bool:
    try:
        return bool(ip_address(text))
    except ValueError:
        return False


def merged(*edits: Edits) -> Edits:
    """Edits of several deciders. Raises `Invalid` where two would write the same file."""
    whole: Edits = {}
    for some in edits:
        twice = whole.keys() & some.keys()
        if twice:
            raise Invalid(f"{min(twice)} would be written twice: move it away, or use --persist none")
        whole |= some
    return whole
