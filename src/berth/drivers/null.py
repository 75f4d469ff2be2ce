"""No network: a sandbox with nothing but its loopback."""

from __future__ import annotations

from typing import ClassVar

from berth.errors import Invalid
from berth.model import Endpoint, Host, Network, NetworkSpec
from berth.state import NOTHING, LinkUp, State


class NullDriver:
    """Loopback only."""

    name: ClassVar[str] = "null"

    def complete(self, asked: NetworkSpec, host: Host, identity: str, created: str) -> Network:
        """Nothing to decide. Raises `Invalid` for a subnet, which nobody could use."""
        if asked.subnets or asked.ip_ranges or asked.gateways or asked.aux:
            raise Invalid("a null network gives no addresses: leave --subnet and its companions out")
        return Network(
            id=identity,
            name=asked.name,
            driver=self.name,
            bridge="",
            pools=(),
            mtu=65536,
            created=created,
            internal=True,
            labels=asked.labels,
            options=asked.options,
        )

    def network(self, net: Network) -> State:
        """Nothing."""
        return NOTHING

    def endpoint(self, net: Network, ep: Endpoint) -> State:
        """The loopback, up."""
        return frozenset({LinkUp(ep.sandbox.path, "lo")})
