"""DNS messages, judged by dnspython; and what is decided about a name."""

from __future__ import annotations

import random
from dataclasses import replace
from ipaddress import ip_address, ip_interface, ip_network

import dns.flags
import dns.message
import dns.rcode
import dns.reversename
from hypothesis import given, settings
from hypothesis import strategies as st

from berth.model import Endpoint, Learnt, Network, Placement, Pool, Sandbox
from berth.names.message import A, Query, Unreadable, answer, answers, fitted, lives, parse
from berth.names.records import RESOLVER, Place, View, places, reverse, told, view


def net(name: str, number: int, **more: object) -> Network:
    subnet = ip_network(f"10.0.{number}.0/24")
    pool = Pool(subnet, gateway=ip_address(f"10.0.{number}.1"))
    return Network(name * 8, name, "bridge", f"br{name}", (pool,), 1500, "now", **more)  # type: ignore[arg-type]


def ep(network: Network, name: str, *addresses: str, aliases: tuple[str, ...] = ()) -> Endpoint:
    sandbox = Sandbox(f"/run/netns/{name}", f"id-{name}")
    ident = f"{name.lower().encode().hex():0<64}"
    held = tuple(ip_interface(f"{address}/24") for address in addresses)
    return Endpoint(ident, network.id, name, sandbox, "bv", "eth0", "02:00:00:00:00:01", held, aliases=aliases)


ONE, TWO, SHUT = net("one", 1), net("two", 2), net("shut", 3, internal=True)
OPEN = net("open", 4, allow_from=("brone",))
ENDPOINTS = [
    ep(ONE, "Web", "10.0.1.2", "fd00::2", aliases=("www",)),
    ep(ONE, "web2", "10.0.1.3", aliases=("www",)),
    ep(TWO, "db", "10.0.2.2"),
    ep(OPEN, "db", "10.0.4.2"),
    ep(OPEN, "web", "10.0.4.3"),
]
ALL = (ONE, TWO, SHUT, OPEN)


def ask(seen: View, name: str, kind: str = "A", turn: int = 0) -> dns.message.Message | None:
    said = told(seen, parse(dns.message.make_query(name, kind).to_wire()), turn, 512)
    return None if said is None else dns.message.from_wire(said)


def texts(seen: View, name: str, kind: str = "A", turn: int = 0) -> list[str]:
    said = ask(seen, name, kind, turn)
    assert said is not None and said.rcode() == dns.rcode.NOERROR
    return [record.to_text() for rrset in said.answer for record in rrset]


def test_names_of_the_own_network_and_of_those_that_let_it_in() -> None:
    seen = view([ONE.id], ALL, ENDPOINTS)
    assert texts(seen, "WEB") == texts(seen, "web.one") == texts(seen, ENDPOINTS[0].id[:12])
    assert texts(seen, "web") == ["10.0.1.2"]  # not the other network's, which is
    assert texts(seen, "web.open") == ["10.0.4.3"]
    assert texts(seen, "db") == ["10.0.4.2"]
    assert ask(seen, "db.two") is None
    assert ask(view([TWO.id], ALL, ENDPOINTS), "web.one") is None


def test_kinds_and_turns() -> None:
    seen = view([ONE.id], ALL, ENDPOINTS)
    assert texts(seen, "web", "AAAA") == ["fd00::2"]
    assert texts(seen, "web2", "AAAA") == texts(seen, "web", "MX") == []
    assert {tuple(texts(seen, "www", turn=turn)) for turn in range(2)} == {
        ("10.0.1.2", "10.0.1.3"),
        ("10.0.1.3", "10.0.1.2"),
    }
    assert texts(seen, "2.1.0.10.in-addr.arpa", "PTR") == ["Web.one."]
    assert texts(seen, dns.reversename.from_address("fd00::2").to_text(), "PTR") == ["Web.one."]
    nobody = ask(seen, "9.1.0.10.in-addr.arpa", "PTR")
    assert nobody is not None and nobody.rcode() == dns.rcode.NXDOMAIN
    assert ask(seen, "9.9.0.10.in-addr.arpa", "PTR") is None


def test_who_is_asked_for_the_rest() -> None:
    assert view([SHUT.id], ALL, ()).upstream is None
    assert view([SHUT.id, ONE.id], ALL, ()).upstream == ()
    special = net("x", 5, naming=(("dns", "10.9.9.9,fd00::9"), ("domain", "lan")))
    assert view([special.id], [special], ()).upstream == ("10.9.9.9", "fd00::9")
    leased = replace(ep(ONE, "a", "10.0.5.2"), learnt=Learnt(dns=(ip_address("10.9.9.8"),)))
    assert view([ONE.id], ALL, [leased]).upstream == ("10.9.9.8",)
    assert view([special.id], [special], [leased]).upstream == ("10.9.9.9", "fd00::9")
    assert texts(view([special.id], [special], [ep(special, "a", "10.0.5.2")]), "a.lan") == ["10.0.5.2"]


def test_places() -> None:
    handed = Endpoint(**{**{f: getattr(ENDPOINTS[2], f) for f in Endpoint.__slots__}, "placement": Placement.HANDOVER})
    silent = net("x", 6, naming=(("names", "false"),))
    found = places([*ALL, silent], [ENDPOINTS[0], handed, ep(silent, "quiet", "10.0.6.2")])
    assert {(place.ns, place.address) for place in found} == {
        ("/run/netns/Web", RESOLVER),
        *(("", f"10.0.{number}.1") for number in (1, 2, 3, 4)),
    }
    assert Place("a", "b", "c", (), ()) == Place("a", "b", "c", ("n",), ())


def test_an_answer_that_is_too_large_says_so() -> None:
    query = parse(dns.message.make_query("many", "A").to_wire())
    records = [(A, bytes([10, 0, 0, number])) for number in range(100)]
    short = dns.message.from_wire(answer(query, records, ttl=1, room=512))
    assert short.flags & dns.flags.TC and len(short.answer[0]) < 100
    whole = answer(query, records, ttl=1)
    assert len(dns.message.from_wire(whole).answer[0]) == 100
    cut = dns.message.from_wire(fitted(query, whole, 512))
    assert cut.flags & dns.flags.TC and not cut.answer
    assert len(lives(query, whole)) == 100


def test_edns() -> None:
    query = parse(dns.message.make_query("a", "A", use_edns=0, payload=4096).to_wire())
    assert (query.edns, query.room) == (True, 1232)
    assert dns.message.from_wire(answer(query, (), ttl=0)).edns == 0
    assert parse(dns.message.make_query("a", "A").to_wire()).room == 512


def test_spelling_and_id_are_the_askers() -> None:
    first, second = (parse(dns.message.make_query(name, "A", id=number).to_wire()) for name, number in
                     (("web.Example", 1), ("WEB.example", 2)))  # fmt: skip
    assert first.key == second.key
    reply = answer(first, [(A, b"\1\2\3\4")], ttl=9)
    again = fitted(second, reply, 512)
    assert again[:2] == b"\0\2" and again[12 : second.end] == second.raw[12 : second.end]
    assert answers(second, b"\0\2", again) and not answers(second, b"\0\3", again)
    assert not answers(parse(dns.message.make_query("x.example", "A").to_wire()), b"\0\2", again)


@settings(max_examples=300, deadline=None)
@given(st.binary(max_size=200))
def test_any_bytes(raw: bytes) -> None:
    try:
        query = parse(raw)
    except Unreadable as error:
        assert error.answer == b"" or dns.message.from_wire(error.answer).id == int.from_bytes(raw[:2], "big")
    else:
        told(view([ONE.id], ALL, ENDPOINTS), query, 0, 512)


def test_a_hundred_thousand_damaged_queries() -> None:
    dice = random.Random(7)
    seen = view([ONE.id], ALL, ENDPOINTS)
    good = [dns.message.make_query(name, "A", use_edns=0).to_wire() for name in ("web", "www.one", "a.b.c.example")]
    read = 0
    for _ in range(100_000):
        raw = bytearray(dice.choice(good))
        for _ in range(dice.randint(1, 4)):
            raw[dice.randrange(2, len(raw))] = dice.randrange(256)
        query = _tried(bytes(raw[: dice.randint(0, len(raw))]))
        if query is not None:
            told(seen, query, 0, 512)
            read += 1
    assert 0 < read < 100_000


def _tried(raw: bytes) -> Query | None:
    try:
        return parse(raw)
    except Unreadable:
        return None


def test_reverse() -> None:
    for text in ("10.0.1.2", "fd00::2", "2001:db8::ff"):
        assert reverse(dns.reversename.from_address(text).to_text().rstrip(".")) == ip_address(text)
    for name in ("in-addr.arpa", "1.2.3.in-addr.arpa", "x.2.3.4.in-addr.arpa", "a.ip6.arpa", "web"):
        assert reverse(name) is None
