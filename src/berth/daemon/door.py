"""Who may see the page: the way in over the loopback interface, which every user and program of the host can reach.

The link carries a token. It is exchanged for a cookie that no script and no other site gets (HttpOnly, SameSite).
A page of another site that has its name resolve to 127.0.0.1 is told by the Host header; one that sends a form, by
Origin. (RFC 6265bis; OWASP's cheat sheets on DNS rebinding and on cross-site request forgery.)
"""

from __future__ import annotations

import secrets
from collections import deque
from hmac import compare_digest
from http.cookies import CookieError, SimpleCookie

from starlette.requests import Request
from starlette.responses import PlainTextResponse, RedirectResponse, Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

_KEPT = 32  # links that are good at a time; the oldest goes
HEADERS = {
    b"content-security-policy": b"default-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
    b"x-content-type-options": b"nosniff",
    b"referrer-policy": b"no-referrer",
    b"cross-origin-resource-policy": b"same-origin",
    b"cache-control": b"no-store",
}


class Door:
    """Lets those in who have a link."""

    def __init__(self, app: ASGIApp, port: int) -> None:
        self._app = app
        self._port = port
        self._keys: deque[tuple[str, str, bool]] = deque(maxlen=_KEPT)  # token, cookie, may change things

    def link(self, *, write: bool) -> str:
        """A new link."""
        token = secrets.token_urlsafe(32)
        self._keys.append((token, secrets.token_urlsafe(32), write))
        return f"http://127.0.0.1:{self._port}/?token={token}"

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer a request, or say why not."""
        if scope["type"] != "http":
            return
        request = Request(scope, receive)
        refusal = self._refusal(request)
        if refusal is not None:
            await refusal(scope, receive, _with_headers(send))
            return
        await self._app(scope, receive, _with_headers(send))

    def _refusal(self, request: Request) -> Response | None:
        """The answer to who may not have what was asked for, and to who has only just come in."""
        hosts = {f"127.0.0.1:{self._port}", f"localhost:{self._port}"}
        host = request.headers.get("host", "")
        if host not in hosts:
            return PlainTextResponse("berth: this page is at 127.0.0.1 only: see `berth web`\n", 421)
        given = request.query_params.get("token")
        if given is not None and request.method == "GET" and request.scope["path"] == "/":
            return self._enter(given)
        write = self._known(request)
        if write is None:
            return PlainTextResponse("berth: run `berth web` for a link to this page\n", 403)
        if request.method not in ("GET", "HEAD"):
            if not write:
                return PlainTextResponse("berth: this page only shows: run `berth web --write`\n", 403)
            if request.headers.get("origin") != f"http://{host}":
                return PlainTextResponse("berth: not sent by Berth's own page\n", 403)
        request.scope["write"] = write
        return None

    def _enter(self, given: str) -> Response:
        for token, cookie, _ in self._keys:
            if compare_digest(token.encode(), given.encode()):
                answer = RedirectResponse("/", 303)
                answer.set_cookie(self._cookie, cookie, httponly=True, samesite="strict")
                return answer
        return PlainTextResponse("berth: this link is no longer good: run `berth web` for a new one\n", 403)

    def _known(self, request: Request) -> bool | None:
        """Whether who asks may change things; None: not known."""
        try:
            morsel = SimpleCookie(request.headers.get("cookie", "")).get(self._cookie)
        except CookieError:
            return None
        given = "" if morsel is None else morsel.value
        for _, cookie, write in self._keys:
            if compare_digest(cookie.encode(), given.encode()):
                return write
        return None

    @property
    def _cookie(self) -> str:
        """With the port in its name: cookies are for a host, and each daemon of a host has its own."""
        return f"berth-{self._port}"


def _with_headers(send: Send) -> Send:
    async def sent(message: Message) -> None:
        if message["type"] == "http.response.start":
            given = dict(message.get("headers", []))
            message["headers"] = [*message.get("headers", []), *((k, v) for k, v in HEADERS.items() if k not in given)]
        await send(message)

    return sent
