"""Who computes the checksums of what a link sends: the link, or whoever takes the packets over.

Source: include/uapi/linux/ethtool.h. The ioctl is the one that every kernel has.
"""

from __future__ import annotations

import array
import errno
import fcntl
import socket
import struct

from berth.ovs import TxChecksums

_SIOCETHTOOL = 0x8946
_GET, _SET = 0x16, 0x17  # ETHTOOL_GTXCSUM, ETHTOOL_STXCSUM
_IFREQ = struct.Struct("=16sQ16x")
_ABSENT = (errno.ENODEV, errno.ENXIO)


def read(ns: str, dev: str) -> TxChecksums:
    """The setting of a link of the namespace that the thread is in."""
    try:
        return TxChecksums(ns, dev, offload=bool(_ask(dev, _GET, 0)))
    except OSError as error:
        if error.errno in _ABSENT:
            return TxChecksums(ns, dev, absent=True)
        if error.errno == errno.EOPNOTSUPP:
            return TxChecksums(ns, dev)
        raise


def write(wanted: TxChecksums) -> None:
    """Set it, in the namespace that the thread is in. Raises `OSError`."""
    _ask(wanted.dev, _SET, int(wanted.offload))


def _ask(dev: str, command: int, value: int) -> int:
    buffer = array.array("I", (command, value))
    request = _IFREQ.pack(dev.encode(), buffer.buffer_info()[0])
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as any_socket:
        fcntl.ioctl(any_socket, _SIOCETHTOOL, request)
    return buffer[1]
