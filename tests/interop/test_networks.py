"""What people type at Docker, with Berth as the driver: on Debian 12's engine and on Debian 13's."""

from __future__ import annotations

import json
import time
from subprocess import PIPE

import pytest

from .harbour import ALWAYS, HOST, INTERNET, LAN, LAPTOP, LAPTOP6, OURS, POST, ROUTER, ROUTER6, Harbour, until

pytestmark = pytest.mark.timeout(120)

ROUTER_MAC = "02:00:00:00:02:01"


def neighbour(harbour: Harbour, node: str, address: str) -> str:
    """The MAC that a node has learnt for an address."""
    (entry,) = json.loads(harbour.sh(f"ip -j neigh show {address}", node))
    return str(entry["lladdr"])


# --- the post's pair of commands ------------------------------------------------------------------------


def test_the_posts_pair_of_commands(harbour: Harbour) -> None:
    before = harbour.sh("ip -o address show br0; ip route")
    harbour.docker("network", "create", *POST, "br0")
    address = harbour.serve("c1", "br0")
    assert harbour.sh("ip -o address show br0; ip route") == before
    assert address not in (ROUTER, HOST, "192.168.2.10")
    assert harbour.inside("c1", "ip", "route", "show", "default").split()[:3] == ["default", "via", ROUTER]
    for other in (ROUTER, HOST, LAPTOP, INTERNET):
        assert "1 packets received" in harbour.inside("c1", "ping", "-c1", "-W2", other), other
    assert harbour.asks("laptop", address) == "c1"
    assert harbour.asks("host", address) == "c1"
    assert neighbour(harbour, "laptop", ROUTER) == ROUTER_MAC if harbour.reaches("laptop", ROUTER) else False
    assert ROUTER_MAC in harbour.inside("c1", "arp", "-n", ROUTER)


def test_with_dockers_own_ipam_the_hosts_address_would_be_given_away_and_is_not(harbour: Harbour) -> None:
    post = ["network", "create", *(word for word in POST if "ipam" not in word), "br0"]
    said = harbour.refused(*post)
    assert f"Docker's own IPAM would give a container {HOST}" in said
    assert f"add --ipam-driver berth, or --aux-address lan1={HOST}" in said
    assert "br0" not in harbour.docker("network", "ls", "--format", "{{.Name}}").split()
    harbour.docker(*post[:-1], f"--aux-address=lan1={HOST}", "br0")
    address = harbour.serve("c1", "br0")
    assert address == "192.168.2.3"
    assert harbour.asks("laptop", address) == "c1"


def test_a_contradicting_gateway_is_refused(harbour: Harbour) -> None:
    said = harbour.refused("network", "create", *POST, "--gateway=192.168.2.254", "br0")
    assert f"gateway 192.168.2.254 contradicts the LAN's router is {ROUTER}" in said


def test_the_lan_by_its_parent(harbour: Harbour) -> None:
    harbour.network("lan", *LAN, "--ip-range=192.168.2.128/25")
    address = harbour.serve("c1", "lan")
    assert address == "192.168.2.128"
    assert harbour.asks("laptop", address) == "c1"


def test_the_lans_subnet_is_asked_for_where_docker_wants_it_spelt_out(harbour: Harbour) -> None:
    said = harbour.refused("network", "create", *OURS, "--ipam-opt", "parent=br0", "-o", "parent=br0", "lan")
    assert "add --subnet 192.168.2.0/24" in said
    assert harbour.held() == []


# --- NAT ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("ipam", ["default", "berth"])
def test_a_private_network(harbour: Harbour, ipam: str) -> None:
    harbour.docker("network", "create", "-d", "berth", "--ipam-driver", ipam, "nat")
    address = harbour.serve("c1", "nat")
    assert "1 packets received" in harbour.inside("c1", "ping", "-c1", "-W2", INTERNET)
    assert harbour.asks("host", address) == "c1"
    harbour.sh(f"ip route add {address} via {HOST}", "laptop")
    try:
        assert harbour.asks("laptop", address) == "", "nobody published it"
    finally:
        harbour.sh(f"ip route del {address}", "laptop")


def test_many_private_networks_never_overlap(harbour: Harbour) -> None:
    for number in range(5):
        harbour.network(f"nat{number}")
    subnets = {harbour.inspected(f"nat{number}")["IPAM"]["Config"][0]["Subnet"] for number in range(5)}
    assert len(subnets) == 5


def test_published_ports(harbour: Harbour) -> None:
    harbour.network("nat")
    harbour.serve("c1", "nat", "-p", "8080:80", "-p", f"{HOST}:8081:80", "-p", "8090-8091:80-81", "-p", "80")
    for port in (8080, 8081, 8090):
        assert harbour.asks("laptop", HOST, port) == "c1", port
    published = {(port["host_port"], port["port"]) for port in harbour.berth("port", "ls")}
    assert {(8080, 80), (8081, 80), (8090, 80), (8091, 81)} < published
    ((chosen, _),) = published - {(8080, 80), (8081, 80), (8090, 80), (8091, 81)}
    assert harbour.asks("laptop", HOST, chosen) == "c1"
    harbour.docker("stop", "-t1", "c1")
    assert harbour.berth("port", "ls") == []


def test_all_exposed_ports_are_published(harbour: Harbour) -> None:
    harbour.network("nat")
    harbour.serve("c1", "nat", "-P", "--expose", "80", "--expose", "9000-9001/udp", "-p", "8080:81")
    published = {(port["port"], port["proto"]): port["host_port"] for port in harbour.berth("port", "ls")}
    assert {*published} == {(80, "tcp"), (81, "tcp"), (9000, "udp"), (9001, "udp")}
    assert published[81, "tcp"] == 8080
    assert harbour.asks("laptop", HOST, published[80, "tcp"]) == "c1"


def test_rates_outlive_the_move_into_the_container(harbour: Harbour) -> None:
    harbour.network("nat", "-o", "ingress_rate=20mbit")
    harbour.start("c1", "nat")
    harbour.network("lan", *LAN)
    harbour.docker("network", "connect", "--driver-opt=egress_rate=20mbit", "lan", "c1")
    first, second = (ep["link"] for ep in harbour.berth("endpoint", "ls"))
    rules = harbour.sh("nft list ruleset")
    assert "tbf" in harbour.sh(f"tc qdisc show dev {first}") and f"berth_rate_{first}" not in rules
    assert "tbf" not in harbour.sh(f"tc qdisc show dev {second}") and f"berth_rate_{second}" in rules
    harbour.docker("rm", "-f", "c1")
    assert "berth_rate_" not in harbour.sh("nft list ruleset")


UDP_ECHO = """
import socket
server = socket.socket(type=socket.SOCK_DGRAM)
server.bind(("", 53))
print("ready", flush=True)
server.sendto(b"pong", server.recvfrom(99)[1])
"""
UDP_ASK = """
import socket, sys
client = socket.socket(type=socket.SOCK_DGRAM)
client.settimeout(5)
client.sendto(b"ping", (sys.argv[1], int(sys.argv[2])))
print(client.recv(99).decode())
"""


def test_a_published_udp_port(harbour: Harbour) -> None:
    harbour.network("nat")
    harbour.start("c1", "nat", "-p", "5300:53/udp")
    pid = harbour.docker("inspect", "--format", "{{.State.Pid}}", "c1")
    enter = ["nsenter", f"--net=/proc/{pid}/ns/net", "python3", "-c", UDP_ECHO]
    with harbour.lab.popen("host", enter, stdout=PIPE, text=True) as server:
        assert server.stdout is not None and server.stdout.readline() == "ready\n"
        done = harbour.lab.run("laptop", ["python3", "-c", UDP_ASK, HOST, "5300"])
        server.kill()
    assert done.stdout.strip() == "pong"


def test_a_port_that_is_taken_fails_the_run_and_leaves_nothing(harbour: Harbour) -> None:
    harbour.network("nat")
    harbour.start("c1", "nat", "-p", "8080:80")
    said = harbour.refused("run", "-d", "--name", "c2", "--network", "nat", "-p", "8080:80", "bb", *ALWAYS)
    assert "host port 8080/tcp is published by endpoint" in said
    assert len(harbour.berth("endpoint", "ls")) == 1


def test_a_port_of_the_hosts_own_programs_is_not_taken_from_them(harbour: Harbour) -> None:
    harbour.network("nat")
    serve = [
        "python3",
        "-c",
        "import socket; s = socket.create_server(('', 8080)); print('up', flush=True); s.accept()",
    ]
    with harbour.lab.popen("host", serve, stdout=PIPE, text=True) as program:
        assert program.stdout is not None and program.stdout.readline() == "up\n"
        said = harbour.refused("run", "-d", "--name", "c1", "--network", "nat", "-p", "8080:80", "bb", *ALWAYS)
        program.kill()
    assert "host port 8080/tcp is in use by python3 (pid " in said
    assert harbour.berth("endpoint", "ls") == []


def test_an_internal_network(harbour: Harbour) -> None:
    harbour.network("inner", "--internal")
    first, second = harbour.serve("c1", "inner"), harbour.serve("c2", "inner")
    assert "default" not in harbour.inside("c1", "ip", "route")
    assert harbour.inside("c1", "wget", "-q", "-O-", f"http://{second}/") == "c2"
    assert "bad address" not in harbour.inside("c2", "wget", "-q", "-O-", "http://c1/")
    assert harbour.asks("laptop", first) == ""
    assert list_links(harbour, "c1") == ["eth0"]


def list_links(harbour: Harbour, name: str) -> list[str]:
    """A container's links other than its loopback."""
    found = harbour.inside(name, "ls", "/sys/class/net").split()
    return [link for link in found if link != "lo"]


# --- addresses ------------------------------------------------------------------------------------------


def test_an_address_of_ones_own_choice(harbour: Harbour) -> None:
    harbour.network("lan", *LAN)
    assert harbour.serve("c1", "lan", "--ip", "192.168.2.77") == "192.168.2.77"
    assert harbour.asks("laptop", "192.168.2.77") == "c1"
    for taken, why in ((ROUTER, "gateway"), (HOST, "host's own"), ("192.168.2.77", "already given")):
        said = harbour.refused("run", "--rm", "--network", "lan", "--ip", taken, "bb", "true")
        assert why in said, said


def test_a_mac_of_ones_own_choice(harbour: Harbour) -> None:
    harbour.network("lan", *LAN)
    address = harbour.serve("c1", "lan", "--mac-address", "02:42:00:00:00:77")
    assert harbour.asks("laptop", address) == "c1"
    assert neighbour(harbour, "laptop", address) == "02:42:00:00:00:77"
    assert harbour.attached("c1", "lan")["MacAddress"] == "02:42:00:00:00:77"


def test_ipv6_behind_the_host(harbour: Harbour) -> None:
    harbour.network("nat", "--ipv6", "--subnet=10.66.0.0/24", "--subnet=fd66::/64")
    harbour.serve("c1", "nat", "--ip6", "fd66::77")
    harbour.start("c2", "nat")
    assert harbour.attached("c1", "nat")["GlobalIPv6Address"] == "fd66::77"
    assert "1 packets received" in harbour.inside("c2", "ping", "-6", "-c1", "-W2", "fd66::77")
    assert "1 packets received" in harbour.inside("c1", "ping", "-6", "-c1", "-W2", LAPTOP6)


def test_ipv6_on_the_lan(harbour: Harbour) -> None:
    harbour.network("lan", *LAN, "--ipv6", "--subnet=fd00:2::/64")
    harbour.serve("c1", "lan", "--ip6", "fd00:2::77")
    assert "1 packets received" in harbour.inside("c1", "ping", "-6", "-c1", "-W2", ROUTER6)
    assert harbour.reaches("laptop", "fd00:2::77")


def test_an_address_that_berth_attach_took_is_not_given_to_a_container(harbour: Harbour) -> None:
    ident = harbour.network("lan", *LAN)
    harbour.sh("ip netns add plain")
    try:
        (taken,) = harbour.berth("attach", ident, "plain")["addresses"]
        address = harbour.serve("c1", "lan")
        assert address != taken.partition("/")[0]
        assert harbour.asks("plain", address) == "c1"
        said = harbour.refused("run", "--rm", "--network", "lan", "--ip", taken.partition("/")[0], "bb", "true")
        assert "already given" in said
        harbour.lab.berth("detach", ident, "plain", check=True)
    finally:
        harbour.sh("ip netns delete plain")


# --- several networks, and none -------------------------------------------------------------------------


def test_connecting_and_disconnecting_a_running_container(harbour: Harbour) -> None:
    harbour.network("nat")
    harbour.network("lan", *LAN)
    harbour.serve("c1", "nat")
    harbour.docker("network", "connect", "lan", "c1")
    address = harbour.address("c1", "lan")
    assert harbour.asks("laptop", address) == "c1"
    assert list_links(harbour, "c1") == ["eth0", "eth1"]
    harbour.docker("network", "disconnect", "lan", "c1")
    assert list_links(harbour, "c1") == ["eth0"]
    assert not harbour.reaches("laptop", address)
    assert "1 packets received" in harbour.inside("c1", "ping", "-c1", "-W2", INTERNET)


def test_a_container_on_the_lan_and_on_a_private_network(harbour: Harbour) -> None:
    harbour.network("lan", *LAN)
    harbour.network("nat")
    harbour.serve("db", "nat")
    harbour.docker("create", "--name", "c1", "--init", "--network", "lan", "bb", *ALWAYS)
    harbour.docker("network", "connect", "nat", "c1")
    harbour.docker("start", "c1")
    assert harbour.inside("c1", "wget", "-q", "-O-", "http://db/") == "db"
    assert harbour.reaches("laptop", harbour.address("c1", "lan"))
    assert harbour.inside("c1", "ip", "route", "show", "default").split()[:3] == ["default", "via", ROUTER]


def test_names_and_aliases(harbour: Harbour) -> None:
    harbour.network("nat")
    harbour.serve("web", "nat", "--network-alias", "www")
    harbour.start("c1", "nat")
    for name in ("web", "www"):
        assert harbour.inside("c1", "wget", "-q", "-O-", f"http://{name}/") == "web"


def test_berth_learns_names_of_a_docker_that_is_busy(harbour: Harbour) -> None:
    harbour.network("nat")
    until(lambda: [net["Name"] for net in harbour.berth("network", "ls")] == ["nat"])
    harbour.start("c1", "nat")
    with harbour.engine.held_up():
        time.sleep(4)  # longer than Berth waits for an answer
    until(lambda: [ep["name"] for ep in harbour.berth("endpoint", "ls")] == ["c1"])


def test_another_containers_network_and_the_hosts(harbour: Harbour) -> None:
    harbour.network("lan", *LAN)
    address = harbour.serve("c1", "lan")
    said = harbour.docker("run", "--rm", "--network", "container:c1", "bb", "ip", "-o", "-4", "address")
    assert address in said
    assert HOST in harbour.docker("run", "--rm", "--network", "host", "bb", "ip", "-o", "-4", "address")


def test_docker_adds_no_bridge_of_its_own(harbour: Harbour) -> None:
    harbour.network("lan", *LAN)
    harbour.network("inner", "--internal")
    harbour.start("c1", "lan")
    harbour.start("c2", "inner")
    assert list_links(harbour, "c1") == list_links(harbour, "c2") == ["eth0"]
    assert "docker_gwbridge" not in harbour.docker("network", "ls", "--format", "{{.Name}}")


# --- options --------------------------------------------------------------------------------------------


def test_options_of_an_endpoint(harbour: Harbour) -> None:
    harbour.network("nat")
    harbour.network("lan", *LAN)
    harbour.start("c1", "nat")
    options = ("gateway=false", "iface_prefix=lan", "mac=02:42:00:00:00:78")
    harbour.docker("network", "connect", *(f"--driver-opt={option}" for option in options), "lan", "c1")
    assert list_links(harbour, "c1") == ["eth0", "lan0"]
    assert "02:42:00:00:00:78" in harbour.inside("c1", "ip", "link", "show", "lan0")
    assert ROUTER not in harbour.inside("c1", "ip", "route", "show", "default")
    harbour.start("c2", "nat")
    said = harbour.refused("network", "connect", "--driver-opt=gatway=false", "lan", "c2")
    assert "endpoint option 'gatway' is not known: did you mean gateway?" in said


def test_static_routes(harbour: Harbour) -> None:
    harbour.network("lan", *LAN, "-o", f"routes=10.8.0.0/16={LAPTOP}")
    harbour.start("c1", "lan")
    assert harbour.inside("c1", "ip", "route", "show", "10.8.0.0/16").split()[:3] == ["10.8.0.0/16", "via", LAPTOP]


def test_options_of_a_network(harbour: Harbour) -> None:
    harbour.network("nat", "-o", "com.docker.network.driver.mtu=1400", "-o", "bridge=mybridge", "-o", "iface_prefix=x")
    harbour.start("c1", "nat")
    assert "mtu 1400" in harbour.inside("c1", "ip", "link", "show", "x0")
    assert "bridge" in harbour.sh("ip -d link show mybridge")


@pytest.mark.parametrize(
    ("args", "why"),
    [
        (("-o", "colour=red"), "option 'colour' is not known"),
        (("-o", "mode=nat"), "mode 'nat' is not known: choose one of bridge, flat"),
        (("-o", "parent=br7", "--subnet=192.168.2.0/24"), "no bridge br7 on this host"),
        (("-o", "parent=br0", "--subnet=192.168.2.0/25"), "use --subnet 192.168.2.0/24"),
        (("--subnet=192.168.2.0/24",), "overlaps the host's route to 192.168.2.0/24"),
        (("--subnet=127.0.0.0/8",), "loopback"),
        (
            (
                "-o",
                "mtu=12",
            ),
            "'12' is no MTU",
        ),
    ],
)
def test_what_makes_no_sense_is_refused_and_leaves_nothing(harbour: Harbour, args: tuple[str, ...], why: str) -> None:
    assert why in harbour.refused("network", "create", *OURS, *args, "n1")
    assert "n1" not in harbour.docker("network", "ls", "--format", "{{.Name}}").split()
    assert harbour.held() == []


# --- what Docker shows ----------------------------------------------------------------------------------


def test_inspect_shows_subnet_gateway_and_addresses(harbour: Harbour) -> None:
    harbour.network("nat", "--subnet=10.66.0.0/24", "--gateway=10.66.0.9")
    address = harbour.start("c1", "nat")
    found = harbour.inspected("nat")
    assert (found["Driver"], found["IPAM"]["Driver"]) == ("berth", "berth")
    (config,) = found["IPAM"]["Config"]
    assert (config["Subnet"], config["Gateway"]) == ("10.66.0.0/24", "10.66.0.9")
    (container,) = found["Containers"].values()
    assert (container["Name"], container["IPv4Address"]) == ("c1", f"{address}/24")
    assert container["MacAddress"] in harbour.inside("c1", "ip", "link", "show", "eth0")
    assert harbour.attached("c1", "nat")["Gateway"] == "10.66.0.9"


def test_berth_says_what_docker_calls_things(harbour: Harbour) -> None:
    harbour.network("lan", *LAN)
    harbour.start("c1", "lan")
    until(lambda: [(ep["network_name"], ep["name"]) for ep in harbour.berth("endpoint", "ls")] == [("lan", "c1")])
    done = harbour.lab.berth("network", "rm", "lan")
    assert (done.returncode, "network lan is Docker's: `docker network rm lan`" in done.stderr) == (2, True)
    assert harbour.berth("network", "prune") == []


def test_ps_shows_nothing_surprising(harbour: Harbour) -> None:
    harbour.network("lan", *LAN)
    harbour.start("c1", "lan")
    line = harbour.docker("ps", "--format", "{{.Names}} {{.Networks}} {{.Status}}")
    assert line.startswith("c1 lan Up")
    assert (
        harbour.docker("network", "ls", "--filter", "driver=berth", "--format", "{{.Name}} {{.Scope}}") == "lan local"
    )
