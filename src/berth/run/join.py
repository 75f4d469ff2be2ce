"""Finding the network namespace that `--network container:NAME` asks for."""

from __future__ import annotations

import os
import re
import stat
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from berth.errors import Denied, Invalid, NotFound
from berth.model import Endpoint, Sandbox
from berth.run.syscalls import open_in_root
from berth.seams import Api

#: Finds a sandbox as typed, and who it is now. Raises `NotFound`.
Find = Callable[[str], Sandbox]

_LARGEST = 1 << 20  # bytes of a target's file that are read
_SHORTEST_ID = 12  # digits: as many as are shown of an id


@dataclass(frozen=True, slots=True)
class Target:
    """A namespace to be in."""

    fd: int
    name: str | None  # of the endpoint that it was found by
    pid: int | None  # of a process that it was found by

    def file(self, path: str) -> str | None:
        """A file as the target's own processes see it; None when it cannot be seen."""
        return None if self.pid is None else _read_in_root(f"/proc/{self.pid}/root", path)


@contextmanager
def joined(api: Api, text: str, find: Find) -> Iterator[Target]:
    """Open the namespace of an endpoint by its name or id, else that of a sandbox."""
    endpoint = _endpoint(api, text)
    sandbox = find(text) if endpoint is None else endpoint.sandbox
    try:
        fd = os.open(sandbox.path, os.O_RDONLY | os.O_CLOEXEC)
    except PermissionError:
        raise Denied(f"may not open the sandbox {sandbox.path}: run as root") from None
    except OSError:
        raise _gone(text) from None
    try:
        # A process id is given again. What was opened must be what was attached, or it could be anybody's network.
        if find(f"/proc/self/fd/{fd}").identity != sandbox.identity:
            raise _gone(text)
        process = re.fullmatch(r"/proc/(\d+)/ns/net", sandbox.path)
        yield Target(fd, endpoint.name if endpoint else None, int(process[1]) if process else None)
    finally:
        os.close(fd)


def _gone(text: str) -> NotFound:
    return NotFound(f"the sandbox of {text} is gone: `berth reconcile` removes its endpoint")


def _endpoint(api: Api, text: str) -> Endpoint | None:
    """The endpoint of that name, or whose id begins so. Raises `Invalid` when there are several, in other sandboxes."""
    every = api.endpoints()
    found = [ep for ep in every if ep.name == text]
    if not found and len(text) >= _SHORTEST_ID:
        found = [ep for ep in every if ep.id.startswith(text)]
    if len({ep.sandbox.identity for ep in found}) > 1:
        ids = ", ".join(ep.id[:_SHORTEST_ID] for ep in found)
        raise Invalid(f"several endpoints are called {text}: name one by its id ({ids})")
    return found[0] if found else None


def _read_in_root(root: str, path: str) -> str | None:
    try:
        fd = open_in_root(root, path)
    except OSError:
        return None
    with os.fdopen(fd, encoding="utf-8", errors="replace") as file:
        return file.read(_LARGEST) if stat.S_ISREG(os.fstat(fd).st_mode) else None
