"""A real lab for the tests of a module, and its host for one test."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from lab_ground import Ground

from berth.errors import Unsupported
from berth.lab.session import Lab


@pytest.fixture(scope="module")
def lab() -> Iterator[Lab]:
    """The default lab, under a name of its own: see `Lab` for `run`, `popen`, `sandbox` and `berth`."""
    try:
        running = Lab()
    except Unsupported as error:
        pytest.skip(str(error))
    with running:
        yield running


@pytest.fixture
def ground(lab: Lab) -> Iterator[Ground]:
    """The lab's host for one test, as it was when the test began and is again when it ends."""
    here = Ground(lab)
    yield here
    here.clear()
