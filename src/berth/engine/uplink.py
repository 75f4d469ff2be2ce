"""The verbs of uplinks: a NIC joins a bridge, and leaves it, without losing the host."""

from __future__ import annotations

import os
import secrets
import time
from collections.abc import Callable, Iterable
from dataclasses import replace

import msgspec.structs

from berth.engine.change import Parts, back, files, finish, move, verify
from berth.engine.proposal import Persist, Proposal, Status, adopting, releasing
from berth.errors import Invalid, NotFound, Refused, Taken
from berth.moved import Port
from berth.ovs import OvsPort
from berth.plan import Change, Plan
from berth.seams import Scope
from berth.state import Bridge, Foreign, State, TextFile, keys
from berth.uplink.facts import Facts
from berth.uplink.record import Adopted, Checkpoint, Client, Record, Report
from berth.uplink.risks import risks
from berth.uplink.seams import Guard

CHANGE_WITHIN = 30  # seconds: for the change and its check, and for finishing it
FINISH_WITHIN = 120
_ANSWERS_WITHIN = 2.5  # seconds: the kernel asks again after one
_POLL = 0.1

Waiting = Callable[[int], None]


class Uplinks:
    """The verbs."""

    def __init__(self, parts: Parts, guard: Guard, persist: Persist) -> None:
        self._parts, self._guard, self._persist = parts, guard, persist

    def plan(self, nic: str, bridge: str = "br0", *, persist: str = "auto", switch: str = "bridge") -> Proposal:
        """What `adopt` would do. Changes nothing.

        Raises `NotFound` (no such link), `Taken` (adopted already), `Invalid` (a configuration that does not parse).
        """
        adopted = self._parts.records.load(nic).adopted
        if adopted is not None and self._in_effect(nic, adopted):
            raise Taken(f"{nic} is a port of {adopted.bridge} already: see `berth uplink status {nic}`")
        facts = self._parts.host.facts(nic, bridge)
        facts = self._asked(facts, nic)
        persistence = self._persist(facts, bridge, switch, persist, self._parts.host)
        there = self._texts(map(self._parts.host.path, persistence.edits))
        datapath = self._parts.host.datapath() if switch == "ovs" else None
        return adopting(facts, bridge, persistence, there, self._parts.host.path, risks(facts, bridge), datapath)

    def adopt(
        self,
        nic: str,
        bridge: str = "br0",
        *,
        confirm_within: int = 0,
        persist: str = "auto",
        switch: str = "bridge",
        waiting: Waiting | None = None,
    ) -> Proposal:
        """Make a NIC a port of a new bridge that takes its MAC and all that it carries.

        `confirm_within`: seconds in which `confirm` must be called; else all is put back. 0: it need not.
        `waiting` is told the seconds when that time begins.
        Raises what `plan` raises, `Invalid` for what cannot be adopted, and `Refused` when the host was not on the LAN
        afterwards or the change was not confirmed: all is as before then.
        """
        with self._parts.records.held():
            self._leftover(nic)
            proposal = self.plan(nic, bridge, persist=persist, switch=switch)
            for risk in proposal.risks:
                if risk.blocks:
                    raise Invalid(risk.message)
            cp = self._checkpoint("adopt", nic, bridge, proposal, confirm_within)
            cp = msgspec.structs.replace(cp, adopted=proposal.adopted(self._parts.host.today()))
            self._carry_out(Record(nic, adopted=self._parts.records.load(nic).adopted, checkpoint=cp))
        self._wait(nic, cp, waiting)
        return proposal

    def plan_release(self, nic: str) -> Proposal:
        """What `release` would do. Changes nothing.

        Raises `NotFound` when the NIC was not adopted, `Taken` while something else is plugged into the bridge.
        """
        adopted = self._parts.records.load(nic).adopted
        if adopted is None:
            raise NotFound(f"{nic} was not adopted: see `berth uplink status`")
        there = self._texts({obj.path for obj in (*adopted.originals, *adopted.written) if isinstance(obj, TextFile)})
        facts = self._parts.host.facts(nic, adopted.bridge, of=adopted.bridge)
        if not self._in_effect(nic, adopted):
            return releasing(facts, adopted, there, in_effect=False)
        others = [port for port in facts.bridge_ports if port != nic]
        if others:
            raise Taken(f"{adopted.bridge} has other ports ({', '.join(others[:5])}): detach what is plugged in first")
        return releasing(self._asked(facts, adopted.bridge), adopted, there, in_effect=True)

    def release(self, nic: str, *, confirm_within: int = 0, waiting: Waiting | None = None) -> Proposal:
        """Undo `adopt`: the NIC carries again what the bridge carries now, and the files are as they were.

        Files that were changed since are kept beside Berth's records. Errors and `confirm_within` as for `adopt`.
        """
        with self._parts.records.held():
            self._leftover(nic)
            proposal = self.plan_release(nic)
            adopted = self._parts.records.load(nic).adopted
            assert adopted is not None
            self._claim(proposal)
            for file in files(proposal.before) - files(adopted.written):
                self._parts.records.keep(file)
            cp = self._checkpoint("release", adopted.bridge, nic, proposal, confirm_within)
            self._carry_out(Record(nic, adopted=adopted, checkpoint=cp))
        self._wait(nic, cp, waiting)
        return proposal

    def confirm(self, nic: str) -> Record:
        """Keep the change that waits for it. Raises `NotFound` when none does, and what finishing it raises."""
        with self._parts.records.held(within=5):
            record = self._parts.records.load(nic)
            cp = record.checkpoint
            if cp is None or cp.phase != "waiting":
                why = f": {record.report.verb} was taken back: {record.report.reason}" if record.report else ""
                raise NotFound(f"nothing waits to be confirmed for {nic}{why}")
            self._finish(record, cp)
            return self._parts.records.load(nic)

    def status(self, nic: str | None = None) -> list[Status]:
        """How uplinks stand: one, or all that there is a record of."""
        records = self._parts.records.all() if nic is None else [self._parts.records.load(nic)]
        return [self._status(record) for record in records]

    def recover(self) -> dict[str, Report]:
        """Put back what an interrupted change has left; by NIC. Raises `Taken` while somebody is at work."""
        if not any(record.checkpoint for record in self._parts.records.all()):
            return {}
        with self._parts.records.held(within=5):
            reports = {record.nic: self._leftover(record.nic) for record in self._parts.records.all()}
            return {nic: report for nic, report in reports.items() if report is not None}

    def put_back(self, nic: str, identity: str, reason: str) -> Report | None:
        """Put back the change of that identity, if it is still under way; with the lock held."""
        record = self._parts.records.load(nic)
        if record.checkpoint is None or record.checkpoint.id != identity:
            return None
        report = back(self._parts, record, reason)
        self._guard.disarm(record)
        return report

    # --- one change -------------------------------------------------------------------------------------

    def _checkpoint(self, verb: str, source: str, target: str, proposal: Proposal, within: int) -> Checkpoint:
        now = self._parts.host.now()
        gateways = tuple(sorted(proposal.facts.answering))
        return Checkpoint(
            id=secrets.token_hex(8),
            verb=verb,
            source=source,
            target=target,
            phase="changing",
            pid=os.getpid(),
            boot=self._parts.host.boot(),
            armed=now,
            limit=now + CHANGE_WITHIN,
            before=proposal.before,
            after=proposal.after,
            gateways=gateways,
            clients=tuple(Client(client.program, client.argv) for client in proposal.facts.clients),
            reload=proposal.persistence.reload,
            regenerate=proposal.persistence.regenerate,
            within=within,
        )

    def _carry_out(self, record: Record) -> None:
        """Make the change and check it, with the guard armed; then wait for the operator, or finish."""
        cp = record.checkpoint
        assert cp is not None
        self._parts.records.save(record)
        try:
            self._guard.arm(record)
            move(self._parts, cp)
            if cp.before - files(cp.before):
                verify(self._parts, cp.target, cp.gateways)
        except BaseException as error:
            raise self._taken_back(record, error) from error
        if cp.within:
            limit = self._parts.host.now() + cp.within
            waiting = msgspec.structs.replace(cp, phase="waiting", limit=limit)
            self._parts.records.save(msgspec.structs.replace(record, checkpoint=waiting))
        else:
            self._finish(record, cp)

    def _finish(self, record: Record, cp: Checkpoint) -> None:
        limit = self._parts.host.now() + FINISH_WITHIN
        cp = msgspec.structs.replace(cp, phase="finishing", pid=os.getpid(), limit=limit)
        record = msgspec.structs.replace(record, checkpoint=cp)
        self._parts.records.save(record)
        try:
            finish(self._parts, record, cp)
        except BaseException as error:
            raise self._taken_back(record, error) from error
        self._guard.disarm(record)

    def _taken_back(self, record: Record, error: BaseException) -> BaseException:
        """Put everything back; what to raise then."""
        what = str(error) or type(error).__name__
        report = back(self._parts, record, what)
        self._guard.disarm(record)
        if not isinstance(error, Exception):
            return error
        state = "all is as it was" if report.complete else "and not all could be put back"
        return Refused(f"{report.verb} of {record.nic} was taken back, {state}: {report.reason}")

    def _wait(self, nic: str, cp: Checkpoint, waiting: Waiting | None) -> None:
        """Until the operator has confirmed the change. Raises `Refused` when it was taken back meanwhile."""
        if not cp.within:
            return
        if waiting is not None:
            waiting(cp.within)
        while _under_way(record := self._parts.records.load(nic), cp):
            time.sleep(_POLL)
        if record.report is not None:
            raise Refused(f"{cp.verb} of {nic} was taken back: {record.report.reason}")

    # --- helpers ----------------------------------------------------------------------------------------

    def _claim(self, proposal: Proposal) -> None:
        """Put Berth's mark on the bridge: after a reboot somebody else has made it, from the files Berth wrote."""
        for bridge in (obj for obj in proposal.before if isinstance(obj, Bridge)):
            if any(isinstance(obj, Foreign) for obj in self._parts.kernel.read(Scope(keys({bridge})))):
                self._parts.kernel.send(Plan((Change(bridge, bridge),)))

    def _asked(self, facts: Facts, dev: str) -> Facts:
        """The facts, and which of the gateways answer."""
        answers = self._parts.host.answers
        return replace(facts, answering=frozenset(ip for ip in facts.gateways if answers(dev, ip, _ANSWERS_WITHIN)))

    def _leftover(self, nic: str) -> Report | None:
        """Put back what an interrupted change has left. With the lock held, nobody can be at work on it.

        Raises `Taken` when the change waits for the operator.
        """
        record = self._parts.records.load(nic)
        cp = record.checkpoint
        if cp is None:
            return None
        here = cp.boot == self._parts.host.boot()
        if here and cp.phase == "waiting" and self._parts.host.now() < cp.limit:
            raise Taken(f"the {cp.verb} of {nic} waits: `berth uplink confirm {nic}` first, or let its time run out")
        reason = "it was interrupted" if here else "the host went down in the middle of it"
        return self.put_back(nic, cp.id, reason)

    def _status(self, record: Record) -> Status:
        cp = record.checkpoint
        left = int(cp.limit - self._parts.host.now()) if cp is not None and cp.phase == "waiting" else 0
        return Status(record, record.adopted is not None and self._in_effect(record.nic, record.adopted), max(left, 0))

    def _in_effect(self, nic: str, adopted: Adopted) -> bool:
        wanted = OvsPort(adopted.bridge, nic, "") if adopted.switch == "ovs" else Port(nic, adopted.bridge, 0)
        there = self._parts.kernel.read(Scope(keys({wanted})))
        masters = {
            obj.bridge if isinstance(obj, OvsPort) else obj.master for obj in there if isinstance(obj, OvsPort | Port)
        }
        return adopted.bridge in masters

    def _texts(self, paths: Iterable[str]) -> State:
        return self._parts.kernel.read(Scope(frozenset(TextFile(path, "").key for path in paths)))


def _under_way(record: Record, cp: Checkpoint) -> bool:
    there = record.checkpoint
    return there is not None and there.id == cp.id and there.phase != "stuck"
