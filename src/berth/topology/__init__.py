"""The whole network as one value, and its pictures: a decider, without any look at the world."""

from berth.topology.build import build
from berth.topology.lent import Lent, lent
from berth.topology.nouns import Machine, Nic, Node, Peer, Segment, Topology

__all__ = ["Lent", "Machine", "Nic", "Node", "Peer", "Segment", "Topology", "build", "lent"]
