"""`--ipv6` with `--ipam-driver berth-dhcp`: containers of Docker's that have IPv6 as the LAN's routers advertise."""

from __future__ import annotations

from collections.abc import Iterator
from ipaddress import IPv6Address, IPv6Network

import pytest

from .harbour import INTERNET6, LAPTOP, LAPTOP6, Harbour, until

pytestmark = pytest.mark.timeout(180)

PREFIX = IPv6Network("fd00:2::/64")
GIVEN = [PREFIX[number] for number in range(0x200, 0x300)]  # by the DHCP server


@pytest.fixture(params=["radvd", "dnsmasq"])
def lan(harbour: Harbour, request: pytest.FixtureRequest) -> Iterator[Harbour]:
    """A network of that name, made as a person would, on a LAN whose router advertises; dnsmasq gives addresses."""
    here = harbour.lab.work / "router"
    until(lambda: harbour.berth("lease", "ls") == [])  # of another test's LAN
    harbour.sh("sysctl -qw net.ipv6.conf.br0.accept_ra=0")
    if request.param == "radvd":
        words = f"AdvSendAdvert on; MinRtrAdvInterval 3; MaxRtrAdvInterval 4; prefix {PREFIX} {{}};"
        (here / "radvd.conf").write_text(f"interface lan0 {{ {words} }};\n")
        harbour.sh(f"radvd -C {here}/radvd.conf -p {here}/six.pid -m logfile -l {here}/radvd.log", "router")
    else:
        options = f"--dhcp-range={GIVEN[0]},{GIVEN[-1]},64,1h --enable-ra --dhcp-leasefile={here}/six.leases"
        where = f"--interface=lan0 --bind-interfaces --pid-file={here}/six.pid --user= --group="
        harbour.sh(f"dnsmasq --conf-file=/dev/null --port=0 {where} {options}", "router")
    harbour.engine.plugin("berth-dhcp.spec", f"unix://{harbour.berthd.socket.with_name('berth-dhcp.sock')}\n")
    subnets = ("--subnet=192.168.2.0/24", f"--subnet={PREFIX}")
    driver = ("-d", "berth", "--ipam-driver", "berth-dhcp")
    harbour.docker("network", "create", "--ipv6", *driver, *subnets, "-o", "parent=br0", "lan")
    yield harbour
    stop(harbour)
    harbour.sh("sysctl -qw net.ipv6.conf.br0.accept_ra=1")


def stop(harbour: Harbour) -> None:
    """End what advertises."""
    pid = harbour.lab.work / "router/six.pid"
    ended = f"kill $(cat {pid}); while kill -0 $(cat {pid}); do sleep 0.05; done 2>/dev/null; rm -f {pid}"
    harbour.sh(f"test ! -e {pid} || {{ {ended}; }}", "router")


def six(harbour: Harbour, name: str) -> str:
    return str(harbour.attached(name, "lan")["GlobalIPv6Address"])


def leased(harbour: Harbour) -> list[str]:
    return [record["lease"]["address"].partition("/")[0] for record in harbour.berth("lease", "ls")]


def test_a_container_has_an_address_of_the_advertised_prefix(lan: Harbour, request: pytest.FixtureRequest) -> None:
    lan.serve("web", "lan")
    address = six(lan, "web")
    assert IPv6Address(address) in PREFIX
    assert (IPv6Address(address) in GIVEN) is ("dnsmasq" in request.node.name)
    until(lambda: lan.reaches("laptop", address))
    assert "1 packets received" in lan.inside("web", "ping", "-c1", "-W2", LAPTOP6)
    assert "1 packets received" in lan.inside("web", "ping", "-c1", "-W2", LAPTOP)
    until(lambda: lan.inside("web", "ip", "-6", "route", "show", "default").startswith("default via fe80:"))
    assert "1 packets received" in lan.inside("web", "ping", "-c1", "-W2", INTERNET6)
    shown = lan.inside("web", "ip", "-6", "address", "show", "dev", "eth0", "scope", "global").split()
    assert [shown[at + 1] for at, word in enumerate(shown) if word == "inet6"] == [f"{address}/64"]  # and no other
    assert lan.asks("laptop", f"[{address}]") == "web"
    assert address in leased(lan)
    if "radvd" in request.node.name:
        stop(lan)  # its last word is that it is no router any more
        until(lambda: not lan.inside("web", "ip", "-6", "route", "show", "default"))
        assert lan.reaches("laptop", address)


def test_a_container_made_anew_has_the_same_address_and_so_after_a_restart_of_berth(lan: Harbour) -> None:
    lan.start("web", "lan")
    first = six(lan, "web")
    lan.docker("rm", "-f", "web")
    lan.start("web", "lan")
    assert six(lan, "web") == first
    until(lambda: lan.reaches("laptop", first))
    lan.berthd.kill9()
    assert lan.reaches("laptop", first)
    lan.berthd.start()
    assert first in leased(lan)
    lan.docker("rm", "-f", "web")
    until(lambda: lan.berth("lease", "ls") == [])
