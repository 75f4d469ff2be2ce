"""What is set in a container of Docker's, once its end of the cable is there.

Docker leaves it to the kernel to make IPv6 addresses of its own by advertisements. Nobody knows of those, and the
container is not let send from them. Where IPv6 is as the LAN's routers advertise, the rest is the kernel's to do: the
router and the MTU come and go, which Docker cannot be told, and Docker takes no link-local router.
"""

from __future__ import annotations

from collections.abc import Iterator
from ipaddress import IPv6Network

from berth.engine import options
from berth.firewall.spoofing import link_local
from berth.model import Endpoint, Network
from berth.plan import Add, Del, Op
from berth.state import Addr, Sysctl


def settle(net: Network, ep: Endpoint, ns: str, dev: str) -> Iterator[Op]:
    """The settings of the link, and what the kernel may have made before they were made."""
    versions = {address.version for address in ep.addresses}
    if 4 in versions:
        yield _set(ns, dev, "ipv4", "arp_notify", "1")
    if 6 not in versions:
        return
    yield _set(ns, dev, "ipv6", "ndisc_notify", "1")
    if ep.learnt.advertised:
        yield _set(ns, dev, "ipv6", "autoconf", "0")
        yield _set(ns, dev, "ipv6", "accept_ra_defrtr", "1" if options.gateway(ep) and not net.internal else "0")
    else:
        yield _set(ns, dev, "ipv6", "accept_ra", "0")
    own = {str(address) for address in ep.addresses}
    for subnet in (pool.subnet for pool in net.pools):
        made = _made(subnet, ep.mac) if isinstance(subnet, IPv6Network) else None
        if made is not None and made not in own:
            yield Del(Addr(ns, dev, made))


def _made(subnet: IPv6Network, mac: str) -> str | None:
    """The address that a kernel makes of a prefix (RFC 4862 section 5.5.3)."""
    if subnet.prefixlen != 64:
        return None
    return f"{subnet[int(link_local(mac)) & (1 << 64) - 1]}/64"


def _set(ns: str, dev: str, family: str, name: str, value: str) -> Op:
    return Add(Sysctl(ns, f"net.{family}.conf.{dev.replace('.', '/')}.{name}", value))
