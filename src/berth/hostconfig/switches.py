"""Which systems can say what of a bridge."""

from __future__ import annotations

from berth.errors import Invalid
from berth.model import Uplink


def refuse_other_switches(uplink: Uplink, files: str) -> None:
    """Refuse what is no bridge of the kernel's, for files that have no words for it. Raises `Invalid`."""
    if uplink.switch != "bridge":
        raise Invalid(
            f"{files} cannot say that {uplink.bridge} is a bridge of Open vSwitch's:"
            " adopt with --persist none, and configure it by hand"
        )
