"""The systems that Berth knows how to write for."""

from __future__ import annotations

from berth.hostconfig import Edits, Files, Renderer
from berth.model import Uplink

RENDERERS: tuple[Renderer, ...] = ()
KEPT_AWAY: tuple[str, ...] = ()


def keep_away(files: Files, uplink: Uplink) -> Edits:
    return {}
