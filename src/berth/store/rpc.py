"""etcd's messages and methods, as far as Berth asks for them.

Sources: etcdserverpb/rpc.proto and mvccpb/kv.proto of etcd 3.4; later versions add fields.
"""

from __future__ import annotations

from typing import NamedTuple

from berth.store.protobuf import Many, Message


class Method(NamedTuple):
    """What can be asked, and what is answered."""

    path: str
    asks: Message
    answers: Message


CREATED, EQUAL = 1, 0  # of a comparison: what it is about, and how
DELETED = 1  # of an event

_HEADER = Message(revision=(3, int))
_PAIR = Message(key=(1, bytes), create_revision=(2, int), mod_revision=(3, int), value=(5, bytes), lease=(6, int))
_RANGE = Message(key=(1, bytes), range_end=(2, bytes), revision=(4, int))
_FOUND = Message(header=(1, _HEADER), kvs=(2, Many(_PAIR)))
_PUT = Message(key=(1, bytes), value=(2, bytes), lease=(3, int))
_DELETE = Message(key=(1, bytes), range_end=(2, bytes))
_DONE = Message(header=(1, _HEADER))
_COMPARE = Message(result=(1, int), target=(2, int), key=(3, bytes), create_revision=(5, int))
_ASKED = Many(Message(request_range=(1, _RANGE), request_put=(2, _PUT), request_delete_range=(3, _DELETE)))
_ANSWERED = Many(Message(response_range=(1, _FOUND), response_put=(2, _DONE), response_delete_range=(3, _DONE)))

RANGE = Method("/etcdserverpb.KV/Range", _RANGE, _FOUND)
TXN = Method(
    "/etcdserverpb.KV/Txn",
    Message(compare=(1, Many(_COMPARE)), success=(2, _ASKED), failure=(3, _ASKED)),
    Message(header=(1, _HEADER), succeeded=(2, int), responses=(3, _ANSWERED)),
)

_LEASE = Message(ID=(1, int))
_LASTS = Message(header=(1, _HEADER), ID=(2, int), TTL=(3, int))
GRANT = Method("/etcdserverpb.Lease/LeaseGrant", Message(TTL=(1, int)), _LASTS)
REVOKE = Method("/etcdserverpb.Lease/LeaseRevoke", _LEASE, _DONE)
KEEP_ALIVE = Method("/etcdserverpb.Lease/LeaseKeepAlive", _LEASE, _LASTS)

AUTHENTICATE = Method(
    "/etcdserverpb.Auth/Authenticate", Message(name=(1, str), password=(2, str)), Message(token=(2, str))
)

WATCH = Method(
    "/etcdserverpb.Watch/Watch",
    Message(create_request=(1, Message(key=(1, bytes), range_end=(2, bytes), start_revision=(3, int)))),
    Message(
        header=(1, _HEADER),
        canceled=(4, int),
        compact_revision=(5, int),
        cancel_reason=(6, str),
        events=(11, Many(Message(type=(1, int), kv=(2, _PAIR)))),
    ),
)
