"""The systems that Berth knows how to write for."""

from __future__ import annotations

from berth.hostconfig import Renderer
from berth.hostconfig.ifcfg import Ifcfg
from berth.hostconfig.ifupdown import Ifupdown
from berth.hostconfig.netplan import Netplan
from berth.hostconfig.networkd import Networkd
from berth.hostconfig.networkmanager import NetworkManager

RENDERERS: tuple[Renderer, ...] = (Netplan(), Ifupdown(), Ifcfg(), NetworkManager(), Networkd())
