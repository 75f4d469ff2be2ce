"""The state after a move onto a bridge of Open vSwitch's."""

from __future__ import annotations

from collections.abc import Iterable

from berth.firewall.tables import table
from berth.moved import Port
from berth.ovs import OvsBridge, OvsPort
from berth.state import HOST, UPLINK_MARK, Bridge, LinkUp, NftHook, Obj, State, Sysctl
from berth.uplink.decide import on_bridge
from berth.uplink.facts import Nic

_NO_ADDRESS = 1  # IN6_ADDR_GEN_MODE_NONE


def on_ovs(nic: Nic, bridge: str, datapath: str, carried: Iterable[Obj], settings: Iterable[Sysctl]) -> State:
    """As `on_bridge`, with a bridge of Open vSwitch's; see `OvsBridge` for the datapath.

    What the kernel's bridge would be told of the NIC, Open vSwitch is told.
    """
    mark = UPLINK_MARK + nic.name
    switch: set[Obj] = {
        OvsBridge(bridge, nic.mac, datapath, mark),
        OvsPort(bridge, nic.name, mark),
        Port(nic.name, "", _NO_ADDRESS),
        LinkUp(HOST, bridge),
    }
    if datapath:
        switch |= _deaf(nic.name)
    others = on_bridge(nic, bridge, carried, settings)
    keys = {obj.key for obj in switch}
    return frozenset({*switch, *(obj for obj in others if obj.key not in keys and not isinstance(obj, Bridge))})


def _deaf(nic: str) -> State:
    """Keep what comes in by the NIC from the host's own stack, which would take it in beside the switch: twice.

    The switch's packet socket is served before this hook. Not a table that reconcile takes for a network's.
    """
    name = f"berthnic_{nic}"
    hook = NftHook(name, nic)
    return frozenset({table(hook.family, name, (), ((hook.target, "", ("drop",)),)), hook})
