"""The parent's half of a sandbox: bringing its init into the world, and burying it."""

from __future__ import annotations

import os
import signal
import socket
from contextlib import suppress
from typing import Self, TypeVar

from berth.errors import Refused
from berth.run.channel import Adopted, Born, Channel, Dressed, Ended, Look, Ready, Start, Sweep, Swept
from berth.run.init import WATCHED, Birth, give_birth
from berth.run.syscalls import adopt_orphans, signals_held

Answer = TypeVar("Answer", Born, Ready, Dressed)


class Sandbox:
    """A sandbox whose namespaces are there for the length of a `with` block. Nothing of it stays.

    During the block this process is the one that reaps orphans; at its end it reaps all children that have ended.
    """

    def __init__(self, birth: Birth) -> None:
        """`birth.terminal` is closed when the sandbox has it."""
        self._birth = birth
        self.pid = 0  # of its init

    def __enter__(self) -> Self:
        """Make it. Raises `Denied`, `Exhausted`, `Unsupported` or `Refused`."""
        self._channel, midwife = _fork(self._birth)
        try:
            os.waitpid(midwife, 0)
            self.pid = self._ask(Born).pid
            self._channel.send(Adopted())
            self._ask(Ready)
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        if self.pid:
            os.kill(self.pid, signal.SIGKILL)
            # Init is gone when all of its PID namespace are, so no port or file is held any longer. What an OCI runtime
            # put there and failed to start is this process's child by now, and init waits for it to be buried.
            while os.waitpid(-1, 0)[0] != self.pid:
                pass
        self._channel.close()
        adopt_orphans(False)

    @property
    def path(self) -> str:
        """Where its network namespace can be opened."""
        return f"/proc/{self.pid}/ns/net"

    @property
    def text(self) -> str:
        """The sandbox as a user would name it."""
        return f"pid:{self.pid}"

    def dress(self, look: Look) -> Dressed:
        """Give the sandbox its looks."""
        self._channel.send(look)
        return self._ask(Dressed)

    def start(self) -> None:
        """Let the command run."""
        self._channel.send(Start())

    def signal(self, number: signal.Signals) -> None:
        """Pass a signal on to the command."""
        with suppress(ProcessLookupError):
            os.kill(self.pid, number)

    def fileno(self) -> int:
        """The descriptor that is readable when the command has ended."""
        return self._channel.fileno()

    def status(self) -> int:
        """How the command ended, as wait(2) tells it. Waits for it."""
        try:
            return self._channel.receive(Ended).status
        except EOFError:  # somebody killed init, and the kernel the command with it
            return int(signal.SIGKILL)

    def sweep(self) -> None:
        """Kill all that runs in the sandbox."""
        with suppress(EOFError):  # init is gone, and all with it
            self._channel.send(Sweep())
            self._channel.receive(Swept)

    def _ask(self, kind: type[Answer]) -> Answer:
        try:
            return self._channel.receive(kind)
        except EOFError:
            raise Refused("the sandbox's first process was killed: is the machine out of memory?") from None


def _fork(birth: Birth) -> tuple[Channel, int]:
    ours, theirs = socket.socketpair()
    adopt_orphans(True)
    with signals_held(WATCHED):
        try:
            pid = os.fork()
        except OSError as error:
            raise Refused(f"cannot start a process: {error.strerror}") from None
        if pid == 0:
            give_birth(Channel(theirs), birth)
    theirs.close()
    if birth.terminal is not None:
        os.close(birth.terminal)
    return Channel(ours), pid
