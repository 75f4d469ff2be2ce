"""The kernel's own WireGuard, by generic netlink.

Sources: include/uapi/linux/{genetlink,wireguard}.h; Documentation/userspace-api/netlink/intro.rst of the kernel.
"""

from __future__ import annotations

import socket
import struct
from base64 import b64decode, b64encode
from collections.abc import Sequence

from berth.kernel.netlink import Attrs, Message, Netlink, Refusal, attr, attrs, items, nest
from berth.kernel.netlink import text as text_attr
from berth.kernel.netlink import u32 as u32_attr
from berth.kernel.wireguard_told import Peer, Told

GENERIC = 16
_GENL = struct.Struct("=BBxx")  # command, version
_CONTROL, _GET_FAMILY = 0x10, 3
_FAMILY_ID, _FAMILY_NAME = 1, 2
_GET_DEVICE, _SET_DEVICE = 0, 1
_IFNAME, _PRIVATE, _PUBLIC, _PORT, _PEERS = 2, 3, 4, 6, 8
_PEER_KEY, _PEER_FLAGS, _PEER_ENDPOINT, _PEER_ALLOWED = 1, 3, 4, 9
_REMOVE, _REPLACE_ALLOWED, _UPDATE = 1, 2, 4
_IP_FAMILY, _IP_ADDRESS, _IP_LENGTH = 1, 2, 3
_U16 = struct.Struct("=H")
_IN4, _IN6 = struct.Struct("!H4s8x"), struct.Struct("!HI16sI")  # struct sockaddr_in and sockaddr_in6, but the family


def _family(nl: Netlink) -> int:
    answer = nl.ask(_CONTROL, _GENL.pack(_GET_FAMILY, 1) + text_attr(_FAMILY_NAME, "wireguard"))
    return int(_U16.unpack(attrs(answer, _GENL.size)[_FAMILY_ID])[0])


def told(name: str) -> Told:
    """What the kernel knows of a device. Raises `Refusal`."""
    nl = Netlink.kept(GENERIC)
    found = Told()
    for data in nl.dump(_family(nl), _GENL.pack(_GET_DEVICE, 1) + text_attr(_IFNAME, name)):
        about = attrs(data, _GENL.size)
        found.public = _base64(about.get(_PUBLIC, b"")) or found.public
        found.port = _U16.unpack(about[_PORT])[0] if _PORT in about else found.port
        found.peers += [_peer(attrs(each)) for _, each in items(about.get(_PEERS, b""))]
    return found


def _base64(key: bytes) -> str:
    return b64encode(key).decode() if any(key) else ""


def _peer(about: Attrs) -> Peer:
    allowed = []
    for _, each in items(about.get(_PEER_ALLOWED, b"")):
        of = attrs(each)
        family, length = _U16.unpack(of[_IP_FAMILY])[0], of[_IP_LENGTH][0]
        allowed.append(f"{socket.inet_ntop(family, of[_IP_ADDRESS])}/{length}")
    return Peer(_base64(about.get(_PEER_KEY, b"")), _endpoint(about.get(_PEER_ENDPOINT, b"")), allowed)


def _endpoint(raw: bytes) -> str:
    if len(raw) < 16:
        return ""
    if _U16.unpack_from(raw)[0] == socket.AF_INET:
        port, packed = _IN4.unpack_from(raw, 2)
        return f"{socket.inet_ntop(socket.AF_INET, packed)}:{port}"
    port, _, packed, _ = _IN6.unpack_from(raw, 2)
    return f"[{socket.inet_ntop(socket.AF_INET6, packed)}]:{port}"


def set_device(name: str, private: str, port: int) -> None:
    """Give a device a key and a port. Raises `Refusal`."""
    _set(name, attr(_PRIVATE, b64decode(private)) + attr(_PORT, _U16.pack(port)))


def set_peer(name: str, peer: Peer) -> None:
    """Add a peer, or change it. Raises `Refusal`."""
    allowed = b"".join(nest(0, _allowed(each)) for each in peer.allowed)
    body = attr(_PEER_KEY, b64decode(peer.public)) + u32_attr(_PEER_FLAGS, _REPLACE_ALLOWED)
    body += attr(_PEER_ENDPOINT, _sockaddr(peer.endpoint)) + nest(_PEER_ALLOWED, allowed)
    _set(name, nest(_PEERS, nest(0, body)))


def remove_peer(name: str, public: str) -> None:
    """Remove a peer; one that is gone already is fine. Raises `Refusal`."""
    body = attr(_PEER_KEY, b64decode(public)) + u32_attr(_PEER_FLAGS, _REMOVE | _UPDATE)
    _set(name, nest(_PEERS, nest(0, body)))


def _set(name: str, body: bytes) -> None:
    nl = Netlink.kept(GENERIC)
    request = Message(_family(nl), 0, _GENL.pack(_SET_DEVICE, 1) + text_attr(_IFNAME, name) + body)
    refused: Sequence[Refusal] = nl.batch([request])
    if refused:
        raise refused[0]


def _allowed(subnet: str) -> bytes:
    address, _, length = subnet.partition("/")
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    packed = socket.inet_pton(family, address)
    return attr(_IP_FAMILY, _U16.pack(family)) + attr(_IP_ADDRESS, packed) + attr(_IP_LENGTH, bytes([int(length)]))


def _sockaddr(endpoint: str) -> bytes:
    address, _, port = endpoint.rpartition(":")
    if address.startswith("["):
        packed = socket.inet_pton(socket.AF_INET6, address[1:-1])
        return _U16.pack(socket.AF_INET6) + _IN6.pack(int(port), 0, packed, 0)
    return _U16.pack(socket.AF_INET) + _IN4.pack(int(port), socket.inet_pton(socket.AF_INET, address))
