"""The files that tell the proxy what to carry: reading, writing and removing them."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Sequence
from contextlib import suppress

from berth import durable
from berth.errors import Invalid
from berth.plan import Del, Op, subject
from berth.proxied import Proxied, directory, parse


def read(names: Iterable[str], *, every: bool) -> Iterator[Proxied]:
    """What the files of these names say, or all of them. One that says nothing of use is not there."""
    there = directory()
    if every:
        with suppress(FileNotFoundError):
            names = {*names, *os.listdir(there)}
    for name in names:
        with suppress(Invalid):
            if (found := durable.read(there / name)) is not None:
                yield parse(name, found[0])


def send(ops: Sequence[Op]) -> None:
    """Write and remove files, each at one instant. Raises `Denied`, `Refused`."""
    for op in ops:
        match subject(op):
            case Proxied() as proxied:
                path = directory() / proxied.name
                if isinstance(op, Del):
                    durable.remove(path)
                else:
                    durable.write(path, proxied.text, 0o644)
