"""DHCPv4 with servers that do wrong: a scripted one, and the client's real socket."""

from __future__ import annotations

import asyncio
import os
import random
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from ipaddress import IPv4Address
from pathlib import Path

import pytest

import lan_servers
from berth.errors import Refused
from berth.kernel.netns import inside
from berth.lan.dhcp import Clients, client_id
from berth.lan.dhcp.messages import Kind, Malformed, Message, Option, decode, encode
from berth.model import Lease, LeaseRequest
from lan_servers import SERVER, SERVER_IP, Lan

REQUEST = LeaseRequest("key", "br0", "02:00:00:00:00:01", client_id("web"))
GIVEN = IPv4Address("10.77.0.60")
TERMS: dict[int, bytes] = {
    Option.SERVER: IPv4Address(SERVER_IP).packed,
    Option.MASK: bytes((255, 255, 255, 0)),
    Option.LIFETIME: (600).to_bytes(4, "big"),
}

Answer = Callable[[Message], list[Message]]


@pytest.fixture
def home(tmp_path: Path) -> Iterator[Lan]:
    with lan_servers.lan(tmp_path) as made:
        yield made


def reply(asked: Message, kind: Kind | None = None, **more: object) -> Message:
    """The right answer, or a wrong one by what is given."""
    kind = kind or (Kind.OFFER if asked.kind is Kind.DISCOVER else Kind.ACK)
    right = Message(kind, asked.xid, asked.mac, TERMS, yiaddr=GIVEN, reply=True)
    return replace(right, **more)  # type: ignore[arg-type]


@contextmanager
def scripted(home: Lan, answer: Answer) -> Iterator[list[Message]]:
    """A server that answers as told; what it was asked."""
    asked: list[Message] = []
    with inside(home.server):
        ear = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    ear.setsockopt(socket.SOL_SOCKET, socket.SO_BROADCAST, 1)
    ear.setsockopt(socket.SOL_SOCKET, socket.SO_BINDTODEVICE, SERVER.encode())
    ear.bind(("", 67))
    ear.settimeout(0.1)
    over = threading.Event()

    def serve() -> None:
        while not over.is_set():
            try:
                message = decode(ear.recv(2048))
            except (TimeoutError, Malformed):
                continue
            asked.append(message)
            for each in answer(message):
                ear.sendto(encode(each), ("255.255.255.255", 68))

    thread = threading.Thread(target=serve)
    thread.start()
    try:
        yield asked
    finally:
        over.set()
        thread.join()
        ear.close()


def refusal(home: Lan, answer: Answer, timeout: float = 1.5) -> str:
    """What a person is told."""

    async def work() -> str:
        clients = Clients(lambda lease: None, lambda lease, why: None)
        with pytest.raises(Refused) as told:
            await clients.acquire(REQUEST, timeout)
        assert not clients.leases()
        clients.close()
        return str(told.value)

    with scripted(home, answer), inside(home.host):
        return asyncio.run(work())


def granted(home: Lan, answer: Answer, then: Callable[[list[Lease], list[str]], bool] | None = None) -> Lease:
    """The lease that comes in the end; `then` waits for what else is told."""
    changed: list[Lease] = []
    lost: list[str] = []

    async def work() -> Lease:
        clients = Clients(changed.append, lambda lease, why: lost.append(why))
        lease = await clients.acquire(REQUEST, 15)
        end = asyncio.get_running_loop().time() + 20
        while then is not None and not then(changed, lost):
            assert asyncio.get_running_loop().time() < end, (changed, lost)
            await asyncio.sleep(0.02)
        clients.close()
        return lease

    with scripted(home, answer), inside(home.host):
        return asyncio.run(work())


def terms(**more: bytes) -> dict[int, bytes]:
    return TERMS | {Option[name]: data for name, data in more.items()}


def test_an_offer_that_is_never_confirmed(home: Lan) -> None:
    told = refusal(home, lambda asked: [reply(asked)] if asked.kind is Kind.DISCOVER else [])
    assert told == "the DHCP server 10.77.0.1 offered 10.77.0.60 on br0, but never confirmed it"


def test_a_storm_of_refusals_is_told_and_does_not_become_one_of_requests(home: Lan) -> None:
    asked: list[Message] = []
    no = terms(TEXT=b"not \x1b[31myou")

    def answer(message: Message) -> list[Message]:
        asked.append(message)
        return [reply(message) if message.kind is Kind.DISCOVER else reply(message, Kind.NAK, options=no)] * 20

    assert refusal(home, answer, 3) == "the DHCP server 10.77.0.1 on br0 refuses: not  [31myou"
    assert 2 <= len(asked) < 60


@pytest.mark.parametrize(
    ("wrong", "told"),
    [
        ({"yiaddr": IPv4Address("10.77.0.255")}, "broadcast address"),
        ({"yiaddr": IPv4Address("224.0.0.1")}, "no machine can have"),
        ({"options": terms(MASK=b"\xff\x00\xff\x00")}, r"mask 255\.0\.255\.0"),
        ({"options": terms(ROUTER=bytes((192, 168, 1, 1)))}, "outside of that subnet"),
        ({"options": terms(LIFETIME=bytes(4))}, "for no time"),
    ],
)
def test_an_offer_that_makes_no_sense(home: Lan, wrong: dict[str, object], told: str) -> None:
    with pytest.raises(AssertionError, match=told):
        raise AssertionError(refusal(home, lambda asked: [reply(asked, None, **wrong)], 0.5))


def test_forged_confirmations_are_left_alone(home: Lan) -> None:
    """Of another exchange, for another client, by another server, for another identifier; then the right one."""

    def answer(asked: Message) -> list[Message]:
        if asked.kind is Kind.DISCOVER:
            return [reply(asked)]
        evil = IPv4Address("10.77.0.66")
        return [
            reply(asked, xid=asked.xid ^ 1, yiaddr=evil),
            reply(asked, mac="02:00:00:00:00:02", yiaddr=evil),
            reply(asked, yiaddr=evil),
            reply(asked, options=terms(SERVER=evil.packed)),
            reply(asked, options=terms(CLIENT=b"\x01other!")),
            reply(asked, Kind.NAK, options=terms(SERVER=evil.packed)),
            reply(asked),
        ]

    lease = granted(home, answer)
    assert (lease.address.ip, lease.server) == (GIVEN, IPv4Address(SERVER_IP).packed)


def test_of_two_servers_the_one_with_the_wanted_address_is_chosen(home: Lan) -> None:
    two = IPv4Address("10.77.0.2").packed

    def answer(asked: Message) -> list[Message]:
        wanted = IPv4Address(asked.options[Option.WANTED])
        if asked.kind is Kind.DISCOVER:
            return [reply(asked), reply(asked, yiaddr=wanted, options=terms(SERVER=two))]
        return [reply(asked, yiaddr=wanted, options=terms(SERVER=asked.options[Option.SERVER]))]

    async def work() -> None:
        clients = Clients(lambda lease: None, lambda lease, why: None)
        lease = await clients.acquire(replace(REQUEST, wanted=IPv4Address("10.77.0.80")))
        assert (str(lease.address), lease.server) == ("10.77.0.80/24", two)
        clients.close()

    with scripted(home, answer), inside(home.host):
        asyncio.run(work())


def test_a_lease_of_one_second_is_kept(home: Lan) -> None:
    short = terms(LIFETIME=(1).to_bytes(4, "big"))
    granted(home, lambda asked: [reply(asked, options=short)], lambda changed, lost: len(changed) > 4 and not lost)


def test_a_server_that_forgets_its_leases(home: Lan) -> None:
    """It refuses the renewal and gives another address."""
    given = [GIVEN]
    short = terms(LIFETIME=(4).to_bytes(4, "big"))

    def answer(asked: Message) -> list[Message]:
        if asked.kind is Kind.REQUEST and Option.SERVER not in asked.options and given == [GIVEN]:
            given.append(GIVEN + 1)
            return [reply(asked, Kind.NAK)]
        return [reply(asked, yiaddr=given[-1], options=short)]

    def then(changed: list[Lease], lost: list[str]) -> bool:
        return bool(lost) and any(each.address.ip == GIVEN + 1 for each in changed)

    granted(home, answer, then)


def test_noise_on_the_wire_harms_nobody(home: Lan) -> None:
    """Thousands of broken messages between the offer and the confirmation."""
    chance = random.Random(6)

    def broken(asked: Message) -> list[bytes]:
        whole = encode(reply(asked, options=terms(ROUTES=b"\x18\x0a", SEARCH=b"\xc0\x00")))
        made = []
        for _ in range(3000):
            data = bytearray(whole[: chance.randrange(1, len(whole))] if chance.random() < 0.5 else whole)
            for _ in range(chance.randrange(1, 8)):
                data[chance.randrange(len(data))] = chance.randrange(256)
            if len(data) > 8:  # of another exchange: what is broken must not be what is then confirmed
                data[4:8] = os.urandom(4)
            made.append(bytes(data))
        return made

    with inside(home.server):
        out = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    out.setsockopt(socket.SOL_SOCKET, socket.SO_BROADCAST, 1)
    out.setsockopt(socket.SOL_SOCKET, socket.SO_BINDTODEVICE, SERVER.encode())

    def answer(asked: Message) -> list[Message]:
        for data in broken(asked):
            out.sendto(data, ("255.255.255.255", 68))
        return [reply(asked)]

    with out:
        assert granted(home, answer).address.ip == GIVEN
