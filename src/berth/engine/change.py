"""One change of an uplink under way: going on to its end, or back to the state before it.

Whoever holds the lock of uplinks may do either: the command that began, another one that confirms, the guard.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from msgspec.structs import replace

from berth.engine.reach import reach
from berth.errors import BerthError, Refused
from berth.moved import FROM_ROUTER, RA, MovedAddr, MovedRoute
from berth.plan import Del, Plan
from berth.seams import Kernel, Scope
from berth.state import State, TextFile, keys
from berth.uplink.decide import aged, reachable
from berth.uplink.record import Checkpoint, Record, Report
from berth.uplink.seams import HostSide, Records

_TRIES = 5  # to put everything back, a second apart
_ROUTER_WITHIN = 5.0  # seconds for a router to answer: it may wait 0.5, and 3 since it last spoke (RFC 4861, 6.2.6)
_TOLD_WITHIN = 15.0  # seconds for the gateway to answer after a manager has taken over, which may ask for a lease
_POLL = 0.05


@dataclass(frozen=True, slots=True)
class Parts:
    """What a change is made with."""

    kernel: Kernel
    host: HostSide
    records: Records


def files(state: State) -> frozenset[TextFile]:
    """Those of the objects that are files."""
    return frozenset(obj for obj in state if isinstance(obj, TextFile))


def move(parts: Parts, cp: Checkpoint) -> Plan:
    """Reach the state after the change, but for its files."""
    after = reachable(cp.after - files(cp.after))
    before = cp.before - files(cp.before)
    if not before:
        return Plan()  # only files are put back
    parts.host.acquaint(cp.source, cp.target)
    done = reach(parts.kernel, after, Scope(keys(before) | keys(after), devices=frozenset({cp.source})))
    settle(parts, after, cp.target)
    return done


def finish(parts: Parts, record: Record, cp: Checkpoint) -> None:
    """Make the change last: files, the system that reads them, DHCP; then record it, at one instant.

    Raises what any of it raises; what was done is then taken back with the rest.
    """
    wanted = files(cp.after)
    reach(parts.kernel, wanted, Scope(keys(files(cp.before)) | keys(wanted)))
    for argv in cp.reload:
        parts.host.run(argv)
    if cp.clients:
        parts.host.hand_over(cp.clients, cp.source, cp.target)
    if (cp.reload or cp.clients) and cp.before - files(cp.before):
        verify(parts, cp.target, cp.gateways, within=_TOLD_WITHIN)
    parts.records.save(Record(record.nic, adopted=cp.adopted))


def back(parts: Parts, record: Record, reason: str) -> Report:
    """Put everything back as it was before the change, whatever it looks like now; how that went is recorded too."""
    cp = record.checkpoint
    assert cp is not None
    rebooted = cp.boot != parts.host.boot()
    complete = True
    for left in reversed(range(_TRIES)):
        try:
            _restore(parts, cp, rebooted)
            break
        except BerthError as error:
            if not left:
                reason, complete = f"{reason}; and not all could be put back: {error}", False
            time.sleep(1)
    if complete:
        reason = "; then ".join([reason, *_tell(parts, cp, rebooted)])
    report = Report(cp.verb, reason, parts.host.today(), complete)
    stuck = None if complete else replace(cp, phase="stuck")  # whoever comes next tries again
    parts.records.save(Record(record.nic, adopted=record.adopted, checkpoint=stuck, report=report))
    return report


def _restore(parts: Parts, cp: Checkpoint, rebooted: bool) -> None:
    """After a reboot nothing is left of the kernel's state, and what the files say is to come."""
    whole = aged(cp.before, int(max(parts.host.now() - cp.armed, 0)))
    wanted = files(whole) if rebooted else reachable(whole)
    touched = frozenset(obj for obj in cp.after if not rebooted or isinstance(obj, TextFile))
    devices = frozenset() if rebooted else frozenset({cp.target})
    if not rebooted:
        parts.host.acquaint(cp.target, cp.source)
    reach(parts.kernel, wanted, Scope(keys(wanted) | keys(touched), devices=devices))


def _tell(parts: Parts, cp: Checkpoint, rebooted: bool) -> list[str]:
    """Let the programs know that all is as it was, if they were told otherwise; what went wrong with that."""
    troubles: list[str] = []
    commands = cp.reload if cp.phase == "finishing" and not rebooted else ()
    if rebooted and files(cp.after) != files(cp.before):
        commands = cp.regenerate
    for argv in commands:
        with _noted(troubles):
            parts.host.run(argv)
    if rebooted:
        return troubles
    if cp.phase == "finishing" and cp.clients:
        with _noted(troubles):
            clients = [client.serving(cp.source, cp.target) for client in cp.clients]
            parts.host.hand_over(clients, cp.target, cp.source)
    with _noted(troubles):
        settle(parts, reachable(cp.before), cp.source)
    return troubles


@contextmanager
def _noted(troubles: list[str]) -> Iterator[None]:
    try:
        yield
    except BerthError as error:
        troubles.append(str(error))


def settle(parts: Parts, wanted: State, dev: str) -> None:
    """Have the kernel learn anew what routers advertise; then what stood in for it goes."""
    stand_ins = frozenset(obj for obj in wanted if isinstance(obj, MovedRoute) and obj.protocol == RA)
    if not stand_ins and not any(isinstance(obj, MovedAddr) and obj.protocol == FROM_ROUTER for obj in wanted):
        return
    parts.host.solicit(dev)
    until = time.monotonic() + _ROUTER_WITHIN
    while stand_ins and time.monotonic() < until:
        real = frozenset(replace(obj, metric=obj.metric - 1) for obj in stand_ins)
        there = keys(parts.kernel.read(Scope(keys(real))))
        relieved = frozenset(obj for obj in stand_ins if replace(obj, metric=obj.metric - 1).key in there)
        if relieved:
            parts.kernel.send(Plan(tuple(Del(obj) for obj in sorted(relieved, key=lambda obj: obj.key))))
            stand_ins -= relieved
        else:
            time.sleep(_POLL)


def verify(parts: Parts, dev: str, gateways: tuple[str, ...], *, within: float = 3.0) -> None:
    """That the host is on the LAN through a link. Raises `Refused`, saying what is missing.

    `within`: seconds for each gateway to answer.
    """
    if not parts.host.carrier(dev, 5.0):
        raise Refused(f"{dev} has no carrier")
    for gateway in gateways:
        if not parts.host.answers(dev, gateway, within):
            raise Refused(f"gateway {gateway} does not answer on {dev}")
