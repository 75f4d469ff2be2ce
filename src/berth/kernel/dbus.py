"""One call after another over D-Bus: just enough of it to ask firewalld.

Source: the D-Bus Specification, "Message Protocol" and "Authentication Protocol".
"""

from __future__ import annotations

import os
import socket
import struct
from types import TracebackType
from typing import Self

_CALL, _RETURN, _ERROR = 1, 2, 3
_NO_AUTO_START = 2  # who is not there is not to be started by a question
_PATH, _INTERFACE, _MEMBER, _REPLY_SERIAL, _DESTINATION, _SIGNATURE = 1, 2, 3, 5, 6, 8
_DEFAULT = "unix:path=/run/dbus/system_bus_socket"


class Failed(Exception):
    """The other side refused a call; its words."""


class Bus:
    """A connection to the system bus ($DBUS_SYSTEM_BUS_ADDRESS). Raises `OSError` where there is none."""

    def __init__(self, patience: float) -> None:
        """`patience`: seconds to wait for each answer."""
        self._serial = 0
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self._socket.settimeout(patience)
        try:
            self._socket.connect(_path(os.environ.get("DBUS_SYSTEM_BUS_ADDRESS") or _DEFAULT))
            self._socket.sendall(b"\0AUTH EXTERNAL " + str(os.geteuid()).encode().hex().encode() + b"\r\n")
            if not self._line().startswith(b"OK "):
                raise ConnectionRefusedError("the bus does not take this user")
            self._socket.sendall(b"BEGIN\r\n")
            self.call("org.freedesktop.DBus", "/org/freedesktop/DBus", "org.freedesktop.DBus", "Hello")
        except BaseException:
            self._socket.close()
            raise

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._socket.close()

    def call(self, name: str, path: str, interface: str, member: str, *texts: str) -> Reader:
        """Call a method whose arguments are texts; its answer. Raises `Failed`, or `OSError` for none in time."""
        self._serial += 1
        fields = [(_PATH, "o", path), (_INTERFACE, "s", interface), (_MEMBER, "s", member), (_DESTINATION, "s", name)]
        self._socket.sendall(_message(self._serial, fields, texts))
        while True:
            kind, serial, body = self._receive()
            if serial == self._serial and kind in (_RETURN, _ERROR):
                break
        if kind == _ERROR:
            raise Failed(body.text() if body.left else "no reason given")
        return body

    def _line(self) -> bytes:
        line = b""
        while not line.endswith(b"\r\n"):
            line += self._exactly(1)
        return line

    def _exactly(self, count: int) -> bytes:
        data = b""
        while len(data) < count:
            if not (more := self._socket.recv(count - len(data))):
                raise ConnectionResetError("the bus hung up")
            data += more
        return data

    def _receive(self) -> tuple[int, int, Reader]:
        """The kind of the next message, the serial of what it answers, and its body."""
        head = self._exactly(12)
        order = "<" if head[:1] == b"l" else ">"
        (length,) = struct.unpack_from(f"{order}I", head, 4)
        fields = Reader(order, self._exactly(4))
        size = fields.number()
        data = self._exactly(size + -size % 8 + length)
        return head[1], _reply_serial(Reader(order, data[:size])), Reader(order, data[size + -size % 8 :])


class Reader:
    """Takes values out of a message, one after the other."""

    def __init__(self, order: str, data: bytes) -> None:
        self._order, self._data, self._at = order, data, 0

    @property
    def left(self) -> bool:
        """Whether anything is left."""
        return self._at < len(self._data)

    def align(self, size: int) -> None:
        """Go on where a value of that alignment begins."""
        self._at += -self._at % size

    def byte(self) -> int:
        """A byte."""
        self._at += 1
        return self._data[self._at - 1]

    def number(self) -> int:
        """A number of four bytes."""
        self.align(4)
        self._at += 4
        return int(struct.unpack_from(f"{self._order}I", self._data, self._at - 4)[0])

    def text(self) -> str:
        """A text, or the path of an object."""
        return self._chars(self.number())

    def signature(self) -> str:
        """A type."""
        return self._chars(self.byte())

    def _chars(self, count: int) -> str:
        self._at += count + 1
        return self._data[self._at - count - 1 : self._at - 1].decode()

    def texts(self) -> list[str]:
        """An array of texts (as)."""
        end = self._end(4)
        found = []
        while self._at < end:
            found.append(self.text())
        return found

    def tree(self) -> dict[str, dict[str, list[str]]]:
        """A dictionary of dictionaries of arrays of texts (a{sa{sas}})."""
        found: dict[str, dict[str, list[str]]] = {}
        end = self._end(8)
        while self._at < end:
            self.align(8)
            inner = found.setdefault(self.text(), {})
            inner_end = self._end(8)
            while self._at < inner_end:
                self.align(8)
                key = self.text()
                inner[key] = self.texts()
        return found

    def _end(self, alignment: int) -> int:
        size = self.number()
        self.align(alignment)
        return self._at + size


def _path(address: str) -> str:
    """Where an address of the bus's leads (only Unix sockets)."""
    for each in address.split(";"):
        kind, _, rest = each.partition(":")
        values = dict(pair.split("=", 1) for pair in rest.split(",") if "=" in pair)
        if kind == "unix" and "path" in values:
            return values["path"]
        if kind == "unix" and "abstract" in values:
            return "\0" + values["abstract"]
    raise FileNotFoundError(f"no Unix socket in the bus's address {address}")


def _text(value: str, before: int) -> bytes:
    """A text where `before` bytes come before it."""
    data = value.encode()
    return bytes(-before % 4) + struct.pack("=I", len(data)) + data + b"\0"


def _message(serial: int, fields: list[tuple[int, str, str]], texts: tuple[str, ...]) -> bytes:
    body = b""
    for text in texts:
        body += _text(text, len(body))
    head = b""
    for code, kind, value in fields:
        head += bytes(-len(head) % 8) + bytes([code, 1, ord(kind), 0])
        head += _text(value, len(head))
    if texts:
        signature = b"s" * len(texts)
        head += bytes(-len(head) % 8) + bytes([_SIGNATURE, 1, ord("g"), 0, len(signature)]) + signature + b"\0"
    order = ord("l" if struct.pack("=H", 1)[0] else "B")
    first = struct.pack("=BBBBIII", order, _CALL, _NO_AUTO_START, 1, len(body), serial, len(head))
    return first + head + bytes(-len(head) % 8) + body


def _reply_serial(fields: Reader) -> int:
    while fields.left:
        fields.align(8)
        code, kind = fields.byte(), fields.signature()
        if kind == "u":
            value = fields.number()
            if code == _REPLY_SERIAL:
                return value
        elif kind == "g":
            fields.signature()
        elif kind in "so":
            fields.text()
        else:
            break
    return 0
