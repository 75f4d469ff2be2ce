"""`python -m berth.guard NIC CHANGE [FD]`: watch over a change until it is over.

`python -m berth.guard --boot`: put back the files of a change that the host went down in.
"""

from __future__ import annotations

import os
import signal
import sys
import time
from contextlib import suppress
from pathlib import Path

from berth import wire
from berth.engine.uplink import Uplinks
from berth.errors import Taken
from berth.uplink.record import Checkpoint
from berth.uplink.seams import Records

_POLL = 0.05  # seconds


def watch(uplinks: Uplinks, records: Records, nic: str, change: str) -> None:
    """Return when the change is over, by whomever; put it back when nobody is at work on it any more."""
    while True:
        cp = records.load(nic).checkpoint
        if cp is None or cp.id != change or cp.phase == "stuck":
            return
        late = time.clock_gettime(time.CLOCK_BOOTTIME) >= cp.limit
        if cp.phase != "waiting" or late:
            _take_over(uplinks, records, nic, cp, late)
        time.sleep(_POLL)


def _take_over(uplinks: Uplinks, records: Records, nic: str, cp: Checkpoint, late: bool) -> None:
    """Put the change back if its lock is free. One who holds it for too long is ended first."""
    try:
        with records.held():
            there = records.load(nic).checkpoint
            if there is None or there.id != cp.id or (there.phase == "waiting" and not late):
                return
            reason = f"not confirmed within {cp.within} s" if there.phase == "waiting" else "its command was ended"
            uplinks.put_back(nic, cp.id, reason)
    except Taken:
        if late and cp.phase != "waiting" and _is_berth(cp.pid):
            with suppress(ProcessLookupError):
                os.kill(cp.pid, signal.SIGKILL)


def _is_berth(pid: int) -> bool:
    """Whether the process that began is still there, rather than another of its number."""
    with suppress(OSError):
        return b"berth" in Path(f"/proc/{pid}/cmdline").read_bytes()
    return False


def main() -> None:
    """Run the guard."""
    signal.signal(signal.SIGHUP, signal.SIG_IGN)
    uplinks, records = wire.uplinks(), wire.uplink_records()
    if sys.argv[1:] == ["--boot"]:
        uplinks.recover()
        return
    nic, change = sys.argv[1:3]
    if len(sys.argv) > 3:
        ready = int(sys.argv[3])
        os.write(ready, b"!")
        os.close(ready)
    watch(uplinks, records, nic, change)


if __name__ == "__main__":
    main()
