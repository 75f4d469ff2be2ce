"""TCP listeners."""

from __future__ import annotations

import errno
import select
import socket

from berth.proxy.context import Context
from berth.proxy.tcp import Connection, refuse

_BATCH = 64  # connections that a listener accepts before it is another's turn
_BACKLOG = 4096  # connections; the kernel makes it net.core.somaxconn at most
_KEEP_IDLE, _KEEP_EVERY = 60, 15  # seconds until a silent peer is asked whether it is still there, and between askings
_FULL = (errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM)
_PAUSE = 1  # second
_DESCRIPTORS = 2  # of a connection


class Acceptor:
    """All listeners, in an epoll of their own: at the limit they are silenced by one call, however many they are."""

    def __init__(self, context: Context) -> None:
        self._loop = context.loop
        self._epoll = select.epoll()
        self._listeners: dict[int, TcpListener] = {}
        self._paused = False
        self._loop.watch(self._epoll.fileno(), self, select.EPOLLIN)
        context.room.on_more = self.resume

    def add(self, listener: TcpListener) -> None:
        """Begin to accept."""
        self._epoll.register(listener.socket.fileno(), select.EPOLLIN)
        self._listeners[listener.socket.fileno()] = listener

    def remove(self, listener: TcpListener) -> None:
        """Accept no more."""
        del self._listeners[listener.socket.fileno()]
        self._epoll.unregister(listener.socket.fileno())

    def ready(self, fd: int, events: int) -> None:
        """See `Handler`."""
        for number, _ in self._epoll.poll(0, _BATCH):
            if not self._paused:
                self._listeners[number].accept()

    def pause(self) -> None:
        """Leave new connections in the kernel's queues until there is room again."""
        if not self._paused:
            self._paused = True
            self._loop.change(self._epoll.fileno(), 0)

    def resume(self) -> None:
        """Accept again, if it was paused."""
        if self._paused:
            self._paused = False
            self._loop.change(self._epoll.fileno(), select.EPOLLIN)


class TcpListener:
    """A port of the host, its target, and the connections between them."""

    def __init__(self, context: Context, acceptor: Acceptor, here: tuple[str, int], target: tuple[str, int]) -> None:
        """Listen. Raises `OSError`."""
        self._context = context
        self._acceptor = acceptor
        self._target = target
        self._family = socket.AF_INET6 if ":" in target[0] else socket.AF_INET
        self._connections: set[Connection] = set()
        self.socket = _listening(here)
        acceptor.add(self)

    def accept(self) -> None:
        """Accept some of those who wait."""
        room = self._context.room
        for _ in range(_BATCH):
            if not room.take(_DESCRIPTORS):
                self._acceptor.pause()
                return
            try:
                client, _ = self.socket.accept()
            except OSError as error:
                room.give(_DESCRIPTORS)
                if error.errno == errno.EAGAIN:
                    return
                if error.errno in _FULL:  # the whole system is, which nobody tells the end of
                    self._acceptor.pause()
                    self._context.loop.after(_PAUSE, self._acceptor.resume)
                    return
                continue  # that client has gone again
            self._connect(client)

    def _connect(self, client: socket.socket) -> None:
        target = None
        try:
            client.setblocking(False)
            target = socket.socket(self._family, socket.SOCK_STREAM | socket.SOCK_NONBLOCK)
            _prepare(target)
            failed = target.connect_ex(self._target)
        except OSError as error:
            failed = error.errno or errno.EIO
        if target is None or failed not in (0, errno.EINPROGRESS):
            refuse(client)
            if target is not None:
                target.close()
            self._context.room.give(_DESCRIPTORS)
            return
        self._connections.add(Connection(self._context, client, target, self._gone))

    def _gone(self, connection: Connection) -> None:
        self._connections.discard(connection)
        self._context.loop.turn(self._give)  # when the sockets are closed

    def _give(self) -> None:
        self._context.room.give(_DESCRIPTORS)

    def close(self) -> None:
        """End, with all connections."""
        self._acceptor.remove(self)
        # Nobody may come in between now and the closing of the socket, to be reset by it.
        self.socket.shutdown(socket.SHUT_RDWR)
        self._context.loop.end(self.socket)
        for connection in list(self._connections):
            connection.abort()


def _listening(here: tuple[str, int]) -> socket.socket:
    family = socket.AF_INET6 if ":" in here[0] else socket.AF_INET
    listening = socket.socket(family, socket.SOCK_STREAM | socket.SOCK_NONBLOCK)
    try:
        listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if family == socket.AF_INET6:
            listening.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        _prepare(listening)
        listening.bind(here)
        listening.listen(_BACKLOG)
    except OSError:
        listening.close()
        raise
    return listening


def _prepare(connection: socket.socket) -> None:
    """Send at once, and notice when the peer is gone. What is accepted has a listener's settings."""
    connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPIDLE, _KEEP_IDLE)
    connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPINTVL, _KEEP_EVERY)
