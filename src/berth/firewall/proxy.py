"""Which published ports a process has to pass on, since the kernel cannot translate them.

What comes to ::1 cannot be sent to another machine (RFC 4291 section 2.5.3), and Linux has no `route_localnet` for
IPv6; nor can an IPv6 packet become one of IPv4. SCTP is left to the kernel: its associations name their addresses
within, which only the machines themselves may change (RFC 9260 section 6.4).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from ipaddress import IPv4Address, IPv6Address

from berth.model import Address, Interface, PortMapping

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
