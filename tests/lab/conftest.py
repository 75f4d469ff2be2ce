"""A real lab for the tests of a module, and its host for one test."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from lab_ground import Ground
from lab_home import Home, bare
from lab_nobody import Nobody

from berth.errors import Unsupported
from berth.lab.session import Lab


@pytest.fixture(scope="session", autouse=True)
def _legacy_lock() -> Iterator[None]:
    """The lock of the legacy iptables is a file, one for all network namespaces: each worker has its own.

    Without -w, who finds it taken fails.
    """
    lock = Path(f"/run/xtables.{os.getpid()}.lock")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XTABLES_LOCKFILE", str(lock))
        yield
    lock.unlink(missing_ok=True)


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


@pytest.fixture
def house() -> Iterator[Home]:
    """A fresh lab whose host has no bridge, and that host."""
    try:
        lab = Lab(bare())
    except Unsupported as error:
        pytest.skip(str(error))
    with lab:
        yield Home(lab)


@pytest.fixture
def nobody() -> Iterator[Nobody]:
    """A user without rights, whom the system lets make namespaces."""
    if os.geteuid() != 0:
        pytest.skip("the other tests have shown it: they did not run as root")
    directory = Path(tempfile.mkdtemp(prefix="berth-test-"))
    try:
        user = Nobody(directory)
        tried = user.run(["unshare", "--user", "--map-root-user", "--net", "true"], timeout=10)
        if tried.returncode != 0:
            pytest.skip(f"this system keeps user namespaces from ordinary users: {tried.stderr.strip()}")
        yield user
    finally:
        shutil.rmtree(directory)
