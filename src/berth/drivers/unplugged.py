"""Networks without a cable: the host's own, and none."""

from __future__ import annotations

from typing import ClassVar

from berth.errors import Invalid
from berth.model import Endpoint, Host, Network, NetworkSpec
from berth.state import NOTHING, LinkUp, State


class UnpluggedDriver:
    """What the drivers `host` and `null` share: no bridge, no addresses of their own."""

    name: ClassVar[str]
    mtu: ClassVar[int]  # bytes, of what a process sees there
    internal: ClassVar[bool]
    why_no_subnet: ClassVar[str]

    def complete(self, asked: NetworkSpec, host: Host, identity: str, created: str) -> Network:
        """Nothing to decide. Raises `Invalid` for a subnet."""
        if asked.subnets or asked.ip_ranges or asked.gateways or asked.aux:
            raise Invalid(f"a {self.name} network {self.why_no_subnet}: leave --subnet and its companions out")
        return Network(
            id=identity,
            name=asked.name,
            driver=self.name,
            bridge="",
            pools=(),
            mtu=self.mtu,
            created=created,
            internal=self.internal,
            labels=asked.labels,
            options=asked.options,
        )

    def network(self, net: Network) -> State:
        """Nothing: it is there already."""
        return NOTHING


class HostDriver(UnpluggedDriver):
    """No sandbox at all: a process uses the host's links and addresses."""

    name = "host"
    mtu = 1500
    internal = False
    why_no_subnet = "has the host's own addresses"

    def endpoint(self, net: Network, ep: Endpoint) -> State:
        """Refused: a sandbox has a network of its own, which is what this one is not."""
        raise Invalid(f"network {net.name} is the host's own: use `berth run --network host`, without a sandbox")


class NullDriver(UnpluggedDriver):
    """A sandbox with nothing but its loopback."""

    name = "null"
    mtu = 65536
    internal = True
    why_no_subnet = "gives no addresses"

    def endpoint(self, net: Network, ep: Endpoint) -> State:
        """The loopback, up."""
        return frozenset({LinkUp(ep.sandbox.path, "lo")})
