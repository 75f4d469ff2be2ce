"""A running lab, and what can be done in it.

A lab of one's own, as in a test:

    with Lab(home(hosts=2)) as lab:
        lab.run("laptop", ["ping", "-c1", "host2.lab"], check=True)

`Session(Records().running("lab"))` is a way into one that `berth lab up` has started.
"""

from __future__ import annotations

import os
import subprocess
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from berth.errors import NotFound, Refused
from berth.lab.enter import KILL, Door, environment
from berth.lab.life import start, stop
from berth.lab.record import Record, Records
from berth.lab.topology import Topology, home


class Inside(subprocess.Popen[Any]):
    """A command inside; signals sent to it reach the command, and its `returncode` is the command's."""

    def kill(self) -> None:
        """Kill the command."""
        self.send_signal(KILL)


class Session:
    """A way into a running lab."""

    def __init__(self, record: Record) -> None:
        self.record = record

    @property
    def work(self) -> Path:
        """The lab's work directory: the same path inside and outside."""
        return Path(self.record.work)

    def popen(self, node: str, argv: Sequence[str], *, env: Mapping[str, str] | None = None, **options: Any) -> Inside:
        """Start a command in a node or sandbox; `options` are those of `subprocess.Popen`."""
        cwd, variables = Path(options.pop("cwd", "")).absolute(), environment(self.record, node) | dict(env or {})
        with Door(self.record, node) as door:
            return Inside(argv, env=variables, preexec_fn=lambda: door.step_in(cwd), **options)

    def run(
        self,
        node: str,
        argv: Sequence[str],
        *,
        input: str | None = None,
        env: Mapping[str, str] | None = None,
        timeout: float = 30,
        check: bool = False,
    ) -> subprocess.CompletedProcess[str]:
        """Run a command in a node or sandbox to its end, and return what it said; `check` raises if it failed."""
        stdin = subprocess.DEVNULL if input is None else subprocess.PIPE
        pipe = subprocess.PIPE
        with self.popen(node, argv, env=env, stdin=stdin, stdout=pipe, stderr=pipe, text=True) as process:
            try:
                out, err = process.communicate(input, timeout)
            except BaseException:
                process.kill()
                raise
        if check and process.returncode:
            raise Refused(f"`{' '.join(argv)}` in {node} ended with {process.returncode}: {(err or out).strip()}")
        return subprocess.CompletedProcess(argv, process.returncode, out, err)

    def berth(self, *args: str, host: str = "host", check: bool = False) -> subprocess.CompletedProcess[str]:
        """Run `berth` in a host."""
        return self.run(host, ["berth", *args], check=check)

    def sandbox(self, name: str) -> str:
        """Make a network namespace as `ip netns add` does; it is the lab's, and usable as a node's name."""
        self.run(self.record.nodes[0], ["ip", "netns", "add", name], check=True)
        return name

    def remove_sandbox(self, name: str) -> None:
        """Remove a namespace that `sandbox` made."""
        self.run(self.record.nodes[0], ["ip", "netns", "delete", name], check=True)


class Lab(Session):
    """A lab that ends with the `with` block, or with the process that made it, however that ends."""

    def __init__(self, topology: Topology | None = None, name: str | None = None) -> None:
        self._records = Records()
        name = name or f"lab-{os.getpid()}-{os.urandom(3).hex()}"
        record, self._owner = start(self._records, name, topology or home())
        super().__init__(record)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._owner.close()
        with suppress(NotFound):  # somebody was quicker: `berth lab down`
            stop(self._records, self.record.name)
