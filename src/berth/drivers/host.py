"""The host's own network, under a name."""

from __future__ import annotations

from typing import ClassVar

from berth.errors import Invalid
from berth.model import Endpoint, Host, Network, NetworkSpec
from berth.state import NOTHING, State


class HostDriver:
    """No sandbox at all: a process uses the host's links and addresses."""

    name: ClassVar[str] = "host"

    def complete(self, asked: NetworkSpec, host: Host, identity: str, created: str) -> Network:
        """Nothing to decide. Raises `Invalid` for a subnet, which the host's network cannot have."""
        if asked.subnets or asked.ip_ranges or asked.gateways or asked.aux:
            raise Invalid("a host network has the host's own addresses: leave --subnet and its companions out")
        return Network(
            id=identity,
            name=asked.name,
            driver=self.name,
            bridge="",
            pools=(),
            mtu=1500,
            created=created,
            labels=asked.labels,
            options=asked.options,
        )

    def network(self, net: Network) -> State:
        """Nothing: the host is there already."""
        return NOTHING

    def endpoint(self, net: Network, ep: Endpoint) -> State:
        """Refused: a sandbox has a network of its own, which is what this one is not."""
        raise Invalid(f"network {net.name} is the host's own: use `berth run --network host`, without a sandbox")
