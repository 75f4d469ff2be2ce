"""Open vSwitch's bridges and ports: read from its database, and changed there until ovs-vswitchd has followed.

Source: ovs-vswitchd.conf.db(5).
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from dataclasses import replace as with_fields
from typing import Any, TypeAlias

import msgspec

from berth.errors import BerthError, NotFound, Refused, Taken
from berth.kernel import rtnl
from berth.kernel.netlink import ROUTE, Netlink
from berth.kernel.ovsdb import Database, Json
from berth.model import HostLink
from berth.ovs import ID, KINDS, OvsBridge, OvsPort
from berth.plan import Add, Change, Del, Op
from berth.state import MARK, Foreign, Key, Obj, ours

Uuid: TypeAlias = str

_PATIENCE = 10_000  # milliseconds for ovs-vswitchd, which needs a few
_BRIDGE = ("_uuid", "name", "ports", "datapath_type", "fail_mode", "stp_enable", "rstp_enable", "other_config")


# --- reading --------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class _Bridge:
    """A row of the table of that name."""

    uuid: Uuid
    name: str
    ports: tuple[Uuid, ...]
    mark: str  # "": it is not Berth's
    mac: str  # that is pinned; "": none is, or it is not the plain switch that Berth makes
    datapath: str


class _Rows:
    """All bridges and ports that there are."""

    def __init__(self, db: Database) -> None:
        bridges, ports = _rows(db, ("Bridge", (*_BRIDGE, "external_ids")), ("Port", ("_uuid", "name", "external_ids")))
        self.bridges = {row["name"]: _bridge(row) for row in bridges}
        self.bridge_of = {port: bridge for bridge in self.bridges.values() for port in bridge.ports}
        #: name of a port -> (its row, its mark)
        self.ports = {row["name"]: (row["_uuid"][1], _mark(row)) for row in ports}

    def nouns(self) -> Iterator[Obj]:
        """Everything, as nouns."""
        for bridge in self.bridges.values():
            noun = OvsBridge(bridge.name, bridge.mac, bridge.datapath, bridge.mark)
            yield noun if bridge.mark else Foreign(noun.key, f"an Open vSwitch bridge {bridge.name}")
        for name, (uuid, mark) in self.ports.items():
            bridge = self.bridge_of[uuid]
            port = OvsPort(bridge.name, name, mark)
            yield port if mark else Foreign(port.key, f"a port {name} of Open vSwitch's {bridge.name}")


def read(keys: Iterable[Key], *, marked: bool) -> Iterator[Obj]:
    """The bridges and ports of these keys, and with `marked` all of Berth's. Nothing where no Open vSwitch runs."""
    wanted = frozenset(keys)
    db = Database.find()
    if db is None:
        return
    with db, Netlink(ROUTE) as nl:
        for noun in _Rows(db).nouns():
            if noun.key in wanted or (marked and ours(noun.owner or "")):
                yield _stale(noun) if isinstance(noun, OvsPort) and not rtnl.is_promiscuous(nl, noun.name) else noun


def _stale(port: OvsPort) -> OvsPort:
    """A port whose link the switch has not got hold of, as it is not asked for.

    A link that is made anew under the name is another one, which ovs-vswitchd does not notice.
    """
    return msgspec.structs.replace(port, bridge="")


def datapath() -> str:
    """The datapath of a new bridge (`OvsBridge.datapath`): the kernel's, unless ovs-vswitchd was told to do without.

    Raises `Unsupported` where no Open vSwitch runs.
    """
    with Database.connect() as db:
        db.require_switch()
        (rows,) = _rows(db, ("Open_vSwitch", ("datapath_types",)))
    return "" if any("system" in _all(row["datapath_types"]) for row in rows) else "netdev"


def ports(bridge: str) -> tuple[str, ...]:
    """The links that are ports of a bridge, without its own; () where there is no such bridge, or no Open vSwitch."""
    db = Database.find()
    if db is None:
        return ()
    with db:
        rows = _Rows(db)
    plugged = [name for name, (uuid, _) in rows.ports.items() if rows.bridge_of[uuid].name == bridge]
    return tuple(sorted(name for name in plugged if name != bridge))


def with_switches(links: tuple[HostLink, ...]) -> tuple[HostLink, ...]:
    """The host's links, with what Open vSwitch knows of them: which are its bridges, and whose ports others are."""
    db = Database.find()
    if db is None:
        return links
    with db:
        rows = _Rows(db)
    return tuple(_switched(link, rows) for link in links)


def _switched(link: HostLink, rows: _Rows) -> HostLink:
    bridge = rows.bridges.get(link.name)
    if bridge is not None and link.kind in KINDS:
        return with_fields(link, kind="ovs", userspace=bridge.datapath == "netdev", alias=bridge.mark)
    uuid, _ = rows.ports.get(link.name, ("", ""))
    return with_fields(link, master=rows.bridge_of[uuid].name) if uuid in rows.bridge_of else link


def _rows(db: Database, *tables: tuple[str, tuple[str, ...]]) -> Iterator[list[Json]]:
    selects: list[Json] = [{"op": "select", "table": name, "where": [], "columns": [*what]} for name, what in tables]
    for found in db.transact(selects):
        if found.get("error"):
            raise Refused(f"Open vSwitch's database cannot be read: {found.get('details') or found['error']}")
        yield found["rows"]


def _bridge(row: Json) -> _Bridge:
    plain = _all(row["fail_mode"]) in ((), ("standalone",)) and not row["stp_enable"] and not row["rstp_enable"]
    return _Bridge(
        uuid=row["_uuid"][1],
        name=row["name"],
        ports=tuple(uuid for _, uuid in _all(row["ports"])),
        mark=_mark(row),
        mac=dict(row["other_config"][1]).get("hwaddr", "") if plain else "",
        datapath="" if row["datapath_type"] == "system" else row["datapath_type"],
    )


def _mark(row: Json) -> str:
    identity = dict(row["external_ids"][1]).get(ID)
    return MARK + identity if identity else ""


def _all(value: Any) -> tuple[Any, ...]:
    """The members of a set: one that has a single member is written as that (RFC 7047 section 5.1)."""
    if isinstance(value, list) and value[0] == "set":
        return tuple(value[1])
    return (value,)


# --- changing -------------------------------------------------------------------------------------------


class _Transaction:
    """Operations that are carried out as one, and what to say when one of them fails."""

    def __init__(self) -> None:
        self._operations: list[Json] = []
        self._why: dict[int, BerthError] = {}

    def do(self, operation: str, table: str, **more: Any) -> int:
        """Add an operation; its number."""
        self._operations.append({"op": operation, "table": table, **more})
        return len(self._operations) - 1

    def require(self, table: str, name: str, *, there: bool, why: BerthError) -> None:
        """Have the whole fail unless there is a row of that name, or unless there is none."""
        rows = [{"name": name}] if there else []
        number = self.do(
            "wait", table, where=[["name", "==", name]], columns=["name"], until="==", rows=rows, timeout=0
        )
        self._why[number] = why

    def mutate(self, table: str, where: list[Any], *mutations: tuple[str, str, Any]) -> None:
        """Change members of sets and maps, or count up."""
        self.do("mutate", table, where=[where] if where else [], mutations=[[*each] for each in mutations])

    def commit(self, db: Database, what: str) -> list[Any]:
        """Carry it out; the results."""
        results = db.transact(self._operations)
        for number, result in enumerate(results):
            if result and result.get("error"):
                said = result.get("details") or result["error"]
                raise self._why.get(number) or Refused(f"Open vSwitch's database refused `{what}`: {said}")
        return results


def send(ops: Sequence[Op]) -> None:
    """Carry out operations on bridges and ports in one transaction, and wait until ovs-vswitchd has done its part.

    That takes it longer the more ports there are: some 30 ms among 200. What is to be deleted is gone where no Open
    vSwitch runs; should its database come back with it, it is found as a leftover.
    Raises `NotFound`, `Taken`, `Unsupported` or `Refused`.
    """
    makes = [op.new for op in ops if not isinstance(op, Del)]
    db = Database.connect() if makes else Database.find()
    if db is None:
        return
    with db:
        if makes:
            db.require_switch()
        # What is replaced in one step keeps the link that it has, even one that is gone.
        replaced = [Del(op.old) for op in ops if isinstance(op, Change) and isinstance(op.old, OvsPort)]
        if replaced:
            _carry_out(db, replaced, follow=True)
        # A bridge's link goes by ovs-vswitchd's doing. A port need not be waited for: its cable is down.
        goes = any(isinstance(op, Del) and isinstance(op.old, OvsBridge) for op in ops)
        _carry_out(db, ops, follow=bool(makes) or (goes and db.switch_runs()))


def _carry_out(db: Database, ops: Sequence[Op], *, follow: bool) -> None:
    what = str(ops[0])[2:]
    transaction = _Transaction()
    rows = _Rows(db) if any(isinstance(op, Del) for op in ops) else None
    for number, op in enumerate(ops):
        _encode(transaction, rows, op, f"new{number}")
    transaction.mutate("Open_vSwitch", [], ("next_cfg", "+=", 1))
    asked = transaction.do("select", "Open_vSwitch", where=[], columns=["next_cfg"])
    results = transaction.commit(db, what)
    if follow:
        _follow(db, results[asked]["rows"][0]["next_cfg"], ops, what)


def _encode(transaction: _Transaction, rows: _Rows | None, op: Op, name: str) -> None:
    match op:
        case Add(new=OvsBridge() as bridge):
            _add_bridge(transaction, bridge, name, str(op)[2:])
        case Change(new=OvsBridge() as bridge):
            _change_bridge(transaction, bridge)
        case Add(new=OvsPort() as port) | Change(new=OvsPort() as port):
            _add_port(transaction, port, name, str(op)[2:])
        case Del(old=OvsPort() as port) if rows is not None:
            _remove_port(transaction, rows, port.name)
        case Del(old=OvsBridge() as bridge) if rows is not None and bridge.name in rows.bridges:
            gone = ("bridges", "delete", ["uuid", rows.bridges[bridge.name].uuid])
            transaction.mutate("Open_vSwitch", [], gone)


def _columns(bridge: OvsBridge) -> Json:
    return {
        "datapath_type": bridge.datapath or "system",
        "fail_mode": "standalone",
        "stp_enable": False,
        "rstp_enable": False,
    }


def _maps(bridge: OvsBridge) -> tuple[tuple[str, str, str], ...]:
    return ("other_config", "hwaddr", bridge.mac), ("external_ids", ID, bridge.mark.removeprefix(MARK))


def _add_bridge(transaction: _Transaction, bridge: OvsBridge, name: str, line: str) -> None:
    taken = Taken(f"already there: `{line}`: remove it or choose another")
    transaction.require("Bridge", bridge.name, there=False, why=taken)
    transaction.require("Port", bridge.name, there=False, why=taken)
    _insert_port(transaction, bridge.name, name, {"type": "internal"}, {})
    maps = {column: ["map", [[key, value]]] for column, key, value in _maps(bridge)}
    row = {"name": bridge.name, "ports": ["named-uuid", f"{name}port"], **_columns(bridge), **maps}
    transaction.do("insert", "Bridge", row=row, **{"uuid-name": f"{name}bridge"})
    transaction.mutate("Open_vSwitch", [], ("bridges", "insert", ["named-uuid", f"{name}bridge"]))


def _change_bridge(transaction: _Transaction, bridge: OvsBridge) -> None:
    where = ["name", "==", bridge.name]
    transaction.do("update", "Bridge", where=[where], row=_columns(bridge))
    for column, key, value in _maps(bridge):
        transaction.mutate(
            "Bridge", where, (column, "delete", ["set", [key]]), (column, "insert", ["map", [[key, value]]])
        )


def _add_port(transaction: _Transaction, port: OvsPort, name: str, line: str) -> None:
    missing = NotFound(f"no Open vSwitch bridge {port.bridge} for `{line}`: see `ovs-vsctl show`")
    transaction.require("Bridge", port.bridge, there=True, why=missing)
    taken = Taken(f"already there: `{line}`: remove it or choose another")
    transaction.require("Port", port.name, there=False, why=taken)
    _insert_port(transaction, port.name, name, {}, {"external_ids": ["map", [[ID, port.mark.removeprefix(MARK)]]]})
    plugged = ("ports", "insert", ["named-uuid", f"{name}port"])
    transaction.mutate("Bridge", ["name", "==", port.bridge], plugged)


def _insert_port(transaction: _Transaction, port: str, name: str, interface: Json, more: Json) -> None:
    row = {"name": port, "interfaces": ["named-uuid", f"{name}interface"], **more}
    transaction.do("insert", "Interface", row={"name": port, **interface}, **{"uuid-name": f"{name}interface"})
    transaction.do("insert", "Port", row=row, **{"uuid-name": f"{name}port"})


def _remove_port(transaction: _Transaction, rows: _Rows, port: str) -> None:
    """A row that nothing refers to is gone by itself."""
    uuid, _ = rows.ports.get(port, ("", ""))
    if uuid in rows.bridge_of:
        where = ["_uuid", "==", ["uuid", rows.bridge_of[uuid].uuid]]
        transaction.mutate("Bridge", where, ("ports", "delete", ["uuid", uuid]))


def _follow(db: Database, number: int, ops: Sequence[Op], what: str) -> None:
    """Wait until ovs-vswitchd has done what the database said, and hear whether it could."""
    transaction = _Transaction()
    behind = {"where": [["cur_cfg", "<", number]], "columns": ["cur_cfg"], "until": "==", "rows": []}
    transaction.do("wait", "Open_vSwitch", timeout=_PATIENCE, **behind)
    names = {
        transaction.do("select", "Interface", where=[["name", "==", op.new.key[2]]], columns=["error", "ofport"]): op
        for op in ops
        if not isinstance(op, Del)
    }
    try:
        results = transaction.commit(db, what)
    except Refused:
        raise Refused(f"ovs-vswitchd has not done `{what}` within {_PATIENCE // 1000} s: see its log") from None
    for place, op in names.items():
        for row in results[place]["rows"]:
            if why := _why_not(row):
                raise Refused(f"Open vSwitch refused `{str(op)[2:]}`: {why}")


def _why_not(interface: Json) -> str:
    """Why a link is no port of the switch's though the database says so; "": it is one.

    A bridge whose datapath cannot be had is told of in the log alone, and none of its ports has a number.
    """
    for error in _all(interface["error"]):
        return str(error)
    if any(number > 0 for number in _all(interface["ofport"])):
        return ""
    return "its log says why (for a bridge of datapath_type=system: is the kernel's module openvswitch there?)"
