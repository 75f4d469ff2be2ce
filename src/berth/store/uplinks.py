"""The records of uplinks: a file each, so that the guard needs nothing but the file to put a host back."""

from __future__ import annotations

import fcntl
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import msgspec

from berth import durable
from berth.errors import Denied, Refused, Taken
from berth.state import TextFile
from berth.uplink.record import Record

_POLL = 0.05  # seconds


class UplinkRecords:
    """A directory with `NIC.json` for each NIC that Berth has had to do with."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory

    def load(self, nic: str) -> Record:
        """The record of a NIC; an empty one where there is none. Raises `Refused` for one that cannot be read."""
        found = durable.read(self._path(nic))
        if found is None:
            return Record(nic)
        try:
            return msgspec.json.decode(found[0], type=Record)
        except msgspec.MsgspecError as error:
            raise Refused(f"{self._path(nic)} is damaged ({error}): move it away, then see `ip addr`") from None

    def save(self, record: Record) -> None:
        """Replace the record of a NIC. Raises `Denied`, `Refused`."""
        text = msgspec.json.format(msgspec.json.encode(record)).decode()
        durable.write(self._path(record.nic), text, 0o600)

    def all(self) -> list[Record]:
        """The records of all NICs."""
        return [self.load(path.stem) for path in sorted(self.directory.glob("*.json"))]

    def keep(self, file: TextFile) -> None:
        """Keep a copy of a file that is about to be replaced, below `kept/`."""
        durable.write(self.directory / "kept" / file.path.lstrip("/"), file.text, 0o600)

    @contextmanager
    def held(self, within: float = 0) -> Iterator[None]:
        """Hold the lock of all uplinks for the block; the kernel lets go of it when its holder dies.

        `within`: seconds to wait for it. Raises `Taken`.
        """
        try:
            self.directory.mkdir(mode=0o700, parents=True, exist_ok=True)
            descriptor = os.open(self.directory / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        except PermissionError:
            raise Denied(f"may not write {self.directory}: run as root, or set BERTH_STATE") from None
        except OSError as error:
            raise Refused(f"cannot use {self.directory}: {error.strerror}") from None
        try:
            self._lock(descriptor, time.monotonic() + within)
            yield
        finally:
            os.close(descriptor)

    def _lock(self, descriptor: int, until: float) -> None:
        while True:
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
                return
            except BlockingIOError:
                if time.monotonic() >= until:
                    raise Taken("another change of an uplink is under way: see `berth uplink status`") from None
            time.sleep(_POLL)

    def _path(self, nic: str) -> Path:
        return self.directory / f"{nic}.json"
