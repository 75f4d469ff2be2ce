"""The kinds of network, and which one a request means."""

from __future__ import annotations

from berth.drivers.bridge import BridgeDriver
from berth.drivers.flat import FlatDriver, carries_lan
from berth.drivers.overlay import OverlayDriver
from berth.drivers.unplugged import HostDriver, NullDriver
from berth.model import Host, NetworkSpec
from berth.seams import Driver

SPANNING = OverlayDriver()
DRIVERS: dict[str, Driver] = {
    "bridge": BridgeDriver(),
    "flat": FlatDriver(),
    SPANNING.name: SPANNING,
    "host": HostDriver(),
    "null": NullDriver(),
}


def choose(asked: NetworkSpec, host: Host) -> Driver:
    """The driver for a request.

    A bridge network on a bridge that already carries the host's LAN address is a flat network: what Docker
    makes of the same words takes the address away and puts the router's in its place.
    """
    name = asked.setting("mode") or asked.driver
    named = asked.setting("bridge")
    if name == "bridge" and named is not None and carries_lan(host.link(named)):
        name = "flat"
    return DRIVERS[name]
