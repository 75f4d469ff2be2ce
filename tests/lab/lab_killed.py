"""`lab_killed.py STEP berth-arguments…`: run berth, and kill it with -9 right before its STEPth step.

A step is an operation on the host, of which each is sent by itself so that every state in between is seen, or a record
that is written. A run that ends by itself had fewer steps than that.
"""

from __future__ import annotations

import os
import signal
import sys

from berth.cli.main import main
from berth.kernel import send
from berth.plan import Plan
from berth.store.uplinks import UplinkRecords
from berth.uplink.record import Record

_whole, _save = send.send, UplinkRecords.save
_left = int(sys.argv[1])


def step() -> None:
    global _left
    if _left == 0:
        os.kill(os.getpid(), signal.SIGKILL)
    _left -= 1


def one_by_one(plan: Plan) -> None:
    for op in plan.ops:
        step()
        _whole(Plan((op,)))


def save(self: UplinkRecords, record: Record) -> None:
    step()
    _save(self, record)


send.send = one_by_one
UplinkRecords.save = save  # type: ignore[method-assign]
main(sys.argv[2:])
