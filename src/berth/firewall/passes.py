"""A NAT network's way through others' FORWARD chains.

Docker sets the policy of the host's FORWARD chain to DROP when it is the one that switched forwarding on, and no
accepting rule in another table undoes a drop. The chain DOCKER-USER is kept by Docker for the operator's own rules
and looked at first; a rule there for each bridge lets its packets through. Berth's own table, which sees them too,
still drops what nobody published. Where Docker is not, but somebody's own iptables rules or ufw's drop what is
forwarded, the rule is the first of the chain FORWARD itself. firewalld, which rejects what comes from links that it
was not told of, is told.
Source: Docker's manual, "Packet filtering and firewalls".
"""

from __future__ import annotations

from berth.model import Network
from berth.state import NftPass, State, Zoned


def for_network(net: Network) -> State:
    """The rules for one bridge, and its zone."""
    families = {"ip" if pool.subnet.version == 4 else "ip6" for pool in net.pools}
    rules = {
        NftPass(family, net.bridge, direction, chain, legacy=legacy)
        for family in families
        for direction in NftPass.directions
        for chain in NftPass.chains
        for legacy in (False, True)
    }
    return frozenset({*rules, Zoned(net.bridge)})
