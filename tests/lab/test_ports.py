"""Published ports of NAT networks: ranges, endpoints that are there already, who gets through and who does not."""

from __future__ import annotations

import itertools
import json
import sys
from pathlib import Path

import pytest
from lab_ground import HOST, HOST6, LAPTOP, LAPTOP6, Ground

pytestmark = pytest.mark.timeout(90)

SCTP = (sys.executable, str(Path(__file__).with_name("lab_sctp.py")))
BACKEND = "network create --subnet 10.20.0.0/24 --ipv6 --subnet fd20::/64 backend"
FRONTEND = "network create --subnet 10.30.0.0/24 --ipv6 --subnet fd30::/64 frontend"


def container(ground: Ground, network: str, name: str, more: str = "") -> tuple[str, str]:
    """A new container's two addresses."""
    ground.sandbox(name)
    four, six = ground.attach(network, name, more)
    return four, six


def routed(ground: Ground) -> None:
    """Another machine of the LAN knows a way to the containers' subnets, which nobody has told it."""
    ground.until_end(
        f"ip route add 10.20.0.0/24 via {HOST}; ip route add fd20::/64 via {HOST6}",
        "ip route delete 10.20.0.0/24; ip route delete fd20::/64",
        "laptop",
    )


# --- ranges ---


@pytest.mark.parametrize("proto", ["tcp", "udp"])
def test_a_range_keeps_its_ports(ground: Ground, proto: str) -> None:
    ground.berth(BACKEND)
    api = container(ground, "backend", "api", f"-p 9000-9999:9000-9999/{proto}")
    for port in (9000, 9500, 9999):
        with ground.serving("api", port=port):
            for node, seen in (("laptop", [LAPTOP, LAPTOP6]), ("host", [HOST, HOST6])):
                assert ground.ask(node, HOST, HOST6, port=port, proto=proto) == seen
            assert all(ground.ask("api", *api, port=port, proto=proto)), "it serves"
    for port in (8999, 10_000):
        with ground.serving("api", port=port):
            assert ground.ask("laptop", HOST, HOST6, port=port, proto=proto) == ["", ""]


def test_a_range_on_one_address(ground: Ground) -> None:
    ground.berth(f"{BACKEND} --gateway 10.20.0.1")
    container(ground, "backend", "api", f"-p 127.0.0.1:9000-9009:9000-9009 -p [{HOST6}]:9100-9109:9100-9109")
    with ground.serving("api", port=9005), ground.serving("api", port=9105):
        assert ground.ask("host", "127.0.0.1", port=9005) == ["10.20.0.1"]
        assert ground.ask("laptop", HOST, HOST6, port=9005) == ["", ""]
        assert ground.ask("laptop", HOST, HOST6, port=9105) == ["", LAPTOP6]


def test_a_range_is_one_element_and_all_of_it_is_taken(ground: Ground) -> None:
    ground.berth(BACKEND)
    container(ground, "backend", "api", "-p 1024-65535:1024-65535 -p 80-81:90-91")
    assert "elements = { tcp . 1024-65535 : 10.20.0.2 }" in " ".join(ground.sh(
        "nft list map inet berth anyrange4"
    ).split())  # fmt: skip
    ground.sandbox("db")
    for wanted in ("40000:80", "127.0.0.1:65535:80", "1000-1024:1000-1024"):
        assert "api" in ground.refused(f"attach backend db -p {wanted}")
    assert "no host port" in ground.refused("attach backend db -p 80"), "none is left to choose"
    ground.berth("detach backend api")
    assert "elements" not in ground.sh("nft list map inet berth anyrange4")


@pytest.mark.parametrize("wanted", ["9000-9009:9000-9009", "8000-9999:8000-9999", "9000-9999:1000-1999"])
@pytest.mark.parametrize("proto", ["tcp", "udp"])
def test_a_range_with_a_listener_in_it_is_refused_as_a_whole(ground: Ground, wanted: str, proto: str) -> None:
    ground.berth(BACKEND)
    ground.sandbox("api")
    with ground.serving("host", port=9007):
        said = ground.refused(f"attach backend api -p {wanted}/{proto}")
    assert f"host port 9007/{proto} is in use by python" in said
    for where in ("anyrange4", "anyport4"):
        assert "elements" not in ground.sh(f"nft list map inet berth {where}")
    ground.berth(f"attach backend api -p {wanted}/{proto}")


# --- SCTP, whose header NAT has to put right with a checksum of all the packet ---


def associates(ground: Ground, node: str, *addresses: str, port: int) -> list[str]:
    """The addresses that a container saw a node ask from, all at once; "" for one that could not be asked."""
    argvs = [(node, [*SCTP, "ask", address, str(port)]) for address in addresses]
    return [said.strip() for _, said in ground.at_once(*argvs)]


@pytest.mark.parametrize("published", ["3868:9899", "9899:9899", "9890-9899:9890-9899"])
def test_sctp_gets_through_a_published_port_and_back(ground: Ground, published: str) -> None:
    ground.berth(BACKEND)
    api = container(ground, "backend", "api", f"-p {published}/sctp -p 3869:9898/tcp")
    container(ground, "backend", "db")
    port = 3868 if published.startswith("3868") else 9899
    with ground.station("api", "9899", program=(*SCTP, "serve")):
        assert associates(ground, "laptop", HOST, HOST6, port=port) == [LAPTOP, LAPTOP6]
        assert associates(ground, "db", *api, port=9899) != ["", ""], "it serves"
        assert associates(ground, "laptop", HOST, HOST6, port=3869) == ["", ""], "that port is TCP's"
        ground.berth("port unpublish api --all")
        assert associates(ground, "laptop", HOST, HOST6, port=port) == ["", ""]


# --- on endpoints that are there ---


def test_ports_are_published_and_unpublished_on_a_live_endpoint(ground: Ground) -> None:
    ground.berth(BACKEND)
    container(ground, "backend", "api", "-p 8080:80")
    with ground.serving("api"), ground.serving("api", port=9005):
        ground.berth("port publish api -p 8081:80 -p 9000-9009:9000-9009")
        for port in (8080, 8081, 9005):
            assert ground.ask("laptop", HOST, HOST6, port=port) == [LAPTOP, LAPTOP6]
        ground.berth("port unpublish api -p 8080:80 -p 9009:9009")
        assert ground.ask("laptop", HOST, HOST6, port=8080) == ["", ""]
        assert ground.ask("laptop", HOST, HOST6, port=9005) == [LAPTOP, LAPTOP6]
        ground.berth("port unpublish api --all")
        for port in (8081, 9005):
            assert ground.ask("laptop", HOST, HOST6, port=port) == ["", ""]
    assert ground.told("port ls") == []


def test_a_random_host_port(ground: Ground) -> None:
    ground.berth(BACKEND)
    container(ground, "backend", "api", "-p 80 -p 80/udp -p 127.0.0.1::81")
    ground.berth("port publish api -p 80")
    rows = ground.told("port ls")
    assert [(row["port"], row["proto"], row["host_ip"]) for row in rows] == [
        (80, "tcp", ""), (80, "udp", ""), (81, "tcp", "127.0.0.1"), (80, "tcp", "")
    ]  # fmt: skip
    tcp = [row["host_port"] for row in rows if row["proto"] == "tcp"]
    assert len({*tcp}) == 3 and all(32768 <= port < 61000 for port in tcp)
    with ground.serving("api"):
        assert ground.ask("laptop", HOST, HOST6, port=tcp[2]) == [LAPTOP, LAPTOP6]


def test_a_change_of_ports_that_fails_changes_nothing(ground: Ground) -> None:
    ground.berth(BACKEND)
    container(ground, "backend", "api", "-p 8080:80")
    container(ground, "backend", "db", "-p 8090:80")
    before, rules = ground.told("port ls"), ground.sh("nft list ruleset")
    assert "api" in ground.refused("port publish db -p 8091:80 -p 8080:80")
    assert "not published" in ground.refused("port unpublish db -p 8090:80 -p 8091:80")
    assert "no endpoint web" in ground.refused("port publish web -p 80:80")
    plan = json.loads(ground.berth("port publish db -p 8091:80 --dry-run --json"))
    assert [step["op"] for step in plan] == ["+", "+", "+"]  # both families, and ::1 by the proxy
    assert (ground.told("port ls"), ground.sh("nft list ruleset")) == (before, rules)


# --- who gets through ---


def test_the_hosts_own_addresses_lead_to_published_ports_for_other_networks(ground: Ground) -> None:
    """Networks that are isolated from each other meet at what one of them publishes, and nowhere else."""
    ground.berth(f"{BACKEND} --gateway 10.20.0.1 --gateway fd20::1")
    ground.berth(f"{FRONTEND} --gateway 10.30.0.1 --gateway fd30::1")
    api = container(ground, "backend", "api", "-p 8080:80 -p 9000-9009:9000-9009")
    container(ground, "backend", "db")
    container(ground, "frontend", "web")
    host = (HOST, HOST6, "10.20.0.1", "fd20::1", "10.30.0.1", "fd30::1")
    with ground.serving("api"), ground.serving("api", port=9001):
        for node, port in itertools.product(("db", "web"), (8080, 9001)):
            assert all(ground.ask(node, *host, port=port)), (node, port)
        assert ground.ask("web", *api) == ["", ""]


def test_a_container_on_the_lan_is_a_machine_of_the_lan(ground: Ground) -> None:
    ground.berth("network create --driver flat -o parent=br0 --ip-range 192.168.2.128/26 lan")
    ground.berth(BACKEND)
    api = container(ground, "backend", "api", "-p 8080:80")
    own = ground.container("lan", "guest")
    ground.sh(f"ip route add 10.20.0.0/24 via {HOST}", "guest")
    with ground.serving("api"):
        assert ground.ask("guest", HOST, port=8080) == [own]
        assert ground.ask("guest", api[0]) == [""]


def test_a_scan_from_the_lan_finds_published_ports_only(ground: Ground) -> None:
    """By the containers' own addresses, with a route that was added for it, and by the host's."""
    ground.berth(BACKEND)
    api = container(ground, "backend", "api", "-p 8080:80")
    routed(ground)
    scan = (
        "import socket, sys\n"
        "for port in (*range(1, 200), 8080):\n"
        "    family = socket.AF_INET6 if ':' in sys.argv[1] else socket.AF_INET\n"
        "    with socket.socket(family) as s:\n"
        "        s.settimeout(0.02 if port != 8080 else 2)\n"
        "        try: s.connect((sys.argv[1], port))\n"
        "        except OSError: continue\n"
        "        print(port)\n"
    )
    with ground.serving("api"), ground.serving("api", port=111):
        commands = [("laptop", ["python3", "-c", scan, address]) for address in (*api, HOST, HOST6)]
        found = [said.split() for _, said in ground.at_once(*commands)]
        assert found == [[], [], ["8080"], ["8080"]]
        ground.sh("nft flush chain inet berth forward")
        found = [said.split() for _, said in ground.at_once(*commands[:2])]
        assert all("80" in ports for ports in found), "the chain alone prevents it"


# --- networks and the host ---


def test_a_network_lets_another_in(ground: Ground) -> None:
    """One way only: who is let in is answered, and not asked."""
    ground.berth(FRONTEND)
    ground.berth(f"{BACKEND} -o allow_from=frontend")
    ground.berth("network create --subnet 10.40.0.0/24 --ipv6 --subnet fd40::/64 third")
    api, web = container(ground, "backend", "api"), container(ground, "frontend", "web")
    other = container(ground, "third", "other")
    with ground.serving("api", "web", "other"):
        for proto in ("tcp", "udp"):
            assert ground.ask("web", *api, proto=proto) == [*web], "with its own addresses"
            assert ground.ask("api", *web, *other, proto=proto) == [""] * 4
            assert ground.ask("other", *api, *web, proto=proto) == [""] * 4
    ground.berth("detach frontend web")
    ground.berth("network rm frontend")
    ground.berth("network create --subnet 10.30.0.0/24 --ipv6 --subnet fd30::/64 frontend")
    ground.attach("frontend", "web")
    with ground.serving("api"):
        assert ground.ask("web", *api) == ["", ""], "another network of that name is not meant"


@pytest.mark.parametrize(
    ("options", "complaint"),
    [
        ("-o allow_from=nobody", "no network nobody"),
        ("-o allow_from=a,,b", "network name '' is not valid"),
        ("-o allow_from=inner", "network inner is internal"),
        ("-o allow_from=inner --internal", "internal network has no way in"),
        ("-o host_access=perhaps", "neither yes nor no"),
    ],
)
def test_what_cannot_be_allowed(ground: Ground, options: str, complaint: str) -> None:
    ground.berth("network create --internal inner")
    before = ground.sh("nft list ruleset")
    assert complaint in ground.refused(f"network create {options} backend")
    assert ground.sh("nft list ruleset") == before


def test_the_hosts_services_are_closed_to_containers(ground: Ground) -> None:
    """What is published, the LAN, and the answers to what the host asks go on."""
    ground.berth(f"{BACKEND} --gateway 10.20.0.1 --gateway fd20::1 -o host_access=false")
    ground.berth(f"{FRONTEND} --gateway 10.30.0.1 --gateway fd30::1")
    api = container(ground, "backend", "api", "-p 8080:80")
    container(ground, "backend", "db")
    container(ground, "frontend", "web")
    host = (HOST, HOST6, "10.20.0.1", "fd20::1")
    with ground.serving("host", port=22), ground.serving("api", "laptop"):
        for proto in ("tcp", "udp"):
            assert ground.ask("api", *host, port=22, proto=proto) == [""] * 4
            gateways = ("10.30.0.1", "fd30::1")  # where a UDP server that listens everywhere answers from
            assert all(ground.ask("web", *gateways, port=22, proto=proto)), "who is on another network reaches them"
            assert ground.ask("api", LAPTOP, LAPTOP6, proto=proto) == [HOST, HOST6]
            assert ground.ask("host", *api, proto=proto) == ["10.20.0.1", "fd20::1"]
        assert all(ground.ask("db", HOST, HOST6, "10.20.0.1", "fd20::1", port=8080)), "it is published"
        assert all(ground.ask("host", "127.0.0.1", HOST6, port=8080))
    pings = [("api", address) for address in host]
    assert ground.pings(*pings, wait=1) == pings
