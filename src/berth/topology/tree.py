"""The map as a tree for the terminal.

host
├─ eth0 in br0   192.168.2.2/24
└─ lan   flat on br0   192.168.2.0/24
   └─ web   192.168.2.3   8080→80/tcp
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from berth.topology.nouns import Machine, Nic, Node, Peer, Segment, Topology

_Lines = Sequence[str]


def lines(topology: Topology) -> Iterator[str]:
    """The tree, a line at a time."""
    yield topology.host
    branches = [
        *([f"router {router.address}   through {router.nic}"] for router in topology.routers),
        *([_nic(nic)] for nic in topology.nics),
        *([_machine(machine)] for machine in topology.machines),
        *([_peer(peer)] for peer in topology.peers),
        *(_segment(segment) for segment in topology.segments),
    ]
    yield from _hang(branches)


def _hang(branches: Sequence[_Lines]) -> Iterator[str]:
    for number, (first, *rest) in enumerate(branches, 1):
        last = number == len(branches)
        yield f"{'└─' if last else '├─'} {first}"
        yield from (f"{'  ' if last else '│ '} {line}" for line in rest)


def _nic(nic: Nic) -> str:
    where = f" in {nic.bridge}" if nic.bridge else ""
    return "   ".join([f"{nic.name}{where}", *nic.addresses, *([] if nic.up else ["down"])])


def _machine(machine: Machine) -> str:
    return "   ".join(filter(None, ["seen", *machine.addresses, machine.mac, machine.vendor, f"on {machine.dev}"]))


def _peer(peer: Peer) -> str:
    many = f"{peer.endpoints} endpoint{'' if peer.endpoints == 1 else 's'}"
    return "   ".join([f"host {peer.name}", *peer.addresses, many])


def _segment(segment: Segment) -> _Lines:
    where = f"{segment.driver} on {segment.bridge}" if segment.bridge else segment.driver
    out = "internal" if segment.internal else f"through {', '.join(segment.nics)}" if segment.nics else ""
    head = "   ".join(filter(None, [segment.name, where, ", ".join(segment.subnets), out]))
    return [head, *_hang([[line] for line in _columns(segment.nodes)])]


def _columns(nodes: Sequence[Node]) -> list[str]:
    """Endpoints with their names and addresses below each other."""
    cells = [
        (node.name, ", ".join(node.addresses), ", ".join(node.ports), node.host and f"on {node.host}") for node in nodes
    ]
    widths = [max((len(row[column]) for row in cells), default=0) for column in range(4)]
    return ["   ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in cells]
