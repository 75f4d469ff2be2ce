"""A machine of the tests' own on the default lab's switch, in the place of the lab's host."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path

import pytest

from berth.errors import Unsupported
from berth.lab.session import Lab
from berth.lab.topology import Host, Topology, home

from .machine import Machine
from .payload import make_payload
from .setups import Setup

Power = Callable[[Setup], AbstractContextManager[Machine]]


@pytest.fixture(scope="session")
def payload(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Berth for the machines."""
    directory = tmp_path_factory.mktemp("payload")
    make_payload(directory)
    return directory


@pytest.fixture
def lab() -> Iterator[Lab]:
    """The default lab without its host."""
    if os.geteuid() != 0:
        pytest.skip("the machine's disk is made of files of many owners, which needs root")
    try:
        running = Lab(Topology(tuple(node for node in home().nodes if not isinstance(node, Host))))
    except Unsupported as error:
        pytest.skip(str(error))
    with running:
        yield running


@pytest.fixture
def machine(lab: Lab, payload: Path, tmp_path: Path) -> Power:
    """Switches on a machine that is set up in a given way."""

    @contextmanager
    def switched_on(setup: Setup) -> Iterator[Machine]:
        files = tmp_path / "files"
        setup.write(files)
        with Machine(lab, payload, files) as running:
            running.start()
            yield running

    return switched_on


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Show what was measured."""
    for report in terminalreporter.getreports("passed") + terminalreporter.getreports("failed"):
        if report.user_properties:
            shown = ", ".join(f"{name}: {value}" for name, value in report.user_properties)
            terminalreporter.write_line(f"{report.nodeid}: {shown}")
