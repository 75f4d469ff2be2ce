"""Bytes on their way through a pseudo-terminal."""

from __future__ import annotations

import os

import pytest

from berth.run.terminal import Flow
from berth.run.waiting import serve


def test_all_arrives_in_order_and_then_the_end() -> None:
    source, feed = os.pipe()
    drain, sink = os.pipe()
    text = bytes(range(256)) * 64
    os.write(feed, text)
    os.close(feed)
    flow = Flow(source, sink, at_end=b"\x04", when_refused=lambda: pytest.fail("nobody refused"))
    flow.until_over()
    serve([flow])
    assert flow.over
    assert flow.wants() is None
    assert os.read(drain, 1 << 20) == text + b"\x04"
    for fd in (source, drain, sink):
        os.close(fd)


def test_a_full_sink_is_waited_for_and_the_source_left_alone() -> None:
    source, feed = os.pipe()
    drain, sink = os.pipe()
    os.set_blocking(sink, False)
    with pytest.raises(BlockingIOError):
        while True:
            os.write(sink, bytes(4096))
    flow = Flow(source, sink, when_refused=lambda: None)
    os.write(feed, b"x")
    flow.turn()  # reads
    flow.turn()  # cannot write
    wanted = flow.wants()
    assert wanted is not None
    assert wanted[0] == sink
    for fd in (source, feed, drain, sink):
        os.close(fd)


def test_what_nobody_reads_is_thrown_away_and_told_once() -> None:
    source, feed = os.pipe()
    drain, sink = os.pipe()
    os.close(drain)
    told = []
    flow = Flow(source, sink, when_refused=lambda: told.append(True))
    flow.until_over()
    for _ in range(3):
        os.write(feed, b"lost")
        flow.turn()
        if flow.wants() == (sink, 4):
            flow.turn()
    os.close(feed)
    serve([flow])
    assert told == [True]
    os.close(source)
    os.close(sink)
