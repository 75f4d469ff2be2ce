"""The proxy as a child of the daemon, where no other runs: where systemd runs, it has a unit for it."""

from __future__ import annotations

import asyncio
import fcntl
import logging
import os
import sys
from pathlib import Path

_ROUND = 10  # seconds between looks at somebody else's
_AGAIN = 0.1  # seconds before another is started
log = logging.getLogger("berth")


async def keep(lock: Path) -> None:
    """Have a proxy at work for as long as the daemon is, which it ends with (PR_SET_PDEATHSIG in prctl(2))."""
    argv = ("setpriv", "--pdeathsig", "TERM", sys.executable, "-m", "berth", "proxy")
    # Whether it is ready, or stops, says nothing of the daemon's service.
    env = {key: value for key, value in os.environ.items() if key != "NOTIFY_SOCKET"}
    while True:
        if _held(lock):
            await asyncio.sleep(_ROUND)
            continue
        try:
            child = await asyncio.create_subprocess_exec(*argv, stdin=asyncio.subprocess.DEVNULL, env=env)
        except OSError as error:
            log.warning("cannot start the proxy: %s: [::1] and IPv6 clients do not reach published ports", error)
            return
        await _until_it_ends(child)


async def _until_it_ends(child: asyncio.subprocess.Process) -> None:
    try:
        status = await child.wait()
    except asyncio.CancelledError:
        if child.returncode is None:
            child.terminate()
            await child.wait()
        raise
    log.warning("the proxy has ended (status %d): started again", status)
    await asyncio.sleep(_AGAIN)


def _held(lock: Path) -> bool:
    try:
        fd = os.open(lock, os.O_RDONLY | os.O_CLOEXEC)
    except OSError:
        return False  # nobody ever was
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    finally:
        os.close(fd)
    return False
