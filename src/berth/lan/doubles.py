"""Which addresses of a LAN two machines have: every address is asked for, and every answer is heard."""

from __future__ import annotations

import time
from collections.abc import Iterable
from dataclasses import dataclass

from berth.lan import frames
from berth.lan.packets import NEIGHBOURS, Packets, heard
from berth.model import Address, Interface, Subnet

_MOST = 1024  # addresses of a subnet that are asked for: a larger one is left out
_AT_ONCE = 32  # questions, and then a moment to answer them: a switch of a home router's forgets frames of a burst
_MOMENT = 0.02  # seconds
_ANSWER = 0.3  # seconds after the last question


@dataclass(frozen=True, slots=True)
class Double:
    """An address and the machines that answer for it."""

    address: Address
    macs: tuple[str, ...]


def doubles(dev: str, own: Iterable[Interface]) -> tuple[Double, ...]:
    """The addresses of the host's subnets that several machines have, the host among them.

    Takes 0.02 s for 32 addresses and 0.3 s. Of IPv6, whose subnets nobody can ask through, only the host's own.
    Raises `Denied`, and `OSError` for a link that is not there.
    """
    mine = {interface.ip for interface in own}
    packets = Packets(dev, NEIGHBOURS)
    macs: dict[Address, set[str]] = {address: {packets.mac} for address in mine}
    try:
        asked = [*mine, *(a for net in dict.fromkeys(i.network for i in own) for a in _hosts(net) if a not in mine)]
        for at in range(0, len(asked), _AT_ONCE):
            for address in asked[at : at + _AT_ONCE]:
                packets.send(frames.probe(address, packets.mac))
            _hear(packets, macs, _ANSWER if at + _AT_ONCE >= len(asked) else _MOMENT)
    finally:
        packets.close()
    return tuple(Double(address, tuple(sorted(macs[address]))) for address in macs if len(macs[address]) > 1)


def _hosts(subnet: Subnet) -> Iterable[Address]:
    return subnet.hosts() if subnet.version == 4 and subnet.num_addresses <= _MOST else ()


def _hear(packets: Packets, macs: dict[Address, set[str]], seconds: float) -> None:
    for frame in heard(packets, time.monotonic() + seconds):
        said = frames.claim(frame)
        if said is not None and not said.probe:
            macs.setdefault(said.address, set()).add(said.mac)
