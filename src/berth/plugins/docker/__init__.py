"""Docker's plugin protocols: a network driver and an IPAM driver.

Source: Docker's libnetwork, `docs/remote.md` and `docs/ipam.md`, and what its engines send.
"""

from berth.plugins.docker.calls import Call, Chores, Unreadable, calls, refusal
from berth.plugins.docker.leased import Lessor, SlowCall, leased_calls

__all__ = ["Call", "Chores", "Lessor", "SlowCall", "Unreadable", "calls", "leased_calls", "refusal"]
