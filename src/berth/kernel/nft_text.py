"""What nft(8) prints of others' rules, whose expressions Berth does not read by itself."""

from __future__ import annotations

import subprocess


def listed(family: str, table: str, chain: str) -> str:
    """A chain as `nft list chain` shows it; "" for one that is gone."""
    command = ["nft", "list", "chain", family, table, chain]
    return subprocess.run(command, capture_output=True, text=True, check=False).stdout
