"""Running `berth run` in the namespaces of a test: helpers and fixtures."""

from __future__ import annotations

import os
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import IO

import pytest

from .conftest import Host, sh

BERTH = Path(sys.executable).parent / "berth"
PATIENCE = 10  # seconds for what should take a moment


class Runs:
    """Starts `berth` in the namespaces of the test, and sees to it that nothing of it stays."""

    def __init__(self, state: Path) -> None:
        self.mark = f"berth-test-{os.getpid()}-{time.monotonic_ns()}"
        self._environment = {**os.environ, "BERTH_STATE": str(state), "BERTH_RUN": "/run/berth", "MARK": self.mark}
        self._started: list[subprocess.Popen[str]] = []

    def berth(self, *words: str, stdin: str | None = None) -> subprocess.CompletedProcess[str]:
        """Run `berth` to its end."""
        return subprocess.run(
            [BERTH, *words],
            env=self._environment,
            stdin=None if stdin is not None else subprocess.DEVNULL,
            input=stdin,
            capture_output=True,
            text=True,
            timeout=30,
            check=False,
        )

    def run(self, network: str, *words: str, stdin: str | None = None) -> subprocess.CompletedProcess[str]:
        """`berth run` to its end."""
        return self.berth("run", "--network", network, *words, stdin=stdin)

    def says(self, network: str, *words: str) -> str:
        """What a command says that must succeed without a warning."""
        done = self.run(network, *words)
        assert (done.returncode, done.stderr) == (0, ""), done
        return done.stdout

    def start(
        self, network: str, *words: str, stdin: int | None = subprocess.DEVNULL, stdout: int = subprocess.PIPE,
        before: Callable[[], None] | None = None,
    ) -> subprocess.Popen[str]:  # fmt: skip
        """`berth run` in the background."""
        argv = [str(BERTH), "run", "--network", network, *words]

        def begin() -> None:
            # Tests started by nohup(1) ignore hangups; berth would inherit that, heed it, and pass none on.
            signal.signal(signal.SIGHUP, signal.SIG_DFL)
            if before is not None:
                before()

        process = subprocess.Popen(argv, env=self._environment, stdin=stdin, stdout=stdout, text=True, preexec_fn=begin)
        self._started.append(process)
        return process

    def left(self) -> list[str]:
        """The processes that stem from this test, in the sandboxes too."""
        found = []
        for directory in Path("/proc").glob("[0-9]*"):
            try:
                if f"MARK={self.mark}" in (directory / "environ").read_text(errors="replace"):
                    found.append((directory / "cmdline").read_text(errors="replace").replace("\0", " "))
            except OSError:
                continue
        return found

    def endpoints(self) -> list[str]:
        """The names of the endpoints there are."""
        done = self.berth("endpoint", "ls", "--json")
        return sorted(re.findall(r'"[Nn]ame": "([^"]*)"', done.stdout))

    def end(self) -> None:
        for process in self._started:
            process.kill()
            process.wait()
            if process.stdout is not None:
                process.stdout.close()


def until(true: Callable[[], object]) -> None:
    """Wait for something to become true."""
    deadline = time.monotonic() + PATIENCE
    while not true():
        assert time.monotonic() < deadline, "it never came true"
        time.sleep(0.02)


@pytest.fixture
def runs(host: Host, tmp_path: Path) -> Iterator[Runs]:
    runs = Runs(tmp_path / "state")
    done = runs.berth("network", "create", "--subnet", "10.77.0.0/24", "--subnet", "fd77::/64", "lan")
    assert done.returncode == 0, done.stderr
    yield runs
    runs.end()
    until(lambda: not runs.left())


def line(stream: IO[str] | None) -> str:
    """The next line of a process's output."""
    assert stream is not None
    return stream.readline().strip()


@pytest.fixture(scope="module")
def roots(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A root file system with nothing but busybox."""
    busybox = shutil.which("busybox")
    if busybox is None:
        pytest.skip("needs busybox: apt install busybox-static")
    root = tmp_path_factory.mktemp("rootfs")
    (root / "bin").mkdir()
    shutil.copy(busybox, root / "bin")
    for name in subprocess.run([busybox, "--list"], check=True, capture_output=True, text=True).stdout.split():
        if name != "busybox":
            (root / "bin" / name).symlink_to("busybox")
    return root


@pytest.fixture(params=["crun", "runc"])
def runtime(request: pytest.FixtureRequest, host: Host) -> Iterator[str]:
    """The OCI runtime that berth finds. What it keeps is deleted: runc's control groups are the machine's."""
    name: str = request.param
    if shutil.which(name) is None:
        pytest.skip(f"needs {name}: apt install {name}")
    if name == "runc" and (other := shutil.which("crun")):
        sh(f"mount --bind /dev/null {other}")
    yield name
    for container in sh(f"{name} list -q").split():
        sh(f"{name} delete --force {container}")


@pytest.fixture(params=["plain", "contained"])
def where(request: pytest.FixtureRequest) -> tuple[str, ...]:
    """The options for a plain process, and for a container."""
    if request.param == "plain":
        return ()
    if shutil.which("crun") is None and shutil.which("runc") is None:
        pytest.skip("needs an OCI runtime: apt install crun")
    return "--rootfs", str(request.getfixturevalue("roots")), "--rm"
