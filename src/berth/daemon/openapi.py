"""The description of Berth's own API, for programs (OpenAPI 3.1)."""

from __future__ import annotations

from functools import cache
from typing import Any

import msgspec

from berth import __version__, rest

Json = dict[str, Any]
_ABOUT = (
    "Networks and endpoints of one host. Not in JSON, and so not below: GET /v1/events?since=TIME (server-sent "
    "events) and GET /metrics?endpoints=true (Prometheus)."
)
_TEXTS: Json = {"type": "array", "items": {"type": "string"}}
_SEVERAL = {"400": "bad input", "403": "not allowed", "404": "no such thing", "409": "taken, or none left"}
_ALWAYS = {"408": "the body did not come", "413": "too large", "500": "failed", "501": "not on this host"}


@cache
def document() -> Json:
    """The document."""
    _, schemas = msgspec.json.schema_components(
        [rest.NetworkCreate, rest.Attach, rest.Ports, rest.NodeChange, rest.Failure],
        ref_template="#/components/schemas/{name}",
    )
    return {
        "openapi": "3.1.0",
        "info": {"title": "Berth", "version": __version__, "description": _ABOUT},
        "paths": _paths(),
        "components": {"schemas": {**schemas, **_results()}},
    }


def _paths() -> Json:
    name = _parameter("name", "path", "A network's name or id.")
    dry_run = _parameter("dry_run", "query", "Only say what would be done.", {"type": "boolean", "default": False})
    network = _parameter("network", "query", "A network's name or id.")
    node = _parameter("name", "path", "A node's name, id, or address.")
    force = _parameter("force", "query", "Also one that seems alive.", {"type": "boolean", "default": False})
    sandbox = {**_parameter("sandbox", "query", "A namespace's name or path, pid:N, or an endpoint's name."),
               "required": True}  # fmt: skip
    return {
        "/openapi.json": {"get": _operation("This document.", {"type": "object"})},
        "/v1/version": {"get": _operation("Berth's version.", _object(version={"type": "string"}))},
        "/v1/networks": {
            "get": _operation("All networks.", _list("Network")),
            "post": _operation("Create a network.", _outcome(_ref("Network")), body="NetworkCreate"),
        },
        "/v1/networks/{name}": {
            "get": _operation("One network.", _ref("Network"), [name]),
            "delete": _operation("Remove a network without endpoints.", _outcome(_ref("Network")), [name, dry_run]),
        },
        "/v1/endpoints": {
            "get": _operation("All endpoints, or one network's.", _list("Endpoint"), [network]),
            "post": _operation("Plug a sandbox into a network.", _outcome(_ref("Endpoint")), body="Attach"),
            "delete": _operation(
                "Unplug a sandbox from a network.",
                _outcome(_list("Endpoint")),
                [{**network, "required": True}, sandbox, dry_run],
            ),
        },
        "/v1/nodes": {"get": _operation("The hosts that share the store.", _list("Node"))},
        "/v1/nodes/{name}": {
            "post": _operation("Let a node take no new endpoints, or again.", _ref("Node"), [node], body="NodeChange"),
            "delete": _operation("Forget a node, and free what it holds.", _TEXTS, [node, force]),
        },
        "/v1/key": {"post": _operation("Give this host another key for its encrypted ways.", _ref("Host"))},
        "/v1/ports": {
            "post": _operation("Publish and unpublish ports of an endpoint.", _outcome(_ref("Endpoint")), body="Ports")
        },
        "/v1/leases": {"get": _operation("All leases of the LAN's DHCP server.", _list("Lease"))},
        "/v1/reconcile": {"post": _operation("Put host and records in order.", _outcome(_TEXTS))},
    }


def _operation(summary: str, result: Json, parameters: list[Json] | None = None, body: str = "") -> Json:
    answers = {"200": _content("done", result)}
    answers |= {code: _content(why, _ref("Failure")) for code, why in (_SEVERAL | _ALWAYS).items()}
    operation: Json = {"summary": summary, "responses": answers}
    if parameters:
        operation["parameters"] = parameters
    if body:
        operation["requestBody"] = {"required": True, "content": {"application/json": {"schema": _ref(body)}}}
    return operation


def _results() -> Json:
    text, number, flag = {"type": "string"}, {"type": "integer"}, {"type": "boolean"}
    several: Json = {"type": "array"}
    return {
        "Network": _object(
            id=text, name=text, driver=text, bridge=text, pools=several, mtu=number, created=text, internal=flag,
            ipv6=flag, labels=several, options=several,
        ),
        "Endpoint": _object(
            id=text, network=text, name=text, sandbox={"type": "object"}, link=text, ifname=text, mac=text,
            addresses=_TEXTS, ports=several, aliases=_TEXTS,
        ),
        "Lease": _object(lease={"type": "object"}, endpoint=text, pool=text, keep=flag, trouble=text),
        "Node": _object(host={"type": "object"}, state=text, drained=flag, dead_since=text, endpoints=number),
        "Host": _object(id=text, name=text, underlay=_TEXTS, public_key=text, wireguard_port=number, since=text),
    }  # fmt: skip


def _outcome(value: Json) -> Json:
    return _object(value=value, plan={"type": "object"}, warnings=_TEXTS)


def _object(**properties: Json) -> Json:
    return {"type": "object", "properties": properties, "required": list(properties)}


def _list(of: str) -> Json:
    return {"type": "array", "items": _ref(of)}


def _ref(name: str) -> Json:
    return {"$ref": f"#/components/schemas/{name}"}


def _content(description: str, schema: Json) -> Json:
    return {"description": description, "content": {"application/json": {"schema": schema}}}


def _parameter(name: str, where: str, description: str, schema: Json | None = None) -> Json:
    return {
        "name": name,
        "in": where,
        "required": where == "path",
        "description": description,
        "schema": schema or {"type": "string", "minLength": 1},
    }
