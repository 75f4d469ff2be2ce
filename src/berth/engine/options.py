"""What endpoint options mean for an attach."""

from __future__ import annotations

from berth.errors import Invalid, Unsupported
from berth.model import RATES, AttachRequest, Endpoint, Network, Placement
from berth.spec import static_routes


def gateway(of: AttachRequest | Endpoint) -> bool:
    """Whether the endpoint may have the sandbox's default route."""
    return dict(of.options).get("gateway") != "false"


def prefix(net: Network, request: AttachRequest) -> str:
    """What the name of the interface begins with."""
    return dict(request.options).get("iface_prefix") or net.ifname_prefix


def refuse_useless(net: Network, request: AttachRequest) -> None:
    """Raise `Invalid` for options that nothing could come of, `Unsupported` for rates on Open vSwitch."""
    if not request.options:
        return
    if not net.bridge:
        raise Invalid(f"network {net.name} is {net.driver}, whose endpoints have no cable: leave --driver-opt out")
    options = dict(request.options)
    if net.switch == "ovs" and any(key in RATES for key in options):
        raise Unsupported(f"network {net.name} is on Open vSwitch, where Berth limits no rates: leave them out")
    if request.placement is not Placement.FULL:
        return  # Docker sees to the rest
    if request.ifname is not None and "iface_prefix" in options:
        raise Invalid("--ifname and iface_prefix both name the interface: leave one out")
    for route in static_routes(options["routes"]) if "routes" in options else ():
        if not any(route.via in pool.subnet for pool in net.pools):
            known = ", ".join(str(pool.subnet) for pool in net.pools)
            raise Invalid(f"the router of route {route.subnet}={route.via} is in none of the subnets ({known})")
