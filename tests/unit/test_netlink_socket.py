"""The conversation on a netlink socket, with a kernel that says what a test wants it to say."""

from __future__ import annotations

import errno
import struct
from collections.abc import Callable
from typing import Any, cast

import pytest

from berth.kernel.netlink import Message, Netlink, Refusal

HEADER = struct.Struct("=IHHII")
DONE, ERROR, MULTI, INTERRUPTED = 3, 2, 0x2, 0x10


class Scripted:
    """A socket whose kernel answers each request with the datagrams that are next in the script."""

    def __init__(self, *script: Callable[[int], list[bytes]]) -> None:
        self._script = list(script)
        self._waiting: list[bytes] = []

    def send(self, data: bytes) -> None:
        self._waiting += self._script.pop(0)(HEADER.unpack_from(data)[3])

    def recv(self, _: int) -> bytes:
        return self._waiting.pop(0)


def conversation(*script: Callable[[int], list[bytes]]) -> Netlink:
    nl = Netlink.__new__(Netlink)
    nl._socket = cast(Any, Scripted(*script))
    nl._seq = 0
    return nl


def said(kind: int, sequence: int, body: bytes, flags: int = MULTI) -> bytes:
    return HEADER.pack(16 + len(body), kind, flags, sequence, 0) + body


def refused(sequence: int, code: int) -> bytes:
    return said(ERROR, sequence, struct.pack("=i", -code) + bytes(16), 0)


def test_a_dump_takes_what_belongs_to_it() -> None:
    script = [
        lambda n: [said(16, n - 1, b"old!"), said(16, n, b"one!") + said(16, n, b"two!"), said(DONE, n, bytes(4))]
    ]
    assert list(conversation(*script).dump(18, b"")) == [b"one!", b"two!"]


@pytest.mark.parametrize("flagged", ["one", "done"])
def test_an_interrupted_dump_is_asked_again(flagged: str) -> None:
    """NLM_F_DUMP_INTR: something changed meanwhile, and entries may be missing or told twice."""
    one, done = (MULTI | INTERRUPTED * (flagged == name) for name in ("one", "done"))
    first = lambda n: [said(16, n, b"one!", one), said(DONE, n, bytes(4), done)]  # noqa: E731
    second = lambda n: [said(16, n, b"one!") + said(16, n, b"two!"), said(DONE, n, bytes(4))]  # noqa: E731
    assert list(conversation(first, second).dump(18, b"")) == [b"one!", b"two!"]


@pytest.mark.parametrize("kind", [ERROR, DONE])
def test_a_refused_dump(kind: int) -> None:
    nl = conversation(lambda n: [said(kind, n, struct.pack("=i", -errno.EPERM) + bytes(16))])
    with pytest.raises(Refusal) as refusal:
        list(nl.dump(18, b""))
    assert refusal.value.errno == errno.EPERM


def test_a_batch_reports_what_was_refused_in_order() -> None:
    def answers(first: int) -> list[bytes]:
        codes = (0, errno.EEXIST, 0, errno.ENODEV)
        return [refused(0, errno.EIO), b"".join(refused(first + place, code) for place, code in enumerate(codes))]

    found = conversation(answers).batch([Message(16, 0, b"")] * 4)
    assert [(refusal.index, refusal.errno) for refusal in found] == [(1, errno.EEXIST), (3, errno.ENODEV)]
