"""One real probe out of a sandbox, watched on its way through this host."""

from __future__ import annotations

import errno
import os
import socket
import struct
import time
from ipaddress import ip_address, ip_network
from pathlib import Path

from berth.checksum import checksum
from berth.doctor.journey import Answer, Journey, Target, steps
from berth.kernel import nft_text, read, rtnl
from berth.kernel.netlink import ROUTE, Netlink
from berth.kernel.netns import inside
from berth.model import Address, Endpoint, Network
from berth.seams import WhoHas

_WITHIN = 1.5  # seconds for an answer
_SETTLE = 0.15  # seconds without news until all is told
_FAMILIES = {4: socket.AF_INET, 6: socket.AF_INET6}
_ECHO = {4: (socket.IPPROTO_ICMP, 8, 0), 6: (socket.IPPROTO_ICMPV6, 128, 129)}  # RFC 792, RFC 4443
_HEADERS = {4: 28, 6: 48}  # bytes of IP and ICMP before an echo's data
_DONTFRAG = {4: (socket.IPPROTO_IP, 10, 2), 6: (socket.IPPROTO_IPV6, 23, 2)}  # IP(V6)_MTU_DISCOVER, …_DO
_ANSWERS = {
    errno.ECONNREFUSED: Answer.REFUSED,
    errno.EHOSTUNREACH: Answer.UNREACHABLE,
    errno.ENETUNREACH: Answer.UNREACHABLE,
    errno.EACCES: Answer.UNREACHABLE,
}


def follow(net: Network, ep: Endpoint, target: Target, who_has: WhoHas) -> Journey:
    """Send one probe and watch it. Raises `NotFound` where the sandbox is gone, `Refused` where nobody may watch."""
    cable = read.host().link(ep.link)
    with inside(ep.sandbox.path):
        source, hop = _way(target.address)
    if cable is None or source is None or hop is None:
        return Journey(ep, net, target, Answer.NO_ROUTE, cable, source, hop)
    with nft_text.Tracing(ep.link, _condition(target.address, hop)) as tracing:
        before = _filtered()
        with inside(ep.sandbox.path):
            answer = _probe(target)
            answers = bool(who_has(ep.ifname, (hop,), source=source, within=1.0, every=False))
            largest = _too_large(ep, target.address) if answer is Answer.ANSWERED else 0
        seen = steps(tracing.lines(_SETTLE), tracing.TABLE)
        filtered = _filtered() - before
    return Journey(ep, net, target, answer, cable, source, hop, answers, seen, filtered, largest)


def _condition(target: Address, hop: Address) -> str:
    """Which frames are watched: the probe's, and the questions for its next hop."""
    if target.version == 4:
        return f"ip daddr {target}\narp daddr ip {hop}"
    return f"ip6 daddr {target}\nicmpv6 type nd-neighbor-solicit"


def _way(target: Address) -> tuple[Address | None, Address | None]:
    """The source address and next hop of what is sent there; None and None without a route."""
    try:
        with socket.socket(_FAMILIES[target.version], socket.SOCK_DGRAM) as asking:
            asking.connect((str(target), 9))
            source = ip_address(asking.getsockname()[0])
    except OSError:
        return None, None
    with Netlink(ROUTE) as nl:
        entries = [entry for entry in rtnl.routes(nl) if target in ip_network(entry.dst)]
    best = max(entries, key=lambda entry: (ip_network(entry.dst).prefixlen, -entry.metric), default=None)
    return source, ip_address(best.via) if best is not None and best.via else target


def _filtered() -> int:
    """How many packets reverse path filters have dropped (TcpExt IPReversePathFilter of proc_net_netstat)."""
    lines = [line.split() for line in Path("/proc/thread-self/net/netstat").read_text().splitlines()]
    for names, values in zip(lines[::2], lines[1::2], strict=False):
        if "IPReversePathFilter" in names:
            return int(values[names.index("IPReversePathFilter")])
    return 0


def _probe(target: Target) -> Answer:
    """Knock once."""
    if target.proto == "icmp":
        return echo(target.address, 56)
    kind = socket.SOCK_STREAM if target.proto == "tcp" else socket.SOCK_DGRAM
    with socket.socket(_FAMILIES[target.address.version], kind) as knocking:
        knocking.settimeout(_WITHIN)
        try:
            knocking.connect((str(target.address), target.port))
            if target.proto == "udp":
                knocking.send(b"?")
                knocking.recv(1)
        except TimeoutError:
            return Answer.SILENT
        except OSError as error:
            return _ANSWERS.get(error.errno or 0, Answer.SILENT)
    return Answer.ANSWERED


def echo(address: Address, size: int, within: float = _WITHIN) -> Answer:
    """One ping, never in fragments; `size`: bytes of data, `within`: seconds."""
    proto, request, reply = _ECHO[address.version]
    identity = os.getpid() & 0xFFFF
    with socket.socket(_FAMILIES[address.version], socket.SOCK_RAW, proto) as raw:
        raw.setsockopt(*_DONTFRAG[address.version])
        raw.connect((str(address), 0))
        head = struct.pack(">BBHHH", request, 0, 0, identity, size & 0xFFFF)
        packet = head + bytes(size & ~1)
        if address.version == 4:
            packet = packet[:2] + struct.pack(">H", checksum(packet)) + packet[4:]
        until = time.monotonic() + within
        try:
            raw.send(packet)
            while (left := until - time.monotonic()) > 0:
                raw.settimeout(left)
                said = raw.recv(65535)
                said = said[(said[0] & 15) * 4 :] if address.version == 4 else said
                if said[:1] == bytes([reply]) and said[4:8] == head[4:8]:
                    return Answer.ANSWERED
        except TimeoutError:
            return Answer.SILENT
        except OSError as error:
            return _ANSWERS.get(error.errno or 0, Answer.SILENT)
    return Answer.SILENT


def _too_large(ep: Endpoint, address: Address) -> int:
    """The size of a full packet, in bytes, if it gets lost where small ones come back; 0: it does not, or none does."""
    with Netlink(ROUTE) as nl:
        link = rtnl.link(nl, ep.ifname)
    if link is None or echo(address, 56) is not Answer.ANSWERED:
        return 0
    lost = echo(address, link.mtu - _HEADERS[address.version]) is Answer.SILENT
    return link.mtu if lost and echo(address, 56) is Answer.ANSWERED else 0
