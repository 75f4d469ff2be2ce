"""Messages of multicast DNS, judged by dnspython."""

from __future__ import annotations

from ipaddress import ip_address

import dns.flags
import dns.message
import dns.rdata
import dns.rrset
from hypothesis import given, settings
from hypothesis import strategies as st

from berth.names.mdns import Claimed, announcement, answered, label, probe, read

WEB = Claimed("web.local", (ip_address("192.168.2.9"), ip_address("fd00::9")))
V4 = Claimed("old.local", (ip_address("192.168.2.8"),))


def said(raw: bytes | None) -> list[tuple[str, int, str]]:
    """Name, lifetime and text of each record."""
    assert raw is not None
    message = dns.message.from_wire(raw, one_rr_per_rrset=True)
    return [(each.name.to_text(), each.ttl, _plain(each)) for each in message.answer]


def _plain(rrset: dns.rrset.RRset) -> str:
    """The text of a record's data, whose class has the top bit that dnspython does not know."""
    return dns.rdata.from_text("IN", rrset.rdtype, rrset[0].to_text()).to_text()


def ask(name: str, kind: str) -> bytes:
    return dns.message.make_query(name, kind).to_wire()


def test_labels() -> None:
    assert label("My_App.v2") == "my-app-v2.local"
    assert label("a" * 80) == "a" * 63 + ".local"
    assert label("a" * 80, 2) == "a" * 61 + "-2.local"
    assert label("_") == "endpoint.local"


def test_announcement_and_goodbye() -> None:
    told = said(announcement(WEB))
    assert ("web.local.", 120, "192.168.2.9") in told and ("web.local.", 120, "fd00::9") in told
    assert ("9.2.168.192.in-addr.arpa.", 120, "web.local.") in told
    assert {ttl for _, ttl, _ in said(announcement(WEB, ttl=0))} == {0}
    assert read(announcement(WEB)).response


def test_a_probe_says_what_is_meant() -> None:
    heard = read(probe(WEB))
    assert heard.questions[0] == ("web.local", 255, True) and not heard.response
    assert tuple((each.kind, each.data) for each in heard.records) == WEB.data


def test_answers() -> None:
    assert said(answered(read(ask("WEB.local", "A")), [V4, WEB], legacy=False)) == [("web.local.", 120, "192.168.2.9")]
    raw = ask("web.local", "AAAA")
    legacy = answered(read(raw), [WEB], legacy=True)
    assert said(legacy) == [("web.local.", 10, "fd00::9")]
    assert legacy is not None and legacy[:2] == raw[:2] and dns.message.from_wire(legacy).question
    assert said(answered(read(ask("old.local", "AAAA")), [V4], legacy=False)) == [("old.local.", 120, "old.local. A")]
    assert answered(read(ask("other.local", "A")), [WEB], legacy=False) is None


def test_what_is_known_is_not_said_again() -> None:
    query = dns.message.make_query("web.local", "A")
    query.flags &= ~dns.flags.RD
    for ttl, silent in ((100, True), (10, False)):
        query.answer = [dns.rrset.from_text("web.local.", ttl, "IN", "A", "192.168.2.9")]
        assert (answered(read(query.to_wire()), [WEB], legacy=False) is None) is silent


def test_compressed_names_and_circles() -> None:
    query = dns.message.make_query("web.local", "A")
    query.answer = [dns.rrset.from_text("web.local.", 9, "IN", "A", "192.168.2.9")]
    assert read(query.to_wire()).records[0].name == "web.local"
    circle = b"\0" * 5 + b"\1" + b"\0" * 6 + b"\xc0\x0c\0\1\0\1"
    try:
        read(circle)
    except ValueError as error:
        assert "circles" in str(error)
    else:
        raise AssertionError("it was read")


@settings(max_examples=300, deadline=None)
@given(st.binary(max_size=200), st.booleans())
def test_any_bytes(raw: bytes, legacy: bool) -> None:
    try:
        heard = read(raw)
    except ValueError:
        return
    answered(heard, [WEB, V4], legacy=legacy)
