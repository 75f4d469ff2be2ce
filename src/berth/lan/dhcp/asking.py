"""What a client says to servers, in each state (RFC 2131 4.4, table 5). Pure."""

from __future__ import annotations

from ipaddress import IPv4Address

from berth.lan.dhcp.frames import EVERY_MAC, EVERYBODY, Datagram
from berth.lan.dhcp.messages import NOWHERE, Kind, Message, Option, encode
from berth.model import Lease, LeaseRequest

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


def discover(request: LeaseRequest, xid: int, secs: int, hint: IPv4Address | None) -> Datagram:
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


def confirm(lease: Lease, xid: int, secs: int, *, everybody: bool) -> Datagram:
    """I have this address; may I keep it? To its server alone, or to everybody.

    It has the form of INIT-REBOOT also for a renewal. With the address in `ciaddr`, a server answers to the endpoint's
    address and so to its MAC: the bridge hands that to the endpoint's cable, and the host never sees it without a tap
    on every port. Without, the answer is a broadcast, which comes here too.
    """
    request = lease.request
    options = _about(request) | {Option.WANTED: lease.address.ip.packed}
    message = Message(Kind.REQUEST, xid, request.mac, options, secs=secs, broadcast=True)
    server = IPv4Address(lease.server)
    if everybody or not lease.server_mac or server not in lease.address.network:
        return _broadcast(request, message)
    return Datagram(encode(message), request.mac, lease.server_mac, IPv4Address(int(lease.address.ip)), server)


def decline(lease: Lease, xid: int) -> Datagram:
    """Somebody else has this address."""
    options: dict[int, bytes] = {
        Option.CLIENT: lease.request.client_id,
        Option.WANTED: lease.address.ip.packed,
        Option.SERVER: lease.server,
        Option.TEXT: b"the address is in use",
    }
    return _broadcast(lease.request, Message(Kind.DECLINE, xid, lease.request.mac, options))


def release(lease: Lease, xid: int) -> Datagram:
    """I no longer need this address. A broadcast frame where the server's MAC is not known or not on this segment."""
    options: dict[int, bytes] = {Option.CLIENT: lease.request.client_id, Option.SERVER: lease.server}
    address = IPv4Address(int(lease.address.ip))
    message = Message(Kind.RELEASE, xid, lease.request.mac, options, ciaddr=address)
    mac = lease.server_mac or EVERY_MAC
    return Datagram(encode(message), lease.request.mac, mac, address, IPv4Address(lease.server))


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
