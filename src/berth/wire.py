"""The composition root: the one place that names concrete classes."""

from __future__ import annotations

import os
import secrets
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING

from berth.drivers import DRIVERS, choose
from berth.engine.engine import Engine
from berth.engine.lock import StateLock
from berth.engine.parts import Parts
from berth.errors import Invalid, NotFound
from berth.kernel.linux import LinuxKernel
from berth.seams import Api, Kernel, Notices
from berth.store.sqlite import SqliteStore

if TYPE_CHECKING:
    from berth.doctor.facts import Facts
    from berth.doctor.journey import Journey, Target
    from berth.engine.uplink import Uplinks
    from berth.model import Proxied
    from berth.store.uplinks import UplinkRecords


def state_directory() -> Path:
    """Where Berth keeps what must outlive it: $BERTH_STATE, else /var/lib/berth."""
    return Path(os.environ.get("BERTH_STATE") or "/var/lib/berth")


def socket_path() -> Path:
    """Where the daemon listens: berth.sock in $BERTH_RUN, else in /run/berth."""
    return Path(os.environ.get("BERTH_RUN") or "/run/berth").absolute() / "berth.sock"


def api(store: str | None = None) -> Api:
    """The daemon, if one listens that manages this network namespace; else, or for a store that is named, an engine.

    Raises what `engine` raises, and `Denied` when the daemon may not be spoken to.
    """
    if not (store or os.environ.get("BERTH_STORE")):
        daemon = _daemon(socket_path())
        if daemon is not None:
            return daemon
    return engine(store)


def _daemon(path: Path) -> Api | None:
    if not os.path.exists(path):  # nor where it may not be looked for: nor can the records be read then
        return None
    from berth.client import reachable  # HTTP takes longer to load than most commands take

    return reachable(path)


def engine(store: str | None = None, *, kernel: Kernel | None = None) -> Engine:
    """The engine, in this process.

    `store`: a URL (`sqlite:PATH`); None: $BERTH_STORE, else SQLite in the state directory.
    Raises `Invalid` for a URL of another kind, and what the store raises when it cannot be opened.
    """
    path = _store_path(store or os.environ.get("BERTH_STORE"))
    opened = SqliteStore(path)
    parts = Parts(
        kernel=kernel or LinuxKernel(),
        store=opened,
        lock=StateLock(path.with_suffix(".lock")),
        drivers=DRIVERS,
        choose=choose,
        identity=lambda: secrets.token_hex(32),
        now=lambda: datetime.now(UTC).isoformat().replace("+00:00", "Z"),
    )
    return Engine(parts)


def examine(store: str | None = None) -> Facts:
    """The facts that `berth doctor` rests on; always in this process. Raises what `engine` raises."""
    from berth.kernel.symptoms import gather

    examining = engine(store)
    try:
        return gather(examining.examine())
    finally:
        examining.close()


def trace(store: str | None, source: str, target: Target) -> Journey:
    """What became of one probe from an endpoint, by name, id or sandbox. Raises `NotFound`, and what `follow` does."""
    from berth.kernel.trace import follow

    api = engine(store)
    try:
        ways = (source, f"/run/netns/{source}")
        found = [ep for ep in api.endpoints() if ep.name == source or ep.id == source or ep.sandbox.path in ways]
        if not found:
            raise NotFound(f"no endpoint {source}: see `berth endpoint ls`")
        leaving = [ep for ep in found if target.address.version in ep.default_route] or found
        return follow(api.network(leaving[0].network), leaving[0], target)
    finally:
        api.close()


def notices(*, steady: bool = True) -> Notices:
    """What the kernel tells of changes to the firewall. Raises `OSError` where it may not be heard.

    `steady`: keep open connections translated while the firewall is flushed and put back; the daemon's to do.
    """
    from berth.kernel.notices import Notices as Heard

    return Heard(steady=steady)


def proxied() -> frozenset[Proxied] | None:
    """What the proxy is to pass on; None while the firewall is flushed. Raises `OSError` where it may not know."""
    from berth.kernel.proxied import proxied as read

    return read()


def proxy_lock() -> Path:
    """Who holds this file is the proxy; in the daemon's own directory."""
    return socket_path().with_name("proxy.lock")


def _store_path(url: str | None) -> Path:
    if not url:
        return state_directory() / "berth.db"
    kind, _, rest = url.partition(":")
    if kind != "sqlite" or not rest:
        raise Invalid(f"store {url} is not supported: use sqlite:/path/to/berth.db, or leave it out")
    return Path(rest)


def host_root() -> Path | None:
    """Where the files of this host's configuration are: $BERTH_ROOT, else /; None in a network namespace of another.

    What /etc says is about the machine's first namespace, not about one that somebody made.
    """
    if os.environ.get("BERTH_ROOT"):
        return Path(os.environ["BERTH_ROOT"]).absolute()
    try:
        first = os.stat("/proc/1/ns/net").st_ino == os.stat("/proc/self/ns/net").st_ino
    except OSError:
        return None
    return Path("/") if first else None


def uplink_records() -> UplinkRecords:
    """What is remembered of uplinks."""
    from berth.store.uplinks import UplinkRecords

    return UplinkRecords(state_directory() / "uplinks")


def uplinks() -> Uplinks:
    """The verbs of uplinks, always in this process: they change what a daemon is reached by."""
    # Not for every command to load.
    from berth.engine.change import Parts as UplinkParts
    from berth.engine.persistence import Persister
    from berth.engine.uplink import Uplinks
    from berth.hostconfig import keepaway
    from berth.hostconfig.systems import RENDERERS
    from berth.kernel.guard import ProcessGuard
    from berth.kernel.uplink import LinuxUplink

    root = host_root()
    parts = UplinkParts(LinuxKernel(), LinuxUplink(root), uplink_records())
    persister = Persister(RENDERERS, keepaway.keep_away, keepaway.GLOBS)
    return Uplinks(parts, ProcessGuard(state_directory(), root), persister)
