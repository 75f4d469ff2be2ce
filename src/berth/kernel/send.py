"""Carrying out a plan: one netlink batch or one nftables transaction for each run of operations of one kind.

A plan comes ordered by rank, so an attach is: one batch in the host (the cable), one nftables transaction, the
sandbox's settings, one batch in the sandbox (up, addresses, routes).
"""

from __future__ import annotations

import errno
import os
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from itertools import groupby

from msgspec.structs import replace

from berth import durable
from berth.errors import BerthError, Denied, Exhausted, Invalid, NotFound, Refused, Taken, Unsupported
from berth.flows import NftFlows
from berth.kernel import firewalld, flows, guards, nft, offload, passes, rtnl, sysctl, xtables
from berth.kernel.netlink import ROUTE, Message, Netlink, Refusal
from berth.kernel.netns import inside, open_ns
from berth.moved import KERNEL, MovedAddr, MovedNeigh, MovedRoute, MovedRule, Port, TextFile
from berth.overlaid import Fdb, Neigh, Vxlan
from berth.ovs import OvsBridge, OvsPort, TxChecksums
from berth.plan import Add, Change, Del, Op, Plan, subject
from berth.rates import NftRate, Shaped
from berth.sealed import WireGuard, WireGuardPeer
from berth.state import (
    HOST,
    Addr,
    Bridge,
    LinkUp,
    NftElement,
    NftGuard,
    NftHook,
    NftPass,
    NftTable,
    Obj,
    Route,
    Sysctl,
    Veth,
    Zoned,
)

_BRIDGE_PORTS = 1023  # BR_PORT_BITS is 10 in the kernel, and port 0 is not used


def send(plan: Plan) -> None:
    """Carry out a plan. Raises the first refusal as a `BerthError` that names the operation."""
    rest = plan.ops
    if _fills_tables(rest):
        nft.write_together([op for op in rest if not isinstance(op, Del) and not _told(op.new)])
        rest = tuple(op for op in rest if _told(subject(op)))
    for ns, group in groupby(rest, key=_where):
        ops = list(group)
        try:
            with inside(ns):
                for send_run, run in groupby(ops, key=_lane):
                    send_run(list(run))
        except NotFound:
            if not all(isinstance(op, Del) for op in ops):
                raise  # a sandbox that is gone took along what was to be deleted


def _fills_tables(ops: Sequence[Op]) -> bool:
    """Whether a plan makes tables anew together with what is in them, and nothing else: a firewall is repaired."""
    kept = (NftTable, NftHook, NftGuard, NftFlows)  # what may be there already
    made = [op.new for op in ops if isinstance(op, Add) or (isinstance(op, Change) and isinstance(op.new, kept))]
    firewall = all(isinstance(new, (*kept, NftElement, NftPass, NftRate, Zoned)) for new in made)
    return firewall and len(made) == len(ops) > 1 and any(isinstance(new, NftTable) for new in made)


def _told(obj: Obj) -> bool:
    """Whether it is another program that is told, and not nftables."""
    return isinstance(obj, Zoned) or (isinstance(obj, NftPass) and obj.legacy)


def _where(op: Op) -> str:
    """The namespace an operation is sent in."""
    match subject(op):
        case LinkUp(ns=ns) | Addr(ns=ns) | Route(ns=ns) | Sysctl(ns=ns) | TxChecksums(ns=ns):
            return ns
        case _:
            return HOST


def _lane(op: Op) -> Callable[[Sequence[Op]], None]:
    """What sends an operation, and all of its kind that follow it."""
    return _LANES.get(type(subject(op)), _refuse)


# --- links, addresses, routes ---------------------------------------------------------------------------


def _send_bridges(ops: Sequence[Op]) -> None:
    nl = Netlink.kept(ROUTE)
    _batch(nl, [(op, message) for op in ops for message in _encode_bridge(nl, op)])


def _send_cables(ops: Sequence[Op]) -> None:
    ops = [op for op in ops if not _rewire(op)]
    nl, fds = Netlink.kept(ROUTE), list[int]()
    try:
        _batch(nl, [(op, message) for op in ops for message in _encode_cable(nl, op, fds)])
    finally:
        for fd in fds:
            os.close(fd)
    for op in ops:
        _inner(op)


def _send_links(ops: Sequence[Op]) -> None:
    with Netlink(ROUTE) as nl:
        _batch(nl, [(op, message) for op in ops for message in _encode(_ip_messages, nl, op)])


def _send_shapes(ops: Sequence[Op]) -> None:
    nl = Netlink.kept(ROUTE)
    _batch(nl, [(op, message) for op in ops for message in _encode(_shape_messages, nl, op)])


def _shape_messages(nl: Netlink, op: Op) -> Iterator[Message]:
    from berth.kernel import rates  # not loaded where nobody is limited

    match op:
        case Add(new=Shaped() as shaped) | Change(new=Shaped() as shaped):
            yield rates.add_shape(nl, shaped)
        case Del(old=Shaped() as shaped):
            yield rates.delete_shape(nl, shaped)


def _send_load(ops: Sequence[Op]) -> None:
    """A NIC into its bridge or out of it, and what either carries. Only an uplink has that: no other command loads it.

    IPv6 addresses that only change their link are usable at once: they were found unique before. The flag that says
    so of a single address (nodad) would stay on it.
    """
    from berth.kernel import moved

    added = [op.new for op in ops if not isinstance(op, Del)]
    devs = {new.dev for new in added if isinstance(new, MovedAddr) and ":" in new.ip}
    names = [f"net.ipv6.conf.{dev.replace('.', '/')}.accept_dad" for dev in sorted(devs)]
    before = [Sysctl(HOST, name, value) for name in names if (value := sysctl.read(name)) is not None]
    _set([replace(setting, value="0") for setting in before])
    try:
        with Netlink(ROUTE) as nl:
            for port, run in groupby(ops, key=_plugged_in):
                _batch(nl, [(op, message) for op in run for message in _encode(moved.encode, nl, op)])
                if port is not None:
                    moved.await_bridge(nl, port)
            moved.await_addresses(nl, devs)
    finally:
        _set(before)


def _plugged_in(op: Op) -> Port | None:
    """The port that an operation puts into a bridge; None of any other operation."""
    return port if isinstance(port := subject(op), Port) and port.master else None


def _send_tunnels(ops: Sequence[Op]) -> None:
    from berth.kernel import overlaid  # not loaded where there is no overlay

    nl = Netlink.kept(ROUTE)
    for op in ops:
        if isinstance(op, Add):
            _refuse_taken(nl, op)
        _batch(nl, [(op, message) for message in _encode(overlaid.encode_vxlan, nl, op)])


def _send_whereabouts(ops: Sequence[Op]) -> None:
    from berth.kernel import overlaid

    nl = Netlink.kept(ROUTE)
    _batch(nl, [(op, message) for op in ops for message in _encode(overlaid.encode_entry, nl, op)])


def _send_seals(ops: Sequence[Op]) -> None:
    from berth.kernel import wireguard  # not loaded where nothing is encrypted

    nl = Netlink.kept(ROUTE)
    for op in ops:
        if isinstance(op, Add):
            _refuse_taken(nl, op)
        try:
            wireguard.send_device(nl, op)
        except OSError as error:
            raise explain(error, op) from None


def _send_seal_peers(ops: Sequence[Op]) -> None:
    from berth.kernel import wireguard

    for op in ops:
        try:
            wireguard.send_peer(Netlink.kept(ROUTE), op)
        except OSError as error:
            raise explain(error, op) from None


def _send_switches(ops: Sequence[Op]) -> None:
    from berth.kernel import ovs  # not loaded where there is no Open vSwitch

    ovs.send(ops)


_GONE = (errno.ENODEV, errno.ESRCH, errno.EADDRNOTAVAIL, errno.ENOENT)  # already gone is as good as deleted


def _batch(nl: Netlink, requests: Sequence[tuple[Op, Message]]) -> None:
    for refusal in nl.batch([message for _, message in requests]):
        op = requests[refusal.index][0]
        if not (_gone(op, refusal) or _made(op, refusal)):
            raise explain(refusal, op)


def _gone(op: Op, refusal: Refusal) -> bool:
    # A cable may have gone with its sandbox before its ports are unpublished.
    unpublished = isinstance(op, Change) and isinstance(op.new, Veth) and not op.new.hairpin
    return (isinstance(op, Del) or unpublished) and refusal.errno in _GONE


def _made(op: Op, refusal: Refusal) -> bool:
    """Whether the kernel has made by itself what was asked for."""
    made = subject(op)
    return refusal.errno == errno.EEXIST and isinstance(made, MovedRoute) and made.protocol == KERNEL


def _refuse_taken(nl: Netlink, op: Add) -> None:
    """Refuse a link's name that is taken before anything is sent.

    The kernel would refuse to make the link as well, but would go on in the batch and give Berth's mark to the link
    that has the name.
    """
    if nl.index(op.new.key[2]) is not None:
        raise explain(OSError(errno.EEXIST, os.strerror(errno.EEXIST)), op)


def _encode_bridge(nl: Netlink, op: Op) -> Iterator[Message]:
    match op:
        case Add(new=Bridge() as bridge):
            _refuse_taken(nl, op)
            yield from rtnl.add_bridge(bridge)
        case Change(new=Bridge() as bridge):
            yield from rtnl.change_bridge(bridge)
        case Del(old=Bridge() as bridge):
            yield rtnl.delete_link(bridge.name)


def _encode_cable(nl: Netlink, op: Op, fds: list[int]) -> Iterator[Message]:
    match op:
        case Add(new=Veth() as veth):
            _refuse_taken(nl, op)
            if veth.ns:
                fds.append(open_ns(veth.ns))
            yield from rtnl.add_veth(nl, veth, fds[-1] if veth.ns else None)
        case Change(old=Veth() as old, new=Veth() as veth):
            if _only_as_port(old, veth):
                yield rtnl.set_port(veth)
            else:
                yield from rtnl.change_veth_outer(nl, veth, plug=old.master != veth.master)
        case Del(old=Veth() as veth):
            yield rtnl.retire_outer(veth.name)


def _only_as_port(old: Veth, new: Veth) -> bool:
    """Whether nothing of a cable changes but how its bridge treats it: its inner end, be it out of sight, is left."""
    return bool(new.master) and new.met_by(replace(old, hairpin=new.hairpin, isolated=new.isolated))


def _encode(encode: Callable[[Netlink, Op], Iterable[Message]], nl: Netlink, op: Op) -> Iterator[Message]:
    try:
        yield from encode(nl, op)
    except NotFound:
        if not isinstance(op, Del):
            raise  # a link that is gone took along what was to be deleted


def _ip_messages(nl: Netlink, op: Op) -> Iterator[Message]:
    match op:
        case Add(new=LinkUp() as link) | Change(new=LinkUp() as link):
            yield rtnl.set_link(link.dev, up=link.up)
        case Add(new=Addr() as addr):
            yield rtnl.add_addr(nl, addr)
        case Del(old=Addr() as addr):
            yield rtnl.del_addr(nl, addr)
        case Add(new=Route() as route):
            yield rtnl.add_route(nl, route)
        case Change(new=Route() as route):
            yield rtnl.add_route(nl, route, replace=True)
        case Del(old=Route() as route):
            yield rtnl.del_route(nl, route)
        case _:
            raise Refused(f"Berth cannot do this: {op}")


def _send_files(ops: Sequence[Op]) -> None:
    for op in ops:
        match op:
            case Add(new=TextFile() as file) | Change(new=TextFile() as file):
                durable.write(file.path, file.text, file.mode)
            case Del(old=TextFile() as file):
                durable.remove(file.path)


def _rewire(op: Op) -> bool:
    """Replace a cable whose inner end is in the wrong place; a link cannot be given another peer."""
    match op:
        case Change(old=Veth() as old, new=Veth() as new) if new.remakes(old):
            with Netlink(ROUTE) as nl:
                _batch(nl, [(Del(old), rtnl.delete_link(old.name))])
            _send_cables([Add(new)])
            return True
    return False


def _inner(op: Op) -> None:
    """What an operation on a cable means for its inner end."""
    match op:
        case Change(old=Veth() as old, new=Veth() as veth) if not _only_as_port(old, veth):
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
                _batch(nl, [(op, message) for message in rtnl.retire_inner(link.index, spare)])
    except (NotFound, Invalid):
        pass  # the sandbox is gone, and its end of the cable with it


# --- settings and firewall ------------------------------------------------------------------------------


def _send_sysctls(ops: Sequence[Op]) -> None:
    _set([op.new for op in ops if isinstance(op, Add | Change) and isinstance(op.new, Sysctl)])


def _set(settings: Sequence[Sysctl]) -> None:
    if not settings:
        return
    for setting, error in sysctl.write(settings):
        if error.errno == errno.ENOENT:
            raise Unsupported(f"this kernel has no setting {setting.name}: cannot run `{setting.describe()}`")
        raise explain(error, Add(setting))


def _send_checksums(ops: Sequence[Op]) -> None:
    for op in ops:
        if isinstance(op, Add | Change) and isinstance(op.new, TxChecksums):
            try:
                offload.write(op.new)
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
            case Change(old=NftHook() as hook) if delete:
                yield from ((op, message) for message in nft.mislead(hook))
            case Change(new=NftHook() as hook):
                yield from ((op, message) for message in nft.lead(hook))
            case Del(old=entry) | Change(old=entry) if delete and isinstance(entry, NftElement | NftHook | NftRate):
                yield from ((op, message) for message in _without(entry))
            case Add(new=entry) | Change(new=entry) if not delete and isinstance(entry, NftElement | NftHook | NftRate):
                yield from ((op, message) for message in _with(entry))


def _with(entry: NftElement | NftHook | NftRate) -> Iterator[Message]:
    if not isinstance(entry, NftRate):
        return nft.add_entry(entry)
    from berth.kernel import rates  # not loaded where nobody is limited

    return rates.add_rate(entry)


def _without(entry: NftElement | NftHook | NftRate) -> Iterator[Message]:
    if not isinstance(entry, NftRate):
        return nft.delete_entry(entry)
    from berth.kernel import rates

    return rates.delete_rate(entry)


def _send_passes(ops: Sequence[Op]) -> None:
    for op in ops:
        try:
            match op:
                case Add(new=NftPass() as entry):
                    (xtables if entry.legacy else passes).add(entry)
                case Del(old=NftPass() as entry):
                    (xtables if entry.legacy else passes).delete(entry)
        except Refusal as refusal:
            raise explain(refusal, op) from None


def _send_zones(ops: Sequence[Op]) -> None:
    for op in ops:
        match op:
            case Add(new=Zoned() as entry):
                firewalld.add(entry)
            case Del(old=Zoned() as entry):
                firewalld.delete(entry)


def _send_flows(ops: Sequence[Op]) -> None:
    for op in ops:
        match op:
            case Del(old=NftFlows() as fast):
                _delete_table(op, fast.family, fast.table)
            case Add(new=NftFlows() as fast) | Change(new=NftFlows() as fast):
                flows.write(fast, replace=isinstance(op, Change))


def _send_guards(ops: Sequence[Op]) -> None:
    """A transaction each, so that none is ever half made."""
    for op in ops:
        refusal = None
        match op:
            case Add(new=NftGuard() as guard):
                refusal = guards.send(guard, replace=False)
            case Change(new=NftGuard() as guard):
                refusal = guards.send(guard, replace=True)
            case Del(old=NftGuard() as guard):
                refusal = guards.delete(guard)
        if refusal is not None:
            raise explain(refusal, op)


def _send_tables(ops: Sequence[Op]) -> None:
    for op in ops:
        match op:
            case Add(new=NftTable() as table):
                nft.write_table(table, replace=False)
            case Change(new=NftTable() as table):
                nft.write_table(table, replace=True)
            case Del(old=NftTable() as table):
                _delete_table(op, table.family, table.name)


def _delete_table(op: Op, family: str, name: str) -> None:
    try:
        nft.delete_table(family, name)
    except Refusal as refusal:
        raise explain(refusal, op) from None


def _refuse(ops: Sequence[Op]) -> None:
    raise Refused(f"Berth cannot do this: {ops[0]}")


_LANES: Mapping[type[Obj], Callable[[Sequence[Op]], None]] = {
    Bridge: _send_bridges,  # before the cables, which are plugged into a bridge by its number
    Veth: _send_cables,
    **dict.fromkeys((LinkUp, Addr, Route), _send_links),
    Vxlan: _send_tunnels,
    **dict.fromkeys((Fdb, Neigh), _send_whereabouts),
    WireGuard: _send_seals,
    WireGuardPeer: _send_seal_peers,
    Shaped: _send_shapes,
    **dict.fromkeys((Port, MovedAddr, MovedNeigh, MovedRoute, MovedRule), _send_load),
    TextFile: _send_files,
    Sysctl: _send_sysctls,
    TxChecksums: _send_checksums,
    **dict.fromkeys((OvsBridge, OvsPort), _send_switches),
    **dict.fromkeys((NftElement, NftHook, NftRate), _send_entries),
    NftPass: _send_passes,
    NftGuard: _send_guards,
    NftFlows: _send_flows,
    Zoned: _send_zones,
    NftTable: _send_tables,
}


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
    if code == errno.ENOENT and isinstance(obj, NftElement | NftHook):
        return NotFound(f"no such table or set for `{what}`: `berth reconcile` makes it")
    if code == errno.ENODEV:
        return NotFound(f"no such link for `{what}`: see `ip link`")
    if code == errno.ENOENT and isinstance(obj, Shaped | NftRate):
        module = "sch_tbf" if isinstance(obj, Shaped) else "nft_limit"
        return Unsupported(f"this kernel has no rate limits for `{what}`: it lacks {module}; leave the rate out")
    if code == errno.EOPNOTSUPP and isinstance(obj, NftGuard):
        return Unsupported(guards.UNSUPPORTED)
    if code == errno.EOPNOTSUPP:
        return Unsupported(f"this kernel cannot do `{what}` ({error.strerror})")
    return Refused(f"the kernel refused `{what}`: {error.strerror}")
