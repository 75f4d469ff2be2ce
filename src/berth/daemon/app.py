"""What is served at which path."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Sequence
from typing import Any, TypeVar

import msgspec
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route
from starlette.types import ASGIApp, Receive, Scope, Send

from berth import __version__, rest, schema
from berth.daemon.http import handler
from berth.daemon.leases import Leases
from berth.daemon.names import Names
from berth.daemon.openapi import document
from berth.daemon.tidy import Tidy
from berth.daemon.worker import Worker
from berth.engine.engine import Engine
from berth.errors import BerthError, Invalid, codes
from berth.plugins.docker import Call, SlowCall, Unreadable, calls, leased_calls, refusal

T = TypeVar("T", bound=msgspec.Struct)
log = logging.getLogger("berth")


def routes(engine: Engine, worker: Worker, tidy: Tidy, leases: Leases, names: Names) -> list[Route]:
    """Berth's own API."""
    return _Own(engine, worker, tidy, leases, names).routes()


def app(
    engine: Engine, tidy: Tidy, worker: Worker, leases: Leases, own_routes: Sequence[Route], leased: str
) -> ASGIApp:
    """All that the daemon answers: `own_routes`, and Docker's calls.

    `leased`: the path of the socket for those about leases.
    """
    own = Starlette(routes=own_routes, exception_handlers={HTTPException: _no_such_path})
    own.router.redirect_slashes = False
    docker = {
        f"/{name}": handler(name, _docker(call, engine, worker), _refuse_docker)
        for name, call in calls(engine, tidy).items()
    }

    slow = {f"/{name}": handler(name, _slow(call), _refuse_docker) for name, call in leased_calls(leases).items()}

    async def served(scope: Scope, receive: Receive, send: Send) -> None:
        """Docker's calls by their paths: to try the patterns of all routes one by one takes as long as an answer."""
        table = slow if scope.get("server") == (leased, None) else docker
        answer = table.get(scope["path"]) if scope["type"] == "http" else None
        if answer is None:
            await own(scope, receive, send)
            return
        request = Request(scope, receive)
        only_post = HTTPException(405, "Method Not Allowed", {"Allow": "POST"})
        response = await answer(request) if request.method == "POST" else _no_such_path(request, only_post)
        await response(scope, receive, send)

    return served


def _docker(call: Call[Any], engine: Engine, worker: Worker) -> Callable[[Request, bytes], Awaitable[bytes]]:
    async def answer(_: Request, body: bytes) -> bytes:
        # What needs no engine is said at once, however busy it is: Docker does not start without.
        run = worker.run if call.gives and engine.vetted.lans else worker.run_short
        said = call(body) if call.instant else await run(lambda: call(body))
        return msgspec.json.encode(said)

    return answer


def _slow(call: SlowCall[Any]) -> Callable[[Request, bytes], Awaitable[bytes]]:
    async def answer(_: Request, body: bytes) -> bytes:
        return msgspec.json.encode(await call(body))

    return answer


def _refuse_docker(error: BerthError, status: int) -> Response:
    """Docker reads an error from a 200 as the driver's own words."""
    return _json(msgspec.json.encode(refusal(error)), status or (400 if isinstance(error, Unreadable) else 200))


def _refuse(error: BerthError, status: int) -> Response:
    return _json(rest.failure(error), status or codes(error).http)


def _no_such_path(_: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    text = f"{error.detail}: see /openapi.json"
    said = {"message": text, "kind": "NotFound" if error.status_code == 404 else "Invalid", **refusal(text)}
    return Response(msgspec.json.encode(said), error.status_code, error.headers, media_type="application/json")


def _json(content: bytes, status: int = 200) -> Response:
    return Response(content, status, media_type="application/json")


class _Own:
    """Berth's own API."""

    def __init__(self, engine: Engine, worker: Worker, tidy: Tidy, leases: Leases, names: Names) -> None:
        self._engine = engine
        self._leases = leases
        self._worker = worker
        self._tidy = tidy
        self._names = names

    def routes(self) -> list[Route]:
        """Every path with its method."""
        table: list[tuple[str, str, Callable[[Request, bytes], Awaitable[bytes]]]] = [
            ("GET", "/openapi.json", self._document),
            ("GET", "/v1/version", self._version),
            ("GET", "/v1/networks", self._networks),
            ("POST", "/v1/networks", self._create),
            ("GET", "/v1/networks/{name:path}", self._network),
            ("DELETE", "/v1/networks/{name:path}", self._remove),
            ("GET", "/v1/endpoints", self._endpoints),
            ("POST", "/v1/endpoints", self._attach),
            ("DELETE", "/v1/endpoints", self._detach),
            ("GET", "/v1/nodes", self._nodes),
            ("POST", "/v1/nodes/{name}", self._drain),
            ("DELETE", "/v1/nodes/{name}", self._remove_node),
            ("POST", "/v1/key", self._renew_key),
            ("POST", "/v1/ports", self._ports),
            ("GET", "/v1/leases", self._list_leases),
            ("POST", "/v1/reconcile", self._reconcile),
        ]
        return [_by_method(path, table) for path in dict.fromkeys(path for _, path, _ in table)]

    async def _document(self, _: Request, __: bytes) -> bytes:
        return msgspec.json.encode(document())

    async def _version(self, _: Request, __: bytes) -> bytes:
        return msgspec.json.encode({"version": __version__})

    async def _networks(self, _: Request, __: bytes) -> bytes:
        return _array([schema.dump(net) for net in await self._worker.run(self._engine.networks)])

    async def _network(self, request: Request, _: bytes) -> bytes:
        name = request.path_params["name"]
        return schema.dump(await self._worker.run(lambda: self._engine.network(name)))

    async def _create(self, _: Request, body: bytes) -> bytes:
        asked = _read(body, rest.NetworkCreate)
        spec = await asyncio.to_thread(self._engine.explored, rest.network_spec(asked))
        outcome = await self._worker.run(lambda: self._engine.create_network(spec, dry_run=asked.dry_run))
        self._names.soon()
        return rest.reply(outcome, schema.dump(outcome.value))

    async def _remove(self, request: Request, _: bytes) -> bytes:
        name, dry_run = request.path_params["name"], _dry_run(request)
        outcome = await self._worker.run(lambda: self._engine.remove_network(name, dry_run=dry_run))
        self._names.soon()
        return rest.reply(outcome, schema.dump(outcome.value))

    async def _endpoints(self, request: Request, _: bytes) -> bytes:
        network = request.query_params.get("network")
        return _array([schema.dump(ep) for ep in await self._worker.run(lambda: self._engine.endpoints(network))])

    async def _attach(self, _: Request, body: bytes) -> bytes:
        asked = _read(body, rest.Attach)
        request = rest.attach_request(asked)
        outcome = await self._leases.attach(request, dry_run=asked.dry_run)
        if not asked.dry_run:
            await self._names.plugged(outcome.value)
        return rest.reply(outcome, schema.dump(outcome.value))

    async def _detach(self, request: Request, _: bytes) -> bytes:
        network, sandbox = (_query(request, key) for key in ("network", "sandbox"))
        dry_run = _dry_run(request)
        outcome = await self._worker.run(lambda: self._engine.detach(network, sandbox, dry_run=dry_run))
        self._tidy.sweep()
        await self._leases.settle()
        if not dry_run:
            self._names.unplugged(outcome.value)
        return rest.reply(outcome, _array([schema.dump(ep) for ep in outcome.value]))

    async def _list_leases(self, _: Request, __: bytes) -> bytes:
        return _array([schema.dump_lease(record) for record in await self._worker.run(self._engine.leases)])

    async def _nodes(self, _: Request, __: bytes) -> bytes:
        return _array([schema.dump(node) for node in await self._worker.run(self._engine.nodes)])

    async def _drain(self, request: Request, body: bytes) -> bytes:
        name, asked = request.path_params["name"], _read(body, rest.NodeChange)
        return schema.dump(await self._worker.run(lambda: self._engine.drain(name, on=asked.drained)))

    async def _remove_node(self, request: Request, _: bytes) -> bytes:
        name, force = request.path_params["name"], _flag(request, "force")
        return msgspec.json.encode(await self._worker.run(lambda: self._engine.remove_node(name, force=force)))

    async def _renew_key(self, _: Request, __: bytes) -> bytes:
        return schema.dump(await self._worker.run(self._engine.renew_key))

    async def _ports(self, _: Request, body: bytes) -> bytes:
        asked = _read(body, rest.Ports)
        change = rest.port_change(asked)
        outcome = await self._worker.run(lambda: self._engine.change_ports(change, dry_run=asked.dry_run))
        return rest.reply(outcome, schema.dump(outcome.value))

    async def _reconcile(self, _: Request, __: bytes) -> bytes:
        outcome = await self._worker.run(self._engine.reconcile)
        return rest.reply(outcome, msgspec.json.encode(outcome.value))


def _by_method(path: str, table: list[tuple[str, str, Callable[[Request, bytes], Awaitable[bytes]]]]) -> Route:
    """One route a path, so that another method is answered with 405 and the list of those that there are."""
    shown = path.replace(":path", "")
    known = {method: handler(f"{method} {shown}", answer, _refuse) for method, at, answer in table if at == path}

    async def handle(request: Request) -> Response:
        return await known["GET" if request.method == "HEAD" else request.method](request)

    return Route(path, handle, methods=list(known))


def _read(body: bytes, type_: type[T]) -> T:
    try:
        return msgspec.json.decode(body, type=type_)
    except (msgspec.DecodeError, msgspec.ValidationError, UnicodeDecodeError, RecursionError) as error:
        raise Invalid(f"the request cannot be read: {error}") from None


def _query(request: Request, key: str) -> str:
    value = request.query_params.get(key)
    if value is None:
        raise Invalid(f"the query lacks {key}: give ?{key}=…")
    return value


def _dry_run(request: Request) -> bool:
    return _flag(request, "dry_run")


def _flag(request: Request, key: str) -> bool:
    value = request.query_params.get(key, "false")
    if value not in ("true", "false"):
        raise Invalid(f"{key}={value[:20]!r} is neither true nor false")
    return value == "true"


def _array(items: list[bytes]) -> bytes:
    return b"[" + b",".join(items) + b"]"
