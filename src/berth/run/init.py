"""A sandbox's init: the process that its namespaces live by. It runs in a fork of the parent and never returns.

It is process 1 of a PID namespace. So it is given every orphan to bury, and the kernel kills all the others
when it ends. It starts the command, or holds the namespaces for an OCI runtime to put a container in.
"""

from __future__ import annotations

import fcntl
import gc
import os
import signal
import socket
import termios
import traceback
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import NoReturn

from berth.run.channel import Adopted, Born, Channel, Ended, Look, Ready, Start, Sweep, Swept, Trouble
from berth.run.links import raise_loopback
from berth.run.mounts import dress
from berth.run.process import FORWARDED, exec_failure
from berth.run.syscalls import (
    CLONE_NEWIPC,
    CLONE_NEWNET,
    CLONE_NEWNS,
    CLONE_NEWPID,
    CLONE_NEWUTS,
    die_with_parent,
    enter_network,
    make_mounts_private,
    set_process_name,
    unshare,
)

#: Held from before the fork, so that none is lost or acted upon before init waits for it.
WATCHED = FORWARDED | {signal.SIGCHLD}


@dataclass(frozen=True, slots=True)
class Birth:
    """What a sandbox is born with."""

    command: tuple[str, ...]  # empty: init only holds the namespaces
    new_network: bool
    loopback: bool = False  # to be raised by init: no network will do it
    join: int | None = None  # the descriptor of a network namespace to be in
    terminal: int | None = None  # the descriptor of the command's end of a pseudo-terminal
    interactive: bool = False  # without a terminal: the command keeps standard input


def give_birth(channel: Channel, birth: Birth) -> NoReturn:
    """Fork init into a PID namespace and end, so that the parent, which reaps orphans, becomes init's parent.

    The parent does not take that namespace itself: all its later children would land there, and in a user
    namespace there is no way back (setns(2) wants CAP_SYS_ADMIN over the PID namespace that is returned to).
    """
    gc.disable()  # a finaliser of the parent's objects must not close a descriptor that this process opened
    try:
        _close_all_but(0, 1, 2, channel.fileno(), birth.join, birth.terminal)
        with _telling(channel, "make the sandbox's process namespace"):
            unshare(CLONE_NEWPID)
            pid = os.fork()
        if pid == 0:
            _init(channel, birth)
        else:
            channel.send(Born(pid))
    except EOFError:
        pass  # the parent is gone, or knows the trouble
    except BaseException:
        traceback.print_exc()
    finally:
        os._exit(0)


def _init(channel: Channel, birth: Birth) -> None:
    channel.receive(Adopted)
    die_with_parent()
    set_process_name("berth-init")
    os.setsid()  # Ctrl-C at the caller's terminal is for the parent, which passes it on
    _take_namespaces(channel, birth)
    channel.send(Ready())  # fails when the parent died before die_with_parent()
    look = channel.receive(Look)
    with _telling(channel, "make the sandbox look like a machine of its own"):
        if look.hostname is not None:
            socket.sethostname(look.hostname)
        dressed = dress(look, own_network=birth.new_network or birth.join is not None)
    channel.send(dressed)
    if birth.command:
        channel.receive(Start)
        channel.send(Ended(_run(channel, birth)))
    _hold(channel)


def _take_namespaces(channel: Channel, birth: Birth) -> None:
    with _telling(channel, "make the sandbox's namespaces"):
        unshare(CLONE_NEWNS | CLONE_NEWUTS | CLONE_NEWIPC | (CLONE_NEWNET if birth.new_network else 0))
        make_mounts_private()
    if birth.join is not None:
        with _telling(channel, "enter the network namespace"):
            enter_network(birth.join)
        os.close(birth.join)
    if birth.loopback:
        with _telling(channel, "bring the sandbox's loopback up"):
            raise_loopback()


def _hold(channel: Channel) -> None:
    """Keep the namespaces until the parent hangs up."""
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # the kernel buries the dead by itself
    while True:
        channel.receive(Sweep)
        _kill_others()
        channel.send(Swept())


def _run(channel: Channel, birth: Birth) -> int:
    """Start the command, pass signals on and bury the dead until it ends; its status."""
    with _telling(channel, "start a process"):
        child = os.fork()
    if child == 0:
        _become(birth)
    _let_go_of_streams(birth)
    while True:
        number = signal.sigwait(WATCHED)
        if number != signal.SIGCHLD:
            os.kill(child, number)
            continue
        for pid, status in _dead():
            if pid == child:
                _kill_others()
                return status


def _become(birth: Birth) -> NoReturn:
    """Turn into the command."""
    try:
        os.setsid()
        _take_streams(birth)
        for number in signal.valid_signals() - {signal.SIGKILL, signal.SIGSTOP}:
            with suppress(OSError):  # the C library keeps some for itself
                signal.signal(number, signal.SIG_DFL)
        signal.pthread_sigmask(signal.SIG_SETMASK, ())
        os.execvp(birth.command[0], birth.command)
    except OSError as error:
        os.write(2, f"berth: cannot run {birth.command[0]}: {error.strerror}\n".encode())
        os._exit(exec_failure(error))
    except BaseException:  # such as a zero byte in an argument
        traceback.print_exc()
    finally:
        os._exit(126)


def _take_streams(birth: Birth) -> None:
    if birth.terminal is not None:
        fcntl.ioctl(birth.terminal, termios.TIOCSCTTY, 0)
        for stream in (0, 1, 2):
            os.dup2(birth.terminal, stream)
    elif not birth.interactive:
        os.dup2(os.open(os.devnull, os.O_RDONLY), 0)


def _let_go_of_streams(birth: Birth) -> None:
    """Leave the streams to the command, so that whoever reads them sees their end with it."""
    nowhere = os.open(os.devnull, os.O_RDWR)
    for stream in (0, 1, 2):
        os.dup2(nowhere, stream)
    for fd in (nowhere, birth.terminal):
        if fd is not None:
            os.close(fd)


def _dead() -> Iterator[tuple[int, int]]:
    """The children that have ended, and their statuses."""
    with suppress(ChildProcessError):
        while (dead := os.waitpid(-1, os.WNOHANG)) != (0, 0):
            yield dead


def _kill_others() -> None:
    with suppress(ProcessLookupError):  # there are none
        os.kill(-1, signal.SIGKILL)


def _close_all_but(*kept: int | None) -> None:
    """Close the parent's descriptors: its files, locks and sockets are not init's to keep open."""
    low = 0
    for fd in sorted(fd for fd in kept if fd is not None):
        if low < fd:  # Python 3.11 takes an empty range for all there is
            os.closerange(low, fd)
        low = fd + 1
    os.closerange(low, os.sysconf("SC_OPEN_MAX"))


@contextmanager
def _telling(channel: Channel, doing: str) -> Iterator[None]:
    """Report what the kernel refuses, and end."""
    try:
        yield
    except OSError as error:
        channel.send(Trouble(doing, error.errno or 0))
        raise EOFError from error
