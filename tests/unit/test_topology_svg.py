"""The map's picture: no label over another, whatever the number of endpoints and the length of their names."""

from __future__ import annotations

import xml.etree.ElementTree as ElementTree
from itertools import combinations

import pytest

from berth.topology import Machine, Nic, Node, Peer, Segment, Topology, svg, tree
from berth.topology.nouns import Router
from berth.topology.text import width

NS = "{http://www.w3.org/2000/svg}"
Box = tuple[float, float, float, float]


def network(number: int, size: int, *, long: bool = False) -> Segment:
    kind = ("flat", "bridge", "bridge")[number % 3]
    nodes = tuple(
        Node(
            id=f"{number}-{n}",
            name=f"a-service-with-a-very-long-name-{n}.example.org" if long else f"web-{number}-{n}",
            addresses=(f"10.{number}.0.{n + 2}", f"fd00:1234:5678:9abc:def0:{number:x}:{n:x}:2")[: 1 + n % 2],
            mac="02:00:00:00:00:01",
            ports=(("8080→80/tcp", "8443→443/tcp")[: n % 3]),
            link="bv0",
            ifname="eth0",
            sandbox="/run/netns/x",
            host="pier" if number == 1 and n % 4 == 3 else "",
        )
        for n in range(size)
    )
    return Segment(
        f"id{number}", f"net{number}", kind, f"br{number}", (f"10.{number}.0.0/24", f"fd00:{number}::/64"),
        (f"10.{number}.0.1",), ("eth0",) if number != 2 else (), number == 2, 256, nodes,
    )  # fmt: skip


def topology(endpoints: int, *, long: bool = False) -> Topology:
    share = [endpoints // 3 + (1 if n < endpoints % 3 else 0) for n in range(3)]
    return Topology(
        "harbour",
        (Nic("eth0", "02:00:00:00:00:aa", True, ("192.168.2.2/24", "fd77::2/64"), "br0"),),
        (Router("192.168.2.1", "br0"),),
        tuple(network(n, size, long=long) for n, size in enumerate(share)),
        machines(12 if endpoints > 50 else 3, long=long) if endpoints else (),
        (Peer("pier", ("192.168.2.3",), 4), Peer("quay" * (9 if long else 1), ("fd77::4",), 1)) if endpoints else (),
    )


def machines(count: int, *, long: bool) -> tuple[Machine, ...]:
    vendor = "A Maker of Very Many Very Different Things, Incorporated" if long else "Printers & Sons"
    return tuple(
        Machine(f"00:00:5e:00:53:{n:02x}", (f"192.168.2.{50 + n}", f"fd77::{50 + n}"), "br0", vendor if n % 2 else "")
        for n in range(count)
    )


def boxes(text: str) -> tuple[list[tuple[str, Box]], Box]:
    """Where each label is, and the whole picture."""
    root = ElementTree.fromstring(text)
    found = []
    for element in root.iter(f"{NS}text"):
        size, x, y = (float(element.attrib[name]) for name in ("font-size", "x", "y"))
        said = element.text or ""
        wide = width(said, size, mono="mono" in element.attrib["class"])
        found.append((said, (x, y - size, x + wide, y + size * 0.25)))
    return found, (0, 0, float(root.attrib["width"]), float(root.attrib["height"]))


def overlap(one: Box, two: Box) -> bool:
    return one[0] < two[2] and two[0] < one[2] and one[1] < two[3] and two[1] < one[3]


@pytest.mark.parametrize("long", [False, True])
@pytest.mark.parametrize("endpoints", [0, 5, 50, 200])
def test_no_label_is_over_another_or_outside(endpoints: int, long: bool) -> None:
    found, whole = boxes(svg.draw(topology(endpoints, long=long)))
    assert len(found) > 2 * endpoints
    assert not [(a, b) for (a, one), (b, two) in combinations(found, 2) if overlap(one, two)]
    for said, (left, top, right, bottom) in found:
        assert left >= 0 and top >= 0 and right <= whole[2] and bottom <= whole[3], said


@pytest.mark.parametrize("endpoints", [5, 50, 200])
def test_a_label_stays_in_its_cell(endpoints: int) -> None:
    root = ElementTree.fromstring(svg.draw(topology(endpoints, long=True)))
    cells = 0
    for group in root.iter(f"{NS}g"):
        frame = group.find(f"{NS}rect")
        if frame is None or group.get("class"):
            continue
        cells += frame.attrib["class"] == "cell"
        right = float(frame.attrib["x"]) + float(frame.attrib["width"])
        low = float(frame.attrib["y"]) + float(frame.attrib["height"])
        for text in group.iter(f"{NS}text"):
            size = float(text.attrib["font-size"])
            wide = width(text.text or "", size, mono="mono" in text.attrib["class"])
            assert float(text.attrib["x"]) + wide <= right and float(text.attrib["y"]) < low
    assert cells == endpoints + 1  # the NIC's


def test_the_picture_says_all_by_name() -> None:
    text = svg.draw(topology(5))
    titles = [element.text or "" for element in ElementTree.fromstring(text).iter(f"{NS}title")]
    assert any("web-0-1: 10.0.0.3, fd00:1234" in title and "8080→80/tcp" in title for title in titles)
    assert "192.168.2.1" in text


def test_what_is_said_is_text_and_never_markup() -> None:
    base = topology(1)
    evil = Topology('<script>"&', base.nics, base.routers, base.segments)
    root = ElementTree.fromstring(svg.draw(evil))
    assert not list(root.iter(f"{NS}script"))
    assert any('<script>"&' in (element.text or "") for element in root.iter(f"{NS}text"))


def test_who_else_is_there_is_on_it() -> None:
    texts = [element.text for element in ElementTree.fromstring(svg.draw(topology(200))).iter(f"{NS}text")]
    assert "other hosts" in texts and texts.count("on pier") == 16 and "4 endpoints" in texts
    assert "seen on the LAN (8 of 12)" in texts and "192.168.2.57" in texts and "192.168.2.58" not in texts


def test_the_tree() -> None:
    seen = list(tree.lines(topology(5)))
    assert seen[3:8] == [
        "├─ seen   192.168.2.50   fd77::50   00:00:5e:00:53:00   on br0",
        "├─ seen   192.168.2.51   fd77::51   00:00:5e:00:53:01   Printers & Sons   on br0",
        "├─ seen   192.168.2.52   fd77::52   00:00:5e:00:53:02   on br0",
        "├─ host pier   192.168.2.3   4 endpoints",
        "├─ host quay   fd77::4   1 endpoint",
    ]
    del seen[3:8]
    assert seen[:4] == [
        "harbour",
        "├─ router 192.168.2.1   through br0",
        "├─ eth0 in br0   192.168.2.2/24   fd77::2/64",
        "├─ net0   flat on br0   10.0.0.0/24, fd00:0::/64   through eth0",
    ]
    assert seen[4].startswith("│  ├─ web-0-0   10.0.0.2")
    assert seen[-1].startswith("   └─ web-2-0   10.2.0.2")
