"""The two languages of the one state machine: DHCPv4 and DHCPv6."""

from __future__ import annotations

from typing import Protocol

from berth.lan.dhcp import asking
from berth.lan.dhcp.frames import Datagram
from berth.lan.dhcp.messages import Message
from berth.lan.dhcp6 import asking as asking6
from berth.model import Address, Lease, LeaseRequest


class Speech(Protocol):
    """What is said to servers, and what their answers mean."""

    def place(self, request: LeaseRequest) -> str: ...
    def server(self, held: Lease) -> str: ...
    def lease(self, request: LeaseRequest, message: Message, acquired: float, mac: str = "") -> Lease: ...
    def discover(self, request: LeaseRequest, xid: int, secs: int, hint: Address | None) -> Datagram: ...
    def choose(self, request: LeaseRequest, offer: Message, secs: int) -> Datagram: ...
    def confirm(self, held: Lease, xid: int, secs: int, *, everybody: bool) -> Datagram: ...
    def decline(self, held: Lease, xid: int) -> Datagram: ...
    def release(self, held: Lease, xid: int) -> Datagram: ...


#: By IP version.
SPEECH: dict[int, Speech] = {4: asking, 6: asking6}
