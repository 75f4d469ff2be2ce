"""The process of the simulated hosts."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from overlaying.fleet import ETCD

_AGENTS = Path(__file__).with_name("agents.py")


class Herd:
    """Simulated hosts on one network, from `with` to its end."""

    def __init__(self, network: str) -> None:
        argv = [sys.executable, str(_AGENTS), network, *(f"{host}:{port}" for host, port in ETCD)]
        self._process = subprocess.Popen(argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=_env())
        self.size = 0

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._process.kill()
        self._process.wait()

    def ask(self, verb: str, *more: object) -> Any:
        """Have something done (see `agents.py`); what it says. Raises `EOFError` when the process has ended."""
        if verb == "grow":
            self.size = int(str(more[0]))
        assert self._process.stdin is not None and self._process.stdout is not None
        print(verb, *more, file=self._process.stdin, flush=True)
        line = self._process.stdout.readline()
        if not line:
            raise EOFError("the simulated hosts have ended")
        return json.loads(line)


def _env() -> dict[str, str]:
    return os.environ | {"PYTHONPATH": str(_AGENTS.parents[1])}
