"""How the daemon speaks HTTP, on whichever socket."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import uvicorn
from starlette.types import ASGIApp
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from berth.daemon.worker import DEADLINE

_IDLE = 3600  # seconds: Docker keeps its connection, and would send a call to one that is being closed without body


def configure(app: ASGIApp) -> uvicorn.Config:
    """The server's settings."""
    return uvicorn.Config(
        app,
        http=_Protocol,
        loop="asyncio",
        ws="none",
        lifespan="off",
        log_config=None,
        access_log=False,
        server_header=False,
        timeout_graceful_shutdown=DEADLINE,
        timeout_keep_alive=_IDLE,
    )


class _Protocol(HttpToolsProtocol):
    def eof_received(self) -> bool:  # type: ignore[override]  # asyncio's own contract is a bool
        """Answer a client that has said all it has to say, and hang up then; uvicorn's own hangs up at once."""
        if self.cycle is None or self.cycle.response_complete:
            return False
        self.cycle.keep_alive = False
        return True


class Server(uvicorn.Server):
    """A server that ends when it is told."""

    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Left to `leave`: uvicorn's own would end the process by the signal, before things are put away."""
        yield

    def leave(self) -> None:
        """Finish what is under way, and end."""
        self.should_exit = True
