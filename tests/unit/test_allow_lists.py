"""Allow lists: how they are read, written again, and what rules they are."""

from __future__ import annotations

from ipaddress import IPv4Interface
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from berth import schema, spec
from berth.errors import Invalid
from berth.firewall import policy
from berth.guarded import words
from berth.model import Admission, Endpoint, Network, Sandbox


def network(**more: Any) -> Network:
    return Network("1" * 64, "lan", "flat", "br0", (), 1500, "", **more)


def endpoint(*options: tuple[str, str]) -> Endpoint:
    addresses = (IPv4Interface("10.0.0.2/24"),)
    sandbox = Sandbox("/run/netns/web", "1")
    return Endpoint("1" * 64, "n", "web", sandbox, "bv0", "eth0", "02:00:00:00:00:01", addresses, options=options)


def rules(text: str) -> list[str]:
    """The rules of a list's own, as nft writes them."""
    nobody, some = (policy.guard("bv0", spec.allow_list(each)).rules for each in ("none", text))
    assert some[: len(nobody)] == nobody, "what no list keeps out"
    return [" ".join(map(words, rule)) for rule in some[len(nobody) :]]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("none", []),
        ("tcp/80", ["meta l4proto tcp th dport 80"]),
        ("TCP/8000-8100", ["meta l4proto tcp th dport 8000-8100"]),
        ("sctp", ["meta l4proto sctp"]),
        ("udp/53@10.1.2.3/8", ["meta protocol ip ip saddr 10.0.0.0/8 meta l4proto udp th dport 53"]),
        ("tcp/443@2001:db8::/32", ["meta protocol ip6 ip6 saddr 2001:db8::/32 meta l4proto tcp th dport 443"]),
        ("icmp", ["meta protocol ip meta l4proto icmp", "meta protocol ip6 meta l4proto icmpv6"]),
        ("icmp@fd00::/8", ["meta protocol ip6 ip6 saddr fd00::/8 meta l4proto icmpv6"]),
        ("any@192.168.2.5", ["meta protocol ip ip saddr 192.168.2.5/32"]),
        ("any@::/0", ["meta protocol ip6"]),
        ("any", ["meta protocol ip", "meta protocol ip6"]),
        ("tcp/80, tcp/80 udp/80", ["meta l4proto tcp th dport 80", "meta l4proto udp th dport 80"]),
    ],
)
def test_an_entry_is_these_rules(text: str, expected: list[str]) -> None:
    assert rules(text) == expected


ports = st.integers(1, 65535)
spans = st.tuples(ports, ports).map(lambda pair: (min(pair), max(pair)))
sources = st.none() | st.ip_addresses().map(lambda a: spec.parse_subnet(f"{a}/{a.max_prefixlen // 2}", "source"))
entries = st.builds(Admission, st.sampled_from(spec.PROTOCOLS), st.none() | spans, sources)
entries |= st.builds(Admission, st.sampled_from(("icmp", "any")), st.none(), sources)


@given(st.lists(entries, max_size=spec.LONGEST_ALLOW_LIST, unique=True))
def test_what_is_written_is_read_again(listed: list[Admission]) -> None:
    text = ",".join(map(str, listed)) or "none"
    assert spec.allow_list(text) == tuple(listed)
    assert spec.endpoint_options((("allow", text.replace(",", " ")),)) == (("allow", text),)


def test_a_list_has_an_end() -> None:
    longest = [f"tcp/{port}" for port in range(1, spec.LONGEST_ALLOW_LIST + 1)]
    assert len(spec.allow_list(",".join(longest))) == spec.LONGEST_ALLOW_LIST
    with pytest.raises(Invalid, match="at most 64"):
        spec.allow_list(",".join([*longest, "udp/1"]))


@pytest.mark.parametrize(
    "text", ["", ",", "tcp/", "tcp/0", "tcp/65536", "tcp/80@", "80", "none,tcp/1", "tcp/80@fe80::1%e", "tcp/1-2-3"]
)
def test_what_cannot_be_read_is_refused_in_one_line(text: str) -> None:
    with pytest.raises(Invalid) as refusal:
        spec.endpoint_options((("allow", text),))
    assert str(refusal.value).isprintable() and "endpoint option allow" in str(refusal.value)


def test_whose_list_holds() -> None:
    assert policy.for_endpoint(network(), endpoint()) == frozenset()
    own, shared = (policy.guard("bv0", spec.allow_list(text)) for text in ("tcp/80", "udp/53"))
    assert policy.for_endpoint(network(allow="udp/53"), endpoint()) == {shared}
    assert policy.for_endpoint(network(allow="udp/53"), endpoint(("allow", "tcp/80"))) == {own}
    assert policy.for_endpoint(network(), endpoint(("allow", "none"))) == {policy.guard("bv0", ())}
    assert own != shared


def test_a_network_of_before_has_no_list() -> None:
    old = schema.dump(network()).replace(b'"allow":"",', b"")
    assert b'"allow":' not in old
    assert schema.load_network(old).allow == ""
