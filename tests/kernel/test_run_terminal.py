"""`berth run -t`: real pseudo-terminals, in front of plain processes and of containers."""

from __future__ import annotations

import fcntl
import os
import pty
import select
import signal
import struct
import termios
import time
from collections.abc import Iterator

import pytest

from . import running
from .running import PATIENCE, Runs, line

pytestmark = pytest.mark.timeout(60)

runs, roots, where = running.runs, running.roots, running.where


class Screen:
    """A terminal of 33 rows and 111 columns that a command is started from."""

    def __init__(self) -> None:
        self.master, self.slave = pty.openpty()
        self.seen = ""
        self.resize(33, 111)

    def resize(self, rows: int, columns: int) -> None:
        fcntl.ioctl(self.master, termios.TIOCSWINSZ, struct.pack("HHHH", rows, columns, 0, 0))

    def take_over(self) -> None:
        """In the process to be: have it for controlling terminal and for all three streams."""
        os.setsid()
        fcntl.ioctl(self.slave, termios.TIOCSCTTY, 0)
        for stream in (0, 1, 2):
            os.dup2(self.slave, stream)

    def type(self, text: str) -> None:
        os.write(self.master, text.encode())

    def expect(self, text: str) -> None:
        """Read until a text has come."""
        deadline = time.monotonic() + PATIENCE
        while text not in self.seen:
            ready, _, _ = select.select([self.master], [], [], max(0, deadline - time.monotonic()))
            assert ready, f"{text!r} never came: {self.seen!r}"
            self.seen += os.read(self.master, 4096).decode()
        self.seen = self.seen.partition(text)[2]

    def interrupt(self, prompt: str) -> None:
        """Type Ctrl-C until the shell asks for more: one that comes while it starts a program may hit nobody."""
        deadline = time.monotonic() + PATIENCE
        while prompt not in self.seen:
            assert time.monotonic() < deadline, f"{prompt!r} never came: {self.seen!r}"
            self.type("\x03")
            while select.select([self.master], [], [], 0.3)[0]:
                self.seen += os.read(self.master, 4096).decode()
        self.seen = ""

    def close(self) -> None:
        os.close(self.master)
        os.close(self.slave)


@pytest.fixture
def screen() -> Iterator[Screen]:
    screen = Screen()
    yield screen
    screen.close()


def test_a_terminal(runs: Runs, screen: Screen, where: tuple[str, ...]) -> None:
    before = termios.tcgetattr(screen.slave)
    script = "test -t 0 && test -t 1 && stty size && trap 'stty size' WINCH; echo ready; while :; do sleep 0.05; done"
    process = runs.start("none", *where, "-it", "--", "sh", "-c", script, stdin=None, before=screen.take_over)
    screen.expect("33 111\r\nready")
    assert not termios.tcgetattr(screen.slave)[3] & (termios.ICANON | termios.ECHO | termios.ISIG)
    screen.resize(20, 77)
    screen.expect("20 77\r\n")
    screen.type("\x03")  # Ctrl-C
    assert process.wait(PATIENCE) == 128 + signal.SIGINT
    assert termios.tcgetattr(screen.slave) == before


def test_a_terminal_is_the_shells(runs: Runs, screen: Screen, where: tuple[str, ...]) -> None:
    """As its controlling terminal: only so has a shell job control, and programs have /dev/tty."""
    process = runs.start("none", *where, "-it", "--", "sh", stdin=None, before=screen.take_over)
    screen.expect("# ")
    screen.type("sh -c 'echo g$((0)); sleep 60'\n")
    screen.expect("g0\r\n")
    screen.interrupt("# ")
    screen.type('echo sa""id > /dev/tty; exit $((40 + 2))\n')
    screen.expect("said\r\n")
    assert process.wait(PATIENCE) == 42


def test_a_terminal_is_as_before_when_berth_is_told_to_end(runs: Runs, screen: Screen) -> None:
    before = termios.tcgetattr(screen.slave)
    process = runs.start(
        "none", "-it", "--", "sh", "-c", "echo ready; exec sleep 60", stdin=None, before=screen.take_over
    )
    screen.expect("ready")
    process.terminate()
    assert process.wait(PATIENCE) == 128 + signal.SIGTERM
    assert termios.tcgetattr(screen.slave) == before


def test_a_terminal_without_the_callers(runs: Runs, where: tuple[str, ...]) -> None:
    done = runs.run("none", *where, "-t", "--", "sh", "-c", "test -t 1 && echo yes; exit 6")
    assert (done.returncode, done.stdout) == (6, "yes\n")
    fed = runs.run("none", *where, "-it", "--", "sh", "-c", "stty -echo; echo ready; cat", stdin="fed\n")
    assert fed.returncode == 0
    assert "fed\n" in fed.stdout


def test_all_of_a_long_output_is_shown(runs: Runs, where: tuple[str, ...]) -> None:
    done = runs.run("none", *where, "-t", "--", "sh", "-c", "head -c 300000 /dev/zero | tr '\\0' x; echo; echo end")
    assert done.stdout == "x" * 300000 + "\nend\n"


def test_a_reader_that_goes_away_hangs_up(runs: Runs, where: tuple[str, ...]) -> None:
    process = runs.start("none", *where, "-t", "--", "yes")
    assert line(process.stdout) == "y"
    assert process.stdout is not None
    process.stdout.close()
    assert process.wait(PATIENCE) == 128 + signal.SIGHUP
