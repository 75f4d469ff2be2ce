"""What is on record, for who looks now and again: read anew only when something was written since."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from berth.model import Endpoint, LeaseRecord, Network
from berth.seams import Store


@dataclass(frozen=True, slots=True)
class Recorded:
    """What is on record at one moment, as this host sees it."""

    networks: Sequence[Network] = ()
    endpoints: Sequence[Endpoint] = ()
    leases: Sequence[LeaseRecord] = ()

    def arranges_as(self, other: Recorded) -> bool:
        """Whether all but leases is the very same; most of what is written is that they go on. See `Recent.read`."""
        return self.networks is other.networks and self.endpoints is other.endpoints


class Recent:
    """The last look at the records."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._mark: object = None
        self._known = Recorded()

    def read(self) -> Recorded:
        """The very same value as the last time where nothing was written since, else the same parts of it where equal.

        Raises what a transaction raises.
        """
        mark = self._store.mark()
        if self._mark is not None and mark == self._mark:
            return self._known
        last = self._known
        with self._store.read() as tx:
            networks, endpoints, leases = tx.networks(), tx.endpoints(), tx.leases()
        found = Recorded(
            last.networks if networks == last.networks else networks,
            last.endpoints if endpoints == last.endpoints else endpoints,
            leases,
        )
        # What was written while it was read may be in it or not: then it is read once more the next time.
        self._mark = mark if mark == self._store.mark() else None
        self._known = found
        return found
