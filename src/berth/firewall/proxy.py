"""Which published ports a process has to pass on, since the kernel cannot translate them.

What comes to ::1 cannot be sent to another machine (RFC 4291 section 2.5.3), and Linux has no `route_localnet` for
IPv6; nor can an IPv6 packet become one of IPv4. SCTP is left to the kernel: its associations name their addresses
within, which only the machines themselves may change (RFC 9260 section 6.4).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from ipaddress import IPv4Address, IPv6Address, ip_address

from berth.firewall.tables import FAMILY, TABLE
from berth.model import Address, Interface, PortMapping, Proxied
from berth.state import NftElement

NAME = "berth-proxy"  # what the process calls itself; at most 15 bytes (comm in proc(5))
MAPS = ("proxied4", "proxied6", "proxied64")

_LOOPBACK = IPv6Address("::1")
_ANY: dict[int, Address] = {4: IPv4Address(0), 6: IPv6Address(0)}


def ways(choice: str, mapping: PortMapping, addresses: Sequence[Interface]) -> Iterator[tuple[Address, Address]]:
    """(where to listen, whom to pass it on to) of one mapping. `choice`: auto, always or never."""
    if choice == "never" or mapping.proto == "sctp":
        return
    targets = {interface.version: interface.ip for interface in reversed(addresses)}
    asked = (_ANY[4], _ANY[6]) if mapping.host_ip is None else (mapping.host_ip,)
    for listen in asked:
        target = targets.get(listen.version) or (targets.get(4) if listen.version == 6 else None)
        if target is None:
            continue
        if choice == "always" or listen.version != target.version:
            yield listen, target
        elif listen in (_ANY[6], _LOOPBACK):
            yield _LOOPBACK, target


def element(one: Proxied) -> NftElement:
    """How the firewall's maps keep it."""
    listen, target = f"ipv{one.listen.version}", f"ipv{one.target.version}"
    name = "proxied64" if listen != target else f"proxied{one.listen.version}"
    match = ((listen, str(one.listen)), ("proto", one.proto), ("port", str(one.first)))
    data = ((target, str(one.target)), ("port", str(one.port)), ("port", str(one.last)))
    return NftElement(FAMILY, TABLE, name, match, data)


def proxied(element: NftElement) -> Proxied:
    """The reverse of `element`."""
    (_, listen), (_, proto), (_, first) = element.match
    (_, target), (_, port), (_, last) = element.data
    return Proxied(ip_address(listen), proto, int(first), int(last), ip_address(target), int(port))
