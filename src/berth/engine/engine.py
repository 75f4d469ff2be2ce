"""The verbs: one face for the command line, the daemon and the plugins."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

from berth.doctor.facts import Records
from berth.engine import attach, hosts, joined, leases, networks, nodes, peers, pools, ports, reconcile, served, vet
from berth.engine.parts import Parts
from berth.engine.recorded import Recent, Recorded
from berth.engine.vetted import Vetted
from berth.model import (
    Address,
    AttachRequest,
    Claim,
    Conflict,
    Endpoint,
    HostRecord,
    Interface,
    Lease,
    LeaseRecord,
    LeaseRequest,
    Network,
    NetworkSpec,
    Node,
    Pool,
    PoolRequest,
    PortChange,
    PortMapping,
    PortRequest,
    Served,
)
from berth.plan import Plan
from berth.seams import Heard, Outcome, Shared, Watch


class Engine:
    """The verbs, carried out in this process under the state lock."""

    def __init__(self, parts: Parts) -> None:
        self._parts = parts
        self._recent = Recent(parts.store)

    def create_network(self, spec: NetworkSpec, *, dry_run: bool = False) -> Outcome[Network]:
        """Make a network. Raises `Taken`, `Invalid`, `Exhausted`, … before anything is touched."""
        there = joined.join(self._parts, spec) if spec.id and not dry_run else None
        return there or networks.create(self._parts, spec, dry_run=dry_run)

    def explored(self, spec: NetworkSpec) -> NetworkSpec:
        """The same with what the DHCP servers of its LAN give: takes up to 4.5 s, and needs neither lock nor store."""
        return served.explored(self._parts, spec)

    def unexplored(self) -> Sequence[Network]:
        """The LANs whose DHCP servers nobody has asked."""
        return served.unexplored(self.recorded().networks)

    def served(self, net: Network) -> Sequence[Served]:
        """What the DHCP servers of a network's LAN give: takes up to 4.5 s, and needs neither lock nor store."""
        return self._parts.lan.served(net.bridge)

    def learn(self, identity: str, found: Sequence[Served]) -> Sequence[str]:
        """Record it with the network; what there is to warn of."""
        return served.learn(self._parts, identity, found)

    def remove_network(self, name: str, *, dry_run: bool = False) -> Outcome[Network]:
        """Remove a network without endpoints."""
        return joined.remove(self._parts, name) if not dry_run else networks.remove(self._parts, name, dry_run=True)

    def network(self, name: str) -> Network:
        """The network of that name or id. Raises `NotFound`."""
        with self._parts.store.read() as tx:
            return networks.find(tx, name)

    def networks(self) -> Sequence[Network]:
        """All networks, by name."""
        with self._parts.store.read() as tx:
            return tx.networks()

    def attach(self, request: AttachRequest, *, dry_run: bool = False) -> Outcome[Endpoint]:
        """Plug a sandbox into a network."""
        return attach.attach(self._parts, request, dry_run=dry_run)

    def detach(self, network: str, sandbox: str, *, dry_run: bool = False) -> Outcome[tuple[Endpoint, ...]]:
        """Unplug a sandbox from a network."""
        return attach.detach(self._parts, network, sandbox, dry_run=dry_run)

    def endpoints(self, network: str | None = None) -> Sequence[Endpoint]:
        """All endpoints, or those of one network, oldest first."""
        with self._parts.store.read() as tx:
            return tx.endpoints(network=None if network is None else networks.find(tx, network).id)

    def recorded(self) -> Recorded:
        """All that is on record; the very same value as the last time where nothing was written since."""
        return self._recent.read()

    def endpoint(self, identity: str) -> Endpoint | None:
        """The endpoint of that id."""
        with self._parts.store.read() as tx:
            return tx.endpoint(identity)

    def release(self, identity: str) -> Plan:
        """Unplug the endpoint of that id. One that is gone already is fine."""
        return attach.release(self._parts, identity)

    def rename(self, network: str, name: str, endpoints: Mapping[str, str]) -> bool:
        """Call a network, and endpoints of it by their ids, by other names; see `engine.networks`."""
        return networks.rename(self._parts, network, name, endpoints)

    def announce(self, identity: str, ns: str) -> bool:
        """Tell the neighbours of a handed-over endpoint that is up in a namespace by now; False: it is not yet."""
        return attach.announce(self._parts, identity, ns)

    def publish(self, identity: str, wanted: Sequence[PortRequest]) -> Sequence[PortMapping]:
        """Publish ports of an endpoint in place of those it has. Raises `NotFound`, `Invalid`, `Taken`, `Exhausted`."""
        return ports.publish(self._parts, identity, wanted)

    def change_ports(self, asked: PortChange, *, dry_run: bool = False) -> Outcome[Endpoint]:
        """Publish and unpublish ports of an endpoint. Raises as `publish` does."""
        return ports.change(self._parts, asked, dry_run=dry_run)

    def request_pool(self, asked: PoolRequest) -> Pool:
        """Hold a pool; see `engine.pools`."""
        return pools.request_pool(self._parts, asked)

    def release_pool(self, owner: str) -> None:
        """Let go of a pool."""
        pools.release_pool(self._parts, owner)

    def request_gateway(self, owner: str, wanted: Address | None) -> Interface:
        """The gateway of a pool."""
        return pools.request_gateway(self._parts, owner, wanted)

    def request_address(self, owner: str, wanted: Address | None, holder: str) -> Interface:
        """An address of a pool."""
        return pools.request_address(self._parts, owner, wanted, holder)

    def release_address(self, owner: str, address: Address) -> None:
        """Give an address back to its pool."""
        pools.release_address(self._parts, owner, address)

    def leases(self) -> Sequence[LeaseRecord]:
        """All leases, oldest first."""
        with self._parts.store.read() as tx:
            return tx.leases()

    def wanted(self, request: AttachRequest) -> tuple[AttachRequest, Sequence[LeaseRequest], vet.Candidates | None]:
        """The same attach, and whom to ask first: a server of the LAN's, or all of it for the addresses given next."""
        with self._parts.store.read() as tx:
            net = networks.find_heard(self._parts, tx, request.network)
            asked, wanted = leases.wanted(self._parts, net, request, lambda: attach.name_for(tx, net, request))
            return asked, wanted, None if wanted else vet.ahead(self._parts, tx, net, asked)

    def renew(self, lease: Lease) -> str:
        """Record a lease that was renewed and carry its changes to the sandbox; what there is to tell of it."""
        return leases.renew(self._parts, lease)

    def prolong(self, several: Sequence[Lease]) -> None:
        """Record leases of which nothing has changed but their end."""
        leases.prolong(self._parts, several)

    def lose(self, lease: Lease, why: str) -> str:
        """Record that a lease has ended; what there is to tell of it."""
        return leases.lost(self._parts, lease, why)

    def request_lan_pool(self, asked: PoolRequest) -> Pool:
        """Hold the pool of a LAN. Raises `Invalid` for one that the host is not on."""
        return pools.request_lan(self._parts, asked)

    def wanted_for_docker(
        self, owner: str, wanted: Address | None, holder: str, identity: str, mac: str
    ) -> tuple[LeaseRequest, Address | None]:
        """What to ask a server of the LAN's for a container, and the address that it had before."""
        pool = pools.held(self._parts, owner)
        return leases.wanted_for_docker(self._parts, pool, holder, identity, mac, wanted)

    def grant_lease(self, owner: str, lease: Lease, holder: str) -> Interface:
        """Record an address that a server of the LAN's has given to a container."""
        return pools.grant_lease(self._parts, owner, lease, holder)

    def collect(self) -> Sequence[Address]:
        """Give back the addresses that Docker asked for and never used."""
        return pools.collect(self._parts)

    def abandoned(self) -> frozenset[str]:
        """The handed-over endpoints that nobody seems to have any more."""
        return reconcile.abandoned(self._parts)

    def reconcile(self) -> Outcome[tuple[str, ...]]:
        """Put host and store in order; what was forgotten, and the plan that was carried out."""
        return reconcile.reconcile(self._parts)

    def candidates(self) -> Sequence[vet.Candidates]:
        """The addresses of LANs that are worth asking for ahead of their use."""
        return vet.candidates(self._parts, self.recorded().networks)

    def vet(self, ahead: vet.Candidates) -> None:
        """Ask for them: takes 0.2 s or more, and may be done while another thread carries out a verb."""
        vet.ask(self._parts, ahead.net, ahead.addresses, ahead.mine)

    def contested(self, dev: str, claims: Sequence[Claim]) -> Sequence[tuple[Endpoint, Conflict]]:
        """Record which endpoints' addresses others claim on a LAN."""
        return vet.contested(self._parts, dev, claims)

    def watch(self, dev: str) -> Watch:
        """Hear who claims addresses on a LAN. Raises `OSError` where there is no such link."""
        return self._parts.lan.watch(dev)

    @property
    def vetted(self) -> Vetted:
        """What is known of the LANs' addresses."""
        return self._parts.vetted

    def answers_names(self) -> bool:
        """Whether sandboxes have a resolver: only while a daemon runs, which is asked then."""
        return False

    def keep(self) -> bool | None:
        """Renew this host's lease on the shared store, from any thread; None: there is no such store."""
        return None if self._parts.shared is None else self._parts.shared.keep()

    def register(self, name: str) -> tuple[Endpoint, ...]:
        """Be seen by the other hosts, without the endpoints whose addresses are others' by now; those. See `hosts`."""
        lost = hosts.register(self._parts, name)
        for ep in lost:
            self.release(ep.id)
        self.sweep()  # what has somebody else's address shall not linger
        return lost

    def expire(self) -> tuple[str, ...]:
        """Free the addresses of hosts that are gone for long; the ids of their endpoints."""
        return hosts.expire(self._parts)

    def on_record(self) -> Records:
        """What an examination begins with: all that is on record, and where other hosts are. Changes nothing."""
        return reconcile.on_record(self._parts)

    def examine(self) -> Records:
        """What is on record, and what `reconcile` would do. Changes nothing."""
        return reconcile.examine(self._parts)

    def free(self) -> bool:
        """Whether a verb would not have to wait for another process."""
        return self._parts.lock.free()

    def refresh(self) -> Plan:
        """Make what is missing of the networks themselves; what was done."""
        return reconcile.refresh(self._parts)

    def heal(self) -> Plan:
        """Make what is missing of the firewall; what was done."""
        return reconcile.heal(self._parts)

    @property
    def shared(self) -> Shared | None:
        """The store, where other hosts see it too."""
        return self._parts.shared

    def hosts(self) -> Sequence[HostRecord]:
        """The hosts that share the store; none where it is this host's alone."""
        with self._parts.store.read() as tx:
            return tx.hosts()

    def elsewhere(self) -> Sequence[Endpoint]:
        """The endpoints on other hosts, as they were heard of. Asks nobody."""
        return self._parts.following.everybody()

    def known_to_docker(self) -> Sequence[str]:
        """What this host's Docker calls the networks that it has from Berth."""
        return joined.known_to_docker(self._parts)

    def nodes(self) -> Sequence[Node]:
        """The same, those that are gone too, and how they are."""
        return nodes.every(self._parts)

    def drain(self, name: str, *, on: bool = True) -> Node:
        """Let a node take no new endpoints, or again."""
        return nodes.drain(self._parts, name, on=on)

    def remove_node(self, name: str, *, force: bool = False) -> tuple[str, ...]:
        """Forget a node and free what it holds; the ids of its endpoints."""
        return nodes.remove(self._parts, name, force=force)

    def renew_key(self) -> HostRecord:
        """Give this host another key for its encrypted ways; see `engine.hosts`."""
        return hosts.renew_key(self._parts)

    def seals(self) -> frozenset[str]:
        """The links that encrypted networks lead through on this host."""
        return peers.seals(self._parts, self.networks())

    def running(self, dev: str) -> bool:
        """Whether a link of the host's has somebody at its other end; from any thread."""
        return self._parts.kernel.running(dev)

    def moved(self) -> bool:
        """Whether the other hosts have to be told anew where this one is reached."""
        return peers.moved(self._parts)

    def readdress(self) -> None:
        """Record with this host's endpoints where it is reached now."""
        peers.readdress(self._parts)

    def settle(self, networks: frozenset[str] | None = None) -> Plan:
        """Bring what is known of endpoints on other hosts in line; what was done."""
        return peers.settle(self._parts, networks)

    def audit(self) -> Plan:
        """Compare the kernel with what was heard of the other hosts; what had to be put right. Asks nobody."""
        return peers.audit(self._parts)

    def follow(self, heard: Heard) -> Plan:
        """Carry what other hosts changed to the kernel; what was done."""
        return peers.follow(self._parts, heard)

    def following(self) -> frozenset[str]:
        """The networks over several hosts that are followed, by id."""
        return frozenset(self._parts.following.networks)

    @property
    def followed(self) -> int:
        """How many endpoints on other hosts are followed."""
        return sum(len(each.others) for each in tuple(self._parts.following.networks.values()))

    def hear(self, changed: Callable[[Heard], None]) -> Callable[[], None] | None:
        """Hear what other hosts change, from a thread; how to stop it. None: no other host sees the store.

        Who hears hands each of it to `follow`, in order, and settles at first and whenever anything may have changed.
        """
        shared = self._parts.shared
        if shared is None:
            return None
        stop = shared.watch(changed)
        self._parts.following.begin()

        def end() -> None:
            stop()
            self._parts.following.end()

        return end

    def sweep(self) -> None:
        """Delete the cables that were taken out of service."""
        if self._parts.retired:
            self._parts.retired = False
            self._parts.kernel.sweep()

    def close(self) -> None:
        """Leave nothing waiting."""
        self.sweep()
        self._parts.store.close()
        self._parts.lan.close()
        self._parts.lock.close()
