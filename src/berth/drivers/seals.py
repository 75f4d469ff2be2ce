"""Encryption between hosts: one WireGuard a host, whose other ends are all other hosts.

Behind it each host has a link-local address that follows from its id. A tunnel between such addresses is bound to its
link both ways: the kernel takes nothing for it that came in elsewhere, and sends nothing of it by another way.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from ipaddress import IPv6Address

from berth.model import HostRecord, Seal, SealKey
from berth.sealed import SEAL, WireGuard, WireGuardPeer
from berth.state import HOST, Addr, State

_WRAPPING = {4: 60, 6: 80}  # bytes: the underlay's IP header, UDP 8, WireGuard's header 16 and its tag 16
_BLOCK = 16  # bytes: WireGuard pads to whole ones
_MTU = 9200  # bytes, whole blocks; more than tunnels need, so that none is cut or held back by it
_PREFIX = "fe80::"


def seal(host: str, key: SealKey) -> Seal:
    """A host's WireGuard. Its name is its own on a machine, be there several hosts in namespaces."""
    return Seal(SEAL + hashlib.sha256(host.encode()).hexdigest()[:10], _address(host), key)


def _address(host: str) -> str:
    digest = hashlib.sha256(f"seal {host}".encode()).digest()
    return str(IPv6Address(bytes.fromhex("fe80000000000000") + digest[:8]))


def sealed(vtep: str) -> bool:
    """Whether that is where an encrypted tunnel ends."""
    return vtep.startswith(_PREFIX)


def room(mtu: int, version: int) -> int:
    """The largest packet that goes through WireGuard whole, over a link of that MTU and IP version; in bytes."""
    return min((mtu - _WRAPPING[version]) // _BLOCK * _BLOCK, _MTU)


def own(seal: Seal) -> State:
    """What should exist for a host's own end."""
    link = WireGuard(seal.link, seal.key.public, seal.key.port, _MTU, seal.key.file)
    return frozenset({link, Addr(HOST, seal.link, f"{seal.address}/64")})


def peers(seal: Seal, me: str, hosts: Iterable[HostRecord]) -> State:
    """The other ends: every host that has told its key, and where it is reached."""
    known = {host.id: host for host in hosts}
    mine = known.get(me)
    versions = {ip.version for ip in mine.underlay} if mine is not None else set()
    found = set()
    for host in known.values():
        reached = [ip for ip in host.underlay if ip.version in versions] or host.underlay
        if host.id != me and host.public_key and reached:
            at = f"[{reached[0]}]" if reached[0].version == 6 else str(reached[0])
            endpoint = f"{at}:{host.wireguard_port}"
            found.add(WireGuardPeer(seal.link, host.public_key, endpoint, _address(host.id)))
    return frozenset(found)
