"""The LANs behind the host's bridges, by packet sockets."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from threading import Lock

from berth.lan import frames, servers
from berth.lan.asking import Asking
from berth.lan.packets import Packets
from berth.lan.vendors import vendor
from berth.model import Address, Claim, Served

#: Seconds to wait before each probe, and at the end. `full` is RFC 5227 section 1.1: PROBE_WAIT, PROBE_MIN to
#: PROBE_MAX, ANNOUNCE_WAIT. `fast` is meant for a LAN whose machines are awake: they answer within milliseconds.
_FAST = ((0.0, 0.0), (0.1, 0.1), (0.1, 0.1))
_FULL = ((0.0, 1.0), (1.0, 2.0), (1.0, 2.0), (2.0, 2.0))


class LinuxLan:
    """See `seams.Lan`. May be asked by several threads at once."""

    def __init__(self) -> None:
        self._idle: list[tuple[str, Packets]] = []
        self._lock = Lock()

    def holders(
        self,
        dev: str,
        addresses: Collection[Address],
        *,
        full: bool,
        mine: Collection[str],
        sent: Callable[[], None] = lambda: None,
    ) -> Mapping[Address, str]:
        """Ask who holds any of the addresses; the MACs of those that answer. `sent` is called when the question is out.

        Takes 0.2 s, or with `full` 4 to 7 s; less where all of them are held. Raises `Denied`.
        """
        try:
            packets = self._open(dev)
        except OSError:
            return {}  # a bridge that is gone: what it is wanted for says so
        try:
            asking = Asking(packets, frozenset(addresses), mine=mine)
            asking.run(_FULL if full else _FAST, sent=sent)
            return {address: min(macs) for address, macs in asking.macs.items()}
        finally:
            packets.deafen()
            self._idle.append((dev, packets))

    def _open(self, dev: str) -> Packets:
        """A socket that nobody uses, or a new one."""
        with self._lock:
            mine = next((entry for entry in self._idle if entry[0] == dev), None)
            if mine is not None:
                self._idle.remove(mine)
        if mine is None:
            return Packets(dev)
        if not mine[1].bound():  # the bridge was made anew
            mine[1].close()
            return Packets(dev)
        mine[1].hear()
        return mine[1]

    def watch(self, dev: str) -> Watch:
        """Hear who claims addresses on a LAN from now on. Raises `Denied`, and `OSError` without such a link."""
        return Watch(dev)

    def served(self, dev: str) -> Sequence[Served]:
        """See `seams.Lan`. Raises `Denied`."""
        try:
            return servers.served(servers.offered(dev))
        except OSError:
            return ()  # a bridge that is gone: what it is wanted for says so

    def vendor(self, mac: str) -> str:
        """Who made the machine; "" where that is not known."""
        return vendor(mac)

    def close(self) -> None:
        """Let go of all sockets."""
        while self._idle:
            self._idle.pop()[1].close()


class Watch:
    """See `seams.Watch`."""

    def __init__(self, dev: str) -> None:
        self._packets = Packets(dev)

    def fileno(self) -> int:
        """For a selector."""
        return self._packets.fileno()

    def claims(self) -> Sequence[Claim]:
        """What was claimed since the last call, some hundreds at most."""
        return tuple(filter(None, map(frames.claim, self._packets.take())))

    def alive(self) -> bool:
        """Whether the bridge is still the one that is heard."""
        return self._packets.bound()

    def announce(self, address: Address, mac: str) -> None:
        """Tell the LAN which MAC an address is at."""
        self._packets.send(frames.announcement(address, mac))

    def close(self) -> None:
        """Hear no more."""
        self._packets.close()
