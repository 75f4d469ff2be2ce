"""The kernel that Berth was started on."""

from __future__ import annotations

import errno

from berth.errors import Denied, Invalid, NotFound, Refused, Unsupported
from berth.kernel import guards, listeners, netns, obstacles, read, rtnl, send
from berth.kernel.netlink import ROUTE, Netlink, Refusal
from berth.model import Host, PortMapping, Sandbox
from berth.plan import Plan
from berth.seams import Scope
from berth.state import State

_IFF_RUNNING = 0x40


class LinuxKernel:
    """Reads and changes the network namespace it is used in, and the sandboxes that it is told of."""

    def read(self, scope: Scope) -> State:
        """The objects that exist now within the scope."""
        return read.read(scope)

    def send(self, plan: Plan) -> None:
        """Carry out a plan. Raises the first refusal; what followed it may be done all the same."""
        send.send(plan)

    def sweep(self) -> None:
        """Delete the cables that were taken out of service. Takes the kernel some 16 ms."""
        with Netlink(ROUTE) as nl:
            for refusal in nl.batch([rtnl.delete_retired()]):
                if refusal.errno != errno.ENODEV:  # none there
                    raise Refused(f"cannot delete the retired cables: {refusal.strerror}")

    def announce(self, ns: str, dev: str, mac: str) -> None:
        """Have the kernel send gratuitous ARP and unsolicited neighbour advertisements for a link's addresses.

        It does so when a link is given its MAC, the same one too, where `arp_notify` and `ndisc_notify` are set.
        A packet socket would do as well, but closing one waits 16 ms for RCU. A switch that is not told sends
        to the address's old MAC for as long as it likes (RFC 5227 section 3, RFC 4861 section 7.2.6).
        """
        try:
            with netns.inside(ns), Netlink(ROUTE) as nl:
                nl.batch([rtnl.set_mac(dev, mac)])
        except (NotFound, Invalid):
            return  # the sandbox vanished meanwhile, and its address with it

    def running(self, dev: str) -> bool:
        """Whether a link is not without a carrier, as a tap is when the process behind it has gone."""
        flags = Netlink.kept(ROUTE).flags(dev)
        return flags is None or bool(flags & _IFF_RUNNING)

    def find(self, ns: str, mac: str) -> str | None:
        """The link of a namespace that has the MAC and is up."""
        try:
            with netns.inside(ns), Netlink(ROUTE) as nl:
                return next((link.name for link in rtnl.links(nl) if link.mac == mac and link.up), None)
        except (NotFound, Invalid):
            return None

    def listening(self, proto: str) -> frozenset[int]:
        """The host's ports that anybody waits on."""
        return listeners.listening(proto)

    def listener(self, wanted: PortMapping) -> str | None:
        """Who listens where a published port's packets would arrive."""
        return listeners.listener(wanted)

    def obstacles(self) -> tuple[str, ...]:
        """Who would drop frames that cross a bridge."""
        return obstacles.obstacles()

    def must_guard(self) -> None:
        """Raise `Unsupported` where endpoints cannot have allow lists."""
        try:
            if not guards.supported():
                raise Unsupported(guards.UNSUPPORTED)
        except Refusal:
            raise Denied("may not change the host's firewall: run as root (CAP_NET_ADMIN)") from None

    def host(self) -> Host:
        """The host's links with their addresses, and its routes."""
        return read.host()

    def enters(self) -> bool:
        """Whether sandboxes can be looked into at all."""
        return netns.may_enter()

    def sandbox(self, text: str) -> Sandbox:
        """Find a namespace as typed, and who it is now."""
        return netns.sandbox(text)
