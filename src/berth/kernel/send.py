"""Carrying out a plan: one netlink batch or one nftables transaction for each run of operations of one kind.

A plan comes ordered by rank, so an attach is: one batch in the host (the cable), the sandbox's settings, one
batch in the sandbox (up, addresses, routes), one nftables transaction.
"""

from __future__ import annotations

import errno
import os
from collections.abc import Iterator, Sequence
from itertools import groupby
from typing import assert_never

from berth.errors import BerthError, Denied, Exhausted, Invalid, NotFound, Refused, Taken, Unsupported
from berth.kernel import nft, rtnl, sysctl
from berth.kernel.netlink import ROUTE, Message, Netlink, Refusal
from berth.kernel.netns import inside, open_ns
from berth.plan import Add, Change, Del, Op, Plan
from berth.state import HOST, Addr, Bridge, LinkUp, NftElement, NftHook, NftTable, Noun, Route, Sysctl, Veth

_BRIDGE_PORTS = 1023  # BR_PORT_BITS is 10 in the kernel, and port 0 is not used


def send(plan: Plan) -> None:
    """Carry out a plan. Raises the first refusal as a `BerthError` that names the operation."""
    for (lane, ns), group in groupby(plan.ops, key=_lane):
        ops = list(group)
        match lane:
            case "sysctl":
                _send_sysctls(ns, ops)
            case "entries":
                _send_entries(ops)
            case "table":
                _send_table(ops)
            case _:
                _send_links(ns, ops)


def subject(op: Op) -> Noun:
    """The object an operation is about."""
    return op.old if isinstance(op, Del) else op.new


def _lane(op: Op) -> tuple[str, str]:
    match subject(op):
        case Bridge():
            return "bridges", HOST  # before the cables, which are plugged into a bridge by its number
        case Veth():
            return "cables", HOST
        case LinkUp(ns=ns) | Addr(ns=ns) | Route(ns=ns):
            return "inside", ns
        case Sysctl(ns=ns):
            return "sysctl", ns
        case NftElement() | NftHook():
            return "entries", HOST
        case _:
            return "table", HOST


# --- links, addresses, routes ---------------------------------------------------------------------------


def _send_links(ns: str, ops: Sequence[Op]) -> None:
    if ns == HOST:
        ops = [op for op in ops if not _rewire(op)]
    fds: list[int] = []
    try:
        with inside(ns), Netlink(ROUTE) as nl:
            requests = [(op, message) for op in ops for message in _encode(op, fds)]
            if requests:
                _batch(nl, requests)
    except NotFound:
        if not all(isinstance(op, Del) for op in ops):
            raise  # a sandbox that is gone took along what was to be deleted
    finally:
        for fd in fds:
            os.close(fd)
    for op in ops:
        _inner(op)


_GONE = (errno.ENODEV, errno.ESRCH, errno.EADDRNOTAVAIL)  # already gone is as good as deleted


def _batch(nl: Netlink, requests: Sequence[tuple[Op, Message]]) -> None:
    for refusal in nl.batch([message for _, message in requests]):
        op = requests[refusal.index][0]
        if not (isinstance(op, Del) and refusal.errno in _GONE):
            raise explain(refusal, op)


def _encode(op: Op, fds: list[int]) -> Iterator[Message]:
    if isinstance(subject(op), Bridge | Veth):
        if isinstance(op, Add):
            _refuse_taken(op)
        yield from _encode_link(op, fds)
        return
    try:
        yield _encode_ip(op)
    except NotFound:
        if not isinstance(op, Del):
            raise  # a link that is gone took along what was to be deleted


def _refuse_taken(op: Add) -> None:
    """Refuse a link's name that is taken before anything is sent.

    The kernel would refuse to make the link as well, but would go on in the batch and give Berth's mark to the link
    that has the name.
    """
    if rtnl.exists(op.new.key[2]):
        raise explain(OSError(errno.EEXIST, os.strerror(errno.EEXIST)), op)


def _encode_link(op: Op, fds: list[int]) -> Iterator[Message]:
    match op:
        case Add(new=Bridge() as bridge):
            yield from rtnl.add_bridge(bridge)
        case Change(new=Bridge() as bridge):
            yield from rtnl.change_bridge(bridge)
        case Add(new=Veth() as veth):
            if veth.ns:
                fds.append(open_ns(veth.ns))
            yield from rtnl.add_veth(veth, fds[-1] if veth.ns else None)
        case Change(new=Veth() as veth):
            yield from rtnl.change_veth_outer(veth)
        case Del(old=Veth() as veth):
            yield rtnl.retire_outer(veth.name)
        case Del(old=Bridge() as bridge):
            yield rtnl.delete_link(bridge.name)


def _encode_ip(op: Op) -> Message:
    match op:
        case Add(new=LinkUp() as link) | Change(new=LinkUp() as link):
            return rtnl.set_link(link.dev, up=link.up)
        case Add(new=Addr() as addr):
            return rtnl.add_addr(addr)
        case Del(old=Addr() as addr):
            return rtnl.del_addr(addr)
        case Add(new=Route() as route):
            return rtnl.add_route(route)
        case Change(new=Route() as route):
            return rtnl.add_route(route, replace=True)
        case Del(old=Route() as route):
            return rtnl.del_route(route)
    raise Refused(f"Berth cannot do this: {op}")


def _rewire(op: Op) -> bool:
    """Replace a cable whose inner end is in the wrong place; a link cannot be given another peer."""
    match op:
        case Change(old=Veth() as old, new=Veth() as new) if (old.ns, old.inner) != (new.ns, new.inner):
            with Netlink(ROUTE) as nl:
                _batch(nl, [(Del(old), rtnl.delete_link(old.name))])
            _send_links(HOST, [Add(new)])
            return True
    return False


def _inner(op: Op) -> None:
    """What an operation on a cable means for its inner end."""
    match op:
        case Change(new=Veth() as veth):
            with inside(veth.ns), Netlink(ROUTE) as nl:
                _batch(nl, [(op, message) for message in rtnl.change_veth_inner(veth)])
        case Del(old=Veth() as veth):
            _retire_inner(op, veth)


def _retire_inner(op: Op, veth: Veth) -> None:
    """Free the inner end's name, so that the sandbox can be attached again before the sweep."""
    try:
        with inside(veth.ns), Netlink(ROUTE) as nl:
            link = rtnl.link(nl, veth.inner)
            if link is not None and link.kind == "veth" and link.mac == veth.mac:
                spare = veth.name if veth.ns else f"{veth.name}r"
                _batch(nl, [(op, message) for message in rtnl.retire_inner(veth.inner, spare)])
    except (NotFound, Invalid):
        pass  # the sandbox is gone, and its end of the cable with it


# --- settings and firewall ------------------------------------------------------------------------------


def _send_sysctls(ns: str, ops: Sequence[Op]) -> None:
    with inside(ns):
        for op in ops:
            match op:
                case Add(new=Sysctl() as setting) | Change(new=Sysctl() as setting):
                    try:
                        sysctl.write(setting.name, setting.value)
                    except FileNotFoundError:
                        raise Unsupported(
                            f"this kernel has no setting {setting.name}: cannot run `{setting.describe()}`"
                        ) from None
                    except OSError as error:
                        raise explain(error, op) from None


def _send_entries(ops: Sequence[Op]) -> None:
    """One transaction; what was to be deleted and is gone already is left out of it."""
    requests = [*_encode_entries(ops, delete=True), *_encode_entries(ops, delete=False)]
    while refused := nft.transaction([message for _, message in requests]):
        for refusal in refused:
            op = requests[refusal.index][0]
            if not (isinstance(op, Del) and refusal.errno == errno.ENOENT):
                raise explain(refusal, op)
        gone = {id(requests[refusal.index][0]) for refusal in refused}
        requests = [request for request in requests if id(request[0]) not in gone]


def _encode_entries(ops: Sequence[Op], *, delete: bool) -> Iterator[tuple[Op, Message]]:
    for op in ops:
        match op:
            case Del(old=entry) | Change(old=entry) if delete and isinstance(entry, NftElement | NftHook):
                yield from ((op, message) for message in nft.delete_entry(entry))
            case Add(new=entry) | Change(new=entry) if not delete and isinstance(entry, NftElement | NftHook):
                yield from ((op, message) for message in nft.add_entry(entry))


def _send_table(ops: Sequence[Op]) -> None:
    for op in ops:
        match op:
            case Add(new=NftTable() as table):
                nft.write_table(table, replace=False)
            case Change(new=NftTable() as table):
                nft.write_table(table, replace=True)
            case Del(old=NftTable() as table):
                try:
                    nft.delete_table(table.family, table.name)
                except Refusal as refusal:
                    raise explain(refusal, op) from None
            case Add() | Change() | Del():
                raise Refused(f"Berth cannot do this: {op}")
            case _:
                assert_never(op)


# --- errors ---------------------------------------------------------------------------------------------


def explain(error: OSError, op: Op) -> BerthError:
    """Say in one line what was refused and what to do."""
    what = str(op)[2:].split("\n", 1)[0]
    obj = subject(op)
    code = error.errno
    if code in (errno.EPERM, errno.EACCES) and not getattr(error, "reason", ""):  # it has words for other causes
        return Denied(f"not allowed: `{what}`: run as root (CAP_NET_ADMIN)")
    if code == errno.EXFULL and isinstance(obj, Veth):
        return Exhausted(
            f"bridge {obj.master} has all {_BRIDGE_PORTS:,} ports that a Linux bridge can take:"
            " detach an endpoint, or create a second network"
        )
    if code == errno.EEXIST:
        return Taken(f"already there: `{what}`: remove it or choose another")
    if code == errno.ENODEV:
        return NotFound(f"no such link for `{what}`: see `ip link`")
    if code == errno.EOPNOTSUPP:
        return Unsupported(f"this kernel cannot do `{what}` ({error.strerror})")
    return Refused(f"the kernel refused `{what}`: {error.strerror}")
