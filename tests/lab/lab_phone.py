"""A phone on the LAN, by an implementation of multicast DNS that is not Berth's.

`lab_phone.py find NAME` prints the addresses of a name, `lab_phone.py claim NAME ADDRESS` has it, and `lab_phone.py
hear` prints each record that is said, with its lifetime.
"""

from __future__ import annotations

import signal
import socket
import struct
import sys

import dns.message
from zeroconf import AddressResolver, IPVersion, ServiceInfo, Zeroconf

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
                print(record.name.to_text(), record.ttl, record[0].to_text(), flush=True)


def own() -> str:
    """The phone's address on the LAN."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        probe.connect((GROUP, PORT))
        return str(probe.getsockname()[0])


if __name__ == "__main__":
    {"find": find, "claim": claim, "hear": hear}[sys.argv[1]](*sys.argv[2:])
