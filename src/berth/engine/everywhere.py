"""The records of all hosts at once, for who shows them."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass

from berth.errors import BerthError
from berth.model import Endpoint, HostRecord, Network
from berth.seams import Api


@dataclass(frozen=True, slots=True)
class Everywhere:
    """What is on record here, and what other hosts have on networks that span them."""

    networks: Sequence[Network]
    endpoints: Sequence[Endpoint]  # this host's
    elsewhere: Sequence[Endpoint] = ()
    hosts: Sequence[HostRecord] = ()  # all that are there, this one too; none while the shared store is away


def everywhere(api: Api) -> Everywhere:
    """All of it. Raises what `api` raises for what is this host's own."""
    networks, here = api.networks(), api.endpoints()
    known = {ep.id for ep in here}
    spanning = [net for net in networks if net.scope == "global"]
    others = [ep for net in spanning for ep in api.endpoints(net.name) if ep.id not in known]
    hosts: Sequence[HostRecord] = ()
    with suppress(BerthError):  # the store that hosts share is away: the map has what is known here
        hosts = [node.host for node in api.nodes() if node.state != "dead"]
    return Everywhere(networks, here, others, hosts)
