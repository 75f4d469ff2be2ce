"""A real lab for the tests of a module."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

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
