"""Arming the guard: a process of its own that puts a host back when the change of an uplink does not succeed.

It outlives the command that made the change, its terminal and SIGHUP, knows one verb (reach the state before), and
needs nothing but the record on disk. Where systemd runs, a timer of its does the same a little later, should the
guard itself be ended, and a unit puts the files back at the next boot, before the network is configured.
"""

from __future__ import annotations

import os
import select
import subprocess
import sys
from contextlib import suppress
from pathlib import Path

from berth import durable
from berth.errors import Refused
from berth.uplink.record import Record

_READY_WITHIN = 20.0  # seconds for the process to load
_BELT_AFTER = 15  # seconds after the guard's own time
BOOT_UNIT = "etc/systemd/system/berth-uplink.service"
BOOT_WANT = "etc/systemd/system/sysinit.target.d/90-berth-uplink.conf"

_UNIT = """# Written by `berth uplink` for the time of a change; removed when it is over.
[Unit]
Description=Put back what an interrupted change of an uplink has left
DefaultDependencies=no
RequiresMountsFor={state}
After=local-fs.target
Before=network-pre.target sysinit.target systemd-networkd.service networking.service NetworkManager.service
Wants=network-pre.target

[Service]
Type=oneshot
Environment=BERTH_STATE={state}
ExecStart={program} -m berth.guard --boot
"""
_WANT = "[Unit]\nWants=berth-uplink.service\n"


class ProcessGuard:
    """Starts the guard. `root`: where the host's files are; None: a bare network namespace, with no boot of its own."""

    def __init__(self, state: Path, root: Path | None) -> None:
        self._state, self._root = state, root

    def arm(self, record: Record) -> None:
        """Start watching; returns when it does. Raises `Refused`."""
        cp = record.checkpoint
        assert cp is not None
        ours, theirs = os.pipe()
        try:
            subprocess.Popen(
                [sys.executable, "-m", "berth.guard", record.nic, cp.id, str(theirs)],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
                pass_fds=(theirs,),
                start_new_session=True,
                cwd="/",
                env={**os.environ, "BERTH_STATE": str(self._state.absolute())},
            )
        except OSError as error:
            raise Refused(f"cannot start the guard: {error.strerror}") from None
        finally:
            os.close(theirs)
        _await(ours)
        if self._booted():
            self._belt(record)

    def disarm(self, record: Record) -> None:
        """Stop the second belt; the guard sees by itself that it is over."""
        if not self._booted():
            return
        assert self._root is not None
        for path in (BOOT_WANT, BOOT_UNIT):
            durable.remove(self._root / path)
        with suppress(OSError):  # somebody else's files are in it
            (self._root / BOOT_WANT).parent.rmdir()
        _quietly("systemctl", "stop", f"{_unit(record.nic)}.timer")

    def _booted(self) -> bool:
        return self._root == Path("/") and os.path.isdir("/run/systemd/system")

    def _belt(self, record: Record) -> None:
        cp = record.checkpoint
        assert cp is not None and self._root is not None
        unit = _UNIT.format(state=self._state.absolute(), program=sys.executable)
        durable.write(self._root / BOOT_UNIT, unit, 0o644)
        durable.write(self._root / BOOT_WANT, _WANT, 0o644)
        after = int(cp.limit - cp.armed) + cp.within + _BELT_AFTER
        _quietly(
            "systemd-run",
            f"--unit={_unit(record.nic)}",
            f"--on-active={after}",
            "--timer-property=AccuracySec=1s",
            f"--setenv=BERTH_STATE={self._state.absolute()}",
            sys.executable,
            *("-m", "berth.guard", record.nic, cp.id),
        )


def _unit(nic: str) -> str:
    return f"berth-uplink-guard-{nic}"


def _await(ours: int) -> None:
    try:
        ready, _, _ = select.select([ours], [], [], _READY_WITHIN)
        if not ready or os.read(ours, 1) != b"!":
            raise Refused("the guard did not start: nothing was changed")
    finally:
        os.close(ours)


def _quietly(*argv: str) -> None:
    """Run a command that may fail: the guard itself is there all the same."""
    try:
        subprocess.run(argv, stdin=subprocess.DEVNULL, capture_output=True, timeout=20, check=False)
    except (OSError, subprocess.TimeoutExpired):
        return
