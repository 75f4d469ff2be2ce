"""Allow lists: who may begin a conversation with an endpoint, wherever he comes from."""

from __future__ import annotations

import time
from collections.abc import Callable

import pytest
from lab_ground import HOST, HOST6, INTERNET, INTERNET6, LAPTOP, LAPTOP6, ROUTER, ROUTER6, STATION, Ground

pytestmark = pytest.mark.timeout(90)

BACKEND = "network create --subnet 10.20.0.0/24 --gateway 10.20.0.1 --ipv6 --subnet fd20::/64 backend"
#: TCP on port 80 for the laptop alone, UDP on port 81 for everybody, pings of IPv4 for the host.
ALLOW = f"allow=tcp/80@{LAPTOP},tcp/80@{LAPTOP6},udp/81,icmp@{HOST}/32,icmp@10.20.0.1"


def flat(option: str, bypass: str = "never") -> str:
    return f"network create --driver flat --ipv6 -o parent=br0 -o bypass={bypass} -o {option} lan"


def container(ground: Ground, network: str, name: str, more: str = "") -> tuple[str, str]:
    """A new container's two addresses."""
    ground.sandbox(name)
    four, six = ground.attach(network, name, more)
    return four, six


def goes_on(said: Callable[[], list[str]]) -> bool:
    """Whether a connection that is held still gets answers. What was lost meanwhile is sent again in its own time."""
    said()
    until, answers = time.monotonic() + 5, 0
    while answers < 10 and time.monotonic() < until:
        time.sleep(0.05)
        answers += len(said())
    return answers >= 10


# --- Every way in ---


@pytest.mark.parametrize("bypass", ["never", "always"])
def test_on_the_lan(ground: Ground, bypass: str) -> None:
    ground.berth(flat(ALLOW, bypass))
    web, db = container(ground, "lan", "web"), container(ground, "lan", "db")
    with ground.serving("web", "laptop"), ground.serving("web", port=81):
        assert ground.ask("laptop", *web) == [LAPTOP, LAPTOP6]
        assert ground.ask("host", *web) == ground.ask("db", *web) == ["", ""]
        assert ground.ask("laptop", *web, port=81) == ground.ask("laptop", *web, proto="udp") == ["", ""]
        assert ground.ask("laptop", *web, port=81, proto="udp") == [LAPTOP, LAPTOP6]
        assert ground.ask("host", *web, port=81, proto="udp") == [HOST, HOST6]
        assert ground.ask("db", *web, port=81, proto="udp") == [*db]
        for proto in ("tcp", "udp"):
            assert ground.ask("web", LAPTOP, LAPTOP6, proto=proto) == [*web], "the answers to its own"
    refused = [*((node, address) for node in ("laptop", "db") for address in web), ("host", web[1])]
    assert ground.pings(("host", web[0]), *refused, wait=1) == refused
    own = (ROUTER, ROUTER6, LAPTOP, LAPTOP6, HOST, HOST6, INTERNET, INTERNET6)
    assert ground.pings(*(("web", address) for address in own)) == []


def test_behind_nat(ground: Ground) -> None:
    ground.berth(f"{BACKEND} -o {ALLOW}")
    api = container(ground, "backend", "api", "-p 8080:80 -p 8081:81 -p 8081:81/udp")
    db = container(ground, "backend", "db")
    with ground.serving("api", "laptop"), ground.serving("api", port=81), ground.serving("internet", port=8081):
        assert ground.ask("laptop", HOST, HOST6, port=8080) == [LAPTOP, LAPTOP6], "by a published port"
        assert ground.ask("router", HOST, HOST6, port=8080) == ["", ""]
        assert ground.ask("laptop", HOST, HOST6, port=8081) == ["", ""]
        assert ground.ask("laptop", HOST, HOST6, port=8081, proto="udp") == [LAPTOP, LAPTOP6]
        assert ground.ask("host", *api) == ground.ask("db", *api) == ["", ""]
        assert ground.ask("host", "127.0.0.1", port=8080) == ground.ask("db", HOST, port=8080) == [""]
        assert all(ground.ask("host", *api, port=81, proto="udp"))
        assert ground.ask("db", *api, port=81, proto="udp") == [*db]
        for proto in ("tcp", "udp"):
            assert ground.ask("api", LAPTOP, LAPTOP6, proto=proto) == [HOST, HOST6]
            assert all(ground.ask("api", INTERNET, INTERNET6, port=8081, proto=proto))
    refused = [*(("db", address) for address in api), ("host", api[1])]
    assert ground.pings(("host", api[0]), *refused, wait=1) == refused
    assert ground.pings(*(("api", a) for a in (INTERNET, INTERNET6, HOST, HOST6, "10.20.0.1"))) == []


def test_nobody_at_all_and_large_answers(ground: Ground) -> None:
    """Of a packet in fragments only the first has ports."""
    ground.berth(flat("allow=none"))
    web = container(ground, "lan", "web")
    with ground.serving("web", "laptop"):
        for node in ("laptop", "host"):
            assert ground.ask(node, *web) == ground.ask(node, *web, proto="udp") == ["", ""]
        assert ground.ask("web", LAPTOP, LAPTOP6) == [*web]
    large = [["ping", "-n", "-c1", "-W2", "-s4000", address] for address in (LAPTOP, LAPTOP6)]
    assert [code for code, _ in ground.at_once(*(("web", argv) for argv in large))] == [0, 0]
    # An error is let in: that nobody waits on a port is known at once.
    (code, _), *_ = ground.at_once(("web", [*STATION, "ask", "udp", LAPTOP, "9"]))
    assert code != 0
    refused = ground.lab.run("web", [*STATION, "ask", "udp", LAPTOP, "9"]).stderr
    assert "ConnectionRefusedError" in refused


def test_no_segment_slips_in_that_begins_something(ground: Ground) -> None:
    """A SYN in any company but an ACK's is a beginning, in two fragments too."""
    ground.berth(flat("allow=none"))
    four, _ = container(ground, "lan", "web")
    with ground.station("web", "segments") as said:
        for flags in ("0x02", "0xc2", "0x2a", "0x12", "0x10", "0x11", "0x04"):
            for first in ("24", "16", "8"):  # the first eight bytes have the ports, and not the flags
                ground.lab.run("laptop", [*STATION, "segment", LAPTOP, four, flags, first], check=True)
        heard: list[str] = []
        until = time.monotonic() + 5
        while len(heard) < 8 and time.monotonic() < until:
            time.sleep(0.05)
            heard += said()
        assert heard == [flags for flags in ("0x12", "0x10", "0x11", "0x04") for _ in range(2)]


# --- Whose list ---


def test_an_endpoints_list_replaces_its_networks(ground: Ground) -> None:
    ground.berth(f"{BACKEND} -o allow=tcp/80")
    strict = container(ground, "backend", "strict", "--driver-opt allow=none")
    open_ = container(ground, "backend", "open", "--driver-opt allow=any")
    usual = container(ground, "backend", "usual")
    with ground.serving("strict", "open", "usual"):
        assert ground.ask("host", *strict) == ["", ""]
        assert all(ground.ask("host", *open_, *usual))
        assert all(ground.ask("host", *open_, proto="udp"))
        assert ground.ask("usual", *open_, *strict) == [*usual, "", ""]
        assert ground.ask("host", *usual, proto="udp") == ["", ""]
    options = {ep["name"]: ep["options"] for ep in ground.told("endpoint ls")}
    assert options == {"strict": [["allow", "none"]], "open": [["allow", "any"]], "usual": []}
    (net,) = ground.told("network inspect backend")
    assert net["Options"] == {"allow": "tcp/80"}


@pytest.mark.parametrize("network", ["backend", "lan"])
def test_who_has_no_list_is_left_alone(ground: Ground, network: str) -> None:
    ground.berth(BACKEND if network == "backend" else flat("mtu=1500", "always"))
    container(ground, network, "free")
    before = ground.sh("nft list ruleset")
    guarded = container(ground, network, "guarded", "--driver-opt allow=none")
    free = {ep["name"]: ep["addresses"] for ep in ground.told("endpoint ls")}["free"]
    free = [address.partition("/")[0] for address in free]
    with ground.serving("free", "guarded"):
        assert all(ground.ask("host", *free)) and all(ground.ask("host", *free, proto="udp"))
        assert ground.ask("guarded", *free) == [*guarded]
        assert ground.ask("free", *guarded) == ["", ""]
    ground.berth(f"detach {network} guarded")
    assert ground.sh("nft list ruleset") == before


# --- What lasts ---


@pytest.mark.parametrize("network", ["backend", "lan"])
def test_connections_outlive_a_guard_that_is_made_anew(ground: Ground, network: str) -> None:
    """One that an endpoint has made itself, and one that came by its list."""
    allow = f"allow=tcp/80@{HOST},tcp/80@10.20.0.1"
    ground.berth(f"{BACKEND} -o {allow}" if network == "backend" else flat(allow, "always"))
    four, _ = container(ground, network, "web")
    table = "$(nft list tables netdev | grep -o 'berth_allow_.*')"
    with (
        ground.station("laptop", "echo", "80"),
        ground.station("web", "echo", "80"),
        ground.station("web", "hold", LAPTOP, "80") as out,
        ground.station("host", "hold", four, "80") as in_,
    ):
        assert goes_on(out) and goes_on(in_)
        ground.berth("reconcile")
        assert goes_on(out) and goes_on(in_)
        more = ("nft flush ruleset",) if network == "lan" else ()  # behind NAT its peer meets the bare address
        for damage in (f"nft delete table netdev {table}", f"nft flush chain netdev {table} to", *more):
            ground.sh(damage)
            ground.berth("reconcile")
            assert goes_on(out) and goes_on(in_)
            with ground.serving("web", port=81):
                assert ground.ask("host", four, port=81) == [""], "and it guards again"


# --- What is refused ---


@pytest.mark.parametrize(
    ("said", "expected"),
    [
        ("tcp/http", "'http' is no port"),
        ("tpc/80", "did you mean tcp?"),
        ("tcp/80,none", "alone"),
        ("icmp/8", "icmp has no ports"),
        ("any/80", "any has no ports"),
        ("tcp/80@10.0.0.0/33", "no subnet"),
        ("tcp/80@laptop", "no IP address"),
        ("tcp/90-80", "rising range"),
        ("", "begins with none of"),
    ],
)
def test_what_makes_no_sense_is_refused(ground: Ground, said: str, expected: str) -> None:
    assert expected in ground.refused(f"network create -o allow={said} backend")
