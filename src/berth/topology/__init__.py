"""The whole network as one value, and its pictures: a decider, without any look at the world."""

from berth.topology.build import build
from berth.topology.nouns import Nic, Node, Segment, Topology

__all__ = ["Nic", "Node", "Segment", "Topology", "build"]
