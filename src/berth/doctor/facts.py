"""What checks rest on, gathered once."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from ipaddress import IPv4Address, IPv4Network

from berth.model import Address, Endpoint, Host, HostLink, Ipam, LeaseRecord, Network, Node, PortMapping
from berth.plan import Plan
from berth.state import MARK, ours


@dataclass(frozen=True, slots=True)
class Peer:
    """Where another host's tunnels end, and this host's to it."""

    node: str
    local: Address
    address: Address
    port: int  # UDP
    size: int  # bytes of the largest packet that tunnels send there
    networks: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Probed:
    """What came of packets to a peer."""

    peer: Peer
    size: int  # bytes of the largest packet that the kernel believes the path to take, and tunnels send
    largest: int  # bytes of the largest that arrived and was answered; 0: none


@dataclass(frozen=True, slots=True)
class Spanned:
    """What is on record of networks over several hosts."""

    peers: tuple[Peer, ...] = ()  # that have endpoints
    misfits: tuple[str, ...] = ()  # why networks cannot be on this host
    nodes: tuple[Node, ...] = ()


@dataclass(frozen=True, slots=True)
class Records:
    """What is on record, and what `berth reconcile` would do."""

    networks: tuple[Network, ...] = ()
    endpoints: tuple[Endpoint, ...] = ()
    gone: tuple[Endpoint, ...] = ()  # whose sandbox is no more
    plan: Plan = field(default_factory=Plan)
    refusal: str = ""  # why reconcile would do nothing
    interrupted: int = 0  # changes that a dead process has left half done
    leases: tuple[LeaseRecord, ...] = ()
    spanned: Spanned = field(default_factory=Spanned)

    @property
    def flat(self) -> Iterator[Network]:
        """The networks that are a LAN, on a bridge of the kernel's."""
        return (net for net in self.networks if net.driver == "flat" and net.switch == "bridge")

    def of(self, net: Network) -> Iterator[Endpoint]:
        """The endpoints of a network that are there."""
        gone = {ep.id for ep in self.gone}
        return (ep for ep in self.endpoints if ep.network == net.id and ep.id not in gone)

    def ranges(self, net: Network) -> Iterator[tuple[IPv4Network, frozenset[IPv4Address]]]:
        """The ranges that Berth gives a network's IPv4 addresses from by itself, and what of each is not free."""
        leased = {record.lease.address.ip for record in self.leases}
        held = {address.ip for ep in self.of(net) for address in ep.addresses}
        if net.addresses == "dhcp" or (net.ipam is Ipam.POOL and held <= leased):
            return  # what is Docker's may be from the LAN's own server: nobody can say before the first container
        for pool in net.pools:
            if isinstance(pool.span, IPv4Network):
                kept = {*held, *pool.reserved, pool.gateway, *(address for _, address in pool.aux)}
                kept |= {pool.subnet.network_address, pool.subnet.broadcast_address}
                yield pool.span, frozenset(each for each in kept if isinstance(each, IPv4Address))


@dataclass(frozen=True, slots=True)
class ForeignChain:
    """A FORWARD chain of another program's that drops by policy, and the links that it lets through by name."""

    family: str
    table: str
    name: str
    lets: frozenset[str] = frozenset()  # names that its accepting rules have


@dataclass(frozen=True, slots=True)
class Unreached:
    """What does not answer an endpoint, and as far as its question came."""

    endpoint: Endpoint
    address: Address
    kind: str = "router"  # router | peer (on the same network) | internet
    halt: str = ""  # who ended the question, in words; "": not followed


@dataclass(frozen=True, slots=True)
class Overlap:
    """An address of a network's own range that a DHCP server of the LAN's offers."""

    network: Network
    address: IPv4Address
    server: IPv4Address


@dataclass(frozen=True, slots=True)
class Keeping:
    """A port of a LAN's bridge, and who would make it one after a reboot."""

    nic: str
    bridge: str
    written: bool  # some system's files name the bridge
    managers: tuple[str, ...] = ()  # running, managing the NIC, and configured by files that do not
    adopted: bool = False  # by `berth uplink adopt`
    root: str = "/"  # where the files are


@dataclass(frozen=True, slots=True)
class Deaf:
    """A name server that an endpoint's sandbox asks, and that does not answer."""

    endpoint: Endpoint
    server: str
    daemon: bool  # Berth's runs, which answers at 127.0.0.11


@dataclass(frozen=True, slots=True)
class Facts:
    """A host at one moment."""

    records: Records
    host: Host
    #: Who answers on a bridge for an address, this host aside, by MAC.
    answers: Mapping[tuple[str, Address], frozenset[str]] = field(default_factory=dict)
    strict: frozenset[str] = frozenset()  # links that drop what would not go back by them (rp_filter 1)
    unheard: tuple[tuple[Endpoint, PortMapping], ...] = ()  # published ports that nobody waits on
    foreign: tuple[ForeignChain, ...] = ()
    unreached: tuple[Unreached, ...] = ()
    overlaps: tuple[Overlap, ...] = ()
    keeping: tuple[Keeping, ...] = ()
    deaf: tuple[Deaf, ...] = ()
    docker: tuple[
        str, ...
    ] = ()  # where Docker has rules: nftables | iptables-nft | iptables-legacy; the first is in use
    now: float = 0  # seconds since 1970
    probed: tuple[Probed, ...] = ()

    def compared(self, records: Records) -> Facts:
        """The same with what was found of the records meanwhile: who is gone lacks nothing."""
        there = {ep.id for ep in records.endpoints} - {ep.id for ep in records.gone}
        return replace(
            self,
            records=records,
            unheard=tuple(each for each in self.unheard if each[0].id in there),
            unreached=tuple(each for each in self.unreached if each.endpoint.id in there),
            deaf=tuple(each for each in self.deaf if each.endpoint.id in there),
        )

    def uplinks(self, net: Network) -> tuple[HostLink, ...]:
        """The ports of a LAN's bridge that are not cables of containers."""
        return tuple(link for link in self.host.ports(net.bridge) if not is_cable(link))


def is_cable(link: HostLink) -> bool:
    """Whether a link is the outer end of one of Berth's cables."""
    return link.kind == "veth" and link.alias.startswith(MARK)


def own_bridges(host: Host) -> tuple[HostLink, ...]:
    """The bridges that others than Berth have made, and that are up."""
    return tuple(link for link in host.links if link.kind == "bridge" and link.up and not ours(link.alias))
