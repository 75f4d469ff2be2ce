"""DHCPv4's bytes and the life of a lease, without a network."""

from __future__ import annotations

import random
from contextlib import suppress
from dataclasses import replace
from ipaddress import IPv4Address, IPv4Network, IPv6Address

import pytest
from hypothesis import given
from hypothesis import strategies as st

from berth.lan import slaac
from berth.lan.dhcp import client_id, frames, machine, terms
from berth.lan.dhcp.machine import Bound, Changed, Checked, Gone, Heard, Now, Probe, Send, Stage, Woken
from berth.lan.dhcp.messages import Kind, Malformed, Message, Option, decode, encode
from berth.lan.dhcp6 import asking as asking6
from berth.lan.dhcp6 import messages as messages6
from berth.model import LeaseRequest, StaticRoute

SERVER = IPv4Address("10.77.0.1")
OPTIONS: dict[int, bytes] = {
    Option.SERVER: SERVER.packed,
    Option.MASK: bytes((255, 255, 255, 0)),
    Option.LIFETIME: (1000).to_bytes(4, "big"),
}
REQUEST = LeaseRequest("key", "br0", "02:00:00:00:00:01", client_id("web"))
ACK = Message(Kind.ACK, 7, REQUEST.mac, OPTIONS, yiaddr=IPv4Address("10.77.0.60"), reply=True)


def test_an_identity_has_one_identifier_of_rfc_4361() -> None:
    assert client_id("a") == client_id("a") != client_id("b")
    assert client_id("a")[0] == 255 and client_id("a")[5:7] == b"\0\x04" and len(client_id("a")) == 23


@given(st.dictionaries(st.integers(60, 250), st.binary(max_size=600), max_size=3), st.integers(0, 2**32 - 1))
def test_what_is_written_is_read(options: dict[int, bytes], xid: int) -> None:
    message = replace(ACK, options=options, xid=xid, broadcast=True)
    assert decode(encode(message)) == message
    datagram = frames.Datagram(encode(message), REQUEST.mac)
    assert frames.decode(frames.encode(datagram)) == datagram


def test_options_go_on_in_the_file_and_the_server_name() -> None:
    data = bytearray(encode(replace(ACK, options={Option.OVERLOAD: b"\3", Option.DNS: bytes((10, 0, 0, 1))})))
    data[108 : 108 + 7] = bytes((Option.DNS, 4, 10, 0, 0, 2, 255))
    data[44 : 44 + 7] = bytes((Option.DNS, 4, 10, 0, 0, 3, 255))
    assert decode(bytes(data)).options[Option.DNS] == bytes((10, 0, 0, 1, 10, 0, 0, 2, 10, 0, 0, 3))


def test_the_terms_of_a_lease() -> None:
    routes = bytes.fromhex("18 0A4D00 0A4D00FE 00 0A4D0001")
    search = b"\x03eng\x07example\x00\x02qa\xc0\x04\x01a\xc0\x0d"
    lease = terms.lease(REQUEST, replace(ACK, options=OPTIONS | {Option.ROUTES: routes, Option.SEARCH: search}), 5.0)
    assert lease.routes == (
        StaticRoute(IPv4Network("10.77.0.0/24"), IPv4Address("10.77.0.254")),
        StaticRoute(IPv4Network("0.0.0.0/0"), IPv4Address("10.77.0.1")),
    )
    assert lease.search[:2] == ("eng.example", "qa.example")
    assert (lease.t1, lease.t2, lease.acquired) == (500, 875, 5.0)
    evil = replace(
        ACK, options=OPTIONS | {Option.DOMAIN: b"a\nnameserver 6.6.6.6", Option.MTU: b"\0\1", Option.DNS: b"12"}
    )
    lease = terms.lease(REQUEST, evil, 5.0)
    assert (lease.domain, lease.mtu, lease.dns) == ("", None, ())


def test_broken_bytes_raise_malformed_and_nothing_else() -> None:
    """A hundred thousand of them, most made from a right one."""
    chance = random.Random(2131)
    right = encode(
        replace(ACK, options=OPTIONS | {Option.ROUTES: b"\x18\x0a\x01\x02\x0a\0\0\1", Option.SEARCH: b"\1a\0"})
    )
    read = 0
    for _ in range(100_000):
        data = bytearray(right)
        for _ in range(chance.randrange(1, 6)):
            data[chance.randrange(236, 300)] = chance.randrange(256)
        with suppress(Malformed):
            message = decode(bytes(data[: chance.randrange(230, 301)]))
            read += 1
            terms.lease(REQUEST, message, 0.0)
    assert read > 1000
    for _ in range(20_000):
        with suppress(Malformed):
            frames.decode(chance.randbytes(chance.randrange(80)))


def bound(lifetime: int = 1000, boot: float = 100.0) -> machine.Client:
    """A client with a lease since `boot`."""
    chance = random.Random(1)
    options = OPTIONS | {Option.LIFETIME: lifetime.to_bytes(4, "big")}
    client, _ = machine.step(machine.begin(REQUEST), Woken(), Now(boot, 5.0), chance)
    for kind in (Kind.OFFER, Kind.ACK):
        message = replace(ACK, kind=kind, xid=client.xid, options=options)
        client, actions = machine.step(client, Heard(message, "02:ff:00:00:00:01"), Now(boot, 5.0), chance)
        assert (Probe(ACK.yiaddr) in actions) == (kind is Kind.OFFER)  # while the server makes up its mind
    assert client.stage is Stage.CHECKING
    client, actions = machine.step(client, Checked(ACK.yiaddr, None), Now(boot + 1, 6.0), chance)
    assert isinstance(actions[0], Bound) and client.stage is Stage.BOUND
    return client


@pytest.mark.parametrize(
    ("passed", "stage", "mac"),
    [(500, Stage.RENEWING, "02:ff:00:00:00:01"), (900, Stage.REBINDING, frames.EVERY_MAC)],
)
def test_what_time_asks_for(passed: float, stage: Stage, mac: str) -> None:
    """Also after a sleep: only the time that has passed counts, not how often the client was woken."""
    client, actions = machine.step(bound(), Woken(), Now(100 + passed, 0.0), random.Random(1))
    assert client.stage is stage
    (sent,) = actions
    assert isinstance(sent, Send) and sent.datagram.dst_mac == mac
    message = decode(sent.datagram.payload)
    assert message.options[Option.WANTED] == ACK.yiaddr.packed and Option.SERVER not in message.options


def test_a_lease_ends_by_the_clock_that_nobody_sets() -> None:
    client, actions = machine.step(bound(), Woken(), Now(1100, 0.0), random.Random(1))
    assert isinstance(actions[0], Gone) and client.stage is Stage.INIT and client.hint == ACK.yiaddr
    client, actions = machine.step(bound(), Woken(), Now(600, 9e9), random.Random(1))
    assert client.stage is Stage.RENEWING  # real time has jumped


def test_a_lease_for_ever_is_never_renewed_but_on_request() -> None:
    client = bound(0xFFFFFFFF)
    assert client.wake == float("inf")
    client, actions = machine.step(client, Changed(replace(REQUEST, hostname="b")), Now(200, 0.0), random.Random(1))
    assert client.stage is Stage.RENEWING and isinstance(actions[0], Send)


def test_a_resumed_lease_without_any_server_lasts_as_long_as_its_time() -> None:
    lease = bound().lease
    assert lease is not None
    chance = random.Random(1)
    for age, gone in ((2000, True), (-50, False)):
        client = machine.resume(lease, Now(1000.0, lease.acquired + age))
        told = []
        for _ in range(6):
            client, actions = machine.step(client, Woken(), Now(client.wake, 0.0), chance)
            told += [action for action in actions if isinstance(action, Gone)]
        assert bool(told) is gone


def test_broken_bytes_of_dhcpv6_and_of_routers_raise_malformed_and_nothing_else() -> None:
    chance = random.Random(8415)
    six = replace(REQUEST, version=6)
    duid = messages6.option(1, REQUEST.client_id[5:]) + messages6.option(2, b"\0\3\0\1" + bytes(6))
    address = messages6.option(5, bytes.fromhex("fd77" + "00" * 13 + "50") + (100).to_bytes(4, "big") * 2)
    ia = messages6.option(3, REQUEST.client_id[1:5] + bytes(8) + address)
    right = (
        bytes((7, 0, 0, 1))
        + duid
        + ia
        + messages6.option(24, b"\1a\0")
        + messages6.option(56, b"\0\1\0\x10" + bytes(16))
    )
    assert asking6.lease(six, messages6.decode(right), 0.0).lifetime == 100
    router = bytes((134, 0, 0, 0, 64, 0, 7, 8)) + bytes(8)
    router += bytes((3, 4, 64, 0xC0)) + bytes(8) + bytes(4) + bytes.fromhex("fd77" + "00" * 14)
    router += bytes((25, 3, 0, 0, 0, 0, 1, 0)) + bytes(16) + bytes((31, 2, 0, 0, 0, 0, 1, 0)) + b"\1a\0" + bytes(5)
    link = IPv6Address("fe80::1")
    assert slaac.decode(router, link).search == ("a",)
    for _ in range(25_000):
        with suppress(Malformed):
            asking6.lease(six, messages6.decode(_broken(right, chance)), 0.0)
        with suppress(Malformed):
            slaac.decode(_broken(router, chance), link)


def _broken(right: bytes, chance: random.Random) -> bytes:
    data = bytearray(right)
    for _ in range(chance.randrange(1, 6)):
        data[chance.randrange(4, len(data))] = chance.randrange(256)
    return bytes(data[: chance.randrange(len(data) // 2, len(data) + 1)])


def offered(early: bool) -> machine.Client:
    """A client that has taken an offer, and waits for the server's word and the LAN's."""
    chance = random.Random(1)
    client, _ = machine.step(machine.begin(replace(REQUEST, early=early)), Woken(), Now(100, 5.0), chance)
    offer = replace(ACK, kind=Kind.OFFER, xid=client.xid)
    return machine.step(client, Heard(offer, "02:ff:00:00:00:01"), Now(100, 5.0), chance)[0]


def confirmed(client: machine.Client) -> machine.Step:
    ack = replace(ACK, xid=client.xid)
    return machine.step(client, Heard(ack, "02:ff:00:00:00:01"), Now(100, 5.0), random.Random(1))


@pytest.mark.parametrize(
    ("early", "final", "stage"),
    [(True, False, Stage.BOUND), (False, False, Stage.CHECKING), (False, True, Stage.BOUND)],
)
def test_what_the_lan_said_before_the_server_counts(early: bool, final: bool, stage: Stage) -> None:
    said = Checked(ACK.yiaddr, None, final=final)
    client, _ = machine.step(offered(early), said, Now(100, 5.0), random.Random(1))
    assert confirmed(client)[0].stage is stage


def test_who_objects_late_gets_the_address_back() -> None:
    quiet = Checked(ACK.yiaddr, None, final=False)
    client, _ = machine.step(offered(early=True), quiet, Now(100, 5.0), random.Random(1))
    client, _ = confirmed(client)
    late = Checked(ACK.yiaddr, "02:66:66:66:66:66")
    client, actions = machine.step(client, late, Now(100.2, 5.2), random.Random(1))
    declined, gone = actions
    assert isinstance(declined, Send) and decode(declined.datagram.payload).kind is Kind.DECLINE
    assert isinstance(gone, Gone) and "02:66:66:66:66:66 has already" in gone.reason
    assert (client.stage, client.lease, client.hint) == (Stage.INIT, None, None)


def test_who_objects_before_the_server_confirms_is_never_troubled() -> None:
    client, _ = machine.step(
        offered(early=True), Checked(ACK.yiaddr, "02:66:66:66:66:66"), Now(100, 5.0), random.Random(1)
    )
    client, actions = confirmed(client)
    (declined,) = actions
    assert isinstance(declined, Send) and decode(declined.datagram.payload).kind is Kind.DECLINE
    assert client.stage is Stage.INIT
