"""A phone on the LAN, by an implementation of multicast DNS that is not Berth's.

`lab_phone.py find NAME` prints the addresses of a name, `lab_phone.py ask NAME TYPE` what an ordinary resolver hears,
`lab_phone.py claim NAME ADDRESS` has it, and `lab_phone.py
hear` prints each record that is said, with its lifetime.
"""

from __future__ import annotations

import signal
import socket
import struct
import sys
from collections.abc import Callable

import dns.message
import dns.rdata
import dns.rdatatype
from zeroconf import AddressResolver, IPVersion, ServiceInfo, Zeroconf  # type: ignore[attr-defined]

GROUP, PORT = "224.0.0.251", 5353


def find(name: str) -> None:
    with Zeroconf(interfaces=[own()]) as here:
        sought = AddressResolver(f"{name}.")
        sought.request(here, 3000)
        print(*sought.parsed_addresses(IPVersion.All))


def claim(name: str, address: str) -> None:
    with Zeroconf(interfaces=[own()]) as here:
        kind = "_http._tcp.local."
        held = [socket.inet_aton(address)]
        here.register_service(ServiceInfo(kind, f"phone.{kind}", 80, addresses=held, server=f"{name}."))
        print("ready", flush=True)
        signal.pause()


def ask(name: str, kind: str) -> None:
    """As a resolver does that knows nothing of multicast: from any port, for an answer of its own (RFC 6762, 6.7)."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as asker:
        asker.settimeout(5)
        query = dns.message.make_query(name, kind)
        asker.sendto(query.to_wire(), (GROUP, PORT))
        said = dns.message.from_wire(asker.recv(9000))
        assert query.is_response(said)
        print(*(record.to_text() for rrset in said.answer for record in rrset))


def hear() -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as ear:
        ear.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        ear.bind(("", PORT))
        membership = struct.pack("4s4s", socket.inet_aton(GROUP), socket.inet_aton(own()))
        ear.setsockopt(socket.IPPROTO_IP, socket.IP_ADD_MEMBERSHIP, membership)
        print("ready", flush=True)
        while True:
            said = dns.message.from_wire(ear.recv(9000), one_rr_per_rrset=True)
            for record in said.answer:
                # Its class has the top bit, which dnspython does not know.
                data = dns.rdata.from_text("IN", record.rdtype, record[0].to_text())
                print(record.name.to_text(), record.ttl, data.to_text(), flush=True)


def own() -> str:
    """The phone's address on the LAN."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        probe.connect((GROUP, PORT))
        return str(probe.getsockname()[0])


if __name__ == "__main__":
    act: dict[str, Callable[..., None]] = {"find": find, "claim": claim, "ask": ask, "hear": hear}
    act[sys.argv[1]](*sys.argv[2:])
