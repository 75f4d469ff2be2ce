"""What the verbs work with, and the frame that every change runs in."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field, replace

from berth import ipam
from berth.engine.followed import Following
from berth.engine.lock import StateLock
from berth.engine.reach import reach, scope_of
from berth.engine.vetted import Vetted
from berth.model import Endpoint, Host, Network, Placement, Pool
from berth.plan import Plan
from berth.seams import Choose, Driver, Intent, Kernel, Keys, Lan, Shared, Spanning, Store, Tx
from berth.state import State


@dataclass(slots=True)
class Parts:
    """The doers and deciders, as their seams."""

    kernel: Kernel
    lan: Lan
    store: Store
    lock: StateLock
    drivers: Mapping[str, Driver]
    choose: Choose
    spanning: Spanning
    identity: Callable[[], str]  # a new id: 64 hexadecimal digits
    now: Callable[[], str]  # RFC 3339
    client_id: Callable[[str], bytes]  # by which a DHCP server knows somebody again
    keys: Keys
    vetted: Vetted = field(default_factory=Vetted)
    following: Following = field(default_factory=Following)
    shared: Shared | None = None  # the store, where other hosts see it too
    retired: bool = field(default=False)  # cables wait for the sweep

    def want_network(self, net: Network) -> State:
        """What should exist for a network; nothing of one that cannot be on this host."""
        if net.scope == "local":
            return self.drivers[net.driver].network(net)
        host = self.facts(net)
        if self.spanning.misfit(net, host):
            return frozenset()
        return self.drivers[net.driver].network(self.spanning.placed(net, host))

    def placed(self, net: Network) -> Network:
        """A network as it is on this host: one over several hosts is found by an address of its own on each."""
        return net if net.scope == "local" else self.spanning.placed(net, self.facts(net))

    def facts(self, *nets: Network) -> Host:
        """What is to be known of this host for a decision about networks over several."""
        key = self.keys.current() if any(net.encrypt for net in nets) else None
        return replace(self.kernel.host(), id=self.store.host, key=key)

    def want_endpoint(self, net: Network, ep: Endpoint) -> State:
        """What should exist for an endpoint."""
        return self.drivers[net.driver].endpoint(net, ep)

    def known(self, identity: str) -> tuple[Network, Endpoint] | None:
        """The endpoint of that id, and its network."""
        with self.store.read() as tx:
            ep = tx.endpoint(identity)
            net = tx.network(ep.network) if ep is not None else None
        return None if ep is None or net is None else (net, ep)

    @contextmanager
    def changing(self) -> Iterator[None]:
        """Hold the lock, with what a dead process left half-done put right first."""
        with self.lock.held():
            with self.store.read() as tx:
                left = tx.intents()
            for intent in left:
                recover(self, intent)
            yield

    def carry_out(self, intent: Intent, plan: Plan, then: Callable[[Tx], None] = lambda _: None) -> None:
        """Send a plan whose intent is on record: all of it takes effect, or nothing. `then`: what to record of it.

        After a failure, a change that goes back is taken back and the failure raised. One that goes forward is
        tried once more from what the kernel then holds; if that fails too, it stays on record and is raised.
        """
        try:
            self.kernel.send(plan)
        except Exception:
            recover(self, intent)
            if not intent.forward:
                raise
        except BaseException:  # Ctrl-C
            recover(self, intent)
            raise
        else:
            with self.store.write() as tx:
                then(tx)
                tx.close(intent.id)


def recover(parts: Parts, intent: Intent) -> None:
    """Bring the host to one of an intent's two states, and the store with it."""
    target = intent.after if intent.forward else intent.before
    reach(parts.kernel, target, scope_of(intent.before, intent.after))
    parts.kernel.sweep()
    with parts.store.write(durable=True) as tx:
        if intent.verb == "create":
            net = tx.network(intent.id)
            for pool in net.pools if net is not None and net.scope == "global" else ():
                tx.drop_ledger(pool)  # it is not the network's alone by its key
            tx.drop_network(intent.id)
        elif intent.verb == "attach":
            forget(tx, intent.id)
        tx.close(intent.id)


def lent(pool: Pool, placement: Placement) -> bool:
    """Whether an endpoint's address was asked of the IPAM driver, and not by the attach itself."""
    return bool(pool.owner) and placement is Placement.HANDOVER


def forget(tx: Tx, identity: str) -> None:
    """Drop an endpoint and give its addresses back. One that is gone already is fine.

    What Docker asked the IPAM driver for, Docker gives back by itself.
    """
    ep = tx.endpoint(identity)
    if ep is None:
        return
    net = tx.network(ep.network)
    for interface in ep.addresses if net is not None else ():
        pool = net.pool_of(interface.ip) if net is not None else None
        if pool is not None and not lent(pool, ep.placement) and tx.holds(ep, interface.ip):
            ipam.give_back(pool, tx.ledger(ep.network, pool), interface.ip)
    tx.drop_endpoint(identity)
    tx.drop_leases(identity)
