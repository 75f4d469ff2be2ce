"""The hosts that share a store, as an operator handles them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from berth.engine.parts import Parts
from berth.errors import NotFound, Refused, Taken
from berth.model import Node
from berth.seams import Tx


def every(parts: Parts) -> Sequence[Node]:
    """All of them by name; none where the store is this host's alone."""
    with parts.store.read() as tx:
        return tx.nodes()


def drain(parts: Parts, name: str, *, on: bool) -> Node:
    """Let a node take no new endpoints of networks over several hosts, or again; those it has stay.

    A host's own networks are not the others' business and go on. Raises `NotFound`, and `Taken` for a name of several.
    """
    with parts.changing(), parts.store.write() as tx:
        node = _find(tx, name)
        tx.drain(node.host.id, on=on)
    state = node.state if node.state == "dead" else "drained" if on else "up"
    return replace(node, drained=on, state=state)


def remove(parts: Parts, name: str, *, force: bool) -> tuple[str, ...]:
    """Forget a node, and free its endpoints' addresses at once; gives the ids of the endpoints.

    Raises `NotFound`, and without `force` `Refused` for one that lives, but for a drained one without endpoints:
    others would be given addresses that are in use.
    """
    with parts.changing():
        with parts.store.read() as tx:
            node = _find(tx, name)
        if not force and node.state == "up":
            raise Refused(
                f"node {name} is alive: `berth node drain {name}` and detach its {node.endpoints} endpoints first,"
                " or give -f if it is known to be dead"
            )
        if not force and node.state == "drained" and node.endpoints:
            raise Refused(
                f"node {name} is drained, and {node.endpoints} endpoints there still use their addresses: detach them"
                " first, or give -f if it is known to be dead"
            )
        assert parts.shared is not None  # where there are nodes
        return parts.shared.remove(node.host.id)


def _find(tx: Tx, name: str) -> Node:
    """The node of that name, id, beginning of an id, or address. Raises `NotFound`, `Taken`."""
    nodes = tx.nodes()
    found = [node for node in nodes if name in (node.host.name, node.host.id, *map(str, node.host.underlay))]
    found = found or [node for node in nodes if node.host.id.startswith(name)]
    if not found:
        raise NotFound(f"no node {name}: see `berth node ls`")
    if len(found) > 1:
        ids = ", ".join(node.host.id[:12] for node in found)
        raise Taken(f"{len(found)} nodes are called {name}: give one of their ids ({ids})")
    return found[0]
