"""What people type as the far end of a connection."""

from __future__ import annotations

import re
from ipaddress import ip_address

from berth.doctor.journey import Target
from berth.errors import Invalid

_SHAPE = re.compile(r"(?:\[(?P<six>[^\]]+)\]|(?P<any>[^/\[\]]*?))(?::(?P<port>\d{1,5}))?(?:/(?P<proto>tcp|udp))?")


def parse(text: str) -> Target:
    """`ADDRESS`, `ADDRESS:PORT` or `ADDRESS:PORT/udp`, an IPv6 address with a port in brackets. Raises `Invalid`.

    >>> str(parse("10.0.0.1:53/udp")), str(parse("fd00::1")), str(parse("[fd00::1]:80"))
    ('10.0.0.1:53/udp', 'fd00::1', '[fd00::1]:80/tcp')
    """
    refusal = f"{text!r} is no ADDRESS[:PORT[/udp]]: write 192.0.2.1:80, 192.0.2.1:53/udp or [2001:db8::1]:80"
    try:
        return Target(ip_address(text))
    except ValueError:
        match = _SHAPE.fullmatch(text)
    if match is None or not 0 < int(match["port"] or 0) < 65536:
        raise Invalid(refusal)
    try:
        return Target(ip_address(match["six"] or match["any"]), int(match["port"]), match["proto"] or "tcp")
    except ValueError:
        raise Invalid(refusal) from None
