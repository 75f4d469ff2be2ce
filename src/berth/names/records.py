"""Which names there are, for whom: values from networks and endpoints. No input or output here."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from ipaddress import ip_address

from berth.model import Address, Endpoint, Network, Placement, Subnet
from berth.names.message import AAAA, ANY, IN, NXDOMAIN, PTR, A, Query, Record, answer, encoded

TTL = 5  # seconds: a container that is made anew has another address
RESOLVER = "127.0.0.11"  # as Docker's: never an address of the sandbox's own network
_SHORT = 12  # digits of an id


@dataclass(frozen=True, slots=True)
class View:
    """What one who asks may know."""

    addresses: Mapping[str, tuple[Address, ...]]
    pointers: Mapping[Address, str]
    subnets: tuple[Subnet, ...]  # private ones: nobody else knows of the addresses in them
    zones: tuple[str, ...]  # that the networks' names and domains are
    upstream: tuple[str, ...] | None  # who is asked for the rest; (): the host's own servers; None: nobody

    def ours(self, name: str) -> bool:
        """Whether there is no such name when nobody has heard of it: without a dot, or in a network's own domain.

        Clients give up searching at any other answer, such as that of a server which refuses what is not its own.
        """
        return "." not in name or name.endswith(tuple(f".{zone}" for zone in self.zones))


@dataclass(frozen=True, slots=True)
class Place:
    """An address that queries are answered at."""

    ns: str  # path of the sandbox; "": the host
    identity: str  # of the sandbox
    address: str
    networks: tuple[str, ...] = field(compare=False)  # the ids of those that who asks here is on
    sources: tuple[Subnet, ...] = field(compare=False)  # who may ask; (): anybody who gets there


def named(net: Network) -> bool:
    """Whether the endpoints of a network have names."""
    return bool(net.bridge) and net.naming_option("names") != "false"


def places(networks: Iterable[Network], endpoints: Iterable[Endpoint]) -> frozenset[Place]:
    """Where to listen: in each sandbox that Berth finishes, and at the gateways of NAT networks."""
    known = {net.id: net for net in networks if named(net)}
    inside: dict[tuple[str, str], list[str]] = {}
    for ep in endpoints:
        if ep.network in known and ep.placement is Placement.FULL:
            inside.setdefault((ep.sandbox.path, ep.sandbox.identity), []).append(ep.network)
    found = {Place(path, identity, RESOLVER, tuple(ids), ()) for (path, identity), ids in inside.items()}
    for net in known.values():
        if net.nat and net.bridge_address:
            subnets = tuple(pool.subnet for pool in net.pools)
            gateways = [str(pool.gateway) for pool in net.pools if pool.gateway is not None]
            found |= {Place("", "", gateway, (net.id,), subnets) for gateway in gateways}
    return frozenset(found)


def view(asker: Collection[str], networks: Iterable[Network], endpoints: Sequence[Endpoint]) -> View:
    """What who is on the networks of those ids sees: them, then those that let them in.

    A name without its network's is looked for in the first before the second.
    """
    every = [net for net in networks if named(net)]
    own = [net for net in every if net.id in asker]
    bridges = {net.bridge for net in own}
    others = [net for net in every if net.id not in asker and bridges & {*net.allow_from}]
    addresses: dict[str, tuple[Address, ...]] = {}
    pointers: dict[Address, str] = {}
    for group in (own, others):
        found: dict[str, list[Address]] = {}
        for net in group:
            _add(found, pointers, net, [ep for ep in endpoints if ep.network == net.id])
        for name, known in found.items():
            addresses.setdefault(name, tuple(dict.fromkeys(known)))
    subnets = tuple(pool.subnet for net in own + others if net.nat for pool in net.pools)
    zones = {net.name.lower() for net in own} | {domain for net in own if (domain := net.naming_option("domain"))}
    return View(addresses, pointers, subnets, tuple(sorted(zones)), _upstream(own, endpoints))


def _add(
    found: dict[str, list[Address]], pointers: dict[Address, str], net: Network, endpoints: Iterable[Endpoint]
) -> None:
    suffixes = ("", f".{net.name}", *(f".{net.naming_option('domain')}" if net.naming_option("domain") else "",))
    for ep in endpoints:
        held = [interface.ip for interface in ep.addresses]
        for name in dict.fromkeys((ep.name, ep.id[:_SHORT], *ep.aliases)):
            for suffix in dict.fromkeys(suffixes):
                full = f"{name}{suffix}".lower()
                with suppress(ValueError):
                    encoded(full)
                    found.setdefault(full, []).extend(held)
        for address in held:
            pointers.setdefault(address, f"{ep.name}.{net.name}")


def _upstream(own: Sequence[Network], endpoints: Iterable[Endpoint]) -> tuple[str, ...] | None:
    """Who the network says, else who a DHCP server has said to its endpoints."""
    outward = [net for net in own if not net.internal]
    if not outward:
        return None
    chosen = next((text for net in outward if (text := net.naming_option("dns"))), "")
    if chosen:
        return tuple(filter(None, chosen.split(",")))
    ids = {net.id for net in outward}
    return next((tuple(map(str, ep.learnt.dns)) for ep in endpoints if ep.network in ids and ep.learnt.dns), ())


def decide(seen: View, query: Query, turn: int) -> tuple[list[Record], int] | None:
    """The records for a question and the answer's code; None where somebody else has to be asked.

    `turn` is where to begin in a list of addresses, so that who takes the first takes each in turn.
    """
    if query.raw[query.end - 2 : query.end] != IN.to_bytes(2, "big"):
        return None
    address = reverse(query.name)
    if address is not None:
        return _pointer(seen, query, address)
    known = seen.addresses.get(query.name)
    if known is None:
        return None
    kinds = {A: (4,), AAAA: (6,), ANY: (4, 6)}.get(query.kind, ())
    wanted = [each for each in known if each.version in kinds]
    if wanted:
        turn %= len(wanted)
        wanted = wanted[turn:] + wanted[:turn]
    return [(A if each.version == 4 else AAAA, each.packed) for each in wanted], 0


def _pointer(seen: View, query: Query, address: Address) -> tuple[list[Record], int] | None:
    name = seen.pointers.get(address)
    if name is None:
        return ([], NXDOMAIN) if any(address in subnet for subnet in seen.subnets) else None
    if query.kind not in (PTR, ANY):
        return [], 0
    try:
        return [(PTR, encoded(name))], 0
    except ValueError:
        return [], NXDOMAIN


def reverse(name: str) -> Address | None:
    """The address that a name of a reverse zone is about (RFC 1035 section 3.5, RFC 3596 section 2.5)."""
    with suppress(ValueError):
        if name.endswith(".in-addr.arpa"):
            return ip_address(".".join(reversed(name.split(".")[:-2])))
        digits = name.removesuffix(".ip6.arpa").split(".")
        if len(digits) == 32 and name.endswith(".ip6.arpa"):
            text = "".join(reversed(digits))
            return ip_address(":".join(text[at : at + 4] for at in range(0, 32, 4)))
    return None


def told(seen: View, query: Query, turn: int, room: int) -> bytes | None:
    """The answer from what is known, of at most `room` bytes; None where somebody else has to be asked."""
    decided = decide(seen, query, turn)
    return None if decided is None else answer(query, decided[0], code=decided[1], ttl=TTL, room=room)
