"""Random changes and faults over three hosts and three members of etcd, again and again until the time is over.

Each round does some at once, mends what it broke, and waits until all that `overlay_model` says is true again. The
seed says what is done, not what comes between. A longer run also has hosts that are silent until others have got
their addresses:

    BERTH_CHAOS_SECONDS=600 BERTH_CHAOS_SEED=7 .venv/bin/python -m pytest -s tests/kernel/test_overlay_chaos.py
"""

from __future__ import annotations

import os
import random
import time
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path

import pytest

from berth.errors import BerthError, Exhausted, Taken

from .conftest import Host, sh
from .overlay_model import Container, Model, met
from .overlay_world import GRACE, TTL

SECONDS = int(os.environ.get("BERTH_CHAOS_SECONDS") or 30)
LONG = TTL + 4 * GRACE  # seconds after which the addresses of who is silent are free
pytestmark = pytest.mark.timeout(SECONDS + 400)


@pytest.fixture
def model(host: Host, tmp_path: Path) -> Iterator[Model]:
    with met(tmp_path) as model:
        yield model


class Monkey:
    """Does what a seed says, and keeps count."""

    def __init__(self, model: Model, seed: int) -> None:
        self.random = random.Random(seed)
        self.model, self.world = model, model.world
        self.done: Counter[str] = Counter()
        self.history: list[str] = []
        self._busy: set[str] = set()  # containers that something is done with
        self._silent: set[str] = set()  # hosts that the others will not hear of for a while
        self._faults: tuple[tuple[Callable[[], str], int], ...] = (
            (self._kill_daemon, 3),
            (self._pause_daemon, 2),
            (self._cut_store, 3),
            (self._cut_wire, 2),
            (self._unplug, 2),
            (self._kill_member, 3),
            (self._pause_member, 1),
            (self._stop_etcd, 1),
            (self._power_off, 3),
            (self._compact, 2),
        )

    def round(self) -> None:
        """Some changes and faults at once; all that is broken is mended at the end, some hosts may stay off."""
        for name in sorted(self.world.off):
            if self.random.random() < 0.7:
                self._note("power on", name)
                self.world.power_on(name)
                self._sandboxes_again(name)
        with ThreadPoolExecutor(6) as pool:
            for _ in range(self.random.randint(6, 16)):
                if self.random.random() < 0.35:
                    fault = self.random.choices([f for f, _ in self._faults], [w for _, w in self._faults])[0]
                    self._note(fault.__name__[1:].replace("_", " "), fault())
                else:
                    self._change(pool)
                time.sleep(self.random.choice((0, 0.05, 0.3, 1)))
            if (
                SECONDS > 2 * LONG and self.random.random() < 0.3
            ):  # long enough for hosts that are cut off to be given up
                self._note("wait", f"{LONG} s")
                self._outlast(pool)
            self.world.mend()
        self._busy.clear()
        self._silent.clear()

    def _outlast(self, pool: ThreadPoolExecutor) -> None:
        """The others go on for as long as it takes until what silent hosts had is free."""
        if not self._silent:
            fault = self.random.choice((self._kill_daemon, self._cut_store, self._unplug))
            self._note(fault.__name__[1:].replace("_", " "), fault())
        self._busy |= {name for host in self._silent for name in self.model.on(host)}
        end = time.monotonic() + LONG
        while time.monotonic() < end:
            time.sleep(1)
            self._change(pool)

    def _note(self, what: str, whom: str) -> None:
        self.done[what] += 1
        self.history.append(f"{what} {whom}")

    # --- changes --------------------------------------------------------------------------------------------

    def _change(self, pool: ThreadPoolExecutor) -> None:
        """Attach, detach or move a container, whatever state its host is in; nobody waits for it."""
        free = [name for name, c in self.model.containers.items() if name not in self._busy and self._has_power(c)]
        if not free:
            return
        name = self.random.choice(free)
        container = self.model.containers[name]
        if container.addresses is None:
            wanted = self._wanted()
            self._note("attach", f"{name} on {container.host} {wanted or ''}")
            pool.submit(self._attach, name, (wanted,) if wanted else ())
        else:
            host = self.random.choice([host for host in self.world.live if host != container.host] or [container.host])
            move = self.random.random() < 0.4
            self._note("move" if move else "detach", f"{name} on {container.host}")
            pool.submit(self._detach, name, host if move else None)
        self._busy.add(name)

    def _wanted(self) -> str | None:
        """An address that somebody has or had, rather one whose host is silent; None: any."""
        silent = [name for host in self._silent for name in self.model.on(host)]
        theirs = [address for name in silent for address in self.model.containers[name].addresses or ()]
        had = sorted(theirs or self.model.given)
        return self.random.choice(had) if had and self.random.random() < (0.8 if theirs else 0.3) else None

    def _has_power(self, container: Container) -> bool:
        return container.host not in self.world.off

    def _attach(self, name: str, wanted: tuple[str, ...]) -> None:
        container = self.model.containers[name]
        container.sure = False
        try:
            self.model.attached(name, self.world.plug(container.host, name, *wanted))
        except (Taken, Exhausted):
            container.sure = True
            self._busy.discard(name)
        except BerthError:
            pass  # etcd is away, or the daemon was killed: `Model` finds out
        except OSError:
            container.sure = True  # it was not even asked
        else:
            self._busy.discard(name)

    def _detach(self, name: str, then: str | None) -> None:
        container = self.model.containers[name]
        container.sure = False
        addresses = container.addresses or ()
        try:
            self.world.unplug_from(container.host, name)
        except BerthError:
            return
        except OSError:
            container.sure = True
            return
        container.addresses, container.sure = None, True
        if then is None:
            self._busy.discard(name)
        else:
            container.host = then
            self._attach(name, addresses)

    # --- faults ---------------------------------------------------------------------------------------------

    def _some_host(self) -> str:
        return self.random.choice(self.world.live)

    def _kill_daemon(self) -> str:
        name = self._some_host()
        self.world.kill(name)
        if self.random.random() < 0.6:
            self.world.start(name)
        else:
            self._silent.add(name)
        return name

    def _pause_daemon(self) -> str:
        name = self._some_host()
        self.world.pause(name)
        return name

    def _cut_store(self) -> str:
        name = self._some_host()
        self.world.cut(name, "store")
        self._silent.add(name)
        return name

    def _cut_wire(self) -> str:
        name = self._some_host()
        self.world.cut(name, "wire")
        return name

    def _unplug(self) -> str:
        name = self._some_host()
        self.world.unplug(name)
        self._silent.add(name)
        return name

    def _kill_member(self) -> str:
        name = self.random.choice(self.world.members)
        self.world.kill(name)
        return name

    def _pause_member(self) -> str:
        name = self.random.choice(self.world.members)
        self.world.pause(name)
        return name

    def _stop_etcd(self) -> str:
        for name in self.world.members:
            self.world.kill(name)
        return "all"

    def _compact(self) -> str:
        with suppress(BerthError):
            self.world.compact()
        return ""

    def _power_off(self) -> str:
        if len(self.world.off) > 1:
            return "nobody"
        name = self._some_host()
        sandboxes = self.model.on(name)
        if any(sandbox in self._busy for sandbox in sandboxes):
            return "nobody"
        self.world.power_off(name, sandboxes)
        for sandbox in sandboxes:
            self.model.containers[sandbox].addresses, self.model.containers[sandbox].sure = None, True
            self._busy.add(sandbox)  # until the next round
        self._sandboxes_again(name)
        return name

    def _sandboxes_again(self, host: str) -> None:
        """New containers under the names of those that went with a host."""
        for name in self.model.on(host):
            sh(f"test -e /run/netns/{name} || {{ ip netns add {name}; ip -n {name} link set lo up; }}")


def test_random_faults(model: Model) -> None:
    seed = int(os.environ.get("BERTH_CHAOS_SEED") or random.randrange(1_000_000))
    monkey = Monkey(model, seed)
    end, times = time.monotonic() + SECONDS, list[float]()
    while not times or time.monotonic() < end:
        begun = len(monkey.history)
        monkey.round()
        history = monkey.history[begun:]
        times.append(model.recovery(f"seed {seed}, round {len(times) + 1}: {', '.join(history)}"))
        print(f"round {len(times)}: all is well after {times[-1]:.1f} s: {', '.join(history)}", flush=True)
    middle = sorted(times)[len(times) // 2]
    counts = ", ".join(f"{what} {count}" for what, count in sorted(monkey.done.items()))
    print(
        f"seed {seed}: {len(times)} rounds, recovery {middle:.1f} s, {max(times):.1f} s at most; {counts};"
        f" {model.lost} endpoints lost their address"
    )
