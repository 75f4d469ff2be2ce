"""What a change of an uplink would do, before it is done."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field, replace

from berth.engine.change import files
from berth.hostconfig import Commands, Edits
from berth.plan import Plan, diff
from berth.state import Obj, State, Sysctl, TextFile
from berth.uplink.decide import carry, on_bridge, on_nic
from berth.uplink.facts import Facts, Nic
from berth.uplink.onto_ovs import on_ovs
from berth.uplink.record import Adopted, Record
from berth.uplink.risks import Risk
from berth.uplink.seams import HostSide


@dataclass(frozen=True, slots=True)
class Persistence:
    """How a change is kept over a reboot."""

    system: str = "none"  # a renderer's name
    edits: Edits = field(default_factory=dict)
    reload: Commands = ()  # how the running system is told, of the old files too
    regenerate: Commands = ()  # what has to be run at a boot when its files were put back
    notes: tuple[str, ...] = ()


#: How an adopted NIC is kept: (facts, bridge, switch, what `--persist` says, host). Raises `Invalid`.
Persist = Callable[[Facts, str, str, str, HostSide], Persistence]


@dataclass(frozen=True, slots=True)
class Proposal:
    """What a change would do."""

    facts: Facts
    bridge: str
    before: State
    after: State
    persistence: Persistence
    risks: tuple[Risk, ...] = ()
    datapath: str | None = None  # of a bridge of Open vSwitch's; None: the bridge is the kernel's

    @property
    def plan(self) -> Plan:
        """The change, as operations."""
        return diff(self.after, self.before)

    def adopted(self, since: str) -> Adopted:
        """What is to be recorded of a NIC that was adopted so."""
        return Adopted(
            bridge=self.bridge,
            since=since,
            switch="bridge" if self.datapath is None else "ovs",
            datapath=self.datapath or "",
            system=self.persistence.system,
            address_mode=self.facts.nic.address_mode,
            settings=frozenset(self.facts.settings),
            originals=files(self.before),
            written=files(self.after),
            reload=self.persistence.reload,
            regenerate=self.persistence.regenerate,
        )


@dataclass(frozen=True, slots=True)
class Status:
    """How an uplink stands."""

    record: Record
    in_effect: bool  # the NIC is a port of the bridge now
    seconds_left: int = 0  # to confirm the change that waits


def adopting(
    facts: Facts,
    bridge: str,
    persistence: Persistence,
    there: State,
    path: Callable[[str], str],
    risks: tuple[Risk, ...],
    datapath: str | None,
) -> Proposal:
    """The change by which a NIC becomes a port. `there`: the files that are to be written, as they are now."""
    edits = persistence.edits.items()
    texts = {TextFile(path(name), file.text, file.mode) for name, file in edits if file is not None}
    before = on_nic(facts.nic, facts.carried, facts.settings) | there
    after = _plugged(facts.nic, bridge, facts.carried, facts.settings, datapath) | texts
    return Proposal(facts, bridge, before, after, persistence, risks, datapath)


def releasing(facts: Facts, adopted: Adopted, there: State, *, in_effect: bool) -> Proposal:
    """The change by which the NIC carries again what its bridge carries now.

    `there`: the files that were written, as they are now. Without effect (after a reboot that nothing was written
    for) only they are put back.
    """
    persistence = Persistence(adopted.system, reload=adopted.reload, regenerate=adopted.regenerate)
    if not in_effect:
        return Proposal(facts, adopted.bridge, there, adopted.originals, persistence)
    nic = replace(facts.nic, master="", address_mode=adopted.address_mode)
    carried = [carry(obj, adopted.bridge, nic.name) for obj in facts.carried]
    datapath = adopted.datapath if adopted.switch == "ovs" else None
    before = _plugged(nic, adopted.bridge, carried, adopted.settings, datapath) | there
    after = on_nic(nic, carried, adopted.settings) | adopted.originals
    return Proposal(facts, adopted.bridge, before, after, persistence)


def _plugged(nic: Nic, bridge: str, carried: Iterable[Obj], settings: Iterable[Sysctl], datapath: str | None) -> State:
    if datapath is None:
        return on_bridge(nic, bridge, carried, settings)
    return on_ovs(nic, bridge, datapath, carried, settings)
