"""`berth run` from beginning to end."""

from __future__ import annotations

import os
import secrets
import signal
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, nullcontext, suppress
from dataclasses import dataclass, replace
from pathlib import Path

from berth.errors import BerthError, Invalid, Refused
from berth.model import Endpoint, Lease, Network
from berth.run.channel import Dressed, Look
from berth.run.container import kept, write_bundle
from berth.run.init import Birth
from berth.run.join import Find, joined
from berth.run.looks import look
from berth.run.process import Signals, exit_code
from berth.run.request import Mode, RunRequest
from berth.run.runtime import NotStarted, Runtime, find_runtime
from berth.run.sandbox import Sandbox
from berth.run.terminal import Terminal
from berth.run.waiting import Ending, Passing, serve
from berth.seams import Api

Warn = Callable[[str], None]
Deliver = Callable[[signal.Signals], None]

_ENDING = frozenset({signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGQUIT})


def run(api: Api, request: RunRequest, *, find: Find, bundles: Path, warn: Warn) -> int:
    """Run a command in a sandbox of its own and return its exit code.

    `find` looks sandboxes up; below `bundles` is written what an OCI runtime reads. Raises `Denied`, `Exhausted`,
    `Unsupported` or `Refused` when the sandbox cannot be made, and what `Api.attach` raises: nothing is left then.
    """
    request = _settled(api, request)
    place = _Place(api, request, request.name or secrets.token_hex(6), find, warn)
    with Signals() as signals:
        if request.rootfs is None:
            return _plain(place, signals)
        runtime = find_runtime()
        runtime.refuse_known(place.name)
        return _contained(place, signals, runtime, bundles / place.name)


@dataclass(frozen=True, slots=True)
class _Place:
    """Where a command is to run, and what helps to get it there."""

    api: Api
    request: RunRequest
    name: str
    find: Find
    warn: Warn


@dataclass(frozen=True, slots=True)
class _Placed:
    """A sandbox on its network, ready for the command."""

    sandbox: Sandbox
    look: Look
    dressed: Dressed
    terminal: int | None  # the caller's end of a pseudo-terminal


def _settled(api: Api, request: RunRequest) -> RunRequest:
    """Take a network that is the host's own for what it is. Raises `NotFound` for one that does not exist."""
    asked = request.attach
    if asked is None or api.network(asked.network).driver != "host":
        return request
    if asked.addresses or asked.mac or asked.ports:
        raise Invalid(f"network {asked.network} is the host's own: leave --ip, --mac and -p out")
    return replace(request, mode=Mode.HOST, attach=None)


def _plain(place: _Place, signals: Signals) -> int:
    """Run a process that has the caller's own file system."""
    request = place.request
    with _placed(place, command=request.command, terminal=request.terminal) as placed:
        sandbox = placed.sandbox
        with _screen(placed.terminal, request, sandbox.signal) as terminal:
            sandbox.start()
            _wait(sandbox.fileno(), signals, sandbox.signal, terminal)
            status = sandbox.status()
            _show_rest(signals, terminal)
        return exit_code(status)


def _contained(place: _Place, signals: Signals, runtime: Runtime, bundle: Path) -> int:
    """Run a container that has a root file system of its own."""
    request = place.request
    try:
        with _placed(place) as placed, kept(runtime, place.name, bundle, remove=request.remove), ExitStack() as stack:
            sandbox = placed.sandbox
            if not placed.dressed.sysfs:
                place.warn("the kernel refused a new /sys: the container has none")
            write_bundle(bundle, request, sandbox.pid, placed.look, placed.dressed, cgroups=runtime.cgroups)
            pid, master = runtime.create(place.name, bundle, interactive=request.interactive, terminal=request.terminal)
            process = os.pidfd_open(pid)
            stack.callback(os.close, process)

            def deliver(number: signal.Signals) -> None:
                with suppress(ProcessLookupError):
                    signal.pidfd_send_signal(process, number)

            if master is not None:
                stack.callback(os.close, master)
            with _screen(master, request, deliver) as terminal:
                runtime.start(place.name, bundle)
                _wait(process, signals, deliver, terminal)
                _, status = os.waitpid(pid, 0)
                sandbox.sweep()
                _show_rest(signals, terminal)
            return exit_code(status)
    except NotStarted as failure:
        if failure.code is None:
            raise Refused(str(failure)) from None
        return failure.code


@contextmanager
def _placed(place: _Place, *, command: tuple[str, ...] = (), terminal: bool = False) -> Iterator[_Placed]:
    """A sandbox for the length of the block; `command` empty: for a container to be put in."""
    request = place.request
    with ExitStack() as stack:
        target = None
        if request.mode is Mode.JOIN:
            target = stack.enter_context(joined(place.api, request.join, place.find))
        ours = theirs = None
        if terminal:
            ours, theirs = os.openpty()
            stack.callback(os.close, ours)
        birth = Birth(
            command=command,
            new_network=request.mode in (Mode.NETWORK, Mode.NONE),
            loopback=request.mode is Mode.NONE,
            join=None if target is None else target.fd,
            terminal=theirs,
            interactive=request.interactive,
        )
        sandbox = stack.enter_context(Sandbox(birth))
        plugged = stack.enter_context(_plugged(place, sandbox))
        looks = look(request, place.name, plugged, target, _leases(place, plugged), answered=place.api.answers_names())
        dressed = sandbox.dress(looks)
        if command:  # a container sees none of what init sees
            for warning in dressed.warnings:
                place.warn(warning)
        yield _Placed(sandbox, looks, dressed, ours)


@contextmanager
def _plugged(place: _Place, sandbox: Sandbox) -> Iterator[tuple[Network, Endpoint] | None]:
    """Have the sandbox attached for the length of the block."""
    asked = place.request.attach
    try:
        if asked is None:
            yield None
        else:
            outcome = place.api.attach(replace(asked, name=place.name, sandbox=sandbox.text))
            for warning in outcome.warnings:
                place.warn(warning)
            yield place.api.network(outcome.value.network), outcome.value
    finally:
        if place.request.mode in (Mode.NETWORK, Mode.NONE):
            _unplug(place, sandbox)


def _leases(place: _Place, plugged: tuple[Network, Endpoint] | None) -> list[Lease]:
    if plugged is None or not plugged[1].learnt.versions:
        return []
    return [record.lease for record in place.api.leases() if record.endpoint == plugged[1].id]


def _unplug(place: _Place, sandbox: Sandbox) -> None:
    """Detach the sandbox from every network, also one that it was attached to while it ran."""
    try:
        endpoints = place.api.endpoints()
        for network in {ep.network for ep in endpoints if ep.sandbox.path == sandbox.path}:
            place.api.detach(network, sandbox.text)
    except BerthError as error:
        place.warn(f"{place.name} is still attached ({error}): `berth reconcile` will detach it")


def _screen(master: int | None, request: RunRequest, deliver: Deliver) -> Terminal | nullcontext[None]:
    if master is None:
        return nullcontext()
    return Terminal(master, keys=request.interactive, hang_up=lambda: deliver(signal.SIGHUP))


def _wait(ending: int, signals: Signals, deliver: Deliver, terminal: Terminal | None) -> None:
    """Pass on signals, keys and output until a descriptor becomes readable."""

    def act(number: signal.Signals) -> bool:
        if number != signal.SIGWINCH:
            deliver(number)
        elif terminal is not None:
            terminal.resize()
        return False

    serve([Ending(ending), Passing(signals, act), *([] if terminal is None else terminal.flows())])


def _show_rest(signals: Signals, terminal: Terminal | None) -> None:
    """Show what the command wrote last, unless the reader is stuck and the caller loses patience."""
    if terminal is not None and (rest := terminal.rest()):
        serve([*rest, Passing(signals, lambda number: number in _ENDING)])
