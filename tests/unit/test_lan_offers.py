"""Offers of DHCP servers, and what is none."""

from __future__ import annotations

import random
import struct
from dataclasses import replace
from ipaddress import IPv4Address, IPv4Network, ip_address, ip_network

from berth.lan import offers
from berth.lan.servers import served
from berth.model import Network, Served
from berth.schema import dump, load_network

MAC, TRANSACTION = "02:00:00:00:00:07", 0x12345678


def answer(options: str = "350102 3604c0a80201 0104ffffff00 0304c0a80201 330400000e10 ff", **changed: int) -> bytes:
    """A frame as a server at 192.168.2.1 sends it."""
    fields = {"op": 2, "transaction": TRANSACTION, **changed}
    own = bytes.fromhex(MAC.replace(":", ""))
    head = struct.pack("!BBBBIHH4s4s4s4s16s", fields["op"], 1, 6, 0, fields["transaction"], 0, 0, bytes(4),
                       bytes([192, 168, 2, 117]), bytes(4), bytes(4), own)  # fmt: skip
    said = head + bytes(192) + b"\x63\x82\x53\x63" + bytes.fromhex(options)
    udp = struct.pack("!HHHH", 67, 68, 8 + len(said), 0) + said
    ip = b"\x45" + bytes(8) + b"\x11" + bytes(10)
    return b"\xff" * 6 + bytes.fromhex("020000000201") + b"\x08\x00" + ip + udp


def test_an_offer_is_understood() -> None:
    assert offers.offer(answer(), MAC, TRANSACTION) == offers.Offer(
        server=IPv4Address("192.168.2.1"),
        mac="02:00:00:00:02:01",
        address=IPv4Address("192.168.2.117"),
        subnet=IPv4Network("192.168.2.0/24"),
        router=IPv4Address("192.168.2.1"),
        lease=3600,
    )


def test_what_is_no_offer_to_us() -> None:
    assert offers.offer(answer(transaction=7), MAC, TRANSACTION) is None
    assert offers.offer(answer(op=1), MAC, TRANSACTION) is None
    assert offers.offer(answer(), "02:00:00:00:00:08", TRANSACTION) is None
    assert offers.offer(answer("350105 3604c0a80201 ff"), MAC, TRANSACTION) is None  # an ACK
    assert offers.offer(answer("350102 ff"), MAC, TRANSACTION) is None  # of no server
    assert offers.offer(offers.discover(MAC, TRANSACTION), MAC, TRANSACTION) is None


def test_a_strange_mask_is_none() -> None:
    said = offers.offer(answer("350102 3604c0a80201 0104ff00ff00 ff"), MAC, TRANSACTION)
    assert said is not None and said.subnet is None


def test_no_frame_is_too_strange() -> None:
    chance = random.Random(7)
    good, understood = answer(), 0
    for _ in range(20_000):
        frame = bytearray(good)
        for _ in range(chance.randrange(4)):
            frame[chance.randrange(len(frame))] = chance.randrange(256)
        frame = frame[: chance.randrange(len(frame))] if chance.random() < 0.3 else frame
        understood += offers.offer(bytes(frame), MAC, TRANSACTION) is not None
    assert 1_000 < understood < 19_000


def test_several_offers_of_a_server_tell_of_its_range() -> None:
    one = offers.offer(answer(), MAC, TRANSACTION)
    assert one is not None
    low, high = (replace(one, address=IPv4Address(f"192.168.2.{last}")) for last in (103, 140))
    other = replace(one, server=IPv4Address("192.168.2.9"), router=None)
    router = IPv4Address("192.168.2.1")
    assert served([one, other, high, low]) == (
        Served(router, low.address, high.address, one.subnet, router),
        Served(other.server, one.address, one.address, one.subnet, None),
    )


def test_a_range_is_held_against_others() -> None:
    given = Served(ip_address("192.168.2.1"), ip_address("192.168.2.100"), ip_address("192.168.2.130"))
    spans = {"192.168.2.0/24": True, "192.168.2.128/26": True, "192.168.2.64/27": False, "fd00::/64": False}
    assert {span: given.reaches(ip_network(span)) for span in spans} == spans
    within = {"192.168.2.100": True, "192.168.2.131": False, "fd00::1": False}
    assert {address: ip_address(address) in given for address in within} == within
    assert str(given) == "192.168.2.100 to 192.168.2.130 at least"


def test_what_servers_give_is_kept_with_a_network() -> None:
    ends = ip_address("192.168.2.100"), ip_address("192.168.2.130")
    given = Served(ip_address("192.168.2.1"), *ends, ip_network("192.168.2.0/24"))
    for known in (None, (), (given,)):
        net = Network("1" * 64, "lan", "flat", "br0", (), 1500, "", served=known)
        assert load_network(dump(net)) == net
