"""The seams: what the engine asks of the parts below it, and what front ends ask of the engine."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import ClassVar, Generic, Protocol, TypeVar

import msgspec

from berth.model import (
    Address,
    AttachRequest,
    Claim,
    Contact,
    Endpoint,
    Grant,
    Host,
    HostRecord,
    Lease,
    LeaseRecord,
    LeaseRequest,
    Network,
    NetworkSpec,
    Node,
    Pool,
    PortChange,
    PortMapping,
    Sandbox,
    SealKey,
    Served,
)
from berth.plan import Plan
from berth.state import NOTHING, Key, State

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Scope:
    """What to read: these keys, and with `marked` everything that carries Berth's mark in the host."""

    keys: frozenset[Key]
    marked: bool = False
    namespaces: frozenset[str] = frozenset()  # where inner ends of cables may be found
    tunnels: frozenset[str] = frozenset()  # of which all that they know of other hosts is read
    devices: frozenset[str] = frozenset()  # links of the host of which all that they carry is read


class Driver(Protocol):
    """Decides what a kind of network is made of. Pure: no input or output, no clock, no randomness."""

    name: ClassVar[str]

    def complete(self, asked: NetworkSpec, host: Host, identity: str, created: str) -> Network:
        """Fill every hole of the request, or refuse it."""
        ...

    def network(self, net: Network) -> State:
        """What should exist for the network itself."""
        ...

    def endpoint(self, net: Network, ep: Endpoint) -> State:
        """What should exist for one endpoint, in the host and in its sandbox."""
        ...


class Spanning(Protocol):
    """Decides what a network over several hosts needs beside what its driver says of this one. Pure."""

    def placed(self, net: Network, host: Host) -> Network:
        """The network as it is on this host."""
        ...

    def misfit(self, net: Network, host: Host) -> str:
        """Why the network cannot be on this host; "" where it can."""
        ...

    def peer(self, net: Network, ep: Endpoint) -> State:
        """What should exist here for an endpoint on another host."""
        ...

    def hosts(self, net: Network, me: str, hosts: Sequence[HostRecord]) -> State:
        """What should exist here for the other hosts themselves; `me`: this one's id."""
        ...


class Keys(Protocol):
    """This host's key for encrypted ways to others."""

    def current(self) -> SealKey:
        """The key, made up when there is none."""
        ...

    def renew(self) -> SealKey:
        """Another key, in place of the one there was."""
        ...


class Kernel(Protocol):
    """The host's kernel."""

    def read(self, scope: Scope) -> State:
        """The objects that exist now within the scope."""
        ...

    def send(self, plan: Plan) -> None:
        """Carry out a plan. Raises the first refusal; what followed it may be done all the same."""
        ...

    def sweep(self) -> None:
        """Delete the cables that `send` has taken out of service."""
        ...

    def announce(self, ns: str, dev: str, mac: str) -> None:
        """Tell the neighbours of a link which MAC its addresses are at."""
        ...

    def running(self, dev: str) -> bool:
        """Whether a link of the host's has somebody at its other end; True where there is no such link."""
        ...

    def find(self, ns: str, mac: str) -> str | None:
        """The link of a namespace that has the MAC and is up."""
        ...

    def listening(self, proto: str) -> frozenset[int]:
        """The host's ports that anybody waits on."""

    def listener(self, wanted: PortMapping) -> str | None:
        """Who listens on the host where a published port's packets would arrive, in words; None for nobody."""
        ...

    def obstacles(self) -> tuple[str, ...]:
        """Who else would drop frames that only cross a bridge, in words; () for nobody."""
        ...

    def must_guard(self) -> None:
        """Raise `Unsupported` where frames cannot be held against an endpoint's allow list."""
        ...

    def host(self) -> Host:
        """The facts that decisions rest on. Dumps the host's links and routes: not for the hot path."""
        ...

    def enters(self) -> bool:
        """Whether sandboxes can be looked into: not by a managed plugin of Docker's."""
        ...

    def sandbox(self, text: str) -> Sandbox:
        """Find a namespace by name, path or `pid:N`, and who it is now. Raises `NotFound`."""
        ...


class Watch(Protocol):
    """An ear on a LAN, and a voice."""

    def fileno(self) -> int:
        """For a selector."""
        ...

    def claims(self) -> Sequence[Claim]:
        """What was claimed since the last call, some hundreds at most."""
        ...

    def alive(self) -> bool:
        """Whether the bridge is still the one that is heard."""
        ...

    def announce(self, address: Address, mac: str) -> None:
        """Tell the LAN which MAC an address is at."""
        ...

    def close(self) -> None:
        """Hear no more."""
        ...


class Lan(Protocol):
    """The LANs behind the host's bridges."""

    def holders(
        self, dev: str, addresses: Collection[Address], *, full: bool, mine: Collection[str]
    ) -> Mapping[Address, str]:
        """Who holds any of the addresses, by MAC; not who has one of `mine`. Takes 0.2 s, or with `full` 4 to 7 s."""
        ...

    def served(self, dev: str) -> Sequence[Served]:
        """What each DHCP server gives. Takes up to 4.5 s; no address is taken."""
        ...

    def watch(self, dev: str) -> Watch:
        """Hear who claims addresses from now on. Raises `OSError` where there is no such link."""
        ...

    def vendor(self, mac: str) -> str:
        """Who made a machine; "" where that is not known."""
        ...

    def close(self) -> None:
        """Let go of everything."""
        ...


class WhoHas(Protocol):
    """Asking a link who has addresses."""

    def __call__(
        self,
        dev: str,
        addresses: Sequence[Address],
        *,
        source: Address | None = None,
        within: float = 0.4,
        every: bool = True,
        via: Sequence[str] = (),
    ) -> Mapping[Address, frozenset[str]]:
        """The MACs of all that answer for each; see `berth.lan.asking`."""
        ...


class Notices(Protocol):
    """What the kernel tells of changes to the firewall."""

    def fileno(self) -> int:
        """For a selector."""
        ...

    def pending(self) -> bool:
        """Take all that was told; whether somebody else may have changed what Berth relies on."""
        ...

    def close(self) -> None:
        """Hear no more."""
        ...


class LeaseClients(Protocol):
    """All addresses of this host's endpoints that LANs give, by a server or a router, kept in one event loop."""

    async def acquire(self, request: LeaseRequest, timeout: float = 10) -> Lease:
        """Get a lease within so many seconds. Raises `Refused`."""
        ...

    def resume(self, lease: Lease) -> None:
        """Go on with a lease that another process got."""
        ...

    async def release(self, key: str, *, tell: bool = True) -> None:
        """Keep a lease no longer. `tell`: nor shall the server."""
        ...

    def update(self, request: LeaseRequest) -> None:
        """Tell the server another hostname."""
        ...

    def leases(self) -> Mapping[str, Lease]:
        """All leases by the keys of their requests."""
        ...

    def close(self) -> None:
        """Stop; the leases stay at their servers."""
        ...


#: Who keeps leases: called with what is called when one is renewed or changed, and when one is lost and why.
MakeClients = Callable[[Callable[[Lease], None], Callable[[Lease, str], None]], LeaseClients]


class Intent(msgspec.Struct, frozen=True):
    """A change under way: a pair of states, so that any later process can go on or go back."""

    id: str  # of the network or endpoint it is about
    verb: str  # create | remove | attach | detach | publish | readdress
    before: State = NOTHING
    after: State = NOTHING

    @property
    def forward(self) -> bool:
        """Whether recovery finishes the change rather than taking it back."""
        return self.verb in ("remove", "detach")


class Ledger(Protocol):
    """The taken addresses of one pool, as whole runs: numbers, both ends included, never touching each other.

    Runs rather than single addresses, so that finding a free one costs two look-ups in a pool of any size.
    """

    last: int | None  # the address given most recently

    def covering(self, number: int) -> tuple[int, int] | None:
        """The run that holds the number."""
        ...

    def add(self, first: int, last: int) -> None:
        """Record a run. The caller keeps runs apart."""
        ...

    def remove(self, first: int) -> None:
        """Forget the run that starts here."""
        ...


@dataclass(frozen=True, slots=True)
class HeldPool:
    """A pool that the IPAM driver gave out, and how many networks hold it."""

    pool: Pool
    holders: int
    since: float  # seconds since 1970


class Tx(Protocol):
    """One transaction on the store. `revision`: of a shared one, that the transaction sees; 0: none was read yet."""

    @property
    def revision(self) -> int: ...
    def network(self, name_or_id: str) -> Network | None: ...
    def local_network(self, name_or_id: str) -> Network | None: ...  # of those that are this host's alone
    def networks(self) -> Sequence[Network]: ...
    def endpoint(self, identity: str) -> Endpoint | None: ...
    def endpoints(self, *, network: str | None = None, sandbox: Sandbox | None = None) -> Sequence[Endpoint]: ...
    def named(self, network: str, name: str) -> bool: ...
    def foresee(self, network: str, name: str, addresses: Sequence[Address]) -> None: ...  # that one will be attached
    def count(self, network: str) -> int: ...  # of the endpoints on this host
    def save_network(self, net: Network) -> None: ...
    def drop_network(self, identity: str) -> None: ...
    def save_endpoint(self, ep: Endpoint) -> None: ...
    def drop_endpoint(self, identity: str) -> None: ...
    def holds(self, ep: Endpoint, address: Address) -> bool: ...  # or was it given to another while its host was gone
    def resting(self, network: str) -> Mapping[Address, str]: ...  # the MACs that addresses had until a moment ago
    def claim(self, network: str, address: Address) -> None: ...  # for Docker, which has no endpoint for it yet
    def disclaim(self, network: str, address: Address) -> bool: ...  # whether it was this host's still
    def join(self, network: str, ident: str) -> None: ...  # what this host's Docker calls a network of all hosts
    def leave(self, network: str, ident: str) -> bool: ...  # whether some Docker still uses it
    def joined(self) -> Sequence[str]: ...
    def ledger(self, network: str, pool: Pool) -> Ledger: ...
    def port_owner(self, wanted: PortMapping) -> str | None: ...
    def held_pool(self, owner: str) -> HeldPool | None: ...
    def held_pools(self) -> Sequence[HeldPool]: ...
    def save_pool(self, held: HeldPool) -> None: ...
    def drop_pool(self, owner: str) -> None: ...
    def drop_ledger(self, pool: Pool) -> None: ...
    def grant(self, pool: str, address: Address) -> Grant | None: ...
    def granted_to(self, pool: str, holder: str) -> Grant | None: ...
    def first_released(self, pool: str, since: float) -> Grant | None: ...
    def grants(self, pool: str) -> Sequence[Grant]: ...
    def save_grant(self, grant: Grant) -> None: ...
    def forget_grants(self, *, named: float, nameless: float) -> None: ...
    def lease(self, key: str) -> LeaseRecord | None: ...
    def lease_at(self, address: Address) -> LeaseRecord | None: ...
    def leases(self, endpoint: str | None = None) -> Sequence[LeaseRecord]: ...
    def save_lease(self, record: LeaseRecord) -> None: ...
    def drop_lease(self, key: str) -> None: ...
    def drop_leases(self, endpoint: str) -> None: ...
    def open(self, intent: Intent) -> None: ...
    def close(self, identity: str) -> None: ...
    def intents(self) -> Sequence[Intent]: ...
    def hosts(self) -> Sequence[HostRecord]: ...
    def own_record(self) -> HostRecord | None: ...  # what the others know of this host; None: nothing
    def save_host(self, host: HostRecord) -> None: ...
    def drop_host(self, identity: str) -> None: ...
    def nodes(self) -> Sequence[Node]: ...
    def drain(self, host: str, *, on: bool) -> None: ...


class Store(Protocol):
    """What Berth remembers. Of a global network, `Tx.endpoints(network=…)` gives the endpoints of all hosts."""

    host: str  # HostRecord.id of this host; "": no other host sees this store

    def write(self, *, durable: bool = False) -> AbstractContextManager[Tx]:
        """A serialisable transaction; nothing of it stays after an error. `durable`: it outlives a power cut."""
        ...

    def read(self) -> AbstractContextManager[Tx]:
        """A consistent view."""
        ...

    def mark(self) -> object:
        """What is another with whatever anybody writes: the same twice means that nothing was in between.

        That is, nothing that `Tx.networks`, `Tx.endpoints` or `Tx.leases` would say, if asked for all of them.
        """
        ...

    def close(self) -> None:
        """Let go of the file or connection."""
        ...


@dataclass(frozen=True, slots=True)
class Turn:
    """An endpoint of a global network as it is from a revision of the shared store on."""

    network: str  # id
    identity: str
    endpoint: Endpoint | None  # None: gone


@dataclass(frozen=True, slots=True)
class Heard:
    """What was changed in a shared store at a time, by whichever host."""

    revision: int = 0  # of the store after it; 0 and nothing else: anything may have changed
    hosts: bool = False  # whether one came, changed or went
    made: frozenset[str] = frozenset()  # ids of networks that were made, changed or removed
    turns: tuple[Turn, ...] = ()  # one an endpoint: the last

    @property
    def networks(self) -> frozenset[str]:
        """The ids of all networks that it is about."""
        return self.made | {turn.network for turn in self.turns}


class Shared(Store, Protocol):
    """A store of many hosts: what of it hangs on this host's lease, and what the others do."""

    def register(self, host: HostRecord) -> tuple[str, ...]:
        """Be seen by the others, with all endpoints of this host; gives the ids of those whose address is lost."""
        ...

    def keep(self) -> bool:
        """Renew the lease, from any thread; whether there still was one: if not, `register` again."""
        ...

    def expire(self) -> tuple[str, ...]:
        """Free what hosts held that are gone for longer than the grace time; gives the ids of the endpoints."""
        ...

    def remove(self, host: str) -> tuple[str, ...]:
        """Forget a host and free what it holds, at once; gives the ids of its endpoints."""
        ...

    def watch(self, changed: Callable[[Heard], None]) -> Callable[[], None]:
        """Tell what changes, from a thread, in order and without a gap. Gives how to stop it."""
        ...

    def contact(self) -> Contact:
        """How long ago it was heard of, and how far behind this host is. Asks nobody."""
        ...


@dataclass(frozen=True, slots=True)
class Outcome(Generic[T]):
    """A verb's result, and the plan that was (or, in a dry run, would be) carried out."""

    value: T
    plan: Plan
    warnings: tuple[str, ...] = ()


class Api(Protocol):
    """The verbs."""

    def explored(self, spec: NetworkSpec) -> NetworkSpec: ...  # of a LAN: with what its servers say; takes up to 4.5 s
    def create_network(self, spec: NetworkSpec, *, dry_run: bool = False) -> Outcome[Network]: ...
    def remove_network(self, name: str, *, dry_run: bool = False) -> Outcome[Network]: ...
    def network(self, name: str) -> Network: ...
    def networks(self) -> Sequence[Network]: ...
    def attach(self, request: AttachRequest, *, dry_run: bool = False) -> Outcome[Endpoint]: ...
    def detach(self, network: str, sandbox: str, *, dry_run: bool = False) -> Outcome[tuple[Endpoint, ...]]: ...
    def endpoints(self, network: str | None = None) -> Sequence[Endpoint]: ...
    def change_ports(self, asked: PortChange, *, dry_run: bool = False) -> Outcome[Endpoint]: ...
    def leases(self) -> Sequence[LeaseRecord]: ...
    def nodes(self) -> Sequence[Node]: ...
    def drain(self, name: str, *, on: bool = True) -> Node: ...
    def remove_node(self, name: str, *, force: bool = False) -> tuple[str, ...]: ...
    def renew_key(self) -> HostRecord: ...
    def reconcile(self) -> Outcome[tuple[str, ...]]: ...
    def answers_names(self) -> bool: ...
    def sweep(self) -> None: ...
    def close(self) -> None: ...


#: A driver is picked by what was asked and what the host looks like.
Choose = Callable[[NetworkSpec, Host], Driver]
