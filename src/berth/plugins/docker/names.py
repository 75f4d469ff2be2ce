"""What Docker calls its networks and containers: it tells no driver, but anybody who asks.

Never asked from inside a call of Docker's, which would wait for the answer to that very call.
"""

from __future__ import annotations

import http.client
import os
import socket
from collections.abc import Mapping
from dataclasses import dataclass

import msgspec

_PATIENCE = 2  # seconds: while Docker starts, it takes requests but does not answer them


@dataclass(frozen=True, slots=True)
class Names:
    """The names of one network."""

    network: str
    endpoints: Mapping[str, str]  # by endpoint id


class _Container(msgspec.Struct, frozen=True):
    name: str = msgspec.field(name="Name")
    endpoint: str = msgspec.field(name="EndpointID")


class _Network(msgspec.Struct, frozen=True):
    name: str = msgspec.field(name="Name")
    containers: dict[str, _Container] | None = msgspec.field(name="Containers", default=None)


class _Docker(http.client.HTTPConnection):
    """HTTP over Docker's own socket."""

    def connect(self) -> None:
        """Connect to the socket in place of a host."""
        host = os.environ.get("DOCKER_HOST", "")
        self.sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.sock.settimeout(_PATIENCE)
        self.sock.connect(host.removeprefix("unix://") if host.startswith("unix://") else "/run/docker.sock")


def ask(network: str) -> Names | None:
    """The names of a network, by its id; None when Docker does not know it or does not answer."""
    connection = _Docker("docker")
    try:
        connection.request("GET", f"/networks/{network}")
        response = connection.getresponse()
        if response.status != 200:
            return None
        found = msgspec.json.decode(response.read(), type=_Network)
    except (OSError, http.client.HTTPException, msgspec.MsgspecError):
        return None
    finally:
        connection.close()
    return Names(found.name, {entry.endpoint: entry.name for entry in (found.containers or {}).values()})
