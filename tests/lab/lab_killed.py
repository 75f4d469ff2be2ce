"""`lab_killed.py STEP berth-arguments…`: run berth, and kill it with -9 right after its STEPth operation on the host.

Operations are sent one by one, so that every state in between is seen. It prints nothing; a run that ends by itself
had fewer operations than that.
"""

from __future__ import annotations

import os
import signal
import sys

from berth.cli.main import main
from berth.kernel import send
from berth.plan import Plan

_whole = send.send
_left = int(sys.argv[1])


def one_by_one(plan: Plan) -> None:
    global _left
    for op in plan.ops:
        if _left == 0:
            os.kill(os.getpid(), signal.SIGKILL)
        _whole(Plan((op,)))
        _left -= 1


send.send = one_by_one
main(sys.argv[2:])
