"""Asking a whole LAN who has an address: every machine that answers, not only the one that the kernel believes.

ARP is asked from nobody's address, which leaves nothing in any cache (RFC 5227 section 2.1.1); neighbours are
solicited from the host's own link-local address (RFC 4861 section 4.3).
"""

from __future__ import annotations

import errno
import socket
import struct
import time
from collections import defaultdict
from collections.abc import Iterator, Sequence
from ipaddress import IPv4Address, IPv6Address

from berth.checksum import checksum
from berth.kernel import rtnl
from berth.kernel.netlink import ROUTE, Netlink
from berth.model import Address

_WAIT = 0.4  # seconds for answers, after the last question
_BURST = 64  # questions between two looks at the answers
_ARP, _IPV6, _ALL = 0x0806, 0x86DD, 0x0003
_ARP_LAYOUT = struct.Struct(">6s6sH HHBBH 6s4s6s4s")  # Ethernet II, then RFC 826
_REPLY, _ICMPV6, _SOLICITATION, _ADVERTISEMENT = 2, 58, 135, 136
_TARGET_MAC = 2  # option of an advertisement
_NO_DEVICE = (errno.ENODEV, errno.ENXIO, errno.ENETDOWN)


def who_has(
    dev: str,
    addresses: Sequence[Address],
    *,
    source: Address | None = None,
    within: float = _WAIT,
    every: bool = True,
) -> dict[Address, frozenset[str]]:
    """The MACs of all that answer on a link for addresses, this host aside. Raises `OSError` without CAP_NET_RAW.

    `source`: whom the answers are for; None: nobody. `within`: seconds. `every`: wait for a second machine as well.
    Nobody where there is no such link or it is down.
    """
    if not addresses:
        return {}
    with socket.socket(socket.AF_PACKET, socket.SOCK_RAW, 0) as raw:
        try:
            raw.bind((dev, _ALL))
            found = _Answers(raw, frozenset(addresses), every=every)
            _ask(found, source or _link_local(dev), addresses)
            found.collect(within)
        except OSError as error:
            if error.errno not in _NO_DEVICE:
                raise
            return {}
    return {address: frozenset(macs) for address, macs in found.macs.items()}


class _Answers:
    """What was heard so far."""

    def __init__(self, raw: socket.socket, wanted: frozenset[Address], *, every: bool) -> None:
        self.raw, self.own = raw, raw.getsockname()[4]
        self.macs: defaultdict[Address, set[str]] = defaultdict(set)
        self._wanted, self._every = wanted, every

    def collect(self, within: float) -> None:
        """Take in answers for some seconds; 0: those that are there."""
        until = time.monotonic() + within
        while self._every or len(self.macs) < len(self._wanted):
            self.raw.settimeout(max(until - time.monotonic(), 0))
            try:
                frame = self.raw.recv(2048)
            except (TimeoutError, BlockingIOError):
                return
            for address, mac in _answer(frame):
                if address in self._wanted and mac != self.own:
                    self.macs[address].add(mac.hex(":"))


def _ask(found: _Answers, source: Address | None, addresses: Sequence[Address]) -> None:
    for number, address in enumerate(addresses, 1):
        if isinstance(address, IPv4Address):
            own = source if isinstance(source, IPv4Address) else IPv4Address(0)
            found.raw.send(_arp(found.own, own, address))
        elif isinstance(source, IPv6Address):
            found.raw.send(_solicitation(found.own, source, address))
        if number % _BURST == 0:
            found.collect(0)


def _answer(frame: bytes) -> Iterator[tuple[Address, bytes]]:
    """The address and MAC of an ARP reply or a neighbour advertisement."""
    kind = int.from_bytes(frame[12:14], "big")
    if kind == _ARP and len(frame) >= _ARP_LAYOUT.size:
        *_, operation, sender, claimed, _, _ = _ARP_LAYOUT.unpack_from(frame)
        if operation == _REPLY:
            yield IPv4Address(claimed), sender
    if kind == _IPV6 and len(frame) >= 78 and frame[20] == _ICMPV6 and frame[54] == _ADVERTISEMENT:
        option = frame[78:86]
        mac = option[2:8] if len(option) == 8 and option[0] == _TARGET_MAC else frame[6:12]
        yield IPv6Address(frame[62:78]), mac


def _arp(own: bytes, source: IPv4Address, wanted: IPv4Address) -> bytes:
    broadcast = b"\xff" * 6
    return _ARP_LAYOUT.pack(broadcast, own, _ARP, 1, 0x0800, 6, 4, 1, own, source.packed, bytes(6), wanted.packed)


def _solicitation(own: bytes, source: IPv6Address, wanted: IPv6Address) -> bytes:
    group = IPv6Address("ff02::1:ff00:0").packed[:13] + wanted.packed[13:]
    own_mac = struct.pack(">BB6s", 1, 1, own)
    body = struct.pack(">BBHI16s", _SOLICITATION, 0, 0, 0, wanted.packed) + own_mac
    pseudo = source.packed + group + struct.pack(">II", len(body), _ICMPV6)
    body = body[:2] + struct.pack(">H", checksum(pseudo + body)) + body[4:]
    head = struct.pack(">IHBB16s16s", 6 << 28, len(body), _ICMPV6, 255, source.packed, group)
    return b"\x33\x33" + group[12:] + own + struct.pack(">H", _IPV6) + head + body


def _link_local(dev: str) -> IPv6Address | None:
    """A link-local address of a link, from which neighbours can be asked."""
    with Netlink(ROUTE) as nl:
        index = rtnl.index(nl, dev)
        for at, held in rtnl.addresses(nl):
            if at == index and isinstance(held.ip, IPv6Address) and held.ip.is_link_local:
                return held.ip
    return None
