"""The process that a lab lives and dies with.

It is process 1 of a pid namespace and the first in a mount namespace whose /run is private: that is where the
lab's network namespaces are pinned. When it ends, by whatever cause, the kernel kills every process of the lab and
drops every namespace. Nothing else has to be undone.

Started as `python -m berth.lab.holder NAME WORKDIR`. Its standard output tells the starter, a JSON object a line:
`{"pid": N}`, then `{"ready": true}`; or an error at any time. Its standard input is a pickled `Topology`, then
either one byte, "live on without me", or the end of the file: whoever holds the other end owns the lab.
"""

from __future__ import annotations

import json
import os
import pickle
import selectors
import signal
import sys
from collections.abc import Callable
from pathlib import Path
from typing import NoReturn

from berth.errors import BerthError, Refused, Unsupported
from berth.lab import nodes, syscalls
from berth.lab.topology import DOMAIN, Topology

_RESOLV_CONF = Path("/etc/resolv.conf")
_BY_ROOT = os.geteuid() == 0  # asked before the process enters a user namespace of its own, where everybody is root


def main() -> None:
    """Become two: the inner one is the lab's process 1, the outer one tells its pid and ends."""
    work = Path(sys.argv[2])
    _reported(_unshare)
    pid = os.fork()
    if pid:
        _report({"pid": pid})
        return
    _reported(lambda: _furnish(work))
    _hold()


def _furnish(work: Path) -> None:
    topology = pickle.load(sys.stdin.buffer)
    _mount(work, topology)
    nodes.build(topology, work)
    _report({"ready": True})
    os.close(1)


def _unshare() -> None:
    uid, gid = os.geteuid(), os.getegid()
    spaces = syscalls.CLONE_NEWNS | syscalls.CLONE_NEWNET | syscalls.CLONE_NEWPID
    try:
        syscalls.unshare(spaces if _BY_ROOT else spaces | syscalls.CLONE_NEWUSER)
        if not _BY_ROOT:
            Path("/proc/self/setgroups").write_text("deny")  # the kernel wants it before a gid_map by an ordinary user
            Path("/proc/self/uid_map").write_text(f"0 {uid} 1")
            Path("/proc/self/gid_map").write_text(f"0 {gid} 1")
    except OSError as error:
        raise _unsupported(error) from error


def _mount(work: Path, topology: Topology) -> None:
    """Give the lab its own /run, /proc and /etc/resolv.conf. /sys and the control groups stay as they are."""
    try:
        syscalls.mount("", "/", flags=syscalls.MS_REC | syscalls.MS_PRIVATE)
        kept = os.open(work, os.O_PATH)
        # All of /run, not only /run/netns: the machine may have no such folder to mount on; and what is in /run are
        # ways to reach the machine's own daemons (its Docker, D-Bus, name service), which are no part of the lab.
        syscalls.mount("tmpfs", "/run", "tmpfs", syscalls.MS_NOSUID | syscalls.MS_NODEV, "mode=755")
        nodes.NETNS.mkdir()
        if not work.exists():  # it was under /run
            work.mkdir(parents=True)
            syscalls.mount(f"/proc/self/fd/{kept}", str(work), flags=syscalls.MS_BIND | syscalls.MS_REC)
        os.close(kept)
        _mount_resolv_conf(topology)
        flags = syscalls.MS_NOSUID | syscalls.MS_NODEV | syscalls.MS_NOEXEC
        syscalls.mount("proc", "/proc", "proc", flags)
        os.chdir("/")
    except OSError as error:
        raise _unsupported(error) from error


def _mount_resolv_conf(topology: Topology) -> None:
    text = "".join(f"nameserver {address}\n" for address in topology.nameservers) + f"search {DOMAIN}\n"
    target = _RESOLV_CONF.resolve()
    if target.is_relative_to("/run"):  # a link to a resolver's file, which the private /run hides
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_text(text)
        return
    if not target.exists():
        raise Unsupported(f"the lab needs a file to mount its own over: `touch {target}`")
    source = Path("/run/lab-resolv.conf")
    source.write_text(text)
    syscalls.mount(str(source), str(target), flags=syscalls.MS_BIND)


def _unsupported(error: OSError) -> Unsupported:
    what = f"the lab cannot make its namespaces here ({error.filename or 'unshare'}: {error.strerror})"
    if _BY_ROOT:
        return Unsupported(f"{what}: root lacks CAP_SYS_ADMIN; in a container, start that with --privileged")
    return Unsupported(f"{what}: this system keeps user namespaces from ordinary users; run `sudo berth lab up`")


def _hold() -> NoReturn:
    """Process 1's only duties: reap orphans, and end with the owner unless told to live on."""
    wake, woken = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
    signal.set_wakeup_fd(woken)
    signal.signal(signal.SIGCHLD, lambda *_: None)  # the wake-up pipe is written only for a signal with a handler
    signal.signal(signal.SIGTERM, lambda *_: os._exit(0))
    with selectors.DefaultSelector() as selector:
        selector.register(wake, selectors.EVENT_READ)
        selector.register(0, selectors.EVENT_READ)
        while True:
            _reap()
            for key, _ in selector.select():
                if key.fd == wake:
                    os.read(wake, 4096)
                elif not os.read(0, 1):
                    os._exit(0)
                else:
                    selector.unregister(0)
                    os.close(0)


def _reap() -> None:
    try:
        while os.waitpid(-1, os.WNOHANG) != (0, 0):
            pass
    except ChildProcessError:
        pass


def _reported(step: Callable[[], None]) -> None:
    """Do a step; tell the starter what went wrong, and end."""
    try:
        step()
    except BerthError as error:
        _report({"error": type(error).__name__, "message": str(error)})
    except Exception as error:
        _report({"error": Refused.__name__, "message": f"the lab could not be made: {error!r}"})
    else:
        return
    os._exit(1)


def _report(message: dict[str, object]) -> None:
    os.write(1, json.dumps(message).encode() + b"\n")


if __name__ == "__main__":
    main()
