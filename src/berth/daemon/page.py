"""The page: its parts, the stream that keeps it fresh, metrics and events; and `POST /v1/web`, which opens it."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from datetime import UTC, datetime
from functools import cache
from pathlib import Path

import msgspec
from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup
from starlette.requests import Request
from starlette.responses import Response, StreamingResponse
from starlette.routing import Route

from berth import rest
from berth.daemon.events import Events, frame, stream
from berth.daemon.look import Look, Report
from berth.daemon.metrics import TYPE, Metrics
from berth.errors import BerthError, codes
from berth.topology import Lent, Topology, svg

_HERE = Path(__file__).parent / "web"
_FILES = {"page.js": "text/javascript", "page.css": "text/css", "icon.svg": "image/svg+xml"}
_ROUND = 2  # seconds between two looks at the counters
_BREATH = 0.25  # seconds after a change: of many in a row a page hears together, and draws itself anew once
_PARTS = ("map", "networks", "endpoints", "ports", "leases", "examined", "findings")


class Page:
    """Answers all that a browser, a scraper or a follower of events asks."""

    def __init__(self, look: Look, events: Events, metrics: Metrics) -> None:
        self._look = look
        self._events = events
        self._metrics = metrics
        events.listeners.append(metrics.count)

    def routes(self) -> list[Route]:
        """Every path."""
        return [
            Route("/", _answered(self._page)),
            Route("/web/parts", _answered(self._parts)),
            Route("/web/stream", self._stream),
            Route("/web/examine", _answered(self._examine)),
            Route("/web/{name}", _answered(_file)),
            Route("/v1/events", self._follow),
            Route("/metrics", _answered(self._scrape)),
        ]

    async def _page(self, request: Request) -> Response:
        parts = await self._rendered()
        text = _templates().get_template("page.html").render(parts=parts, write=_may_write(request))
        return Response(text, media_type="text/html")

    async def _parts(self, _: Request) -> Response:
        return Response(json.dumps(await self._rendered()), media_type="application/json")  # Markup is a kind of str

    async def _rendered(self) -> dict[str, str]:
        """Each part as HTML; one that has nothing to show is empty."""
        topology, leases = await self._look.topology(), await self._look.leases()
        report = await self._look.report()
        return await asyncio.to_thread(_render, topology, leases, report)  # for a thousand endpoints it takes a while

    async def _examine(self, _: Request) -> Response:
        """Have the doctor look now: it changes nothing, so who may only see may have that, too."""
        self._look.examine()
        return Response(status_code=204)

    async def _stream(self, request: Request) -> Response:
        return StreamingResponse(self._fresh(), media_type="text/event-stream")

    async def _fresh(self) -> AsyncIterator[bytes]:
        """That something changed, as it does, and the counters that moved, every other second, while somebody looks."""
        changed = asyncio.Event()
        ended = asyncio.Event()

        async def follow() -> None:
            async for entry in self._events.follow():
                if entry is not None:
                    changed.set()
            ended.set()
            changed.set()

        following = asyncio.create_task(follow())
        try:
            yield frame("hello", b"{}")
            told: dict[str, tuple[int, int]] = {}
            while not ended.is_set():
                now = await self._counters()
                moved = {link: count for link, count in now.items() if told.get(link) != count}
                told = now
                yield frame("traffic", msgspec.json.encode(moved))
                await self._look.report()  # has the doctor look again, if it is long ago
                try:
                    async with asyncio.timeout(_ROUND):
                        await changed.wait()
                except TimeoutError:
                    continue
                changed.clear()
                if not ended.is_set():
                    yield frame("change", b"{}")
                    await asyncio.sleep(_BREATH)
        finally:
            following.cancel()

    async def _counters(self) -> dict[str, tuple[int, int]]:
        """What each link's other end has received and sent; nothing where that cannot be read."""
        try:
            carried = await self._look.traffic()
        except BerthError:
            return {}
        return {link: (said.tx_bytes, said.rx_bytes) for link, said in carried.items()}

    async def _follow(self, request: Request) -> Response:
        last = request.headers.get("last-event-id", "")
        after = int(last) if last.isascii() and last.isdigit() else 0
        told = stream(self._events, request.query_params.get("since", ""), after)
        return StreamingResponse(told, media_type="text/event-stream")

    async def _scrape(self, request: Request) -> Response:
        facts = await self._look.facts(traffic=request.query_params.get("endpoints") == "true")
        return Response(self._metrics.text(facts), headers={"content-type": TYPE})


def _render(topology: Topology, leases: Sequence[Lent], report: Report | None) -> dict[str, str]:
    picture = Markup(svg.draw(topology, style=False))  # escapes what it is told by itself
    template = _templates().get_template("parts.html")
    said = template.make_module({"topology": topology, "lent": leases, "report": report, "picture": picture})
    return {part: Markup(getattr(said, part)()) for part in _PARTS}


async def _file(request: Request) -> Response:
    name = request.path_params["name"]
    if name == "map.css":
        return Response(svg.STYLE, media_type="text/css")
    if name not in _FILES:
        return Response("no such file\n", 404)
    return Response((_HERE / name).read_bytes(), media_type=_FILES[name])


@cache
def _templates() -> Environment:
    loader = FileSystemLoader(_HERE)
    made = Environment(loader=loader, autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True)
    made.filters["utc"] = lambda seconds: datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%d %H:%M:%SZ")
    return made


def _may_write(request: Request) -> bool:
    """Over the daemon's own socket root speaks, who may everything, but there no browser does."""
    return bool(request.scope.get("write", False))


def _answered(answer: Callable[[Request], Awaitable[Response]]) -> Callable[[Request], Awaitable[Response]]:
    async def handle(request: Request) -> Response:
        try:
            return await answer(request)
        except BerthError as error:
            return Response(rest.failure(error), codes(error).http, media_type="application/json")

    return handle
