"""What this process has told the kernel of other hosts' endpoints, so that a change costs what it changes.

Only for who hears of every change from the store: then it is what the store has, as of a revision.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

from berth.model import Endpoint, HostRecord, Network
from berth.seams import Turn


@dataclass(slots=True)
class Followed:
    """One network: as it is on this host, and the endpoints on others by id, as of a revision of the store."""

    net: Network
    revision: int
    others: dict[str, Endpoint]
    hosts: Sequence[HostRecord] = ()  # of an encrypted network

    def turn(self, turns: Iterable[Turn]) -> tuple[list[Endpoint], list[Endpoint]]:
        """Take in what has changed; the same endpoints as they were, and as they are now."""
        before, after = [], []
        for turn in turns:
            was = self.others.pop(turn.identity, None)
            before += [was] if was is not None else []
            if turn.endpoint is not None:
                self.others[turn.identity] = turn.endpoint
                after.append(turn.endpoint)
        return before, after


@dataclass(slots=True)
class Following:
    """All networks over several hosts, by id; none while nobody hears of changes."""

    live: bool = False
    networks: dict[str, Followed] = field(default_factory=dict)

    def called(self, name: str) -> Network | None:
        """The network of that name or id, as it is on this host."""
        return next((each.net for each in tuple(self.networks.values()) if name in (each.net.id, each.net.name)), None)

    def everybody(self) -> tuple[Endpoint, ...]:
        """The endpoints on other hosts."""
        return tuple(ep for each in self.networks.values() for ep in each.others.values())

    def begin(self) -> None:
        """Changes are heard of from now on."""
        self.live = True

    def end(self) -> None:
        """They are no more."""
        self.live = False
        self.networks.clear()

    def note(self, net: Network, revision: int, others: Iterable[Endpoint], hosts: Sequence[HostRecord] = ()) -> None:
        """The kernel has been brought to this state of a network."""
        if self.live:
            self.networks[net.id] = Followed(net, revision, {ep.id: ep for ep in others}, hosts)

    def forget(self, network: str) -> None:
        """What the kernel has of a network is not known any more."""
        self.networks.pop(network, None)
