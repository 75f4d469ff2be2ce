"""The wire formats: whatever comes in is borne, and what goes out is read back by two others than its writer.

Nothing here needs a privilege: a link is looked up by its name, and that one is `lo`.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Iterator, Sequence
from ipaddress import ip_address
from typing import Any, cast

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pyroute2.netlink.rtnl.ifaddrmsg import ifaddrmsg
from pyroute2.netlink.rtnl.ifinfmsg import ifinfmsg
from pyroute2.netlink.rtnl.rtmsg import rtmsg

from berth.kernel import netlink, nft, rtnl
from berth.kernel.netlink import ROUTE, Message, Netlink
from berth.state import HOST, Addr, Bridge, NftElement, Part, Route, Veth

fuzzed = settings(deadline=None, max_examples=200)

HEADER = struct.Struct("=IHHII")
DONE, ERROR, MULTI, INTERRUPTED = 3, 2, 0x2, 0x10

# --- what comes in --------------------------------------------------------------------------------------


def _attr(kind: int, data: bytes) -> bytes:
    return struct.pack("=HH", len(data) + 4, kind) + data + b"\0" * (-len(data) % 4)


def _broken(whole: bytes, place: int, byte: int, cut: int) -> bytes:
    """A buffer with one byte changed and its end missing."""
    changed = bytearray(whole)
    if changed:
        changed[place % len(changed)] = byte
    return bytes(changed[: cut % (len(changed) + 1)] if cut % 3 == 0 else changed)


plain = st.lists(st.tuples(st.integers(0, 0x3FFF), st.binary(max_size=20)), max_size=6)
nested = st.recursive(
    st.binary(max_size=24),
    lambda inner: st.lists(st.tuples(st.integers(0, 60), inner), max_size=5).map(
        lambda pairs: b"".join(_attr(kind, data) for kind, data in pairs)
    ),
    max_leaves=12,
)
damage = st.tuples(st.integers(0, 400), st.integers(0, 255), st.integers(0, 400))
garbage = st.binary(max_size=300) | st.builds(lambda data, how: _broken(data, *how), nested, damage)


@fuzzed
@given(garbage, st.integers(0, 40))
def test_any_bytes_are_attributes(data: bytes, offset: int) -> None:
    found = list(netlink.items(data, offset))
    assert len(found) <= len(data) // 4
    assert netlink.attrs(data, offset) == dict(found)
    assert all(kind < 0x4000 and value in data for kind, value in found)


@fuzzed
@given(garbage)
def test_any_bytes_are_messages(data: bytes) -> None:
    found = list(netlink.messages(data))
    assert len(found) <= len(data) // 16
    assert sum(16 + len(body) for *_, body in found) <= len(data)


@fuzzed
@given(garbage)
def test_any_bytes_are_text_and_numbers(data: bytes) -> None:
    assert "\0" not in netlink.string(data)
    assert netlink.number(data, 7) >= 0


@fuzzed
@given(st.binary(min_size=16, max_size=16), garbage)
def test_any_bytes_are_a_link(head: bytes, data: bytes) -> None:
    for given_bytes in (data, head + data):
        link = rtnl._decode_link(given_bytes)
        assert (link is None) == (len(given_bytes) < 16)


def _route_head(family: int, length: int, table: int, kind: int) -> bytes:
    return struct.pack("=BBBBBBBBI", family, length, 0, 0, table, 4, 0, kind, 0)


packed = st.sampled_from([4, 16]).flatmap(lambda size: st.binary(min_size=size, max_size=size))
families, lengths = st.sampled_from([0, 2, 7, 10, 128]), st.sampled_from([0, 24, 33, 64, 129, 255])
heads = st.builds(_route_head, families, lengths, st.just(254), st.just(1))
optional = {1: packed, 5: packed, 18: packed} | dict.fromkeys((4, 6, 9, 15), nested)
fields = st.fixed_dictionaries({}, optional=optional)
routes = st.builds(lambda head, found: head + b"".join(_attr(k, d) for k, d in found.items()), heads, fields)


@fuzzed
@given(garbage | routes)
def test_any_bytes_are_a_route(data: bytes) -> None:
    entry = rtnl._decode_route(data)
    assert entry is None or "/" in entry.dst


class Canned:
    """A socket's place taken by answers to any dump."""

    def __init__(self, *bodies: bytes) -> None:
        self._bodies = bodies

    def dump(self, *_: object) -> Iterator[bytes]:
        return iter(self._bodies)

    def ask(self, *_: object) -> bytes:
        return self._bodies[0]


def canned(*bodies: bytes) -> Netlink:
    return cast(Netlink, Canned(*bodies))


held = st.builds(lambda head, kind, ip: head + _attr(kind, ip), st.binary(min_size=8, max_size=8), st.just(2), packed)


@fuzzed
@given(garbage | held)
def test_any_bytes_are_an_address(data: bytes) -> None:
    assert len(list(rtnl.addresses(canned(data, data)))) in (0, 2)


@fuzzed
@given(garbage)
def test_any_bytes_are_a_table_with_elements_and_hooks(data: bytes) -> None:
    nl = canned(data, data)
    nft.read_table(nl, "inet", "berth")
    list(nft.tables(nl))
    list(nft.read_elements(nl, "inet", "berth"))
    list(nft.read_hooks(nl, "berth_x"))
    assert "\0" not in nft.comment(data)


@fuzzed
@given(garbage)
def test_any_bytes_are_a_refusal(data: bytes) -> None:
    for flags in (0, 0x100, 0x200, 0x300):
        code, words = netlink._refusal(flags, data)
        assert isinstance(code, int) and "\0" not in words


types = st.integers(0, 2**32 - 1) | st.lists(st.sampled_from([*nft._TYPES]), max_size=5).map(
    lambda kinds: sum(kind << 6 * place for place, kind in enumerate(kinds))
)


@fuzzed
@given(types, st.binary(max_size=80))
def test_any_bytes_are_parts(kinds: int, data: bytes) -> None:
    parts = nft.decode_parts(kinds, data)
    assert len(parts) <= 6


# --- there and back -------------------------------------------------------------------------------------


@fuzzed
@given(plain)
def test_attributes_there_and_back(pairs: list[tuple[int, bytes]]) -> None:
    data = b"".join(netlink.attr(kind, value) for kind, value in pairs)
    assert len(data) % 4 == 0
    assert list(netlink.items(data)) == pairs
    assert netlink.attrs(data) == dict(pairs)
    ((kind, inner),) = netlink.items(netlink.nest(9, data))
    assert (kind, inner) == (9, data)


@fuzzed
@given(st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"])), st.integers(0, 2**32 - 1))
def test_texts_and_numbers_there_and_back(text: str, number: int) -> None:
    found = netlink.attrs(netlink.text(3, text) + netlink.u32(4, number))
    assert netlink.string(found[3]) == text
    assert netlink.number(found[4]) == number


@fuzzed
@given(st.lists(st.tuples(st.integers(0, 0xFFFF), st.integers(0, 0xFFFF), st.integers(0, 2**32 - 1), st.binary())))
def test_messages_there_and_back(every: list[tuple[int, int, int, bytes]]) -> None:
    data = b""
    for kind, flags, sequence, body in every:
        data += HEADER.pack(16 + len(body), kind, flags, sequence, 0) + body + b"\0" * (-len(body) % 4)
    assert list(netlink.messages(data)) == every


VALUES: dict[str, st.SearchStrategy[str]] = {
    "ipv4": st.ip_addresses(v=4).map(str),
    "ipv6": st.ip_addresses(v=6).map(str),
    "octets": st.binary(min_size=16, max_size=16).map(lambda raw: f"0x{raw.hex()}"),
    "mac": st.binary(min_size=6, max_size=6).map(lambda raw: raw.hex(":")),
    "proto": st.sampled_from(["tcp", "udp", "sctp"]),
    "port": st.integers(0, 65535).map(str),
    "ifindex": st.just("lo"),
    "ifname": st.text(
        st.characters(min_codepoint=33, max_codepoint=126, exclude_characters="/"), min_size=1, max_size=15
    ),
}
part = st.sampled_from(sorted(VALUES)).flatmap(lambda kind: VALUES[kind].map(lambda value: (kind, value)))
NUMBERS = {name: number for number, name in nft._TYPES.items()}


def numbered(parts: Sequence[Part]) -> int:
    """nft's number for the type of a concatenation."""
    number = 0
    for kind, _ in parts:
        number = number << 6 | NUMBERS[kind]
    return number


def test_every_type_has_its_values() -> None:
    assert set(VALUES) == set(NUMBERS) == set(nft._SIZES)


@fuzzed
@given(st.lists(part, min_size=1, max_size=5).map(tuple))
def test_parts_there_and_back(parts: tuple[Part, ...]) -> None:
    data = nft.encode_parts(parts)
    assert len(parts) == 1 or len(data) % 4 == 0
    assert nft.decode_parts(numbered(parts), data) == parts


@pytest.mark.parametrize(
    "text", ["::", "::1", "::102:304", "::ffff:1.2.3.4", "64:ff9b::1.2.3.4", "fd00:0:0:1::", "2001:db8::1:0:0:1"]
)
def test_an_address_is_read_as_it_is_written_elsewhere(text: str) -> None:
    """The stored form of an address is Python's; inet_ntop(3) has another for some."""
    written = str(ip_address(text))
    assert nft.decode_parts(NUMBERS["ipv6"], nft.encode_parts([("ipv6", written)])) == (("ipv6", written),)
    head = _route_head(10, 128, 254, 1)
    packed = ip_address(text).packed
    entry = rtnl._decode_route(head + _attr(1, packed) + _attr(5, packed))
    assert entry is not None
    assert (entry.dst, entry.via) == (f"{written}/128", written)


# --- what goes out --------------------------------------------------------------------------------------

Tree = list[tuple[int, "bytes | Tree"]]


def tree(data: bytes) -> Tree:
    """Attributes to the last byte, by the rules of netlink: lengths fit, padding is zero, nests are marked."""
    found: Tree = []
    at = 0
    while at < len(data):
        assert at + 4 <= len(data), "a whole header"
        length, kind = struct.unpack_from("=HH", data, at)
        assert 4 <= length <= len(data) - at
        payload, padding = data[at + 4 : at + length], data[at + length : at + length + -length % 4]
        assert padding == b"\0" * (-length % 4)
        payload = payload.removeprefix(bytes(16)) if kind & 0x8000 else payload  # the header of a cable's other end
        found.append((kind & 0x3FFF, tree(payload) if kind & 0x8000 else payload))
        at += length + -length % 4
    return found


NL = Netlink(ROUTE)
LO = rtnl.index(NL, "lo")
BRIDGE = Bridge("brt0", "02:00:00:00:00:01", 1400, "berth:1")
CABLE = Veth("bv0", "lo", 1400, "berth:2", HOST, "eth0", "02:00:00:00:00:02")

MESSAGES: list[tuple[int, Callable[[], Message | list[Message]]]] = [
    (16, lambda: rtnl.add_bridge(BRIDGE)),
    (16, lambda: rtnl.change_bridge(BRIDGE)),
    (16, lambda: rtnl.add_veth(NL, CABLE, None)),
    (16, lambda: rtnl.add_veth(NL, CABLE, 5)),
    (16, lambda: rtnl.change_veth_outer(NL, CABLE, plug=True)),
    (16, lambda: rtnl.change_veth_inner(CABLE)),
    (16, lambda: rtnl.retire_outer("bv0")),
    (16, lambda: rtnl.retire_inner(LO, "bv0")),
    (16, lambda: rtnl.set_mac("eth0", CABLE.mac)),
    (16, lambda: rtnl.set_link("eth0", up=True)),
    (16, lambda: rtnl.delete_link("brt0")),
    (16, rtnl.delete_retired),
    (8, lambda: rtnl.add_addr(NL, Addr(HOST, "lo", "10.7.0.1/24"))),
    (8, lambda: rtnl.add_addr(NL, Addr(HOST, "lo", "10.7.0.1/31"))),
    (8, lambda: rtnl.del_addr(NL, Addr(HOST, "lo", "fd07::1/64"))),
    (12, lambda: rtnl.add_route(NL, Route(HOST, "0.0.0.0/0", "lo", "10.7.0.2"))),
    (12, lambda: rtnl.add_route(NL, Route(HOST, "fd05::/48", "lo", "fd07::2", 1024), replace=True)),
    (12, lambda: rtnl.del_route(NL, Route(HOST, "10.5.0.0/16", "lo"))),
]


@pytest.mark.parametrize(("head", "make"), MESSAGES)
def test_messages_are_well_formed(head: int, make: Callable[[], Message | list[Message]]) -> None:
    made = make()
    for message in [made] if isinstance(made, Message) else made:
        assert len(message.body) % 4 == 0
        assert tree(message.body[head:]) or message.body[4:8] != bytes(4)


def as_pyroute2(kind: Any, message: Message) -> Any:
    """What another library makes of a message."""
    whole = HEADER.pack(16 + len(message.body), message.type, message.flags, 1, 0) + message.body
    decoded = kind(whole)
    decoded.decode()
    return decoded


@pytest.mark.parametrize(
    ("ip", "broadcast"), [("10.7.0.9/24", "10.7.0.255"), ("10.7.0.9/31", None), ("10.7.0.9/32", None)]
)
def test_another_library_reads_our_address(ip: str, broadcast: str | None) -> None:
    found = as_pyroute2(ifaddrmsg, rtnl.add_addr(NL, Addr(HOST, "lo", ip)))
    assert (found["family"], found["index"], f"{found.get_attr('IFA_LOCAL')}/{found['prefixlen']}") == (2, LO, ip)
    assert found.get_attr("IFA_BROADCAST") == broadcast
    found = as_pyroute2(ifaddrmsg, rtnl.add_addr(NL, Addr(HOST, "lo", "fd07::1/64")))
    assert (found["family"], found["flags"], found.get_attr("IFA_LOCAL")) == (10, 2, "fd07::1")


@pytest.mark.parametrize(
    "route",
    [
        Route(HOST, "0.0.0.0/0", "lo", "10.7.0.2"),
        Route(HOST, "10.5.0.0/16", "lo", metric=7),
        Route(HOST, "::/0", "lo", "fe80::1", 1024),
        Route(HOST, "fd05::1/128", "lo", "", 4294967295),
    ],
)
def test_another_library_reads_our_route(route: Route) -> None:
    found = as_pyroute2(rtmsg, rtnl.add_route(NL, route))
    dst = found.get_attr("RTA_DST") or {2: "0.0.0.0", 10: "::"}[found["family"]]
    assert f"{dst}/{found['dst_len']}" == route.dst
    assert (found.get_attr("RTA_GATEWAY") or "") == route.via
    assert (found.get_attr("RTA_PRIORITY") or 0) == route.metric
    assert (found.get_attr("RTA_OIF"), found["table"], found["type"], found["proto"]) == (LO, 254, 1, 4)


def test_another_library_reads_our_links() -> None:
    made = as_pyroute2(ifinfmsg, rtnl.add_bridge(BRIDGE)[0])
    assert (made.get_attr("IFLA_IFNAME"), made.get_attr("IFLA_ADDRESS")) == (BRIDGE.name, BRIDGE.mac)
    info = made.get_attr("IFLA_LINKINFO")
    data = info.get_attr("IFLA_INFO_DATA")
    assert info.get_attr("IFLA_INFO_KIND") == "bridge"
    assert (data.get_attr("IFLA_BR_FORWARD_DELAY"), data.get_attr("IFLA_BR_STP_STATE")) == (0, 0)
    made = as_pyroute2(ifinfmsg, rtnl.add_veth(NL, CABLE, 5)[0])
    assert (made.get_attr("IFLA_IFNAME"), made.get_attr("IFLA_MASTER"), made["flags"] & 1) == (CABLE.name, LO, 1)
    peer = made.get_attr("IFLA_LINKINFO").get_attr("IFLA_INFO_DATA").get_attr("VETH_INFO_PEER")
    assert (peer.get_attr("IFLA_IFNAME"), peer.get_attr("IFLA_ADDRESS")) == (CABLE.inner, CABLE.mac)
    assert (peer.get_attr("IFLA_NET_NS_FD"), peer["flags"] & 1) == (5, 0)


def test_elements_are_well_formed() -> None:
    match: tuple[Part, ...] = (("ipv6", "fd00::1"), ("proto", "tcp"), ("port", "443"))
    element = NftElement("inet", "t", "port6", match, (("ipv6", "fd00::2"), ("port", "80")))
    for messages, fields in ((nft.add_entry(element), 2), (nft.delete_entry(element), 1)):
        (message,) = messages
        found = dict(tree(message.body[4:]))
        assert (found[1], found[2]) == (b"t\0", b"port6\0")
        elements = found[3]
        assert isinstance(elements, list)
        assert [len(body) for _, body in elements] == [fields]
