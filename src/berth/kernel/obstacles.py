"""Who would drop frames that only cross a bridge.

With br_netfilter, bridged frames pass the host's iptables and nftables FORWARD chains too; with a policy of
DROP there (Docker sets it), a container on the LAN can be pinged by nobody and nothing says why.
"""

from __future__ import annotations

import ctypes
import socket
import struct
from collections.abc import Iterator, Sequence

from berth.kernel import nft, passes, sysctl, xtables
from berth.kernel.netlink import NETFILTER, Netlink

_SETTINGS = {4: "net.bridge.bridge-nf-call-iptables", 6: "net.bridge.bridge-nf-call-ip6tables"}
_FAMILIES = {4: "ip", 6: "ip6"}
_FORWARD = 2  # NF_INET_FORWARD
_GET_INFO, _GET_ENTRIES = 64, 65  # of both ip_tables and ip6_tables
_DROP = -1  # -NF_DROP - 1: how xtables writes a verdict

_libc = ctypes.CDLL(None, use_errno=True)


def obstacles() -> tuple[str, ...]:
    """The FORWARD chains of other programs that stop what nothing in them accepts and that bridged frames pass here.

    () for none.
    """
    versions = [version for version, setting in _SETTINGS.items() if sysctl.read(setting) == "1"]
    if not versions:
        return ()
    return (*_nftables(versions), *(chain for version in versions for chain in _xtables(version)))


def _nftables(versions: Sequence[int]) -> Iterator[str]:
    families = {"inet", *(_FAMILIES[version] for version in versions)}
    nl = Netlink.kept(NETFILTER)
    for chain in nft.base_chains(nl):
        if chain.family not in families or chain.hook != _FORWARD or chain.table == "berth":
            continue
        shown = f"`nft list chain {chain.family} {chain.table} {chain.name}`"
        if chain.drops:
            yield f"policy drop of {shown}"
        elif passes.ends_with_a_stop(nl, chain.family, chain.table, chain.name):
            yield f"last rule of {shown}"


def _xtables(version: int) -> Iterator[str]:
    """The legacy iptables, which nftables does not see (linux/netfilter_ipv4/ip_tables.h)."""
    if xtables.loaded(_FAMILIES[version]) and _policy(version) == _DROP:
        yield f"policy DROP of `{xtables.tool(_FAMILIES[version])} -S FORWARD`"


def _policy(version: int) -> int:
    family, level, entry = (
        (socket.AF_INET, socket.IPPROTO_IP, 88) if version == 4 else (socket.AF_INET6, socket.IPPROTO_IPV6, 140)
    )
    try:
        with socket.socket(family, socket.SOCK_RAW, socket.IPPROTO_RAW) as raw:
            info = struct.unpack("=32s I 5I 5I I I", _ask(raw, level, _GET_INFO, 84, b""))
            size, policy_at = info[13], info[7 + _FORWARD]
            blob = _ask(raw, level, _GET_ENTRIES, 40 + size, struct.pack("=I", size))
    except OSError:
        return 0
    at = 40 + policy_at
    (target,) = struct.unpack_from("=H", blob, at + entry)
    return int(struct.unpack_from("=i", blob, at + target + 32)[0])


def _ask(raw: socket.socket, level: int, option: int, size: int, argument: bytes) -> bytes:
    """getsockopt(2) with an argument in its buffer, which Python's own cannot pass."""
    buffer = ctypes.create_string_buffer(b"filter".ljust(32, b"\0") + argument, size)
    length = ctypes.c_uint(size)
    if _libc.getsockopt(raw.fileno(), level, option, buffer, ctypes.byref(length)):
        raise OSError(ctypes.get_errno(), "getsockopt")
    return buffer.raw
