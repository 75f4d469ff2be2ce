"""Requests and answers: bodies with a limit, errors in the shape that each protocol has for them."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable

from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response

from berth.daemon.logged import line
from berth.errors import BerthError, Refused

LARGEST = 1 << 20  # bytes of a body; Docker's are a few hundred
PATIENCE = 10  # seconds for a client to send its body
log = logging.getLogger("berth")

Answer = Callable[[Request, bytes], Awaitable[bytes]]
Refuse = Callable[[BerthError, int], Response]


class Unheard(BerthError):
    """A request that was not listened to until its end; `status` says why, as HTTP does."""

    def __init__(self, status: int, why: str) -> None:
        super().__init__(why)
        self.status = status


def handler(name: str, answer: Answer, refuse: Refuse) -> Callable[[Request], Awaitable[Response]]:
    """An endpoint that always answers, and logs one line with the time it took."""

    async def handle(request: Request) -> Response:
        start = time.perf_counter()
        failure = ""
        try:
            return Response(await answer(request, await body(request)), media_type="application/json")
        except ClientDisconnect:
            failure = "client gone"
            return Response(status_code=400)
        except BerthError as error:
            failure = str(error)
            return refuse(error, error.status if isinstance(error, Unheard) else 0)
        except Exception as error:
            failure = "failed"
            log.exception("%s", name)
            return refuse(Refused(f"{type(error).__name__} in {name}, a fault of Berth's: see the daemon's log"), 500)
        finally:
            log.info("%s", line("call", name, time.perf_counter() - start, error=failure))

    return handle


async def body(request: Request) -> bytes:
    """A request's body. Raises `Unheard`."""
    parts, size = [], 0

    async def read() -> None:
        nonlocal size
        async for part in request.stream():
            size += len(part)
            if size > LARGEST:
                raise Unheard(413, f"the request has more than {LARGEST} bytes: leave something out")
            parts.append(part)

    try:
        async with asyncio.timeout(PATIENCE):
            await read()
    except TimeoutError:
        raise Unheard(408, f"the request's body did not come within {PATIENCE} seconds: send it at once") from None
    return b"".join(parts)
