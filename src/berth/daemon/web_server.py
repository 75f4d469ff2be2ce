"""The page's own listener on the loopback interface: there only once somebody has asked for the page."""

from __future__ import annotations

import asyncio
import logging
import socket

import msgspec
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from berth import rest
from berth.daemon.door import Door
from berth.daemon.http import Unheard, body
from berth.daemon.server_parts import Server, configure
from berth.errors import BerthError, Denied, Invalid, Refused, Taken, codes

log = logging.getLogger("berth")


class Web:
    """Opens the page when asked to."""

    def __init__(self, routes: list[Route]) -> None:
        self._app = Starlette(routes=routes)
        self._open: tuple[int, Door, Server, asyncio.Task[None]] | None = None

    def route(self) -> Route:
        """`POST /v1/web`: for the daemon's own socket alone, since it hands out links."""
        return Route("/v1/web", self._answer, methods=["POST"])

    async def _answer(self, request: Request) -> Response:
        try:
            asked = msgspec.json.decode(await body(request) or b"{}", type=rest.Web)
            link = self.open(asked.port).link(write=asked.write)
        except msgspec.DecodeError as error:
            return _refused(Invalid(f"the request cannot be read: {error}"))
        except BerthError as error:
            return _refused(error)
        log.info("op=web write=%s", str(asked.write).lower())
        return Response(msgspec.json.encode({"link": link}), media_type="application/json")

    def open(self, port: int) -> Door:
        """The way in on that port; 0: any, or the one that is open. Raises `Invalid`, `Taken`, `Denied`, `Refused`."""
        if self._open is not None:
            if port not in (0, self._open[0]):
                raise Taken(f"the page is open on port {self._open[0]} already: leave --port out")
            return self._open[1]
        listener = _listen(port)
        at: int = listener.getsockname()[1]
        door = Door(self._app, at)
        server = Server(configure(door))
        self._open = (at, door, server, asyncio.create_task(server.serve(sockets=[listener])))
        return door

    async def close(self) -> None:
        """Close the page, when streams have ended."""
        if self._open is not None:
            _, _, server, task = self._open
            server.leave()
            await asyncio.gather(task, return_exceptions=True)


def _listen(port: int) -> socket.socket:
    if not 0 <= port <= 65535:
        raise Invalid(f"port {port} is none: give one from 1 to 65535")
    listener = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listener.bind(("127.0.0.1", port))
        listener.listen(64)
    except PermissionError:
        listener.close()
        raise Denied(f"may not listen on port {port}: choose one from 1024 on") from None
    except OSError as error:
        listener.close()
        raise Refused(f"cannot listen on 127.0.0.1:{port}: {error.strerror}: choose another --port") from None
    return listener


def _refused(error: BerthError) -> Response:
    status = error.status if isinstance(error, Unheard) else codes(error).http
    return Response(rest.failure(error), status, media_type="application/json")
