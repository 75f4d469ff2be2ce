"""The map as a picture: routers and host at the left, networks as cards at the right, endpoints in a grid.

Every box is as wide as its column, and texts are cut to their boxes: nothing can overlap, however many there are.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from html import escape
from math import ceil

from berth.topology.nouns import Machine, Nic, Node, Peer, Segment, Topology
from berth.topology.text import fit, width

_MARGIN, _GAP = 24, 12
_SIDE = 250  # width of the left column
_LANE = 56  # between the columns, for the cables
_CELL, _PAD = 208, 10  # an endpoint's width; room inside a box
_HEAD = 62  # height of a card's head
_LINE = 17  # from one line of a cell to the next
_FEWEST, _WIDEST = 3, 12  # endpoints side by side
_MOST = 8  # machines of the LAN that are drawn

#: Colours and fonts; a page that shows the picture brings these rules itself.
STYLE = """\
.map{--bg:#f6f7f9;--card:#fff;--line:#c9d1db;--ink:#16202c;--soft:#526071;--flat:#0b7a5e;--bridge:#2557c9;\
--other:#7a4a12;--port:#8a3b00;font-family:system-ui,"DejaVu Sans",sans-serif}
@media(prefers-color-scheme:dark){.map{--bg:#10161d;--card:#1a222c;--line:#3a4757;--ink:#e8edf3;--soft:#a3b1c2;\
--flat:#4fd1a8;--bridge:#8fb4ff;--other:#e0b070;--port:#ffb27a}}
.map .ground{fill:var(--bg)}.map .card{fill:var(--card);stroke:var(--line)}.map .cell{fill:var(--bg);stroke:var(--line)}
.map text{fill:var(--ink);font-size:13px}.map .title{font-size:16px;font-weight:700}.map .name{font-weight:600}
.map .soft{fill:var(--soft);font-size:12px}.map .mono{font-family:ui-monospace,"DejaVu Sans Mono",monospace}
.map .ports{fill:var(--port);font-size:12px}.map .cable{fill:none;stroke:var(--line);stroke-width:2.5}
.map .flat{--kind:var(--flat)}.map .bridge{--kind:var(--bridge)}.map .other{--kind:var(--other)}
.map .bar{fill:var(--kind)}.map .cable.flat,.map .cable.bridge,.map .cable.other{stroke:var(--kind)}
"""


def draw(topology: Topology, *, style: bool = True) -> str:
    """The picture as SVG. `style`: with its own colours and fonts, to stand by itself."""
    columns = _columns(topology)
    side, nics, low = _side(topology)
    cards, cables = [], []
    y: float = _MARGIN
    left = _MARGIN + _SIDE + _LANE
    for number, segment in enumerate(topology.segments):
        card, height = _card(segment, left, y, columns)
        cards.append(card)
        cables.append(_cable(segment, nics, left, y + _HEAD / 2, number))
        y += height + _GAP + 4
    if not topology.segments:
        cards.append(_text("no networks yet", left, _MARGIN + 20, _CELL, "soft", 12))
    wide = left + columns * (_CELL + _GAP) - _GAP + 2 * _PAD + _MARGIN
    high = max(y, low) + _MARGIN
    what = f"{topology.host}: {len(topology.segments)} networks, {topology.endpoints} endpoints"
    return "".join(
        [
            f'<svg xmlns="http://www.w3.org/2000/svg" class="map" viewBox="0 0 {wide} {high}" width="{wide}" '
            f'height="{high}" role="img" aria-label="Map of {escape(what)}">',
            f"<title>{escape(what)}</title>",
            f"<style>{STYLE}</style>" if style else "",
            f'<rect class="ground" width="{wide}" height="{high}"/>',
            *cables,
            *side,
            *cards,
            "</svg>\n",
        ]
    )


def _columns(topology: Topology) -> int:
    """Endpoints side by side: the fewest that make a picture at least as wide as it is high."""
    most = max((len(_node_lines(node)) for segment in topology.segments for node in segment.nodes), default=0)
    for columns in range(_FEWEST, _WIDEST):
        rows = sum(ceil(len(segment.nodes) / columns) for segment in topology.segments)
        high = rows * (_height(most) + _GAP) + len(topology.segments) * (_HEAD + _GAP)
        if _SIDE + _LANE + columns * (_CELL + _GAP) >= high:
            return columns
    return _WIDEST


def _kind(segment: Segment) -> str:
    return segment.driver if segment.driver in ("flat", "bridge") else "other"


# --- the left column ------------------------------------------------------------------------------------


def _side(topology: Topology) -> tuple[list[str], dict[str, float], float]:
    """Routers, and the host with its NICs; how high each NIC is, and where the column ends."""
    parts: list[str] = []
    y: float = _MARGIN
    for router in topology.routers:
        lines = [("router", "name"), (router.address, "mono"), (f"through {router.nic}", "soft")]
        parts.append(_box(lines, _MARGIN, y, _SIDE, f"router {router.address}", "card"))
        y += _height(len(lines)) + _GAP
    if topology.routers:
        middle = _MARGIN + 28
        parts.append(f'<path class="cable" d="M{middle} {y - _GAP}V{y + _GAP}"/>')
        y += _GAP
    top, nics = y, {}
    y += 40
    inside = []
    for nic in topology.nics:
        lines = _nic_lines(nic)
        inside.append(_box(lines, _MARGIN + _PAD, y, _SIDE - 2 * _PAD, " ".join(text for text, _ in lines), "cell"))
        nics[nic.name] = y + _height(len(lines)) / 2
        y += _height(len(lines)) + _GAP
    frame = f'<rect class="card" x="{_MARGIN}" y="{top}" width="{_SIDE}" height="{y - top}" rx="10"/>'
    nics[""] = top + 22
    title = _text(topology.host, _MARGIN + _PAD, top + 26, _SIDE - 2 * _PAD, "title", 16)
    others, y = _others(topology, y + _GAP)
    return [*parts, frame, title, *inside, *others], nics, y


def _others(topology: Topology, y: float) -> tuple[list[str], float]:
    """Who else is there: the other hosts of the networks, and machines of the LAN; and where the column ends."""
    parts: list[str] = []
    groups = [("other hosts", [_peer_lines(peer) for peer in topology.peers])]
    seen = [_machine_lines(machine) for machine in topology.machines]
    more = f" ({_MOST} of {len(seen)})" if len(seen) > _MOST else ""
    groups.append((f"seen on the LAN{more}", seen[:_MOST]))
    for title, boxes in groups:
        if not boxes:
            continue
        parts.append(_text(title, _MARGIN + 2, y + 14, _SIDE, "soft", 12))
        y += 22
        for lines in boxes:
            parts.append(_box(lines, _MARGIN, y, _SIDE, ", ".join(text for text, _ in lines), "card"))
            y += _height(len(lines)) + _GAP
    return parts, y


def _peer_lines(peer: Peer) -> list[tuple[str, str]]:
    addresses = [(address, "mono") for address in peer.addresses]
    return [(peer.name, "name"), *addresses, (f"{peer.endpoints} endpoint{'' if peer.endpoints == 1 else 's'}", "soft")]


def _machine_lines(machine: Machine) -> list[tuple[str, str]]:
    shown = [(address, "mono") for address in machine.addresses[:2]]
    return [*shown, (machine.mac, "soft mono"), *([(machine.vendor, "soft")] if machine.vendor else [])]


def _nic_lines(nic: Nic) -> list[tuple[str, str]]:
    where = f"{nic.name} · port of {nic.bridge}" if nic.bridge else nic.name
    state = "" if nic.up else " · down"
    return [(where + state, "name"), *((address, "mono") for address in nic.addresses), (nic.mac, "soft mono")]


def _cable(segment: Segment, nics: dict[str, float], x: float, y: float, number: int) -> str:
    """From the NICs that a network goes out by, or the host itself, to its card, each in a lane of its own."""
    lane = x - _LANE + 10 + number % 6 * 6
    start = _MARGIN + _SIDE
    ends = [nics[name] - number % 5 * 4 + 8 for name in segment.nics if name in nics] or [nics[""]]
    dash = ' stroke-dasharray="5 4"' if segment.internal else ""
    return "".join(
        f'<path class="cable {_kind(segment)}"{dash} d="M{start} {end:g}H{lane}V{y:g}H{x}"/>' for end in ends
    )


# --- cards ----------------------------------------------------------------------------------------------


def _card(segment: Segment, x: float, y: float, columns: int) -> tuple[str, float]:
    """A network with its endpoints, and how high it is."""
    wide = columns * (_CELL + _GAP) - _GAP + 2 * _PAD
    kind = _kind(segment)
    cells: list[str] = []
    below: float = y + _HEAD
    for first in range(0, len(segment.nodes), columns):
        row = [_node_lines(node) for node in segment.nodes[first : first + columns]]
        most = max(len(lines) for lines in row)
        for place, lines in enumerate(row):
            title = _about(segment.nodes[first + place])
            cells.append(_box(lines, x + _PAD + place * (_CELL + _GAP), below, _CELL, title, "cell", most))
        below += _height(most) + _GAP
    high = below - y if segment.nodes else _HEAD + 4
    head = " · ".join(filter(None, [segment.driver, segment.bridge, "internal" if segment.internal else ""]))
    gateway = f"gateway {', '.join(segment.gateways)}" if segment.gateways else ""
    pools = " · ".join(filter(None, [", ".join(segment.subnets), gateway]))
    count = f"{len(segment.nodes)} endpoint{'' if len(segment.nodes) == 1 else 's'}"
    third = (wide - 3 * _PAD) / 3
    parts = [
        f'<g class="{kind}"><title>network {escape(segment.name)}: {escape(pools)}</title>',
        f'<rect class="card" x="{x}" y="{y:g}" width="{wide}" height="{high:g}" rx="10"/>',
        f'<rect class="bar" x="{x}" y="{y + 10:g}" width="5" height="{_HEAD - 20}" rx="2"/>',
        _text(segment.name, x + 2 * _PAD, y + 25, third, "title", 16),
        _text(f"{head} · {count}", x + 2 * _PAD, y + 46, wide - 4 * _PAD, "soft", 12),
        _text(pools, x + 2 * _PAD + third, y + 25, 2 * third - _PAD, "soft mono", 12),
        "</g>",
    ]
    return "".join(parts) + "".join(cells), high


def _node_lines(node: Node) -> list[tuple[str, str]]:
    shown = node.ports if len(node.ports) <= 1 else (f"{node.ports[0]} +{len(node.ports) - 1}",)
    addresses = [line for address in node.addresses for line in _halves(address)]
    where = [(f"on {node.host}", "soft")] if node.host else []
    ports = [(port, "ports mono") for port in shown]
    return [(node.name, "name"), *where, *((line, "mono") for line in addresses), *ports]


def _halves(address: str) -> list[str]:
    """An address in one line, or in two where it is too long: half an address is none."""
    if width(address, 13, mono=True) <= _CELL - 2 * _PAD:
        return [address]
    cut = address.index(":", len(address) // 2) + 1
    return [address[:cut], address[cut:]]


def _about(node: Node) -> str:
    ports = f", ports {', '.join(node.ports)}" if node.ports else ""
    where = f", on {node.host}" if node.host else ""
    return f"{node.name}: {', '.join(node.addresses)}, {node.mac}, {node.ifname}{where}{ports}"


# --- boxes and texts ------------------------------------------------------------------------------------


def _height(lines: int) -> float:
    return lines * _LINE + 14


def _box(
    lines: Sequence[tuple[str, str]], x: float, y: float, wide: float, title: str, kind: str, room: int = 0
) -> str:
    """Lines of text, each with its class, in a frame; `room`: the lines that it is high, if more than it has."""
    texts = "".join(_lines(lines, x, y, wide))
    high = _height(max(room, len(lines)))
    frame = f'<rect class="{kind}" x="{x:g}" y="{y:g}" width="{wide}" height="{high}" rx="7"/>'
    return f"<g><title>{escape(title)}</title>{frame}{texts}</g>"


def _lines(lines: Sequence[tuple[str, str]], x: float, y: float, wide: float) -> Iterator[str]:
    for number, (text, kind) in enumerate(lines):
        size = 12 if "soft" in kind or "ports" in kind else 13
        yield _text(text, x + _PAD, y + 20 + number * _LINE, wide - 2 * _PAD, kind, size)


def _text(text: str, x: float, y: float, room: float, kind: str, size: int) -> str:
    """A text that is cut to the room there is. The size is an attribute too, for who draws without style sheets."""
    cut = escape(fit(text, room, size, mono="mono" in kind))
    return f'<text class="{kind}" x="{x:g}" y="{y:g}" font-size="{size}">{cut}</text>'
