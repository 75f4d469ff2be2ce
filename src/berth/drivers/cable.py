"""One container's cable: what every driver with a bridge plugs in the same way."""

from __future__ import annotations

from collections.abc import Iterable

from msgspec.structs import replace

from berth.drivers.limits import limits
from berth.model import Address, Endpoint, Network, Placement, StaticRoute
from berth.ovs import OvsPort, TxChecksums
from berth.spec import MTU_IPV6, static_routes
from berth.state import HOST, MARK, Addr, LinkUp, Obj, Route, State, Sysctl, Veth

_DEFAULT = {4: "0.0.0.0/0", 6: "::/0"}
_METRIC = {4: 0, 6: 1024}  # the kernel's own, spelled out


def cable(net: Network, ep: Endpoint) -> State:
    """The veth pair, its place in the switch, and what is set inside the sandbox."""
    full = ep.placement is Placement.FULL
    ns = ep.sandbox.path if full else HOST
    outer_mtu = net.bridge_mtu or net.mtu
    mtu = min(ep.learnt.mtu or net.mtu, net.mtu)
    inner_mtu = mtu if mtu != outer_mtu else 0
    mark, ovs = MARK + ep.id, net.switch == "ovs"
    master = "" if ovs else net.bridge
    veth = Veth(ep.link, master, outer_mtu, mark, ns, ep.ifname, ep.mac, inner_mtu, isolated=not net.icc)
    if ep.ports:
        # With br_netfilter the bridge itself leads who asks for its own published port back to it. Others do without:
        # they would hear their own multicast.
        veth = replace(veth, hairpin=True)
    plug: set[Obj] = {veth}
    if ovs:
        plug.add(OvsPort(net.bridge, ep.link, mark))
    if net.userspace:
        plug |= {TxChecksums(ns, ep.ifname), *_deaf(ep.link)}
    plug |= limits(net, ep)
    if not full:
        return frozenset(plug)
    objects: set[Obj] = {*plug, LinkUp(ns, "lo"), LinkUp(ns, ep.ifname), *_settings(net, ep)}
    objects |= {Addr(ns, ep.ifname, str(address)) for address in ep.addresses}
    for version in ep.default_route:
        if (gateway := _gateway(net, ep, version)) is not None:
            objects.add(Route(ns, _DEFAULT[version], ep.ifname, str(gateway), _METRIC[version]))
    versions = {address.version for address in ep.addresses}
    for route in _routes(net, ep):
        if route.subnet.version not in versions:
            continue  # a lease has ended: the kernel knows no neighbours without an address
        via = "" if route.via.is_unspecified else str(route.via)
        objects.add(Route(ns, str(route.subnet), ep.ifname, via, _METRIC[route.subnet.version]))
    return frozenset(objects)


def _gateway(net: Network, ep: Endpoint, version: int) -> Address | None:
    """The router that the lease names, else the network's; None where no router advertises itself now."""
    known = [*ep.learnt.routers, *(() if version == 6 and ep.learnt.advertised else [p.gateway for p in net.pools])]
    return next((g for g in known if g is not None and g.version == version), None)


def _routes(net: Network, ep: Endpoint) -> Iterable[StaticRoute]:
    """The network's routes; one that is leased, or of the endpoint's own, replaces the one to that subnet."""
    own = ep.option("routes")
    if own is None and not ep.learnt.routes:
        return net.routes
    all_ = (*net.routes, *ep.learnt.routes, *(static_routes(own) if own else ()))
    return {route.subnet: route for route in all_}.values()


def _deaf(link: str) -> set[Sysctl]:
    """The host's own stack sees what comes out of a cable as well as the switch outside the kernel does.

    It would answer for the host's addresses with the cable's MAC, and talk to the container past the switch.
    """
    return {
        Sysctl(HOST, f"net.ipv4.conf.{link}.arp_ignore", "8"),  # never answer
        Sysctl(HOST, f"net.ipv6.conf.{link}.disable_ipv6", "1"),
    }


def _settings(net: Network, ep: Endpoint) -> set[Sysctl]:
    versions = {address.version for address in ep.addresses} | ({6} if ep.learnt.advertised else set())
    settings = {"ipv6.disable_ipv6": "0" if 6 in versions else "1"}
    if 6 in versions:
        # The addresses and the router are given: nothing a stranger advertises may change them.
        settings["ipv6.accept_ra"] = "0"
    link = min(ep.learnt.mtu or net.mtu, net.mtu)
    if ep.learnt.advertised and link >= MTU_IPV6:
        settings["ipv6.mtu"] = str(min(ep.learnt.mtu6 or link, link))
    if net.announces(ep):  # see Kernel.announce
        notify = {4: "ipv4.arp_notify", 6: "ipv6.ndisc_notify"}
        settings |= {notify[version]: "1" for version in versions}
    dev = ep.ifname.replace(".", "/")
    return {
        Sysctl(ep.sandbox.path, f"net.{family}.conf.{dev}.{name}", value)
        for family, name, value in ((*key.split("."), value) for key, value in settings.items())
    }
