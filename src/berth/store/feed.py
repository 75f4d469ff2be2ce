"""etcd's watch: what becomes of keys, told in order and without a gap."""

from __future__ import annotations

import contextlib
import socket
from collections.abc import Iterator
from typing import NamedTuple

from berth.store.gateway import Away, Compacted, Gateway, after
from berth.store.protobuf import Said
from berth.store.rpc import DELETED, WATCH


class Change(NamedTuple):
    """What became of a key."""

    key: bytes
    value: bytes
    revision: int  # of the change
    gone: bool


class News(NamedTuple):
    """One message of a watch."""

    revision: int  # of etcd, when it said so
    changes: tuple[Change, ...]


def watch(gateway: Gateway, prefix: bytes, revision: int, opened: list[socket.socket]) -> Iterator[News]:
    """What happens below a prefix from a revision on, without end.

    `opened` gets the socket, so that another thread can end the waiting by shutting it down.
    Raises `Compacted`, and `Away` when the member goes or does not want to.
    """
    with contextlib.closing(gateway.listen(WATCH, asked(prefix, revision), opened)) as answers:
        for said in answers:
            if said["canceled"]:
                raise _ended(gateway, said)
            yield News(said["header"]["revision"], tuple(map(_change, said["events"])))


def asked(prefix: bytes, revision: int) -> Said:
    """The message that asks for it; a revision of 0 is from now on."""
    return {"create_request": {"key": prefix, "range_end": after(prefix), "start_revision": revision}}


def _ended(gateway: Gateway, said: Said) -> Exception:
    url = gateway.where.url
    if compacted := said["compact_revision"]:
        return Compacted(f"etcd at {url} no longer keeps what came before revision {compacted}")
    gateway.next()
    return Away(f"etcd at {url} does not answer ({said['cancel_reason'] or 'the watch was cancelled'})")


def _change(event: Said) -> Change:
    pair = event["kv"]
    return Change(pair["key"], pair["value"], pair["mod_revision"], gone=event["type"] == DELETED)
