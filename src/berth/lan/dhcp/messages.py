"""DHCPv4 messages as bytes (RFC 2131, 2132, 3396, 3442, 4361)."""

from __future__ import annotations

import hashlib


def client_id(identity: str) -> bytes:
    """The client identifier of an identity that lasts, such as NETWORK/NAME/IFNAME (RFC 4361, DUID-UUID of RFC 6355).

    Both halves come from the identity alone: no host's state is in it, so a container that is made anew, even on
    another host, is the same client.
    """
    digest = hashlib.sha256(identity.encode()).digest()
    return b"\xff" + digest[16:20] + b"\x00\x04" + digest[:16]
