"""How an adopted NIC is kept over a reboot, found out on the host."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from berth.engine.proposal import Persistence
from berth.errors import Invalid
from berth.hostconfig import Edits, Files, Renderer
from berth.model import Uplink
from berth.uplink.facts import Facts
from berth.uplink.persist import RESOLV_CONF, choose, described, merged
from berth.uplink.seams import HostSide

_UNWRITTEN = "after a reboot all is as it is now: "


class Persister:
    """Decides with which system's files. `keep_away` says what keeps managers off Berth's own links."""

    def __init__(
        self,
        renderers: Sequence[Renderer],
        keep_away: Callable[[Files, Uplink], Edits],
        kept_away: Sequence[str],
    ) -> None:
        self._renderers, self._keep_away = renderers, keep_away
        self._globs = sorted({RESOLV_CONF, *kept_away, *(one for each in renderers for one in each.globs)})

    def __call__(self, facts: Facts, bridge: str, switch: str, asked: str, host: HostSide) -> Persistence:
        """What to write, and how the system is told. Raises `Invalid` for a configuration that does not parse."""
        if asked == "none":
            return Persistence(notes=(f"{_UNWRITTEN}nothing is written (--persist none)",))
        if switch == "ovs":
            if asked == "auto":
                return Persistence(notes=(f"{_UNWRITTEN}no files are written for Open vSwitch",))
            raise Invalid(f"--persist {asked}: Berth writes no files for Open vSwitch: use --persist none")
        if not host.configured():
            if asked == "auto":
                return Persistence(notes=(f"{_UNWRITTEN}this network namespace has no configuration of its own",))
            raise Invalid(f"--persist {asked}: this network namespace has no files of its own: name them in BERTH_ROOT")
        found = host.files(self._globs)
        resolv_conf = found.pop(RESOLV_CONF, None)
        uplink = described(facts, bridge, switch, resolv_conf.text if resolv_conf else "")
        renderer = choose(asked, host.managing(facts.nic.name), found, uplink, self._renderers)
        if renderer is None:
            return Persistence(
                notes=(f"{_UNWRITTEN}nothing here configures {facts.nic.name}; name one with --persist",)
            )
        edits = merged(renderer.adopt(found, uplink), self._keep_away(found, uplink))
        return Persistence(
            system=renderer.name,
            edits=edits,
            reload=renderer.reload(uplink),
            regenerate=renderer.regenerate,
            notes=tuple(f"{client.program} is started again for the bridge" for client in facts.clients),
        )
