"""The way to etcd: one kept connection, the next member where one does not answer.

Every call here may be made twice, when an answer was lost: what is not harmless then (a transaction) carries a token by
which its caller knows it again.
"""

from __future__ import annotations

import contextlib
import socket
import ssl
import time
from collections.abc import Generator
from dataclasses import dataclass, field
from urllib.parse import parse_qs, unquote, urlsplit

from berth.errors import Denied, Invalid, Refused
from berth.store.grpc import Broken, Channel, Status
from berth.store.protobuf import Said
from berth.store.rpc import AUTHENTICATE, Method

_ANSWER = 3.0  # seconds for one member to answer
_PATIENCE = 6.0  # seconds for any member to: a new leader is chosen in one or two
_DOUBT = 0.5  # seconds for one member, and each is asked once only, from then until one answers
_PAUSE = 0.05  # seconds between two rounds
_UNAUTHENTICATED, _FAILED = 16, (4, 8, 13, 14)  # gRPC codes: no token; deadline, too busy, internal, unavailable


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


def after(prefix: bytes) -> bytes:
    """The first key behind all that begin with the prefix."""
    return prefix[:-1] + bytes([prefix[-1] + 1])


class Gateway:
    """One connection; for one thread at a time."""

    def __init__(self, where: Members) -> None:
        """Connects on the first call. Raises `Invalid` for certificates that cannot be read."""
        self.where = where
        self._tls = _context(where) if where.tls else None
        self._channel: Channel | None = None
        self._at = 0
        self._token = ""  # of the user's; "" for none
        self._away = False  # nobody answered the last call

    def close(self) -> None:
        """Hang up."""
        if self._channel is not None:
            self._channel.close()
            self._channel = None

    def call(self, method: Method, message: Said) -> Said:
        """Ask any member. Raises `Away`, `Compacted`, `Denied`, or `Refused` with what etcd says."""
        until = time.monotonic() + (0 if self._away else _PATIENCE)
        asked = method.asks.encode(message)
        while True:
            for _ in self.where.endpoints:
                try:
                    return self._authenticated(method, asked)
                except (OSError, ValueError, Broken, Failing) as error:
                    self.next()
                    why = reason(error)
            if time.monotonic() >= until:
                self._away = True
                raise Away(f"etcd at {self.where.url} does not answer ({why}): nothing that hosts share can change")
            time.sleep(_PAUSE)

    def listen(self, method: Method, message: Said, opened: list[socket.socket]) -> Generator[Said, None, None]:
        """Ask the member that `call` asked last, as the same user, and give all that it answers; no calls meanwhile.

        `opened` gets the socket, so that another thread can end the waiting by shutting it down.
        Raises `Away` when the member goes or does not want to.
        """
        try:
            channel = self._connected()
            opened[:] = [channel.sock]
            _keep_alive(channel.sock)
            for answer in channel.stream(method.path, method.asks.encode(message), self._token):
                channel.sock.settimeout(None)
                yield method.answers.decode(answer)
            raise Failing("it has ended")
        except (OSError, ValueError, Broken, Failing, Status) as error:
            self.next()
            raise Away(f"etcd at {self.where.url} does not answer ({reason(error)})") from None
        finally:
            self.close()

    def _authenticated(self, method: Method, asked: bytes) -> Said:
        if self.where.user and not self._token:
            self._login()
        try:
            return self._ask(method, asked)
        except _Unknown:
            if not self.where.user:
                raise Denied(
                    f"etcd at {self.where.url} wants a user: set BERTH_ETCD_USER and BERTH_ETCD_PASSWORD"
                ) from None
            self._login()
            return self._ask(method, asked)

    def _login(self) -> None:
        self._token = ""
        login = {"name": self.where.user, "password": self.where.password}
        self._token = self._ask(AUTHENTICATE, AUTHENTICATE.asks.encode(login))["token"]

    def _ask(self, method: Method, asked: bytes) -> Said:
        channel = self._connected()
        try:
            answer = method.answers.decode(channel.call(method.path, asked, self._token))
        except Status as status:
            raise self._meant(status) from None
        if self._away:
            self._away = False
            channel.sock.settimeout(_ANSWER)
        return answer

    def _meant(self, status: Status) -> Exception:
        """What a refusal means here."""
        text = str(status)
        if "invalid auth token" in text or "user name is empty" in text or status.code == _UNAUTHENTICATED:
            return _Unknown(text)
        if "compacted" in text:
            return Compacted(f"etcd at {self.where.url} no longer keeps what was being read: try again")
        if "permission denied" in text and not self.where.user:
            return _Unknown(text)
        if "permission denied" in text or "authentication failed" in text:
            return Denied(f"etcd at {self.where.url} does not let user {self.where.user!r} in: {text}")
        if status.code in _FAILED:
            return Failing(text)
        return Refused(f"etcd at {self.where.url}: {text}")

    def _connected(self) -> Channel:
        if self._channel is None:
            place = self.where.endpoints[self._at % len(self.where.endpoints)]
            sock = socket.create_connection(place, _DOUBT if self._away else _ANSWER)
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            if self._tls is not None:
                sock = self._tls.wrap_socket(sock, server_hostname=place[0])
            self._channel = Channel(sock, "http" if self._tls is None else "https", authority(place))
        return self._channel

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
        context.set_alpn_protocols(["h2"])
        if where.cert:
            context.load_cert_chain(where.cert, where.key or None)
    except (OSError, ssl.SSLError) as error:
        files = ", ".join(filter(None, (where.ca, where.cert, where.key)))
        raise Invalid(f"cannot use {files} for {where.url}: {reason(error)}") from None
    return context


def _keep_alive(sock: socket.socket) -> None:
    """Who listens may hear nothing for days: so the kernel asks whether the member is still there."""
    for level, option, value in (
        (socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1),
        (socket.IPPROTO_TCP, socket.TCP_KEEPIDLE, 5),
        (socket.IPPROTO_TCP, socket.TCP_KEEPINTVL, 3),
        (socket.IPPROTO_TCP, socket.TCP_KEEPCNT, 3),
    ):
        with contextlib.suppress(OSError):
            sock.setsockopt(level, option, value)
