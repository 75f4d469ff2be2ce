"""The verbs, carried out by the daemon."""

from __future__ import annotations

import http.client
import json
import os
import socket
import struct
from collections.abc import Iterator, Sequence
from contextlib import suppress
from glob import glob
from pathlib import Path
from typing import Any
from urllib.parse import quote, urlencode

import msgspec

from berth import rest, schema
from berth.errors import Denied, Refused
from berth.events import Event
from berth.model import AttachRequest, Endpoint, HostRecord, LeaseRecord, Network, NetworkSpec, Node, PortChange
from berth.seams import Outcome

_PATIENCE = 60  # seconds; the daemon gives up sooner by itself


def reachable(path: Path) -> Client | None:
    """A client, if a daemon that manages this process's network namespace listens there. Raises `Denied`."""
    connection = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    connection.settimeout(_PATIENCE)
    try:
        connection.connect(str(path))
    except PermissionError:
        raise Denied(f"may not speak to the daemon at {path}: run as root") from None
    except OSError:
        connection.close()
        return None
    if _same_namespace(connection):
        return Client(connection)
    connection.close()
    return None


def _same_namespace(connection: socket.socket) -> bool:
    """Whether who listens is in this network namespace; systemd, where it holds the socket, is in the host's.

    One of its threads is enough: any may be in a sandbox for a moment, the main one too.
    """
    pid, _, _ = struct.unpack("3i", connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, 12))
    own = os.stat("/proc/thread-self/ns/net").st_ino
    for thread in glob(f"/proc/{pid}/task/*/ns/net"):
        with suppress(OSError):
            if os.stat(thread).st_ino == own:
                return True
    return False


class Client:
    """The verbs over the daemon's socket; see `Api`."""

    def __init__(self, connection: socket.socket) -> None:
        self._http = http.client.HTTPConnection("berth")
        self._http.sock = connection

    def explored(self, spec: NetworkSpec) -> NetworkSpec:
        """The same: the daemon looks at the LAN itself."""
        return spec

    def create_network(self, spec: NetworkSpec, *, dry_run: bool = False) -> Outcome[Network]:
        """Make a network."""
        said = self._change("POST", "/v1/networks", rest.network_create(spec, dry_run=dry_run))
        return Outcome(schema.load_network(bytes(said.value)), said.plan, said.warnings)

    def remove_network(self, name: str, *, dry_run: bool = False) -> Outcome[Network]:
        """Remove a network without endpoints."""
        said = self._change("DELETE", f"/v1/networks/{quote(name, safe='')}?dry_run={json.dumps(dry_run)}")
        return Outcome(schema.load_network(bytes(said.value)), said.plan, said.warnings)

    def network(self, name: str) -> Network:
        """The network of that name or id."""
        return schema.load_network(self._ask("GET", f"/v1/networks/{quote(name, safe='')}"))

    def networks(self) -> Sequence[Network]:
        """All networks, by name."""
        return [schema.load_network(bytes(raw)) for raw in _list(self._ask("GET", "/v1/networks"))]

    def attach(self, request: AttachRequest, *, dry_run: bool = False) -> Outcome[Endpoint]:
        """Plug a sandbox into a network."""
        said = self._change("POST", "/v1/endpoints", rest.attach(request, dry_run=dry_run))
        return Outcome(schema.load_endpoint(bytes(said.value)), said.plan, said.warnings)

    def detach(self, network: str, sandbox: str, *, dry_run: bool = False) -> Outcome[tuple[Endpoint, ...]]:
        """Unplug a sandbox from a network."""
        query = urlencode({"network": network, "sandbox": sandbox, "dry_run": json.dumps(dry_run)})
        said = self._change("DELETE", f"/v1/endpoints?{query}")
        gone = tuple(schema.load_endpoint(bytes(raw)) for raw in _list(bytes(said.value)))
        return Outcome(gone, said.plan, said.warnings)

    def endpoints(self, network: str | None = None) -> Sequence[Endpoint]:
        """All endpoints, or those of one network."""
        query = "" if network is None else "?" + urlencode({"network": network})
        return [schema.load_endpoint(bytes(raw)) for raw in _list(self._ask("GET", f"/v1/endpoints{query}"))]

    def change_ports(self, asked: PortChange, *, dry_run: bool = False) -> Outcome[Endpoint]:
        """Publish and unpublish ports of an endpoint."""
        said = self._change("POST", "/v1/ports", rest.ports(asked, dry_run=dry_run))
        return Outcome(schema.load_endpoint(bytes(said.value)), said.plan, said.warnings)

    def leases(self) -> Sequence[LeaseRecord]:
        """All leases."""
        return [schema.load_lease(bytes(raw)) for raw in _list(self._ask("GET", "/v1/leases"))]

    def nodes(self) -> Sequence[Node]:
        """The hosts that share the store."""
        return [schema.load_node(bytes(raw)) for raw in _list(self._ask("GET", "/v1/nodes"))]

    def drain(self, name: str, *, on: bool = True) -> Node:
        """Let a node take no new endpoints, or again."""
        return schema.load_node(self._ask("POST", f"/v1/nodes/{quote(name, safe='')}", rest.NodeChange(drained=on)))

    def remove_node(self, name: str, *, force: bool = False) -> tuple[str, ...]:
        """Forget a node and free what it holds."""
        said = self._ask("DELETE", f"/v1/nodes/{quote(name, safe='')}?force={json.dumps(force)}")
        return msgspec.json.decode(said, type=tuple[str, ...])

    def renew_key(self) -> HostRecord:
        """Give the host another key for its encrypted ways."""
        return schema.load_host(self._ask("POST", "/v1/key"))

    def reconcile(self) -> Outcome[tuple[str, ...]]:
        """Put host and store in order."""
        said = self._change("POST", "/v1/reconcile")
        return Outcome(msgspec.json.decode(bytes(said.value), type=tuple[str, ...]), said.plan, said.warnings)

    def answers_names(self) -> bool:
        """Whether sandboxes have a resolver: the daemon is there."""
        return True

    def web(self, asked: rest.Web) -> str:
        """Open the page; a link to it."""
        return msgspec.json.decode(self._ask("POST", "/v1/web", asked), type=dict[str, str])["link"]

    def events(self, since: str = "") -> Iterator[Event]:
        """What the daemon does, as it does it; with `since` (RFC 3339, UTC), what it remembers of before, too."""
        self._http.request("GET", "/v1/events?" + urlencode({"since": since}))
        if self._http.sock is not None:
            self._http.sock.settimeout(None)
        response = self._http.getresponse()
        while line := response.readline():
            if line.startswith(b"data: "):
                yield msgspec.json.decode(line[6:], type=Event)

    def sweep(self) -> None:
        """Nothing: the daemon sweeps behind itself."""

    def close(self) -> None:
        """Hang up."""
        self._http.close()

    def _change(self, method: str, path: str, body: msgspec.Struct | None = None) -> rest.Reply:
        return msgspec.json.decode(self._ask(method, path, body), type=rest.Reply)

    def _ask(self, method: str, path: str, body: msgspec.Struct | None = None) -> bytes:
        try:
            content = None if body is None else msgspec.json.encode(body)
            self._http.request(method, path, content, {"Content-Type": "application/json"})
            response = self._http.getresponse()
            said = response.read()
        except (OSError, http.client.HTTPException) as error:
            raise Refused(f"the daemon broke off ({error}): see its log, and `berth reconcile`") from None
        if response.status == 200:
            return said
        try:
            raise rest.error(msgspec.json.decode(said, type=rest.Failure))
        except (msgspec.DecodeError, msgspec.ValidationError):
            raise Refused(f"the daemon answered {response.status}, not as Berth's does: is it another?") from None


def _list(data: bytes) -> list[Any]:
    return msgspec.json.decode(data, type=list[msgspec.Raw])
