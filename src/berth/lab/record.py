"""What is written down about labs.

For each there are in `$BERTH_LAB_DIR`:

    NAME.json    who the holder is, and the nodes
    NAME/        the work directory: holder.log, and a directory a node: a host's state and run, a router's logs

By default it is /run/berth-lab for root, $XDG_RUNTIME_DIR/berth-lab or else /tmp/berth-lab-UID for others.
"""

from __future__ import annotations

import fcntl
import json
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass
from pathlib import Path

from berth.errors import Denied, Invalid, NotFound

_ELSEWHERE = "name a directory of your own in BERTH_LAB_DIR"


@dataclass(frozen=True, slots=True)
class Record:
    """A lab that was started, and may have ended since."""

    name: str
    pid: int  # of the holder
    started: str  # the holder's start time as the kernel counts it: a pid alone may be somebody else's by now
    work: str  # the work directory
    nodes: tuple[str, ...]
    hosts: tuple[str, ...]

    @property
    def alive(self) -> bool:
        """Whether the holder runs."""
        return start_time(self.pid) == self.started


class Records:
    """All labs of one user: one directory."""

    def __init__(self) -> None:
        self._home = _home()

    def work(self, name: str) -> Path:
        """The work directory of a lab of that name."""
        return self._home / name

    def running(self, name: str) -> Record:
        """The record of a lab that runs."""
        found = self.find(name)
        if found is None or not found.alive:
            raise NotFound(f"lab {name!r} is not running; `berth lab up {name}` starts it")
        return found

    def find(self, name: str) -> Record | None:
        """The record of a lab, whether it still runs or not."""
        path = self._file(name)
        return _read(path) if path.exists() else None

    def crashed(self) -> tuple[Record, ...]:
        """The labs that ended without being taken down. Whatever else is in the directory is not ours."""
        read = (_read(path) for path in self._home.glob("*.json"))
        return tuple(lab for lab in read if lab is not None and not lab.alive)

    def save(self, lab: Record) -> None:
        """Write a lab down, at once as a whole."""
        draft = self._home / f"{lab.name}.new"
        draft.write_text(json.dumps(asdict(lab)) + "\n")
        draft.replace(self._file(lab.name))

    def erase(self, lab: Record) -> None:
        """Remove a lab's work directory and record."""
        shutil.rmtree(self.work(lab.name), ignore_errors=True)
        self._file(lab.name).unlink(missing_ok=True)

    @contextmanager
    def locked(self) -> Iterator[None]:
        """Hold the directory, made if need be, against any other start or end of a lab; remove it when empty."""
        with _lock(self._home):
            try:
                yield
            finally:
                with suppress(OSError):
                    self._home.rmdir()

    def _file(self, name: str) -> Path:
        if not name.replace("-", "").replace("_", "").isalnum():
            raise Invalid(f"lab name {name!r}: use letters, digits, - and _")
        return self._home / f"{name}.json"


def start_time(pid: int) -> str | None:
    """When a process started, in the kernel's ticks since boot; None when it is gone or a mere zombie."""
    try:
        stat = Path(f"/proc/{pid}/stat").read_text()
    except (FileNotFoundError, ProcessLookupError):
        return None
    state, *fields = stat.rpartition(")")[2].split()  # the name before it may hold blanks and brackets
    return None if state in "ZX" else fields[18]


def _read(path: Path) -> Record | None:
    """What a file tells of a lab; None if it is a file of another kind."""
    try:
        fields = json.loads(path.read_text())
        return Record(**fields | {"nodes": tuple(fields["nodes"]), "hosts": tuple(fields["hosts"])})
    except (ValueError, TypeError, KeyError):
        return None


def _home() -> Path:
    if chosen := os.environ.get("BERTH_LAB_DIR"):
        return Path(chosen).absolute()
    if os.geteuid() == 0:
        return Path("/run/berth-lab")
    if runtime := os.environ.get("XDG_RUNTIME_DIR"):
        return Path(runtime, "berth-lab")
    return Path(f"/tmp/berth-lab-{os.geteuid()}")


@contextmanager
def _lock(home: Path) -> Iterator[None]:
    while True:
        try:
            home.mkdir(mode=0o700, parents=True, exist_ok=True)
            handle = os.open(home, os.O_RDONLY | os.O_DIRECTORY)
        except FileNotFoundError:
            continue  # removed between the two lines, with the last lab in it
        except OSError as error:
            raise Denied(f"no place for a lab: {error}; {_ELSEWHERE}") from error
        try:
            fcntl.flock(handle, fcntl.LOCK_EX)
            if _is_ours(home, handle):
                yield
                return
        finally:
            os.close(handle)


def _is_ours(home: Path, handle: int) -> bool:
    """Whether the locked directory is still the one that the path leads to; one of somebody else's is refused."""
    held = os.fstat(handle)
    if held.st_uid != os.geteuid():
        raise Denied(f"{home} belongs to somebody else; {_ELSEWHERE}")
    with suppress(FileNotFoundError):
        return os.path.samestat(held, home.stat())
    return False
