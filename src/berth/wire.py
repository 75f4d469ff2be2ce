"""The composition root: the one place that names concrete classes."""

from __future__ import annotations

import os
import secrets
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING

from berth.drivers import DRIVERS, SPANNING, choose
from berth.engine.engine import Engine
from berth.engine.lock import StateLock
from berth.engine.parts import Parts
from berth.errors import Invalid, NotFound
from berth.kernel.linux import LinuxKernel
from berth.lan.linux import LinuxLan
from berth.seams import Api, Kernel, LeaseClients, Notices, Shared, Store
from berth.store.keys import KeyFile
from berth.store.sqlite import SqliteStore

if TYPE_CHECKING:
    import socket
    from collections.abc import Callable, Mapping, Sequence

    from berth.client import Client
    from berth.doctor.facts import Facts, Keeping
    from berth.doctor.journey import Journey, Target
    from berth.engine.uplink import Uplinks
    from berth.events import Tell
    from berth.lan.discover import Found
    from berth.model import Address, Host, Lease, LeaseRequest, Neighbour, Proxied, Traffic
    from berth.store.uplinks import UplinkRecords


def state_directory() -> Path:
    """Where Berth keeps what must outlive it: $BERTH_STATE, else /var/lib/berth."""
    return Path(os.environ.get("BERTH_STATE") or "/var/lib/berth")


def socket_path() -> Path:
    """Where the daemon listens: berth.sock in $BERTH_RUN, else in /run/berth."""
    return Path(os.environ.get("BERTH_RUN") or "/run/berth").absolute() / "berth.sock"


def leases_path() -> Path:
    """Where the daemon takes Docker's calls about leases; beside its own socket."""
    return socket_path().with_name("berth-dhcp.sock")


def api(store: str | None = None) -> Api:
    """The daemon, if one listens that manages this network namespace; else, or for a store that is named, an engine.

    Raises what `engine` raises, and `Denied` when the daemon may not be spoken to.
    """
    if not (store or os.environ.get("BERTH_STORE")):
        daemon = _daemon(socket_path())
        if daemon is not None:
            return daemon
    return engine(store)


def daemon() -> Client:
    """The daemon. Raises `NotFound` where none listens, and `Denied`."""
    client = _daemon(socket_path())
    if client is None:
        raise NotFound(f"no daemon listens on {socket_path()}: start it with `berth daemon`")
    return client


def _daemon(path: Path) -> Client | None:
    if not os.path.exists(path):  # nor where it may not be looked for: nor can the records be read then
        return None
    from berth.client import reachable  # HTTP takes longer to load than most commands take

    return reachable(path)


def engine(store: str | None = None, *, kernel: Kernel | None = None) -> Engine:
    """The engine, in this process.

    `store`: a URL (`sqlite:PATH`, or what `shared_store` takes); None: $BERTH_STORE, else SQLite in the state
    directory. Raises `Invalid` for a URL of another kind, and what the store raises when it cannot be opened.
    """
    return Engine(_parts(store, kernel))


def told_engine(tell: Tell, store: str | None = None) -> Engine:
    """The engine, in this process, that tells of each thing it does. Raises as `engine` does."""
    from berth.engine.told import Told

    return Told(_parts(store, None), tell)


def host() -> Host:
    """The facts about this host. Raises `Denied` and `NotFound`."""
    return LinuxKernel().host()


def traffic() -> dict[str, Traffic]:
    """What each link of this host has carried, by its name. Raises `Refused`."""
    from berth.kernel.traffic import read

    return read()


def neighbours() -> tuple[Neighbour, ...]:
    """The machines that the host's kernel knows, with who made them; nobody is asked. Raises `Refused`."""
    from berth.kernel.neighbours import known
    from berth.lan.vendors import vendor

    return tuple(replace(each, vendor=vendor(each.mac)) for each in known())


def _parts(store: str | None, kernel: Kernel | None) -> Parts:
    url = store or os.environ.get("BERTH_STORE")
    shared = url is not None and url.startswith(("etcd://", "etcds://"))
    path = _store_path(None if shared else url)
    others = shared_store(url, path) if url is not None and shared else None
    opened: Store = others or SqliteStore(path)
    return Parts(
        kernel=kernel or LinuxKernel(),
        lan=LinuxLan(),
        store=opened,
        lock=StateLock(path.with_suffix(".lock")),
        drivers=DRIVERS,
        choose=choose,
        spanning=SPANNING,
        identity=lambda: secrets.token_hex(32),
        now=lambda: datetime.now(UTC).isoformat().replace("+00:00", "Z"),
        client_id=_client_id,
        keys=KeyFile(path.with_suffix(".wireguard"), wireguard_port()),
        shared=others,
    )


def wireguard_port() -> int:
    """Where other hosts' encrypted packets arrive: the UDP port $BERTH_WIREGUARD_PORT, else 51820. Raises `Invalid`."""
    text = os.environ.get("BERTH_WIREGUARD_PORT") or "51820"
    if not text.isdecimal() or not 1 <= int(text) <= 65535:
        raise Invalid(f"BERTH_WIREGUARD_PORT={text} is no UDP port: give 1 to 65535, or leave it out")
    return int(text)


def _client_id(identity: str) -> bytes:
    from berth.lan.dhcp import client_id

    return client_id(identity)


def lease_clients(changed: Callable[[Lease], None], lost: Callable[[Lease, str], None]) -> LeaseClients:
    """Who keeps all leases of this host, in the running event loop."""
    import asyncio
    from concurrent.futures import ThreadPoolExecutor
    from functools import partial

    from berth.lan.clients import LanClients

    lan = LinuxLan()

    threads = ThreadPoolExecutor(64, thread_name_prefix="asking")  # each waits: one a question, so that none queues

    async def holder(request: LeaseRequest, address: Address, sent: Callable[[], None]) -> str | None:
        """Who has an address that a server has just offered, or that was made (RFC 2131 section 4.4.1, RFC 4862)."""
        full, mine = request.conflict == "full", (request.mac,)
        ask = partial(lan.holders, request.dev, (address,), full=full, mine=mine, sent=sent)
        held = await asyncio.get_running_loop().run_in_executor(threads, ask)
        return held.get(address)

    return LanClients(changed, lost, holder)


def examine(store: str | None = None, internet: Sequence[Address] = ()) -> Facts:
    """The facts that `berth doctor` rests on; always in this process. Raises what `engine` raises.

    `internet`: whom containers should reach, if the host does. Takes a second or two, of which the state lock is held
    for next to nothing.
    """
    from concurrent.futures import ThreadPoolExecutor

    from berth.kernel.symptoms import Ways, followed, gather
    from berth.lan.asking import who_has
    from berth.lan.overlap import offered

    answering = _daemon(socket_path())
    if answering is not None:
        answering.close()
    ways = Ways(who_has, offered, _keeping, answering is not None, tuple(internet))
    examining = engine(store)
    try:
        # The one reads a thousand sandboxes while the other waits for answers.
        with ThreadPoolExecutor(1) as other:
            gathering = other.submit(gather, examining.on_record(), ways)
            records = examining.examine()
            facts = gathering.result().compared(records)
    finally:
        examining.close()
    return followed(facts, who_has)


def internet() -> tuple[Address, ...]:
    """Whom containers should reach; see `kernel.inquiries.internet`."""
    from berth.kernel.inquiries import internet as found

    return found()


def _keeping(pairs: Sequence[tuple[str, str]]) -> Sequence[Keeping]:
    """See `kernel.keeping`."""
    root = host_root()
    if root is None:
        return ()
    from berth.kernel.keeping import keeping
    from berth.kernel.uplink import LinuxUplink

    records = uplink_records()
    return tuple(keeping(LinuxUplink(root), pairs, lambda nic: records.load(nic).adopted is not None))


def trace(store: str | None, source: str, target: Target) -> Journey:
    """What became of one probe from an endpoint, by name, id or sandbox. Raises `NotFound`, and what `follow` does."""
    from berth.kernel.trace import follow
    from berth.lan.asking import who_has

    api = engine(store)
    try:
        ways = (source, f"/run/netns/{source}")
        found = [ep for ep in api.endpoints() if ep.name == source or ep.id == source or ep.sandbox.path in ways]
        if not found:
            raise NotFound(f"no endpoint {source}: see `berth endpoint ls`")
        leaving = [ep for ep in found if target.address.version in ep.default_route] or found
        return follow(api.network(leaving[0].network), leaving[0], target, who_has)
    finally:
        api.close()


def notices(*, steady: bool = True) -> Notices:
    """What the kernel tells of changes to the firewall. Raises `OSError` where it may not be heard.

    `steady`: keep open connections translated while the firewall is flushed and put back; the daemon's to do.
    """
    from berth.kernel.notices import Notices as Heard

    return Heard(steady=steady)


def lan(bridge: str) -> Found:
    """What there is on the LAN behind a bridge, asked now. Raises `NotFound` and `Denied`."""
    from berth.lan.discover import discover

    host = LinuxKernel().host()
    link = host.link(bridge)
    if link is None:
        raise NotFound(f"no bridge {bridge} on this host: see `ip link show type bridge`")
    routers = tuple(r.via for r in host.routes if r.dev == bridge and not r.dst.prefixlen and r.via is not None)
    return discover(link, routers)


def underlay_responders() -> tuple[socket.socket, ...]:
    """What hears other hosts' questions; see `kernel.underlay.responders`."""
    from berth.kernel.underlay import responders

    return responders()


def answer_underlay(raw: socket.socket) -> None:
    """Answer what one of them has heard."""
    from berth.kernel.underlay import answer

    answer(raw)


def proxied() -> frozenset[Proxied] | None:
    """What the proxy is to pass on; None while the firewall is flushed. Raises `OSError` where it may not know."""
    from berth.kernel.proxied import proxied as read

    return read()


def proxy_lock() -> Path:
    """Who holds this file is the proxy; in the daemon's own directory."""
    return socket_path().with_name("proxy.lock")


def name_sockets(ns: str, identity: str, address: str) -> tuple[socket.socket, socket.socket]:
    """What names are asked for at; see `kernel.name_sockets.bound`."""
    from berth.kernel.name_sockets import bound

    return bound(ns, identity, address)


def multicast_sockets(link: str, groups: Mapping[socket.AddressFamily, str], port: int) -> list[socket.socket]:
    """What names are asked for at on a LAN; see `kernel.name_sockets.multicast`."""
    from berth.kernel.name_sockets import multicast

    return multicast(link, groups, port)


def sandbox_there(path: str) -> tuple[int, int] | None:
    """What is at a sandbox's path; see `kernel.name_sockets.there`."""
    from berth.kernel.name_sockets import there

    return there(path)


def _store_path(url: str | None) -> Path:
    if not url:
        return state_directory() / "berth.db"
    kind, _, rest = url.partition(":")
    if kind != "sqlite" or not rest:
        raise Invalid(
            f"store {url} is not supported: use sqlite:/path/to/berth.db or etcd://host:2379, or leave it out"
        )
    return Path(rest)


def shared_store(url: str, path: Path) -> Shared:
    """The store that hosts share, with this host's own records at the path.

    `url`: etcd://HOST[:PORT],… or etcds:// for TLS, with ?ca=&cert=&key= (files of PEM), prefix= (/berth/), ttl= and
    grace= (seconds). User and password: in the URL, else $BERTH_ETCD_USER and $BERTH_ETCD_PASSWORD, which no list of
    processes shows. Raises `Invalid` and what `SqliteStore` raises.
    """
    from berth.store import gateway
    from berth.store.shared import SharedStore, Terms, host_id

    env = os.environ
    where, query = gateway.members(url, env.get("BERTH_ETCD_USER", ""), env.get("BERTH_ETCD_PASSWORD", ""))
    prefix = query.pop("prefix", "/berth/")
    seconds = {key: query.pop(key) for key in ("ttl", "grace") if key in query}
    for key in query:
        raise Invalid(f"store {where.url}: option {key} is unknown: use ca, cert, key, prefix, ttl or grace")
    for key, text in seconds.items():
        if not text.isdecimal() or not 1 <= int(text) <= 9_000_000:  # etcd's own limit
            raise Invalid(f"store {where.url}: {key}={text} is no number of seconds: give {key}=30 or the like")
    terms = Terms(**{key: int(text) for key, text in seconds.items()})
    return SharedStore(path, where, prefix.rstrip("/") + "/", host_id(path.with_suffix(".host")), terms)


def host_root() -> Path | None:
    """Where the files of this host's configuration are: $BERTH_ROOT, else /; None in a network namespace of another.

    What /etc says is about the machine's first namespace, not about one that somebody made.
    """
    if os.environ.get("BERTH_ROOT"):
        return Path(os.environ["BERTH_ROOT"]).absolute()
    try:
        first = os.stat("/proc/1/ns/net").st_ino == os.stat("/proc/thread-self/ns/net").st_ino
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
