"""Giving up all rights of root's but those to listen on ports below 1024, and to read the firewall's maps."""

from __future__ import annotations

import ctypes
import struct
from pathlib import Path

_NET_BIND_SERVICE, _NET_ADMIN = 10, 12  # linux/capability.h
_VERSION_3 = 0x20080522
_NO_NEW_PRIVS = 38  # linux/prctl.h: PR_SET_NO_NEW_PRIVS

_libc = ctypes.CDLL(None, use_errno=True)


def give_up() -> None:
    """Keep CAP_NET_BIND_SERVICE and CAP_NET_ADMIN, if this process has them, and nothing else. No way leads back."""
    status = dict(line.split(":\t", 1) for line in Path("/proc/self/status").read_text().splitlines())
    kept = int(status["CapPrm"], 16) & (1 << _NET_BIND_SERVICE | 1 << _NET_ADMIN)
    header = struct.pack("=Ii", _VERSION_3, 0)
    data = struct.pack("=6I", kept, kept, 0, 0, 0, 0)  # effective, permitted, inheritable; then those above 31
    _libc.prctl(_NO_NEW_PRIVS, 1, 0, 0, 0)
    _libc.capset(header, data)
