"""Labs with a real Docker engine on their host."""

from __future__ import annotations

import os
from collections.abc import Generator, Iterator
from contextlib import suppress
from pathlib import Path

import pytest

from berth.errors import Unsupported
from berth.lab.session import Lab
from trees import cache

from .engines import KINDS, SUITES, Dockerd
from .harbour import Harbour, until

_MAKING = 900  # seconds for them over a slow line


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Give each test the time to make the Debians where there are none yet: any may be the one that has to."""
    if not all((cache() / suite).exists() for suite in (*SUITES.values(), "bookworm-net")):
        for item in items:
            if Path(__file__).parent in item.path.parents:
                item.add_marker(pytest.mark.timeout(_MAKING), append=False)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Show the log of an engine that several tests share; `with Dockerd(…)` adds its own to the error."""
    report = yield
    engine = getattr(item, "funcargs", {}).get("engine")
    if report.failed and isinstance(engine, Dockerd):
        report.sections.append((f"log of {engine}", engine.log()))
    return report


@pytest.fixture(scope="module", params=KINDS)
def engine_kind(request: pytest.FixtureRequest) -> str:
    """A kind of engine: a test that asks for it, for a lab or for an engine is run once for each."""
    if os.geteuid() != 0:
        pytest.skip("dockerd needs root")
    return str(request.param)


@pytest.fixture(scope="module")
def lab(engine_kind: str) -> Iterator[Lab]:
    """The default lab, another for each kind: an engine leaves docker0 and its chains on the host."""
    with _lab() as running:
        yield running


@pytest.fixture
def fresh_lab() -> Iterator[Lab]:
    """A lab for one test: for an engine that is its own, or that spoils the host."""
    with _lab() as running:
        yield running


@pytest.fixture(scope="module")
def engine(lab: Lab, engine_kind: str) -> Iterator[Dockerd]:
    """An engine on the lab's host, without plugins. A host has room for one: another needs a `fresh_lab`."""
    with Dockerd(lab, engine_kind) as running:
        yield running


@pytest.fixture(scope="module")
def _harbour(lab: Lab, engine_kind: str) -> Iterator[Harbour]:
    with Harbour(lab, engine_kind) as running:
        yield running


@pytest.fixture
def harbour(_harbour: Harbour) -> Iterator[Harbour]:
    """Docker and Berth on the lab's host, as they were when the test began and are again when it ends."""
    before = _harbour.look()
    yield _harbour
    _harbour.clear()
    with suppress(AssertionError):  # to be shown what is left
        until(lambda: _harbour.look() == before, 5)
    assert _harbour.look() == before
    assert _harbour.held() == []


def _lab() -> Lab:
    try:
        return Lab()
    except Unsupported as error:
        pytest.skip(str(error))
