"""The daemon's answers for names: where it listens, and what it knows.

Attach and detach tell at once; the rest (Docker's names, another process's changes, a sandbox that went) is found by
a look now and again.
"""

from __future__ import annotations

import asyncio
import logging
import resource
import socket
from collections.abc import Sequence, Set
from contextlib import suppress
from pathlib import Path

from berth import wire
from berth.daemon.pace import Pace
from berth.daemon.worker import Worker
from berth.engine.engine import Engine
from berth.engine.recorded import Recorded
from berth.errors import BerthError
from berth.model import Address, Endpoint, Network
from berth.names.records import Place, View, named, places, view
from berth.names.responder import GROUPS, PORT, Responder
from berth.names.server import Server
from berth.names.upstream import Upstream

_ROUND = 2  # seconds between looks, at least
_BREATH = 0.05  # seconds between a change and a look at all of them
_RESOLV_CONF = Path("/etc/resolv.conf")
log = logging.getLogger("berth")


class Names:
    """Answers for names at every place that there should be."""

    def __init__(self, engine: Engine, worker: Worker) -> None:
        self._engine = engine
        self._worker = worker
        self._pace = Pace(_ROUND)
        self._networks: dict[str, Network] = {}
        self._endpoints: dict[str, Endpoint] = {}
        self._known = Recorded()  # the records as they were when all of it was arranged
        self._stale = True  # something was arranged since without them
        self._wanted: frozenset[Place] = frozenset()
        self._elsewhere: tuple[Endpoint, ...] = ()  # on other hosts
        self._moved = True  # there may be others there by now
        self._views: dict[tuple[str, ...], View] = {}
        self._served: dict[Place, tuple[Server, tuple[int, int] | None]] = {}
        self._askers: dict[Place, tuple[str, ...]] = {}
        self._said: dict[str, str] = {}  # what went wrong last, by where
        self._lans: dict[str, tuple[Responder, int]] = {}  # by bridge, with the index of its link
        self._upstream = Upstream()
        self._servers: tuple[str, ...] = ()
        self._changed = asyncio.Event()

    async def run(self) -> None:
        """Answer until cancelled."""
        _allow_many_sockets()
        try:
            while True:
                try:
                    await self._look()
                except BerthError as error:
                    self._say_once("", error)
                except Exception:
                    log.exception("names")
                with suppress(TimeoutError):
                    await asyncio.wait_for(self._changed.wait(), self._pace.pause)
                    await asyncio.sleep(_BREATH)
        finally:
            for server, _ in self._served.values():
                server.close()
            for responder, _ in self._lans.values():
                responder.close()

    def soon(self) -> None:
        """Look at everything soon: something has changed."""
        self._changed.set()

    def others_changed(self) -> None:
        """Look at what is on other hosts too."""
        self._moved = True
        self.soon()

    async def plugged(self, ep: Endpoint) -> None:
        """Answer in an endpoint's sandbox, and for it, when this returns."""
        if ep.network not in self._networks:
            await self._look()
        else:
            self._endpoints[ep.id] = ep
            self._rearrange({ep.sandbox.path})

    def unplugged(self, endpoints: Sequence[Endpoint]) -> None:
        """Forget endpoints."""
        for ep in endpoints:
            self._endpoints.pop(ep.id, None)
        self._rearrange({ep.sandbox.path for ep in endpoints})

    async def _look(self) -> None:
        """Read all there is, and make it so."""
        self._changed.clear()
        known = await self._worker.run(self._engine.recorded)
        if self._stale or not known.arranges_as(self._known):
            self._known, self._stale = known, False
            self._networks = {net.id: net for net in known.networks}
            self._endpoints = {ep.id: ep for ep in known.endpoints}
            self._views.clear()
            self._wanted = places(self._networks.values(), self._endpoints.values())
            self._askers = {place: place.networks for place in self._wanted}
        if self._moved:
            await self._learn_of_others()
        self._servers = _nameservers()
        with self._pace:
            self._arrange(self._wanted)

    async def _learn_of_others(self) -> None:
        self._moved = False  # first: who calls meanwhile wants another look
        try:
            self._elsewhere = tuple(await self._worker.run(self._engine.elsewhere))
        except BerthError:
            self._moved = True
            raise
        self._views.clear()

    def _arrange(self, wanted: frozenset[Place]) -> None:
        """Listen where one should, and nowhere else."""
        for place, (server, inode) in list(self._served.items()):
            # Whose path is gone has ended, and only these sockets would keep it.
            if place not in wanted or (place.ns and wire.sandbox_there(place.ns) != inode):
                server.close()
                del self._served[place]
        for place in wanted - self._served.keys():
            self._open(place)
        self._tell_lans()
        live = {*map(_where, wanted), *(net.bridge for net in self._networks.values())}
        self._said = {where: what for where, what in self._said.items() if where in live}

    def _rearrange(self, paths: Set[str]) -> None:
        """The same where endpoints of these sandboxes have come or gone: an attach shall not take longer for others."""
        self._stale = True
        self._views.clear()
        there = [ep for ep in self._endpoints.values() if ep.sandbox.path in paths]
        wanted = {place for place in places(self._networks.values(), there) if place.ns}
        for place in [each for each in self._served if each.ns in paths and each not in wanted]:
            self._served.pop(place)[0].close()
        for place in wanted:
            self._askers[place] = place.networks
            if place not in self._served:
                self._open(place)
        self._tell_lans()

    def _tell_lans(self) -> None:
        """Claim the names of endpoints where their network says so."""
        wanted: dict[str, dict[str, tuple[str, tuple[Address, ...]]]] = {}
        for net in self._networks.values():
            if named(net) and net.naming_option("mdns") == "true":
                held = [ep for ep in self._endpoints.values() if ep.network == net.id]
                names = {ep.id: (ep.name, tuple(each.ip for each in ep.addresses)) for ep in held if ep.addresses}
                wanted.setdefault(net.bridge, {}).update(names)
        for bridge, (responder, index) in list(self._lans.items()):
            if bridge not in wanted or _index(bridge) != index:
                responder.close()
                del self._lans[bridge]
        for bridge, names in wanted.items():
            if bridge not in self._lans:
                try:
                    responder = Responder(wire.multicast_sockets(bridge, GROUPS, PORT))
                except BerthError as error:
                    self._say_once(bridge, error)
                    continue
                self._lans[bridge] = responder, _index(bridge)
            self._lans[bridge][0].show(names)

    def _say_once(self, what: str, error: Exception) -> None:
        if self._said.get(what) != str(error):
            self._said[what] = str(error)
            log.warning("%s", error)

    def _open(self, place: Place) -> None:
        inode = wire.sandbox_there(place.ns) if place.ns else None
        try:
            sockets = wire.name_sockets(place.ns, place.identity, place.address)
        except (BerthError, OSError) as error:
            self._say_once(_where(place), error)
            return
        server = Server(sockets, lambda: self._view(place), lambda: self._servers, self._upstream, place.sources)
        self._served[place] = (server, inode)

    def _view(self, place: Place) -> View:
        asker = self._askers.get(place, ())
        known = self._views.get(asker)
        if known is None:
            known = self._views[asker] = view(
                asker, self._networks.values(), [*self._endpoints.values(), *self._elsewhere]
            )
        return known


def _where(place: Place) -> str:
    return f"{place.ns} {place.address}"


def _nameservers() -> tuple[str, ...]:
    """The host's own, as resolv.conf(5) has them."""
    try:
        lines = _RESOLV_CONF.read_text(errors="replace").splitlines()
    except OSError:
        return ()
    found = [words[1] for line in lines if len(words := line.split()) > 1 and words[0] == "nameserver"]
    return tuple(found) or ("127.0.0.1",)


def _index(link: str) -> int:
    try:
        return socket.if_nametoindex(link)
    except OSError:
        return 0


def _allow_many_sockets() -> None:
    """Two a sandbox: more than the thousand files that a process may have by default."""
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    with suppress(OSError, ValueError):
        resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
