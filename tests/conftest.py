"""What tests of every kind need."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest


@pytest.fixture(scope="session", autouse=True)
def _lock_of_legacy_iptables() -> Iterator[None]:
    """A lock of each worker's own: one file serves all network namespaces, and without -w who finds it taken fails."""
    lock = Path(f"/run/xtables.{os.getpid()}.lock")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XTABLES_LOCKFILE", str(lock))
        yield
    lock.unlink(missing_ok=True)
