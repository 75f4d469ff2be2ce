"""One container's cable: what every driver with a bridge plugs in the same way."""

from __future__ import annotations

from berth.model import Endpoint, Network, Placement
from berth.state import HOST, MARK, Addr, LinkUp, Obj, Route, State, Sysctl, Veth

_DEFAULT = {4: "0.0.0.0/0", 6: "::/0"}
_METRIC = {4: 0, 6: 1024}  # the kernel's own, spelled out


def cable(net: Network, ep: Endpoint) -> State:
    """The veth pair and what is set inside the sandbox."""
    full = ep.placement is Placement.FULL
    ns = ep.sandbox.path if full else HOST
    veth = Veth(ep.link, net.bridge, net.mtu, MARK + ep.id, ns, ep.ifname, ep.mac)
    if not full:
        return frozenset({veth})
    objects: set[Obj] = {veth, LinkUp(ns, "lo"), LinkUp(ns, ep.ifname), *_settings(ns, ep)}
    objects |= {Addr(ns, ep.ifname, str(address)) for address in ep.addresses}
    for version in ep.default_route:
        gateway = next(p.gateway for p in net.pools if p.subnet.version == version and p.gateway is not None)
        objects.add(Route(ns, _DEFAULT[version], ep.ifname, str(gateway), _METRIC[version]))
    return frozenset(objects)


def _settings(ns: str, ep: Endpoint) -> set[Sysctl]:
    dev = ep.ifname.replace(".", "/")
    settings = {
        # Without this, removing an address makes the kernel drop its neighbours in the same subnet too.
        Sysctl(ns, f"net.ipv4.conf.{dev}.promote_secondaries", "1"),
        Sysctl(ns, f"net.ipv4.conf.{dev}.arp_notify", "1"),  # see Kernel.announce
    }
    if any(address.version == 6 for address in ep.addresses):
        # The addresses and the router are given: nothing a stranger advertises may change them.
        settings |= {
            Sysctl(ns, f"net.ipv6.conf.{dev}.disable_ipv6", "0"),
            Sysctl(ns, f"net.ipv6.conf.{dev}.accept_ra", "0"),
            Sysctl(ns, f"net.ipv6.conf.{dev}.ndisc_notify", "1"),
        }
    else:
        settings.add(Sysctl(ns, f"net.ipv6.conf.{dev}.disable_ipv6", "1"))
    return settings
