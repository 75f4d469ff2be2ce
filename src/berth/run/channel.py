"""What a sandbox's init and its parent say to each other, over a socket pair.

parent                          init
                                Born(pid)
Adopted
                                Ready, once its namespaces are made
Look(hostname, files)
                                Dressed
Start                           (starts the command)
                                Ended(status)
Sweep                           (kills what is left in the sandbox)
                                Swept

Instead of any answer init may send `Trouble`. Either end sees the other's death as `EOFError`.
"""

from __future__ import annotations

import errno
import os
import socket
import struct
from typing import TypeAlias, TypeVar

import msgspec

from berth.errors import BerthError, Denied, Exhausted, Refused, Unsupported


class Born(msgspec.Struct, frozen=True, tag=True):
    """Init is there, under this process id."""

    pid: int


class Adopted(msgspec.Struct, frozen=True, tag=True):
    """Init is now a child of the parent, whose death it may follow."""


class Ready(msgspec.Struct, frozen=True, tag=True):
    """The namespaces are there: the network can be attached."""


class Look(msgspec.Struct, frozen=True, tag=True):
    """What the sandbox should look like from inside."""

    hostname: str | None  # None: as outside
    files: dict[str, str]  # the text to show at a path, such as /etc/resolv.conf


class Dressed(msgspec.Struct, frozen=True, tag=True):
    """The sandbox looks as it should, but for the warnings."""

    sysfs: bool  # whether the kernel lets /sys be mounted for its network namespace
    warnings: tuple[str, ...]


class Start(msgspec.Struct, frozen=True, tag=True):
    """Start the command."""


class Ended(msgspec.Struct, frozen=True, tag=True):
    """The command has ended, with a status as wait(2) gives it; what it left behind was killed."""

    status: int


class Sweep(msgspec.Struct, frozen=True, tag=True):
    """Kill all that runs in the sandbox, init aside."""


class Swept(msgspec.Struct, frozen=True, tag=True):
    """All that ran in the sandbox was killed."""


class Trouble(msgspec.Struct, frozen=True, tag=True):
    """Init failed at something."""

    doing: str
    errno: int

    def error(self) -> BerthError:
        """The error to raise for it in the parent."""
        message = f"cannot {self.doing}: {os.strerror(self.errno)}"
        match self.errno:
            case errno.EPERM | errno.EACCES:
                return Denied(f"{message}: run as root, or in a user namespace (`unshare -rnm berth run …`)")
            case errno.ENOSPC | errno.EUSERS:
                return Exhausted(f"{message}: raise the limits in /proc/sys/user/max_*_namespaces")
            case errno.EINVAL | errno.ENOSYS:
                return Unsupported(f"{message}: this kernel lacks a kind of namespace")
        return Refused(message)


Message: TypeAlias = Born | Adopted | Ready | Look | Dressed | Start | Ended | Sweep | Swept | Trouble
Expected = TypeVar("Expected", Born, Adopted, Ready, Look, Dressed, Start, Ended, Sweep, Swept)

_decoder = msgspec.json.Decoder(Message)
_LENGTH = struct.Struct("!I")


class Channel:
    """One end of the conversation."""

    def __init__(self, sock: socket.socket) -> None:
        self._socket = sock

    def fileno(self) -> int:
        """The descriptor that is readable when there is something to receive."""
        return self._socket.fileno()

    def send(self, message: Message) -> None:
        """Say something. Raises `EOFError` when nobody is there to hear it."""
        data = msgspec.json.encode(message)
        try:
            self._socket.sendall(_LENGTH.pack(len(data)) + data)
        except (BrokenPipeError, ConnectionResetError):
            raise EOFError from None

    def receive(self, kind: type[Expected]) -> Expected:
        """The next message. Raises `EOFError` when the other end is gone, and the error of a `Trouble`."""
        (length,) = _LENGTH.unpack(self._exactly(_LENGTH.size))
        message = _decoder.decode(self._exactly(length))
        if isinstance(message, Trouble):
            raise message.error()
        assert isinstance(message, kind), f"{message} in place of {kind.__name__}"
        return message

    def _exactly(self, count: int) -> bytes:
        data = bytearray()
        while len(data) < count:
            try:
                part = self._socket.recv(count - len(data))
            except ConnectionResetError:
                part = b""
            if not part:
                raise EOFError
            data += part
        return bytes(data)

    def close(self) -> None:
        """Hang up."""
        self._socket.close()
