"""The two states of a move: all of it on the NIC, or all of it on the bridge."""

from __future__ import annotations

from collections.abc import Iterable

from msgspec.structs import replace

from berth.moved import FOREVER, RA, MovedAddr, MovedNeigh, MovedRoute, MovedRule, Port
from berth.state import HOST, UPLINK_MARK, Bridge, LinkUp, Obj, State, Sysctl
from berth.uplink.facts import Nic

_NO_ADDRESS = 1  # IN6_ADDR_GEN_MODE_NONE


def on_nic(nic: Nic, carried: Iterable[Obj], settings: Iterable[Sysctl]) -> State:
    """The NIC by itself, with all that is carried."""
    bare: set[Obj] = {Port(nic.name, nic.master, nic.address_mode), LinkUp(HOST, nic.name, nic.up)}
    return frozenset({*bare, *carried, *settings})


def on_bridge(nic: Nic, bridge: str, carried: Iterable[Obj], settings: Iterable[Sysctl]) -> State:
    """A bridge with the NIC's MAC that carries what the NIC did, and the NIC as its bare port."""
    switch: set[Obj] = {
        Bridge(bridge, nic.mac, nic.mtu, UPLINK_MARK + nic.name),
        Port(bridge, "", nic.address_mode),
        Port(nic.name, bridge, _NO_ADDRESS),
        LinkUp(HOST, nic.name),
    }
    moved = (carry(obj, nic.name, bridge) for obj in carried)
    return frozenset({*switch, *moved, *(rename(setting, nic.name, bridge) for setting in settings)})


def carry(obj: Obj, source: str, target: str) -> Obj:
    """The same, on another link."""
    match obj:
        case MovedAddr():
            label = target + obj.label.removeprefix(source) if obj.label.startswith(source) else obj.label
            return replace(obj, dev=target, label=label)
        case MovedRoute():
            hops = tuple(replace(hop, dev=target) if hop.dev == source else hop for hop in obj.hops)
            dev = target if obj.dev == source else obj.dev
            return replace(obj, dev=dev, hops=hops)
        case MovedRule():
            iif, oif = (target if name == source else name for name in (obj.iif, obj.oif))
            return replace(obj, iif=iif, oif=oif)
        case MovedNeigh():
            return replace(obj, dev=target)
        case _:
            return obj


def reachable(state: State) -> State:
    """The state with stand-ins for the routes that routers have advertised, until the kernel learns them anew.

    The kernel takes one that a program made for a stranger's, and before Linux 6.8 ends both when the router speaks
    again: so a stand-in gives way, by a metric one higher, and goes when its time is up.
    """
    learnt = {obj for obj in state if isinstance(obj, MovedRoute) and obj.protocol == RA}
    return (state - learnt) | {replace(obj, metric=obj.metric + 1, attributes=()) for obj in learnt}


def rename(setting: Sysctl, source: str, target: str) -> Sysctl:
    """The same setting of another link."""
    head, family, conf, dev, rest = setting.name.split(".", 4)
    assert dev == _word(source)
    return replace(setting, name=".".join((head, family, conf, _word(target), rest)))


def aged(state: State, seconds: int) -> State:
    """The state with lifetimes that have gone on running since it was read; without what has ended meanwhile."""
    return frozenset(later for obj in state if (later := _aged(obj, seconds)) is not None)


def _aged(obj: Obj, seconds: int) -> Obj | None:
    match obj:
        case MovedAddr() if obj.valid != FOREVER:
            if obj.valid <= seconds:
                return None
            preferred = obj.preferred if obj.preferred == FOREVER else max(obj.preferred - seconds, 0)
            return replace(obj, valid=obj.valid - seconds, preferred=preferred)
        case MovedRoute() if obj.expires:
            return replace(obj, expires=obj.expires - seconds) if obj.expires > seconds else None
        case _:
            return obj


def _word(dev: str) -> str:
    return dev.replace(".", "/")
