"""What is remembered of an uplink, one record a NIC, replaced as a whole: so there is one instant of success."""

from __future__ import annotations

import msgspec

from berth.hostconfig import Commands
from berth.state import NOTHING, State, Sysctl


class Client(msgspec.Struct, frozen=True):
    """A DHCP client, as it was started."""

    program: str
    argv: tuple[str, ...]

    def serving(self, source: str, target: str) -> Client:
        """The same for another link, also in the names of its files."""
        argv = (word.replace(source, target) if word == source or word.startswith("/") else word for word in self.argv)
        return Client(self.program, (self.argv[0], *tuple(argv)[1:]))


class Adopted(msgspec.Struct, frozen=True):
    """A NIC that is a port of a bridge of Berth's."""

    bridge: str
    since: str  # RFC 3339, UTC
    switch: str = "bridge"  # bridge | ovs
    datapath: str = ""  # of an Open vSwitch bridge: see `OvsBridge`
    system: str = "none"  # who keeps it over a reboot
    address_mode: int = 0  # the NIC's own
    settings: frozenset[Sysctl] = frozenset()  # the NIC's own
    originals: State = NOTHING  # the files as they were
    written: State = NOTHING  # the files as Berth wrote them
    reload: Commands = ()  # how the system is told of either
    regenerate: Commands = ()  # what has to be run at a boot when they were put back


class Checkpoint(msgspec.Struct, frozen=True):
    """A change under way, and the state to go back to if it does not succeed."""

    id: str
    verb: str  # adopt | release
    source: str  # the link that carries the host's addresses before
    target: str  # the one that does after
    phase: str  # changing | waiting (for the operator) | finishing | stuck (on the way back)
    pid: int  # who is at work
    boot: str  # in which boot
    armed: float  # seconds since the boot, suspended ones too
    limit: float  # the same clock: when it is taken back at the latest
    before: State
    after: State
    gateways: tuple[str, ...] = ()  # those that answered before
    clients: tuple[Client, ...] = ()  # that lease the source's address
    reload: Commands = ()  # how the system is told of files, the new or the old ones
    regenerate: Commands = ()  # what has to be run at a boot when they were put back
    within: int = 0  # seconds that the operator has to confirm it; 0: need not
    adopted: Adopted | None = None  # what is recorded when it succeeds


class Report(msgspec.Struct, frozen=True):
    """How the last change ended, if it was taken back."""

    verb: str
    reason: str
    when: str  # RFC 3339, UTC
    complete: bool = True  # whether all is as before


class Record(msgspec.Struct, frozen=True):
    """All that is remembered of a NIC."""

    nic: str
    adopted: Adopted | None = None
    checkpoint: Checkpoint | None = None
    report: Report | None = None
