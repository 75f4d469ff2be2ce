"""What a DHCPv6 client says to servers, and what their answers mean (RFC 8415 18.2). Pure."""

from __future__ import annotations

from dataclasses import dataclass
from ipaddress import IPv6Address, IPv6Interface

from berth.lan.dhcp.frames import Datagram
from berth.lan.dhcp.messages import Malformed, Message
from berth.lan.dhcp.terms import FOREVER, search_list
from berth.lan.dhcp6.messages import Kind6, Message6, Option6, Options, association, encode
from berth.model import Address, Lease, LeaseRequest

_ASKED = b"".join(code.to_bytes(2, "big") for code in (Option6.DNS, Option6.SEARCH, Option6.NTP))
_NTP_ADDRESS = b"\0\1\0\x10"  # RFC 5908 4.1: suboption 1 of 16 bytes


@dataclass(frozen=True, slots=True)
class Information:
    """What a server says to who has an address already."""

    dns: tuple[IPv6Address, ...]
    search: tuple[str, ...]
    ntp: tuple[IPv6Address, ...]


def informed(message: Message) -> Information:
    """The answer to an INFORMATION-REQUEST."""
    return Information(dns(message), search_list(message.options.get(Option6.SEARCH, b"")), _ntp(message))


def place(request: LeaseRequest) -> str:
    """What the replies to a client have in `Message.mac`: the DUID of its identifier of RFC 4361."""
    return request.client_id[5:].hex()


def server(held: Lease) -> str:
    """A lease's server, for people."""
    return f"the DHCP server {held.server.hex(':')}"


def discover(request: LeaseRequest, xid: int, secs: int, hint: Address | None) -> Datagram:
    """SOLICIT."""
    return _say(request, Kind6.SOLICIT, xid, secs, None, hint)


def choose(request: LeaseRequest, offer: Message, secs: int) -> Datagram:
    """REQUEST."""
    return _say(request, Kind6.REQUEST, offer.xid, secs, offer.server_id, offer.yiaddr)


def confirm(held: Lease, xid: int, secs: int, *, everybody: bool) -> Datagram:
    """RENEW, or REBIND to everybody; that also after a restart, since it brings the times which CONFIRM does not."""
    kind, to = (Kind6.REBIND, None) if everybody else (Kind6.RENEW, held.server)
    return _say(held.request, kind, xid, secs, to, held.address.ip)


def decline(held: Lease, xid: int) -> Datagram:
    """DECLINE."""
    return _say(held.request, Kind6.DECLINE, xid, 0, held.server, held.address.ip)


def release(held: Lease, xid: int) -> Datagram:
    """RELEASE."""
    return _say(held.request, Kind6.RELEASE, xid, 0, held.server, held.address.ip)


def information(duid: bytes, xid: int) -> bytes:
    """INFORMATION-REQUEST: no address, but the rest (RFC 8415 18.2.6)."""
    options: Options = ((Option6.CLIENT, duid), (Option6.ASKED, _ASKED), (Option6.ELAPSED, b"\0\0"))
    return encode(Kind6.INFORMATION, xid, options)


def lease(request: LeaseRequest, message: Message, acquired: float, mac: str = "") -> Lease:
    """The lease that a message offers or confirms; raises `Malformed`. Routers are told by advertisements only."""
    if not isinstance(message, Message6) or message.given is None or message.server_id is None:
        raise Malformed(f"it gives no address{': ' if message.text else ''}{message.text}")
    given = message.given
    if given.address.is_multicast or given.address.is_link_local or given.address.is_loopback or not int(given.address):
        raise Malformed(f"it gives {given.address}, which no machine can have")
    if not given.valid or given.preferred > given.valid:
        raise Malformed(f"it gives {given.address} for {given.valid} s, of which {given.preferred} s in use")
    lives = given.preferred or given.valid
    right = 0 < given.t1 <= given.t2 <= given.valid
    t1, t2 = (given.t1, given.t2) if right else (lives // 2, lives * 4 // 5)
    if given.valid == FOREVER:
        t1 = t2 = FOREVER
    return Lease(
        request,
        IPv6Interface((given.address, 128)),
        message.server_id,
        dns=dns(message),
        search=search_list(message.options.get(Option6.SEARCH, b"")),
        ntp=_ntp(message),
        acquired=acquired,
        lifetime=given.valid,
        t1=t1,
        t2=t2,
        server_mac=mac,
    )


def dns(message: Message) -> tuple[IPv6Address, ...]:
    """The DNS servers of a message."""
    data = message.options.get(Option6.DNS, b"")
    return tuple(IPv6Address(data[at : at + 16]) for at in range(0, len(data) - 15, 16))


def _ntp(message: Message) -> tuple[IPv6Address, ...]:
    data = message.options.get(Option6.NTP, b"")
    return (IPv6Address(data[4:20]),) if data.startswith(_NTP_ADDRESS) and len(data) >= 20 else ()


def _say(
    request: LeaseRequest, kind: Kind6, xid: int, secs: int, to: bytes | None, address: Address | None
) -> Datagram:
    wish = address if isinstance(address, IPv6Address) else None
    options = [
        (int(Option6.CLIENT), request.client_id[5:]),
        (int(Option6.IA), association(request.client_id[1:5], wish)),
        (int(Option6.ELAPSED), min(secs * 100, 0xFFFF).to_bytes(2, "big")),
        (int(Option6.ASKED), _ASKED),
    ]
    if to is not None:
        options.append((int(Option6.SERVER), to))
    if request.hostname:
        name = request.hostname.encode("ascii", "ignore")[:63]
        options.append((int(Option6.FQDN), b"\1" + bytes((len(name),)) + name))  # RFC 4704 4.2: a name without its end
    return Datagram(encode(kind, xid, tuple(options)), request.mac)
