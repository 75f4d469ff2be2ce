"""A client of Open vSwitch's database: JSON-RPC over its Unix socket (RFC 7047).

with Database.connect() as db:
    (found,) = db.transact([{"op": "select", "table": "Bridge", "where": [], "columns": ["name"]}])
"""

from __future__ import annotations

import codecs
import json
import os
import socket
import struct
import time
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Self, TypeAlias

import msgspec

from berth.errors import Denied, Refused, Unsupported

Json: TypeAlias = dict[str, Any]

_DATABASE = "Open_vSwitch"
_PEER = struct.Struct("3i")  # struct ucred
_PATIENCE = 20.0  # seconds for an answer; a transaction that waits sets a shorter limit of its own
_STARTING = 1.0  # seconds from the start of ovs-vswitchd until it takes its lock, and more
_START = "start it (`systemctl start openvswitch-switch`)"


def path() -> Path:
    """The database's socket, where ovs-vsctl looks for it too."""
    return Path(os.environ.get("OVS_RUNDIR") or "/run/openvswitch", "db.sock")


class Database:
    """A conversation with ovsdb-server."""

    def __init__(self, connected: socket.socket) -> None:
        self._socket = connected
        self._next = 0
        self._text = ""
        self._decoder = codecs.getincrementaldecoder("utf-8")()

    @classmethod
    def find(cls) -> Database | None:
        """A conversation, or None where no Open vSwitch runs for this network namespace. Raises `Denied`."""
        if not os.path.exists(path()):
            return None
        connecting = socket.socket(socket.AF_UNIX)
        connecting.settimeout(_PATIENCE)
        try:
            connecting.connect(str(path()))
            if _is_here(connecting):
                return cls(connecting)
        except (FileNotFoundError, ConnectionRefusedError):
            pass
        except OSError as error:
            connecting.close()
            raise Denied(f"cannot ask Open vSwitch at {path()} ({error.strerror}): run as root") from None
        connecting.close()
        return None

    @classmethod
    def connect(cls) -> Database:
        """A conversation. Raises `Unsupported` where no Open vSwitch runs."""
        found = cls.find()
        if found is None:
            raise Unsupported(f"no Open vSwitch runs in this network namespace (asked at {path()}): {_START}")
        return found

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._socket.close()

    def transact(self, operations: Sequence[Json]) -> list[Any]:
        """Carry out operations as one: the result of each, the first that failed as an object with `error`."""
        return list(self._call("transact", _DATABASE, *operations))

    def require_switch(self) -> None:
        """Raise `Unsupported` unless ovs-vswitchd, which carries out what the database says, is at work."""
        give_up = time.monotonic() + _STARTING
        while not self.switch_runs():
            if time.monotonic() > give_up:
                raise Unsupported(f"ovs-vswitchd is not running, only Open vSwitch's database is: {_START}")
            time.sleep(0.02)

    def switch_runs(self) -> bool:
        """Whether ovs-vswitchd is at work: it holds a lock, which nobody else would be refused."""
        free = bool(self._call("lock", "ovs_vswitchd")["locked"])
        self._call("unlock", "ovs_vswitchd")
        return not free

    def _call(self, method: str, *params: Any) -> Any:
        self._next += 1
        try:
            self._socket.sendall(msgspec.json.encode({"method": method, "params": params, "id": self._next}))
            while (answer := self._message()).get("id") != self._next or "method" in answer:
                continue  # a notice about the lock
        except OSError as error:
            raise Refused(f"Open vSwitch's database did not answer `{method}`: {error.strerror or error}") from None
        if answer.get("error") is not None:
            raise Refused(f"Open vSwitch's database refused `{method}`: {answer['error']}")
        return answer["result"]

    def _message(self) -> Json:
        """The next message. Nothing but its own syntax says where one ends."""
        while True:
            try:
                self._text = self._text.lstrip()
                message, end = json.JSONDecoder().raw_decode(self._text)
            except json.JSONDecodeError:
                chunk = self._socket.recv(1 << 20)
                if not chunk:
                    raise OSError("it hung up") from None
                self._text += self._decoder.decode(chunk)
            else:
                self._text = self._text[end:]
                return dict(message)


def _is_here(connected: socket.socket) -> bool:
    """Whether ovsdb-server is in the thread's network namespace, as its switch's links are.

    Its socket can be seen from other ones: what is Berth's in there is not for a Berth in here to sweep away.
    """
    pid, _, _ = _PEER.unpack(connected.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _PEER.size))
    return os.path.samestat(os.stat(f"/proc/{pid}/ns/net"), os.stat("/proc/thread-self/ns/net"))
