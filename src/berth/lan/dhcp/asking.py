"""What a client says to servers, in each state (RFC 2131 4.4, table 5). Pure."""

from __future__ import annotations

from ipaddress import IPv4Address

from berth.lan.dhcp.frames import EVERY_MAC, EVERYBODY, Datagram
from berth.lan.dhcp.messages import NOWHERE, Kind, Message, Option, encode
from berth.lan.dhcp.terms import lease
from berth.model import Address, Lease, LeaseRequest

__all__ = ["choose", "confirm", "decline", "discover", "lease", "place", "release", "server"]

_LARGEST_REPLY = 1472  # bytes: what an Ethernet frame has room for
# Classless routes before the router, as RFC 3442 wants it.
_ASKED = bytes(
    (
        Option.MASK,
        Option.ROUTES,
        Option.ROUTER,
        Option.DNS,
        Option.DOMAIN,
        Option.SEARCH,
        Option.MTU,
        Option.NTP,
        Option.LIFETIME,
        Option.T1,
        Option.T2,
    )
)


def place(request: LeaseRequest) -> str:
    """What the replies to a client have in `Message.mac`."""
    return request.mac


def server(held: Lease) -> str:
    """A lease's server, for people."""
    return f"the DHCP server {IPv4Address(held.server)}"


def discover(request: LeaseRequest, xid: int, secs: int, hint: Address | None) -> Datagram:
    """Who gives me an address? If it may be, this one."""
    options = _about(request)
    if hint is not None:
        options[Option.WANTED] = hint.packed
    return _broadcast(request, Message(Kind.DISCOVER, xid, request.mac, options, secs=secs, broadcast=True))


def choose(request: LeaseRequest, offer: Message, secs: int) -> Datagram:
    """I take this offer."""
    wanted = {Option.WANTED: offer.yiaddr.packed, Option.SERVER: offer.options[Option.SERVER]}
    message = Message(Kind.REQUEST, offer.xid, request.mac, _about(request) | wanted, secs=secs, broadcast=True)
    return _broadcast(request, message)


def confirm(held: Lease, xid: int, secs: int, *, everybody: bool) -> Datagram:
    """I have this address; may I keep it? To its server alone, or to everybody.

    It has the form of INIT-REBOOT also for a renewal. With the address in `ciaddr`, a server answers to the endpoint's
    address and so to its MAC: the bridge hands that to the endpoint's cable, and the host never sees it without a tap
    on every port. Without, the answer is a broadcast, which comes here too.
    """
    request = held.request
    options = _about(request) | {Option.WANTED: held.address.ip.packed}
    message = Message(Kind.REQUEST, xid, request.mac, options, secs=secs, broadcast=True)
    to = IPv4Address(held.server)
    if everybody or not held.server_mac or to not in held.address.network:
        return _broadcast(request, message)
    return Datagram(encode(message), request.mac, held.server_mac, IPv4Address(int(held.address.ip)), to)


def decline(held: Lease, xid: int) -> Datagram:
    """Somebody else has this address."""
    options: dict[int, bytes] = {
        Option.CLIENT: held.request.client_id,
        Option.WANTED: held.address.ip.packed,
        Option.SERVER: held.server,
        Option.TEXT: b"the address is in use",
    }
    return _broadcast(held.request, Message(Kind.DECLINE, xid, held.request.mac, options))


def release(held: Lease, xid: int) -> Datagram:
    """I no longer need this address. A broadcast frame where the server's MAC is not known or not on this segment."""
    options: dict[int, bytes] = {Option.CLIENT: held.request.client_id, Option.SERVER: held.server}
    address = IPv4Address(int(held.address.ip))
    message = Message(Kind.RELEASE, xid, held.request.mac, options, ciaddr=address)
    mac = held.server_mac or EVERY_MAC
    return Datagram(encode(message), held.request.mac, mac, address, IPv4Address(held.server))


def _about(request: LeaseRequest) -> dict[int, bytes]:
    options: dict[int, bytes] = {
        Option.CLIENT: request.client_id,
        Option.ASKED: _ASKED,
        Option.SIZE: _LARGEST_REPLY.to_bytes(2, "big"),
    }
    if request.hostname:
        options[Option.HOSTNAME] = request.hostname.encode("ascii", "ignore")[:63]
    if request.vendor_class:
        options[Option.VENDOR] = request.vendor_class.encode()[:255]
    return options


def _broadcast(request: LeaseRequest, message: Message) -> Datagram:
    return Datagram(encode(message), request.mac, EVERY_MAC, NOWHERE, EVERYBODY)
