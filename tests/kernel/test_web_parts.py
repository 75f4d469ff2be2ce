"""The parts of the page: what the doctor says is on it, escaped, and nobody waits for the doctor."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import pytest

from berth import wire
from berth.daemon.events import NUDGE, Events
from berth.daemon.look import Finding, Look, Sources
from berth.daemon.metrics import Metrics
from berth.daemon.page import Page
from berth.daemon.worker import Worker
from berth.engine.engine import Engine
from berth.errors import Refused

from .conftest import Host
from .running import until


@dataclass(frozen=True)
class Said:
    check: str
    severity: str
    message: str
    why: str
    fix: str
    command: bool = True


@contextmanager
def _working(monkeypatch: pytest.MonkeyPatch) -> Iterator[tuple[Engine, Worker]]:
    """An engine with records of its own, and who runs its verbs."""
    monkeypatch.setenv("BERTH_STATE", "/run/berth-state")
    engine = wire.engine()
    worker = Worker(engine.free)
    try:
        yield engine, worker
    finally:
        worker.close(engine.close)


def test_what_the_doctor_says_is_shown_when_it_has_said_it(host: Host, monkeypatch: pytest.MonkeyPatch) -> None:
    asked = threading.Event()
    answer = threading.Event()

    def doctor() -> Sequence[Finding]:
        asked.set()
        assert answer.wait(10)
        return [
            Said(
                "gateway-address-on-bridge",
                "error",
                "<b>br0</b> has the router's address",
                "it is not",
                "ip addr del …",
            )
        ]

    async def looks_on(engine: Engine, worker: Worker) -> str:
        events = Events()
        events.begin()
        page = Page(
            Look(engine, worker, Sources(wire.host, wire.traffic, wire.neighbours, doctor), events.nudge),
            events,
            Metrics(),
        )
        following = events.follow()
        told = asyncio.ensure_future(anext(following))
        assert "The doctor is looking" in (await page._rendered())["examined"]
        await asyncio.to_thread(asked.wait, 10)
        answer.set()
        entry = await asyncio.wait_for(told, 10)
        assert entry is not None and entry[1] is NUDGE
        await following.aclose()  # type: ignore[attr-defined]
        return (await page._rendered())["findings"]

    threads = threading.active_count()
    with _working(monkeypatch) as parts:
        shown = asyncio.run(looks_on(*parts))
    assert "gateway-address-on-bridge" in shown and "&lt;b&gt;br0" in shown and "<b>" not in shown
    until(lambda: threading.active_count() <= threads)  # a thread would keep the test's namespaces


def test_the_doctor_looks_once_at_a_time_rests_and_may_fail(host: Host, monkeypatch: pytest.MonkeyPatch) -> None:
    go_on = threading.Event()
    looks = 0

    def doctor() -> Sequence[Finding]:
        nonlocal looks
        looks += 1
        assert go_on.wait(10)
        if looks == 2:
            raise Refused("etcd is <away>")
        return ()

    async def looks_on(engine: Engine, worker: Worker) -> list[str]:
        events = Events()
        events.begin()
        look = Look(engine, worker, Sources(wire.host, wire.traffic, wire.neighbours, doctor), events.nudge)
        page = Page(look, events, Metrics())
        said = []
        for _ in range(2):
            go_on.clear()
            following = events.follow()
            told = asyncio.ensure_future(anext(following))
            await asyncio.sleep(0)  # it follows from now on
            for _ in range(3):
                look.examine()
                await look.report()
            go_on.set()
            await asyncio.wait_for(told, 10)
            await following.aclose()  # type: ignore[attr-defined]
            said.append((await page._rendered())["examined"])
        await look.report()
        return said

    with _working(monkeypatch) as parts:
        well, failed = asyncio.run(looks_on(*parts))
    assert "All is well" in well and "Looked at" in well
    assert "The doctor could not look: etcd is &lt;away&gt;" in failed
    assert looks == 2, "asked for again by hand only, and never two at once"
