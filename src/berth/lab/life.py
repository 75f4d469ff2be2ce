"""The beginning and the end of a lab."""

from __future__ import annotations

import json
import os
import pickle
import select
import shutil
import signal
import subprocess
import sys
from pathlib import Path
from typing import IO

from berth import errors
from berth.errors import BerthError, Denied, NotFound, Refused, Taken
from berth.lab.enter import search_path
from berth.lab.record import Record, Records, start_time
from berth.lab.topology import Topology

END_WITHIN = 10  # seconds for the kernel to kill what runs in a lab


def up(records: Records, name: str, topology: Topology) -> Record:
    """Start a lab that lives on when the caller ends."""
    lab, owner = start(records, name, topology)
    with owner:
        owner.write(b"+")
    return lab


def start(records: Records, name: str, topology: Topology) -> tuple[Record, IO[bytes]]:
    """Start a lab, and return with it the pipe that it lives by."""
    with records.locked():
        if (former := records.find(name)) and former.alive:
            raise Taken(f"lab {name!r} is up already (pid {former.pid}); `berth lab down {name}` ends it")
        for crashed in records.crashed():
            records.erase(crashed)
        lab, owner, report = _start_holder(records, name, topology)
    try:
        pickle.dump(topology, owner)
        owner.flush()
        _hear(report, lab.work)
    except BaseException:
        owner.close()
        stop(records, name)
        raise
    finally:
        report.close()
    return lab, owner


def stop(records: Records, name: str) -> None:
    """End a lab, wait until all that ran in it is gone, and remove its files; what a crashed one left as well."""
    with records.locked():
        lab = records.find(name)
        if lab is None:
            raise NotFound(f"there is no lab {name!r}")
        _end(lab)
        records.erase(lab)


def _start_holder(records: Records, name: str, topology: Topology) -> tuple[Record, IO[bytes], IO[bytes]]:
    work = records.work(name)
    try:
        work.mkdir(mode=0o700)
    except FileExistsError as error:
        raise Taken(f"{work} is in the way and is no lab's: remove it or choose another name") from error
    try:
        pid, owner, report = _spawn(name, work)
    except BaseException:
        shutil.rmtree(work)
        raise
    nodes, hosts = tuple(node.name for node in topology.nodes), tuple(host.name for host in topology.hosts)
    lab = Record(name, pid, start_time(pid) or "", os.fspath(work), nodes, hosts)
    records.save(lab)
    return lab, owner, report


def _spawn(name: str, work: Path) -> tuple[int, IO[bytes], IO[bytes]]:
    """Start a holder; its pid, the pipe that it lives by, and the one that it tells its progress through."""
    argv = [sys.executable, "-P", "-m", "berth.lab.holder", name, os.fspath(work)]
    pipe, environment = subprocess.PIPE, os.environ | {"PATH": search_path()}
    with (work / "holder.log").open("wb") as log:
        outer = subprocess.Popen(argv, stdin=pipe, stdout=pipe, stderr=log, env=environment, start_new_session=True)
    assert outer.stdin is not None
    assert outer.stdout is not None
    try:
        pid = _hear(outer.stdout, os.fspath(work))["pid"]
    except BaseException:
        outer.communicate()  # its pipes closed, it ends
        raise
    outer.wait()
    return pid, outer.stdin, outer.stdout


def _hear(report: IO[bytes], work: str) -> dict[str, int]:
    """The holder's next message; raises the error that it tells of."""
    line = report.readline()
    if not line:
        last_words = Path(work, "holder.log").read_text().strip().splitlines()[-1:]
        raise Refused(f"the lab's holder ended early: {' '.join(last_words)}")
    message = json.loads(line)
    if "error" in message:
        kind: type[BerthError] = getattr(errors, message["error"])
        raise kind(message["message"])
    return dict(message)


def _end(lab: Record) -> None:
    """Kill the holder: the kernel then ends all else, in the same way as after a crash."""
    try:
        holder = os.pidfd_open(lab.pid)
    except ProcessLookupError:
        return
    try:
        if not lab.alive:  # asked only now that the pid cannot change hands any more
            return
        signal.pidfd_send_signal(holder, signal.SIGKILL)
        gone = select.poll()
        gone.register(holder, select.POLLIN)
        if not gone.poll(END_WITHIN * 1000):
            raise Refused(f"the holder of lab {lab.name!r}, pid {lab.pid}, cannot be killed: is a process in it stuck?")
    except PermissionError as error:
        raise Denied(f"lab {lab.name!r} is another user's") from error
    finally:
        os.close(holder)
