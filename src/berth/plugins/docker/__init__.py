"""Docker's plugin protocols: a network driver and an IPAM driver.

Source: Docker's libnetwork, `docs/remote.md` and `docs/ipam.md`, and what its engines send.
"""

from berth.plugins.docker.calls import Call, Chores, Unreadable, calls, refusal

__all__ = ["Call", "Chores", "Unreadable", "calls", "refusal"]
