"""The public half of a key (X25519, RFC 7748 section 5).

Only ever applied to this host's own key, a few times in its life, so that time tells nobody anything; what is
encrypted is so by the kernel or by wireguard-go.
"""

from __future__ import annotations

import secrets
from base64 import b64decode, b64encode
from functools import lru_cache

_P = 2**255 - 19
_A24 = 121665
_BASE = 9


def fresh() -> str:
    """A new private key, in base64."""
    return b64encode(_clamped(secrets.token_bytes(32))).decode()


@lru_cache(maxsize=16)
def public(private: str) -> str:
    """The public key of a private one, both in base64. Raises `ValueError` for what is no key."""
    raw = b64decode(private, validate=True)
    if len(raw) != 32:
        raise ValueError(f"a key has 32 bytes, not {len(raw)}")
    return b64encode(_ladder(int.from_bytes(_clamped(raw), "little")).to_bytes(32, "little")).decode()


def _clamped(raw: bytes) -> bytes:
    return bytes([raw[0] & 248, *raw[1:31], raw[31] & 127 | 64])


def _ladder(k: int) -> int:
    """k times the base point, by its u-coordinate alone; the names are the RFC's."""
    x2, z2, x3, z3 = 1, 0, _BASE, 1
    swap = 0
    for t in range(254, -1, -1):
        bit = k >> t & 1
        if swap ^ bit:
            x2, x3, z2, z3 = x3, x2, z3, z2
        swap = bit
        a, b, c, d = x2 + z2, x2 - z2, x3 + z3, x3 - z3
        aa, bb, da, cb = a * a % _P, b * b % _P, d * a % _P, c * b % _P
        e = aa - bb
        x3, z3 = (da + cb) ** 2 % _P, _BASE * (da - cb) ** 2 % _P
        x2, z2 = aa * bb % _P, e * (aa + _A24 * e) % _P
    if swap:
        x2, z2 = x3, z3
    return x2 * pow(z2, _P - 2, _P) % _P
