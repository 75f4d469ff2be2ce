"""Which links a network's fast path is for. What it does is shown in tests/vm, on a kernel that has flow tables."""

from __future__ import annotations

from ipaddress import ip_address, ip_network

import pytest

from berth import spec
from berth.drivers import DRIVERS
from berth.errors import Invalid, NotFound
from berth.flows import NftFlows
from berth.model import Host, HostLink, HostRoute, Network
from berth.schema import dump, load_network

LINKS = (HostLink("eth0", "", 1500, True), HostLink("eth1", "", 1500, True))
DEFAULT = HostRoute(ip_network("0.0.0.0/0"), "eth0", ip_address("192.168.2.1"))


def made(*options: str, routes: tuple[HostRoute, ...] = (DEFAULT,), internal: bool = False) -> Network:
    asked = spec.network_spec(name="back", options=options, internal=internal)
    return DRIVERS["bridge"].complete(asked, Host(LINKS, routes), "1" * 64, "")


def fast(net: Network) -> list[NftFlows]:
    return [obj for obj in DRIVERS["bridge"].network(net) if isinstance(obj, NftFlows)]


def test_auto_means_the_links_of_default_routes() -> None:
    net = made("offload=auto")
    assert fast(net) == [NftFlows(net.bridge, ("eth0",))]
    assert load_network(dump(net)) == net


def test_links_are_named() -> None:
    net = made("offload=eth1,eth0")
    assert fast(net) == [NftFlows(net.bridge, ("eth0", "eth1"))]


def test_nobody_gets_one_unasked() -> None:
    assert fast(made()) == []


def test_what_cannot_be_is_refused() -> None:
    with pytest.raises(NotFound, match="no link eth9"):
        made("offload=eth9")
    with pytest.raises(Invalid, match="no default route"):
        made("offload=auto", routes=())
    with pytest.raises(Invalid, match="internal"):
        made("offload=eth0", internal=True)


def test_the_script_leaves_out_what_is_not_there_and_remembers_it() -> None:
    script = NftFlows("brt0", ("eth0", "eth9")).script({"brt0", "eth0"})
    assert 'devices = { "brt0", "eth0" }' in script
    assert 'comment "eth0 eth9"' in script
