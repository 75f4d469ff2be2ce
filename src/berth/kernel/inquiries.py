"""What can only be asked from inside a sandbox: each visit is a thread's own, since setns(2) moves no other."""

from __future__ import annotations

import secrets
import socket
import struct
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from ipaddress import ip_address
from pathlib import Path

from berth.doctor.facts import Deaf, Records
from berth.doctor.journey import Answer, Target, verdict
from berth.errors import BerthError
from berth.kernel import diag, listeners, trace
from berth.kernel.netns import inside
from berth.model import Address, Endpoint, Network, Placement, PortMapping
from berth.seams import WhoHas

_PATIENCE = 1.0  # seconds that anybody has to answer
_NETNS = "/run/netns/"
_RESOLVER = "127.0.0.11"
_ETC_NETNS = Path("/etc/netns")  # ip-netns(8)
_RESOLV_CONF = Path("/etc/resolv.conf")
#: Who answers pings on the internet if no name server of the host's is there: a public resolver.
_PUBLIC: tuple[Address, ...] = (ip_address("1.1.1.1"), ip_address("2606:4700:4700::1111"))


def witnesses(records: Records) -> Iterator[tuple[Network, Endpoint]]:
    """For each network the endpoint that came last: what keeps one from something keeps all."""
    for net in records.networks:
        full = [ep for ep in records.of(net) if ep.placement is Placement.FULL]
        if full:
            yield net, full[-1]


# --- neighbours ---


def next_hops(records: Records) -> Iterator[tuple[Endpoint, Address]]:
    """The routers of each network's witness."""
    for net, ep in witnesses(records):
        for version in ep.default_route:
            hop = next((p.gateway for p in net.pools if p.subnet.version == version and p.gateway is not None), None)
            if hop is not None:
                yield ep, hop


def peers(records: Records, known: Mapping[str, Sequence[Address]]) -> Iterator[tuple[Endpoint, Address]]:
    """Whom each network's witness should reach: a machine that the host knows on the LAN, or another container.

    `known`: neighbours of the host's that answer it, by bridge.
    """
    for net, ep in witnesses(records):
        if net.driver == "flat":
            found = next(iter(known.get(net.bridge, ())), None)
        else:
            others = [each for each in records.of(net) if each.placement is Placement.FULL and each != ep]
            held = [address.ip for each in others[-1:] for address in each.addresses]
            found = next(iter(held), None) if net.icc and net.driver == "bridge" else None
        if found is not None and any(found in address.network for address in ep.addresses):
            yield ep, found


def answers(who_has: WhoHas, ep: Endpoint, address: Address) -> bool:
    """Whether a neighbour answers an endpoint; True where that cannot be asked."""
    source = next((held.ip for held in ep.addresses if held.version == address.version), None)
    try:
        with inside(ep.sandbox.path):
            return bool(who_has(ep.ifname, (address,), source=source, within=_PATIENCE, every=False))
    except (BerthError, OSError):
        return True


# --- what is beyond ---


def beyond(records: Records, targets: Sequence[Address]) -> Iterator[tuple[Endpoint, Address]]:
    """Who should reach an address of the internet: each witness that has a default route of its version."""
    for net, ep in witnesses(records):
        for target in targets:
            if target.version in ep.default_route and not net.internal:
                yield ep, target


def internet() -> tuple[Address, ...]:
    """Whom containers should reach unless somebody says otherwise: the host's name servers that are beyond its LAN."""
    found = []
    for server in _servers_of(_RESOLV_CONF):
        with suppress(ValueError):
            found.append(ip_address(server))
    return tuple(each for each in found if each.is_global) or _PUBLIC


def pings(ns: str, address: Address) -> bool:
    """Whether an address answers a ping from a namespace; "": the host. False where it cannot be asked."""
    try:
        with inside(ns):
            return trace.echo(address, 56, within=_PATIENCE) is Answer.ANSWERED
    except (BerthError, OSError):
        return False


def halt(net: Network, ep: Endpoint, address: Address, who_has: WhoHas) -> str:
    """Who ends a ping to an address, in words; "" where that cannot be told, or it arrives by what is remembered."""
    try:
        said = verdict(trace.follow(net, ep, Target(address), who_has))
    except (BerthError, OSError):
        return ""
    return "" if said.arrived else said.message


# --- services ---


def publishing(records: Records) -> Iterator[Endpoint]:
    """The endpoints that have published ports and can be looked into."""
    gone = {ep.id for ep in records.gone}
    return (ep for ep in records.endpoints if ep.ports and ep.id not in gone and ep.placement is Placement.FULL)


def unheard(ep: Endpoint) -> tuple[PortMapping, ...]:
    """The published ports that nobody in the sandbox waits on."""
    held = tuple(address.ip for address in ep.addresses)
    try:
        with inside(ep.sandbox.path):
            return tuple(port for port in ep.ports if not _heard(port, held))
    except BerthError:
        return ()


def _heard(port: PortMapping, held: tuple[Address, ...]) -> bool:
    told = diag.hears(port.proto, held, port.port)
    if told is None:
        return port.proto not in ("tcp", "udp") or port.port in listeners.listening(port.proto)
    return told


# --- names ---


def resolvers(records: Records, *, daemon: bool) -> Iterator[tuple[Endpoint, str]]:
    """The name servers of each witness: what its resolv.conf says, else Berth's own where the daemon runs."""
    for net, ep in witnesses(records):
        said = _nameservers(ep.sandbox.path)
        named = bool(net.bridge) and net.naming_option("names") != "false"
        for server in said or ([_RESOLVER] if daemon and named else []):
            yield ep, server


def _nameservers(sandbox: str) -> list[str]:
    """What `ip netns exec` shows a sandbox as its resolv.conf; nothing where it has none of its own."""
    if not sandbox.startswith(_NETNS):
        return []
    return _servers_of(_ETC_NETNS / sandbox.removeprefix(_NETNS) / "resolv.conf")


def _servers_of(resolv_conf: Path) -> list[str]:
    """The name servers in a file as resolv.conf(5) has them; none where there is no such file."""
    try:
        lines = resolv_conf.read_text(errors="replace").splitlines()
    except OSError:
        return []
    return [words[1] for line in lines if len(words := line.split()) > 1 and words[0] == "nameserver"]


def deaf(ep: Endpoint, server: str, *, daemon: bool) -> Deaf | None:
    """Ask a name server from inside a sandbox; None where it answers, whatever it says."""
    labels = [ep.name.encode()[:63]] if server == _RESOLVER else []  # others are asked for the root, which all know
    name = b"".join(bytes([len(label)]) + label for label in labels) + b"\0"
    kind = 1 if labels else 2  # A, NS
    ident = secrets.token_bytes(2)
    query = ident + struct.pack("!5H", 0x0100, 1, 0, 0, 0) + name + struct.pack("!2H", kind, 1)
    try:
        with inside(ep.sandbox.path):
            family = socket.AF_INET6 if ":" in server else socket.AF_INET
            with socket.socket(family, socket.SOCK_DGRAM) as asking:
                return None if _answered(asking, server, query) else Deaf(ep, server, daemon)
    except BerthError:
        return None


def _answered(asking: socket.socket, server: str, query: bytes) -> bool:
    """Twice: a datagram may get lost."""
    asking.settimeout(_PATIENCE / 2)
    for _ in range(2):
        try:
            asking.connect((server, 53))
            asking.send(query)
            if asking.recv(4096)[:2] == query[:2]:
                return True
        except OSError:
            continue
    return False
