"""etcd by its JSON gateway: one kept connection, the next member where one does not answer.

Messages are those of etcd's gRPC API (https://etcd.io/docs/v3.4/dev-guide/api_grpc_gateway/): keys and values in
base64, 64-bit numbers as text. Every call here may be made twice, when an answer was lost: what is not harmless
then (a transaction) carries a token by which its caller knows it again.
"""

from __future__ import annotations

import base64
import http.client
import json
import socket
import ssl
import time
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import parse_qs, unquote, urlsplit

from berth.errors import Denied, Invalid, Refused

Json = dict[str, Any]

_ANSWER = 3.0  # seconds for one member to answer
_PATIENCE = 6.0  # seconds for any member to: a new leader is chosen in one or two
_DOUBT = 0.5  # seconds for one member, and each is asked once only, from then until one answers
_PAUSE = 0.05  # seconds between two rounds
_UNAUTHENTICATED, _FAILED = 16, (4, 8, 13, 14)  # gRPC codes: no token; deadline, too busy, internal, unavailable
_SERVER_ERROR = 500  # HTTP


class Away(Refused):
    """No member of etcd answers."""


class Compacted(Refused):
    """The revision that was asked for is no longer kept."""


@dataclass(frozen=True, slots=True)
class Members:
    """Where etcd is, and how to be let in."""

    endpoints: tuple[tuple[str, int], ...]
    user: str = ""
    password: str = field(default="", repr=False)
    tls: bool = False
    ca: str = ""  # path; "": the system's
    cert: str = ""
    key: str = ""

    @property
    def url(self) -> str:
        """For people: without user and password."""
        places = ",".join(map(authority, self.endpoints))
        return f"{'etcds' if self.tls else 'etcd'}://{places}"


def members(url: str, user: str = "", password: str = "") -> tuple[Members, dict[str, str]]:
    """Read etcd[s]://[USER:PASSWORD@]HOST[:PORT],…[?ca=&cert=&key=]; gives what else the query says too.

    Raises `Invalid`, without what may be a password.
    """
    scheme, _, rest = url.partition("://")
    rest, _, options = rest.partition("?")
    if "@" in options:  # then it cannot be known which part is a password
        raise Invalid(f"store {scheme}://…: write a ? of the user or password as %3F, and an @ behind the ? as %40")
    login, _, rest = rest.rpartition("@")
    places, _, path = rest.partition("/")
    try:
        ends = tuple(_place(place) for place in places.split(","))
    except ValueError:
        raise Invalid(f"store {scheme}://{places}: give its members as host:2379,host2:2379") from None
    if path:
        raise Invalid(f"store {scheme}://{places}/{path}: leave the path out, or give ?prefix=/{path}")
    query = {key: values[-1] for key, values in parse_qs(options).items()}
    files = {key: query.pop(key, "") for key in ("ca", "cert", "key")}
    tls = scheme == "etcds" or any(files.values())
    name, _, secret = login.partition(":")
    return Members(ends, unquote(name) or user, unquote(secret) or password, tls, **files), query


def _place(text: str) -> tuple[str, int]:
    parts = urlsplit(f"//{text}")
    if not parts.hostname:
        raise ValueError(text)
    return parts.hostname, parts.port or 2379


def authority(place: tuple[str, int]) -> str:
    """A member as URLs have it (RFC 3986 section 3.2)."""
    host, port = place
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def b64(data: bytes) -> str:
    """Bytes as the gateway takes them."""
    return base64.b64encode(data).decode()


def after(prefix: bytes) -> bytes:
    """The first key behind all that begin with the prefix."""
    return prefix[:-1] + bytes([prefix[-1] + 1])


class Gateway:
    """One connection; for one thread at a time."""

    def __init__(self, where: Members) -> None:
        """Connects on the first call. Raises `Invalid` for certificates that cannot be read."""
        self.where = where
        self._tls = _context(where) if where.tls else None
        self._link: http.client.HTTPConnection | None = None
        self._at = 0
        self.token = ""  # of the user's; "" for none
        self._away = False  # nobody answered the last call

    def close(self) -> None:
        """Hang up."""
        if self._link is not None:
            self._link.close()
            self._link = None

    @property
    def place(self) -> tuple[str, int]:
        """The member that is asked."""
        return self.where.endpoints[self._at % len(self.where.endpoints)]

    def dial(self, protocol: str) -> socket.socket:
        """A connection of the caller's own to that member, for another protocol (RFC 7301). Raises `OSError`."""
        sock: socket.socket = self._connection(_ANSWER, protocol).sock
        return sock

    def call(self, path: str, message: Json) -> Json:
        """Ask any member. Raises `Away`, `Compacted`, `Denied`, or `Refused` with what etcd says."""
        until = time.monotonic() + (0 if self._away else _PATIENCE)
        body = json.dumps(message).encode()
        while True:
            for _ in self.where.endpoints:
                try:
                    return self._authenticated(path, body)
                except (OSError, http.client.HTTPException, Failing) as error:
                    self.next()
                    why = reason(error)
            if time.monotonic() >= until:
                self._away = True
                raise Away(f"etcd at {self.where.url} does not answer ({why}): nothing that hosts share can change")
            time.sleep(_PAUSE)

    def _authenticated(self, path: str, body: bytes) -> Json:
        if self.where.user and not self.token:
            self._login()
        try:
            return self._ask(path, body)
        except _Unknown:
            if not self.where.user:
                raise Denied(
                    f"etcd at {self.where.url} wants a user: set BERTH_ETCD_USER and BERTH_ETCD_PASSWORD"
                ) from None
            self._login()
            return self._ask(path, body)

    def _login(self) -> None:
        self.token = ""
        login = json.dumps({"name": self.where.user, "password": self.where.password}).encode()
        self.token = self._ask("/v3/auth/authenticate", login)["token"]

    def _ask(self, path: str, body: bytes) -> Json:
        link = self._connected()
        link.request("POST", path, body, self._headers())
        response = link.getresponse()
        text = response.read()
        try:
            answer: Json = json.loads(text or b"{}")
        except ValueError:
            kind = Failing if response.status >= _SERVER_ERROR else Refused
            raise kind(f"etcd at {self.where.url}: {text.decode(errors='replace').strip()[:200]}") from None
        self._check(answer)
        if self._away:
            self._away = False
            link.sock.settimeout(_ANSWER)
        return answer

    def _check(self, answer: Json) -> None:
        text = str(answer.get("error") or answer.get("message") or "")
        code = answer.get("code", 0)
        if not text:
            return
        if "invalid auth token" in text or "user name is empty" in text or code == _UNAUTHENTICATED:
            raise _Unknown(text)
        if "compacted" in text:
            raise Compacted(f"etcd at {self.where.url} no longer keeps what was being read: try again")
        if "permission denied" in text and not self.where.user:
            raise _Unknown(text)
        if "permission denied" in text or "authentication failed" in text:
            raise Denied(f"etcd at {self.where.url} does not let user {self.where.user!r} in: {text}")
        if code in _FAILED:
            raise Failing(text)
        raise Refused(f"etcd at {self.where.url}: {text}")

    def _headers(self) -> dict[str, str]:
        return {"Authorization": self.token} if self.token else {}

    def _connected(self) -> http.client.HTTPConnection:
        if self._link is None:
            self._link = self._connection(_DOUBT if self._away else _ANSWER)
        return self._link

    def _connection(self, timeout: float, protocol: str = "http/1.1") -> http.client.HTTPConnection:
        host, port = self.place
        if self._tls is not None:
            self._tls.set_alpn_protocols([protocol])
            link: http.client.HTTPConnection = http.client.HTTPSConnection(
                host, port, timeout=timeout, context=self._tls
            )
        else:
            link = http.client.HTTPConnection(host, port, timeout=timeout)
        link.connect()
        # http.client sends head and body apart: with Nagle's algorithm the second would wait for an acknowledgement.
        link.sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        return link

    def next(self) -> None:
        """Hang up, and ask another member from now on."""
        self.close()
        self._at += 1


class Failing(Exception):
    """This member cannot answer now."""


class _Unknown(Exception):
    """Who asks has no valid token."""


def reason(error: Exception) -> str:
    return getattr(error, "strerror", None) or str(error) or type(error).__name__


def _context(where: Members) -> ssl.SSLContext:
    try:
        context = ssl.create_default_context(cafile=where.ca or None)
        if where.cert:
            context.load_cert_chain(where.cert, where.key or None)
    except (OSError, ssl.SSLError) as error:
        files = ", ".join(filter(None, (where.ca, where.cert, where.key)))
        raise Invalid(f"cannot use {files} for {where.url}: {reason(error)}") from None
    return context
