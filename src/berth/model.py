"""People's nouns: what a person asks for and what Berth decided.

A `…Spec` may have holes. A `Network` or `Endpoint` has none: what was decided is stored and never guessed
again. Everything here is a value: frozen, comparable, without behaviour that touches the world.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from enum import StrEnum
from ipaddress import IPv4Address, IPv4Interface, IPv4Network, IPv6Address, IPv6Interface, IPv6Network
from typing import TypeAlias

Address: TypeAlias = IPv4Address | IPv6Address
Interface: TypeAlias = IPv4Interface | IPv6Interface
Subnet: TypeAlias = IPv4Network | IPv6Network
Pairs: TypeAlias = tuple[tuple[str, str], ...]

#: The options that limit an endpoint: towards the container, and from it.
RATES = ("ingress_rate", "ingress_burst", "egress_rate", "egress_burst")

#: The options that say how the endpoints of a network are called, and who is asked for the rest.
NAMING = ("names", "domain", "dns", "mdns")


class Ipam(StrEnum):
    """Who gives the endpoints of a network their addresses."""

    NETWORK = "network"  # Berth, from the network's own pools
    POOL = "pool"  # Berth's IPAM driver, from pools that Docker holds and other networks may share
    DOCKER = "docker"  # Docker, from records of its own: Berth is told


class Placement(StrEnum):
    """Who finishes the inner end of a cable."""

    FULL = "full"  # Berth moves, names, addresses and raises it
    HANDOVER = "handover"  # the engine (Docker) will: it waits in the host, down and bare


@dataclass(frozen=True, slots=True)
class Pool:
    """A subnet to give addresses from."""

    subnet: Subnet
    ip_range: Subnet | None = None  # addresses are given only from here; None: from the whole subnet
    gateway: Address | None = None  # next hop of the endpoints' default route; None: no way out
    aux: tuple[tuple[str, Address], ...] = ()  # reserved by the operator, by name
    reserved: tuple[Address, ...] = ()  # reserved by Berth: the host's own addresses on a flat network
    owner: str = ""  # who keeps the record of the taken addresses: a pool of the IPAM driver; "": the network

    @property
    def span(self) -> Subnet:
        """The part of the subnet that addresses are given from."""
        return self.ip_range or self.subnet


@dataclass(frozen=True, slots=True)
class StaticRoute:
    """Where endpoints find a subnet that is neither theirs nor behind their gateway."""

    subnet: Subnet
    via: Address


@dataclass(frozen=True, slots=True)
class Admission:
    """Who may begin a conversation with an endpoint, and about what: an entry of an allow list."""

    proto: str  # tcp | udp | sctp | icmp (of either IP version) | any
    ports: tuple[int, int] | None = None  # the endpoint's own, first and last; None: all
    source: Subnet | None = None  # None: anybody

    def __str__(self) -> str:
        ports = "" if self.ports is None else "/" + "-".join(map(str, dict.fromkeys(self.ports)))
        return f"{self.proto}{ports}" + ("" if self.source is None else f"@{self.source}")


@dataclass(frozen=True, slots=True)
class Served:
    """What a DHCP server of a LAN gives, as far as its offers tell: from `first` to `last` at least."""

    server: Address
    first: Address
    last: Address
    subnet: Subnet | None = None
    router: Address | None = None

    def reaches(self, span: Subnet) -> bool:
        """Whether some of it is in a part of the LAN."""
        if span.version != self.first.version:
            return False
        return int(self.first) <= int(span.broadcast_address) and int(span.network_address) <= int(self.last)

    def __contains__(self, address: Address) -> bool:
        return address.version == self.first.version and int(self.first) <= int(address) <= int(self.last)

    def __str__(self) -> str:
        """The addresses, for people."""
        return str(self.first) if self.first == self.last else f"{self.first} to {self.last} at least"


@dataclass(frozen=True, slots=True)
class NetworkSpec:
    """A network as asked for: parsed and checked, but with holes."""

    name: str
    driver: str = "bridge"
    subnets: tuple[Subnet, ...] = ()
    ip_ranges: tuple[Subnet, ...] = ()
    gateways: tuple[Address, ...] = ()
    aux: tuple[tuple[str, Address], ...] = ()
    ipv6: bool = False
    internal: bool = False
    labels: Pairs = ()
    options: Pairs = ()  # as typed, for `inspect`
    settings: Pairs = ()  # the options under their short names, checked
    id: str = ""  # chosen by whoever asks; "": Berth makes one up
    ipam: Ipam = Ipam.NETWORK
    served: tuple[Served, ...] | None = None  # flat: what the LAN's DHCP servers give; None: they were not asked

    @property
    def rates(self) -> Pairs:
        """How fast each endpoint may receive and send."""
        return tuple((key, value) for key, value in self.settings if key in RATES)

    @property
    def naming(self) -> Pairs:
        """How endpoints are called; see `NAMING`."""
        return tuple((key, value) for key, value in self.settings if key in NAMING)

    def setting(self, key: str) -> str | None:
        """The value of an option by its short name; None when it was not given."""
        return dict(self.settings).get(key)


@dataclass(frozen=True, slots=True)
class SealKey:
    """This host's key of WireGuard's."""

    public: str  # in base64
    file: str  # that the private one is in
    port: int  # UDP


@dataclass(frozen=True, slots=True)
class Seal:
    """This host's WireGuard, which all its encrypted networks share."""

    link: str
    address: str  # the host's own behind it, link-local
    key: SealKey


@dataclass(frozen=True, slots=True)
class Network:
    """A network as decided."""

    id: str  # 64 hexadecimal digits, as Docker's
    name: str
    driver: str  # bridge | flat | overlay | host | null
    bridge: str  # the link that endpoints are plugged into; "" for host and null
    pools: tuple[Pool, ...]
    mtu: int  # bytes
    created: str  # RFC 3339, UTC
    internal: bool = False
    ipv6: bool = False
    masquerade: bool = True
    bridge_address: bool = True  # whether a bridge of Berth's own carries the gateway's address
    ifname_prefix: str = "eth"  # sandboxes' interfaces are this and a number
    bypass: bool = False  # flat: frames go from link to link past the host's FORWARD chains
    bypass_asked: bool = False  # the operator said so, or said not
    bridge_mac: str = ""  # flat: of the LAN's bridge
    bridge_mtu: int = 0  # flat: of the LAN's bridge, which follows the smallest of its ports'
    switch: str = "bridge"  # flat: what the LAN's bridge is one of: bridge (the kernel's) | ovs (Open vSwitch's)
    userspace: bool = False  # flat: the switch is outside the kernel, and takes no packet without its checksum
    nics: tuple[str, ...] = ()  # flat: the ports through which the bridge reaches the LAN
    ra_links: tuple[str, ...] = ()  # host links whose IPv6 default route comes from router advertisements
    routes: tuple[StaticRoute, ...] = ()  # that every endpoint gets
    allow_from: tuple[str, ...] = ()  # bridges of the NAT networks whose endpoints reach this one's
    host_access: bool = True  # whether endpoints reach the host's own services
    proxy: str = "auto"  # whose ports a process passes on: those the kernel cannot translate | always | never
    offload: tuple[str, ...] = ()  # links by which connections under way take the kernel's fast path
    rates: Pairs = ()  # how fast each endpoint may receive and send; see `RATES`
    icc: bool = True  # whether endpoints reach each other
    antispoof: bool = True  # flat: endpoints send as themselves only; see `guarded`
    services: tuple[str, ...] = ()  # flat: what guarded endpoints may be for the LAN all the same: dhcp, ra
    allow: str = ""  # the allow list of endpoints without one of their own, see `spec.allow_list`; "": none
    conflict: str = "fast"  # flat: how thoroughly the LAN is asked for an address before it is given: fast | full | off
    vni: int = 0  # overlay: the network's number on the underlay
    vxlan_port: int = 0  # overlay: UDP
    underlay: str = ""  # overlay: as asked: a link, an address or a subnet of the hosts'; "": their way out
    underlay_version: int = 4  # overlay: of the addresses that hosts reach each other by
    local: str = ""  # overlay: where this host's tunnel ends; never stored, as each host has its own
    encrypt: bool = False  # overlay: nobody on the underlay can read or forge what hosts send each other
    seal: Seal | None = None  # overlay, encrypted: this host's WireGuard; never stored
    ipam: Ipam = Ipam.NETWORK
    addresses: str = "pool"  # flat: where endpoints have their IPv4 addresses from: pool | dhcp
    addresses6: str = "pool"  # the same for IPv6: pool | dhcp | auto (as the LAN's routers advertise)
    keep_lease: bool = False  # flat: leases stay at the server's when their endpoints are gone
    scope: str = "local"  # local | global: every host of the shared store sees it
    labels: Pairs = ()
    options: Pairs = ()
    naming: Pairs = ()  # how endpoints are called; see `NAMING`
    served: tuple[Served, ...] | None = None  # flat: what the LAN's DHCP servers give; None: they were not asked yet

    def naming_option(self, key: str) -> str | None:
        """The value of one of `NAMING`; None when it was not given."""
        return dict(self.naming).get(key)

    @property
    def vets(self) -> bool:
        """Whether the LAN is asked for an address before it is given."""
        return self.driver == "flat" and self.conflict != "off"

    def source(self, version: int) -> str:
        """Where endpoints have their addresses of an IP version from, unless they say otherwise."""
        return self.addresses if version == 4 else self.addresses6

    @property
    def nat(self) -> bool:
        """Whether its endpoints are behind the host, which publishes their ports."""
        return self.driver in ("bridge", "overlay")

    @property
    def tunnel(self) -> str:
        """The link to the endpoints on other hosts."""
        return f"bvx{self.id[:12]}"

    @property
    def guarded(self) -> bool:
        """Whether what endpoints send is checked; a switch outside the kernel takes frames before a check sees them."""
        return self.driver == "flat" and self.antispoof and not self.userspace

    def pool_of(self, address: Address) -> Pool | None:
        """The pool whose subnet holds the address."""
        return next((p for p in self.pools if p.subnet.version == address.version and address in p.subnet), None)

    def mac_for(self, name: str, addresses: tuple[Interface, ...]) -> str:
        """The MAC of an endpoint that was not given one, locally administered (IEEE 802 c, U/L bit).

        On a LAN it is always the same for a name: switches and the DHCP server know it. Behind NAT, and for who has
        no name that lasts (""), it goes with the address, so that no neighbour is ever left with an address's old
        MAC; on a LAN also when the network is made anew.
        """
        if addresses and (self.nat or not name):
            seed = f"{self.bridge_mac or self.id} {addresses[0].ip}"
        else:
            seed = f"{self.id} {name}"
        return bytes([0x02, *hashlib.sha256(seed.encode()).digest()[:5]]).hex(":")

    def announces(self, ep: Endpoint) -> bool:
        """Whether neighbours may know one of an endpoint's addresses under another MAC, and have to be told.

        Telling them costs a broadcast that the kernel hands to every port of the bridge: 4.6 ms for 1,000.
        """
        mac_goes_with_address = self.nat and len(ep.addresses) == 1
        return not (mac_goes_with_address and ep.mac == self.mac_for(ep.name, ep.addresses))


@dataclass(frozen=True, slots=True)
class PortMapping:
    """One host port published to one port of an endpoint."""

    host_ip: Address | None  # None: every address of the host; 0.0.0.0 and ::, every one of their version
    host_port: int  # 0, in what is asked for: any that is free
    port: int
    proto: str = "tcp"

    def clashes(self, other: PortMapping) -> bool:
        """Whether a packet can be for both."""
        if (self.proto, self.host_port) != (other.proto, other.host_port):
            return False
        one, two = self.host_ip, other.host_ip
        if one is None or two is None or one == two:
            return True
        return one.version == two.version and (one.is_unspecified or two.is_unspecified)


@dataclass(frozen=True, slots=True)
class Proxied:
    """Host ports that a process passes on: from the first to the last, each to its place behind the target's first."""

    listen: Address
    proto: str  # tcp | udp
    first: int
    last: int
    target: Address
    port: int


@dataclass(frozen=True, slots=True)
class PortRequest:
    """A published port as asked for: any free host port from the first to the last; 0 and 0: any at all."""

    host_ip: Address | None
    first: int
    last: int
    port: int
    proto: str = "tcp"

    @classmethod
    def of(cls, mapping: PortMapping) -> PortRequest:
        """A mapping as asked for."""
        return cls(mapping.host_ip, mapping.host_port, mapping.host_port, mapping.port, mapping.proto)


@dataclass(frozen=True, slots=True)
class PortChange:
    """What is to become of the published ports of an endpoint that is there."""

    endpoint: str  # name or id
    publish: tuple[PortMapping, ...] = ()
    unpublish: tuple[PortMapping, ...] = ()
    everything: bool = False  # unpublish all that is published


@dataclass(frozen=True, slots=True)
class PoolRequest:
    """A pool as asked of the IPAM driver. Without a subnet, one is chosen: the LAN's behind `parent`, else any."""

    subnet: Subnet | None = None  # 0.0.0.0/24 and ::/64: any of that size
    ip_range: Subnet | None = None
    version: int = 4  # of the pool, where no subnet says it
    parent: str = ""  # a link of the host's
    network: str = ""  # the name of a network over several hosts, where there is one by now


@dataclass(frozen=True, slots=True)
class Grant:
    """An address that the IPAM driver gave. It is remembered after its release, so that who returns gets it again."""

    pool: str  # Pool.owner
    address: Address
    holder: str  # the name it was given to; "": not known
    taken: float  # seconds since 1970
    released: float | None = None  # None: not yet


@dataclass(frozen=True, slots=True)
class Sandbox:
    """A network namespace: where to open it, and who it is.

    A path can be given to another namespace later (a pid is reused, a name is deleted and added again), so the
    identity is the kernel's namespace cookie together with the boot it belongs to.
    """

    path: str  # /run/netns/NAME, /proc/N/ns/net, …
    identity: str


@dataclass(frozen=True, slots=True)
class Claim:
    """What was heard on a LAN: a machine has an address, or (`probe`) asks before it takes it."""

    address: Address
    mac: str
    probe: bool = False


@dataclass(frozen=True, slots=True)
class Conflict:
    """Another machine of the LAN that claims an endpoint's address."""

    address: Address
    mac: str
    vendor: str  # "": not known
    seen: str  # last, RFC 3339


@dataclass(frozen=True, slots=True)
class Learnt:
    """What a lease says of the way out, in place of what the network's own pools say."""

    versions: tuple[int, ...] = ()  # the IP versions whose address is leased
    routers: tuple[Address, ...] = ()  # next hops of the default routes, one of a version at most
    routes: tuple[StaticRoute, ...] = ()  # via 0.0.0.0: on the link
    mtu: int = 0  # bytes; 0: the network's
    dns: tuple[Address, ...] = ()  # name servers; (): the host's
    advertised: bool = False  # IPv6 is as the LAN's routers advertise: its address and router come and go
    mtu6: int = 0  # bytes, of IPv6 alone; 0: the link's


@dataclass(frozen=True, slots=True)
class Endpoint:
    """One sandbox's interface on one network, as decided."""

    id: str
    network: str  # Network.id
    name: str
    sandbox: Sandbox
    link: str  # the host's end of the cable
    ifname: str  # the sandbox's end
    mac: str
    addresses: tuple[Interface, ...]
    default_route: tuple[int, ...] = ()  # the IP versions whose default route leaves through this endpoint
    ports: tuple[PortMapping, ...] = ()
    placement: Placement = Placement.FULL
    options: Pairs = ()  # checked; see `spec.ENDPOINT_OPTIONS`
    conflicts: tuple[Conflict, ...] = ()  # flat: one an address
    learnt: Learnt = Learnt()
    aliases: tuple[str, ...] = ()  # more names, which other endpoints may have too
    vtep: str = ""  # overlay: where its host is reached on the underlay
    host: str = ""  # HostRecord.id of where it is; "": this host, where no store is shared

    def option(self, key: str) -> str | None:
        """The value of an option; None when it was not given."""
        return dict(self.options).get(key)


@dataclass(frozen=True, slots=True)
class LeaseRecord:
    """A lease that somebody has, as it is remembered."""

    lease: Lease
    endpoint: str = ""  # whose it is; "": of a container of Docker's that has no endpoint yet, or none any more
    pool: str = ""  # Pool.owner, where Docker's IPAM driver was asked for it; Docker gives it back by itself then
    keep: bool = False  # the server is not told when it is given up
    trouble: str = ""  # what is wrong with it; "": nothing
    over: bool = False  # it has ended, and nobody uses its address
    way_out: bool = False  # a default route went with it, and comes back with the next one
    sandbox: str = ""  # where Docker has put its endpoint; "": not known
    shown: str = ""  # the address that Docker goes on to show, and gives back; "": the lease's


@dataclass(frozen=True, slots=True)
class HostRecord:
    """A host of the shared store, as the others know it."""

    id: str  # lasts as long as the host's own records
    name: str
    underlay: tuple[Address, ...] = ()  # where its tunnels end, preferred first: one address of an IP version at most
    public_key: str = ""  # WireGuard's, in base64; "": none
    wireguard_port: int = 0  # UDP
    since: str = ""  # RFC 3339, by the host's own clock: for people only
    version: str = ""  # of its Berth


@dataclass(frozen=True, slots=True)
class Node:
    """A host of the shared store, and how it is; one that is gone is known until it is removed."""

    host: HostRecord
    state: str  # up | drained | dead
    drained: bool = False  # takes no new endpoints; a dead one may be both
    dead_since: str = ""  # RFC 3339, by the clock of who missed it; "": nobody did, as it held nothing
    endpoints: int = 0  # of networks over several hosts, those of a dead host too whose addresses are not free yet


@dataclass(frozen=True, slots=True)
class AttachRequest:
    """An endpoint as asked for."""

    network: str  # name or id
    sandbox: str  # as typed; see `berth attach --help`
    name: str | None = None
    addresses: tuple[Address, ...] = ()
    mac: str | None = None
    ifname: str | None = None  # None: the first free of eth0, eth1, …
    ports: tuple[PortMapping, ...] = ()
    placement: Placement = Placement.FULL
    id: str = ""  # chosen by whoever asks; "": Berth makes one up
    options: Pairs = ()
    leases: tuple[LeaseRecord, ...] = ()  # of the addresses that a server of the LAN's has given it
    aliases: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class HostLink:
    """What a driver may know of one of the host's links."""

    name: str
    kind: str  # bridge, ovs, veth, … ; "" for hardware
    mtu: int
    up: bool
    master: str = ""
    alias: str = ""
    addresses: tuple[Interface, ...] = ()
    mac: str = ""
    userspace: bool = False  # of a bridge of kind "ovs": ovs-vswitchd itself passes its frames on
    carrier: bool = True  # it is up, and so is the other end
    stp: bool = False  # of a bridge: its new ports wait before they forward


@dataclass(frozen=True, slots=True)
class HostRoute:
    """What a driver may know of one of the host's routes in the main table."""

    dst: Subnet
    dev: str
    via: Address | None = None
    metric: int = 0
    from_ra: bool = False  # learnt from an IPv6 router advertisement


@dataclass(frozen=True, slots=True)
class Traffic:
    """What a link of the host's has carried since it was made, seen from the host."""

    rx_bytes: int
    tx_bytes: int


@dataclass(frozen=True, slots=True)
class Neighbour:
    """A machine that the host's kernel knows on one of its links."""

    address: Address
    mac: str
    dev: str
    vendor: str = ""  # who made it; "": not known
    router: bool = False  # it says so of itself, which only IPv6 ones do


@dataclass(frozen=True, slots=True)
class Contact:
    """How it stands with the store that hosts share; times are seconds since 1970, 0: not yet."""

    answered: float = 0  # when it last answered this host
    took: float = 0  # seconds that it took
    revision: int = 0  # of the store, as of then
    heard: float = 0  # when it last told of a change
    heard_revision: int = 0  # of the store, as of then


@dataclass(frozen=True, slots=True)
class Host:
    """The facts about the host that a decision may rest on, gathered once."""

    links: tuple[HostLink, ...] = ()
    routes: tuple[HostRoute, ...] = ()
    networks: tuple[Network, ...] = ()  # what Berth itself has already decided
    held: tuple[Subnet, ...] = ()  # pools that Docker holds and that are not this request's own
    obstacles: tuple[str, ...] = ()  # who else would drop frames that only cross a bridge
    id: str = ""  # HostRecord.id; "": no other host sees the store
    key: SealKey | None = None  # for encrypted ways to other hosts

    def link(self, name: str) -> HostLink | None:
        """The link of that name."""
        return next((link for link in self.links if link.name == name), None)

    def ports(self, bridge: str) -> tuple[HostLink, ...]:
        """The links plugged into a bridge."""
        return tuple(link for link in self.links if link.master == bridge)


@dataclass(frozen=True, slots=True)
class Addressing:
    """How a link of the host gets its addresses of one family."""

    method: str = "none"  # static | auto (IPv4: DHCP; IPv6: router advertisements, and DHCPv6 as they say) | none
    addresses: tuple[Interface, ...] = ()  # static ones
    gateway: Address | None = None  # of the default route, unless it is learnt


@dataclass(frozen=True, slots=True)
class UplinkRoute:
    """A route of the host's through an uplink, other than the default one."""

    dst: Subnet
    via: Address | None = None  # None: on the link
    metric: int = 0
    table: int = 254


@dataclass(frozen=True, slots=True)
class Uplink:
    """A NIC of the host's that is a port of a bridge, and what the bridge carries in its place."""

    nic: str
    bridge: str
    mac: str  # the NIC's, which the bridge takes over
    mtu: int = 0  # bytes; 0: what the NIC has by itself
    switch: str = "bridge"  # bridge (the kernel's) | ovs
    ipv4: Addressing = Addressing()
    ipv6: Addressing = Addressing()
    routes: tuple[UplinkRoute, ...] = ()
    dns: tuple[Address, ...] = ()
    search: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class LeaseRequest:
    """Who asks the LAN's DHCP server for an address."""

    key: str  # the endpoint's id, or its grant's: unique on this host
    dev: str  # the LAN bridge of the host to ask through
    mac: str  # the endpoint's
    client_id: bytes  # RFC 4361, see `berth.lan.dhcp.client_id`: the same identity gets the same lease
    hostname: str = ""
    vendor_class: str = ""
    wanted: Address | None = None  # a wish: what the server gave may be another address
    version: int = 4  # of IP
    conflict: str = "fast"  # how thoroughly the LAN is asked who else has the address: fast | full | off
    early: bool = False  # with fast: used once nobody awake has objected; who objects later gets it back
    auto: bool = False  # IPv6 as the LAN's routers advertise: from a server, or made from a prefix of theirs
    subnets: tuple[Subnet, ...] = ()  # in which an address is made rather than in others that are advertised


@dataclass(frozen=True, slots=True)
class Lease:
    """What a DHCP server gave, and until when; or an address that was made of what a router advertises."""

    request: LeaseRequest
    address: Interface
    server: bytes  # who gave it: the server's IPv4 address, or its DUID; where `slaac`, the router's address
    router: Address | None = None  # None also where classless routes take its place (RFC 3442)
    dns: tuple[Address, ...] = ()
    domain: str = ""
    search: tuple[str, ...] = ()
    mtu: int | None = None  # bytes; of IPv6, for packets of IPv6 alone
    routes: tuple[StaticRoute, ...] = ()  # classless; a via of 0.0.0.0 is on the link
    ntp: tuple[Address, ...] = ()
    acquired: float = 0  # seconds since 1970, by CLOCK_REALTIME, when the server confirmed it
    lifetime: int = 0  # seconds; 0xFFFFFFFF: for ever
    t1: int = 0  # seconds until the server is asked to prolong it
    t2: int = 0  # seconds until any server is
    server_mac: str = ""  # where the confirmation came from: the server's, or its relay's
    slaac: bool = False  # made from a prefix that a router advertises (RFC 4862)
