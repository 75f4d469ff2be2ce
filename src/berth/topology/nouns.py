"""The nouns of the map: all as texts, ready to be shown."""

from __future__ import annotations

import msgspec


class Nic(msgspec.Struct, frozen=True):
    """A link of the host's through which it reaches others."""

    name: str
    mac: str
    up: bool
    addresses: tuple[str, ...]  # its own, or those of the bridge that it is a port of
    bridge: str = ""  # the bridge that it is a port of


class Node(msgspec.Struct, frozen=True):
    """An endpoint."""

    id: str
    name: str
    addresses: tuple[str, ...]
    mac: str
    ports: tuple[str, ...]  # published: "8080→80/tcp"
    link: str
    ifname: str
    sandbox: str
    host: str = ""  # the other host that it is on; "": this one


class Segment(msgspec.Struct, frozen=True):
    """A network with its endpoints."""

    id: str
    name: str
    driver: str
    bridge: str
    subnets: tuple[str, ...]
    gateways: tuple[str, ...]
    nics: tuple[str, ...]  # the links that it reaches others through
    internal: bool
    capacity: int  # addresses of its first pool
    nodes: tuple[Node, ...]


class Router(msgspec.Struct, frozen=True):
    """Another machine that the host or an endpoint sends through."""

    address: str
    nic: str


class Machine(msgspec.Struct, frozen=True):
    """Somebody else on a LAN of the host's, as far as the host's kernel has met it."""

    mac: str
    addresses: tuple[str, ...]
    dev: str
    vendor: str


class Peer(msgspec.Struct, frozen=True):
    """Another host that networks span."""

    name: str
    addresses: tuple[str, ...]
    endpoints: int


class Topology(msgspec.Struct, frozen=True):
    """One host and what hangs from it."""

    host: str
    nics: tuple[Nic, ...]
    routers: tuple[Router, ...]
    segments: tuple[Segment, ...]
    machines: tuple[Machine, ...] = ()
    peers: tuple[Peer, ...] = ()

    @property
    def endpoints(self) -> int:
        """How many there are, on other hosts too."""
        return sum(len(segment.nodes) for segment in self.segments)
