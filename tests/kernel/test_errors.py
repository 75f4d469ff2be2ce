"""Every refusal is of the right kind and says on one line what was refused, with its value."""

from __future__ import annotations

import socket
import subprocess
import sys
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path

import msgspec
import pytest

from berth.errors import BerthError, Exhausted, Invalid, NotFound, Refused, Taken, Unsupported
from berth.firewall import tables
from berth.kernel.linux import LinuxKernel
from berth.kernel.netlink import Netlink
from berth.plan import Add, Change, Del, Op, Plan
from berth.state import HOST, Addr, Bridge, LinkUp, NftElement, NftHook, NftTable, Obj, Route, Sysctl, Veth

from .cases import ENDPOINT, NETWORK
from .conftest import C1, Host, sh

BRIDGE = Bridge("brt0", "02:00:00:00:00:01", 1500, NETWORK)
CABLE = Veth("bv0", "plug", 1500, ENDPOINT, C1, "eth1", "02:00:00:00:02:01")
PLAIN_FILE = "/run/plain-file"


def refusal(kind: type[BerthError], call: Callable[[], object], *words: str) -> str:
    """The message of the refusal, which is of that very kind, is one line and has the words."""
    with pytest.raises(BerthError) as caught:
        call()
    message = str(caught.value)
    assert type(caught.value) is kind, message
    assert message.isprintable(), message
    for word in words:
        assert word in message
    return message


def sending(*ops: Op) -> Callable[[], None]:
    return lambda: LinuxKernel().send(Plan(ops))


# --- no room --------------------------------------------------------------------------------------------


def test_the_1024th_port_of_a_bridge(host: Host) -> None:
    """Both ends of 511 cables, and one of another."""
    host.sandbox("c1")
    lines = [
        "link add full type bridge",
        "link add last master full type veth peer name other",
        "link add plug type bridge",
    ]
    for number in range(511):
        lines.append(f"link add a{number} master full type veth peer name b{number}")
        lines.append(f"link set b{number} master full")
    host.batch("\n".join(lines))
    cable = Veth("bv0", "full", 1500, ENDPOINT, C1, "eth1", "02:00:00:00:02:01")
    refusal(Exhausted, sending(Add(cable)), "bridge full", "1,023")
    assert host.read(cable) == frozenset()
    assert [link["ifname"] for link in host.ip("link", ns=C1)] == ["lo"]
    host.send(Add(CABLE))
    refusal(Exhausted, sending(Change(CABLE, cable)), "bridge full", "1,023")
    host.batch("link del last")
    host.send(Change(CABLE, cable))
    assert host.read(cable) == {cable}


# --- no privilege ---------------------------------------------------------------------------------------

_CHILD = """
import sys
import msgspec
from berth.errors import BerthError
from berth.kernel.linux import LinuxKernel
from berth.plan import Op, Plan

for op in msgspec.json.decode(sys.stdin.buffer.read(), type=list[Op]):
    try:
        LinuxKernel().send(Plan((op,)))
        print("done")
    except BerthError as error:
        print(type(error).__name__, error)
try:
    print(LinuxKernel().sandbox("c1"))
except BerthError as error:
    print(type(error).__name__, error)
"""


def test_without_capabilities(stage: Host) -> None:
    objects: list[Obj] = [
        BRIDGE,
        Veth("bv0", "plug", 1500, ENDPOINT, HOST, "bw0", "02:00:00:00:02:01"),
        CABLE,
        LinkUp(HOST, "plug", up=False),
        Addr(HOST, "plug", "10.7.0.1/24"),
        Addr(HOST, "plug", "fd07::1/64"),
        Addr(C1, "eth0", "10.7.0.1/24"),
        Route(HOST, "0.0.0.0/0", "plug", "10.8.0.1"),
        Route(HOST, "::/0", "plug", "fd08::1", 1024),
        Sysctl(C1, "net.ipv4.ip_forward", "1"),
        NftTable("inet", "other", "x/1", "  chain stamp { }\n"),
        NftElement("inet", "berth", "bridges", (("ifname", "brt0"),)),
    ]
    ops: list[Op] = [*map(Add, objects), Del(Addr(HOST, "plug", "10.8.0.2/24")), Del(tables.inet())]
    stage.send(Add(tables.inet()))
    before = stage.everything()
    argv = ["setpriv", "--bounding-set=-all", "--inh-caps=-all", sys.executable, "-c", _CHILD]
    done = subprocess.run(argv, input=msgspec.json.encode(ops), capture_output=True, check=False)
    assert done.returncode == 0, done.stderr.decode()
    lines = done.stdout.decode().splitlines()
    assert len(lines) == len(ops) + 1, lines
    for op, line in zip(ops, lines, strict=False):
        kind, _, message = line.partition(" ")
        subject = op.old if isinstance(op, Del) else op.new
        assert kind == "Denied", line
        assert "root" in message
        assert subject.key[2] in message or subject.key[1] in message, line
    assert lines[-1].startswith("Denied") and C1 in lines[-1] and "root" in lines[-1]
    assert stage.everything() == before


# --- not there ------------------------------------------------------------------------------------------


def test_a_sandbox_that_is_not_there(stage: Host, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("DOCKER_HOST", raising=False)
    gone = "/run/netns/gone"
    missing = Veth("bv0", "plug", 1500, ENDPOINT, gone, "eth1", "02:00:00:00:02:01")
    for obj in (missing, Addr(gone, "eth0", "10.7.0.1/24"), Sysctl(gone, "net.ipv4.ip_forward", "1")):
        refusal(NotFound, sending(Add(obj)), gone)
    find = LinuxKernel().sandbox
    refusal(NotFound, lambda: find("gone"), "gone", "ip netns add gone")
    refusal(NotFound, lambda: find(gone), gone)
    refusal(NotFound, lambda: find("pid:4194999"), "4194999")
    refusal(NotFound, lambda: find("docker:gone"), "gone")


def test_a_table_that_is_not_there(stage: Host) -> None:
    """As on a host that was set up by an older Berth."""
    for obj in (NftElement("inet", "lost", "bridges", (("ifname", "brt0"),)), NftHook("berth_lost", "up0")):
        refusal(NotFound, sending(Add(obj)), obj.table, "berth reconcile")


def test_a_sandbox_that_is_none(stage: Host) -> None:
    Path(PLAIN_FILE).touch()
    before = stage.everything()
    for path in (PLAIN_FILE, "/run", "/proc/self/ns/uts", "/proc/self/ns/mnt"):
        refusal(Invalid, partial(LinuxKernel().sandbox, path), path)
        for obj in (
            Addr(path, "eth0", "10.7.0.1/24"),
            Sysctl(path, "net.ipv4.ip_forward", "1"),
            Veth("bv0", "plug", 1500, ENDPOINT, path, "eth1", "02:00:00:00:02:01"),
        ):
            refusal(Invalid, sending(Add(obj)), path)
    assert stage.everything() == before


@pytest.mark.parametrize("text", ["", ".", "..", "run/netns/c1", "./c1", "pid:x", "pid:-1", "pid:1/2", "docker:a/b"])
def test_a_text_that_cannot_be_a_sandbox(text: str) -> None:
    refusal(Invalid, partial(LinuxKernel().sandbox, text), text)


def test_a_link_that_is_not_there(stage: Host) -> None:
    lost: tuple[Obj, ...] = (
        Addr(HOST, "lost", "10.7.0.1/24"),
        Addr(C1, "lost", "fd07::1/64"),
        Route(HOST, "10.5.0.0/16", "lost", "10.8.0.1"),
        Veth("bv0", "lost", 1500, ENDPOINT, C1, "eth1", "02:00:00:00:02:01"),
        LinkUp(C1, "lost"),
    )
    for obj in lost:
        refusal(NotFound, sending(Add(obj)), "lost")


# --- this kernel, this host -----------------------------------------------------------------------------


def test_a_setting_that_this_kernel_lacks(stage: Host) -> None:
    for ns in (HOST, C1):
        for name in ("net.ipv4.no_such_setting", "net.ipv4.conf.lost/7.rp_filter"):
            refusal(Unsupported, sending(Add(Sysctl(ns, name, "1"))), name)


def test_a_setting_that_takes_no_such_value(stage: Host) -> None:
    refusal(Refused, sending(Add(Sysctl(C1, "net.ipv4.ip_forward", "many"))), "net.ipv4.ip_forward=many")


@pytest.mark.parametrize("there", [(), ("setpriv",), ("nft",)])
def test_a_missing_program(host: Host, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, there: Sequence[str]) -> None:
    for name in there:
        (tmp_path / name).symlink_to(sh(f"command -v {name}").strip())
    missing = "nft" if "setpriv" in there else "setpriv"
    with monkeypatch.context() as patch:
        patch.setenv("PATH", str(tmp_path))
        refusal(Unsupported, sending(Add(tables.inet())), missing, "install")
    assert host.read(tables.inet()) == frozenset()


def test_an_address_where_its_family_is_switched_off(stage: Host) -> None:
    """The errno is that of a missing privilege; the kernel's words say what is meant."""
    sh("ip netns exec c1 sysctl -q -w net.ipv6.conf.eth0.disable_ipv6=1")
    refusal(Refused, sending(Add(Addr(C1, "eth0", "fd07::1/64"))), "fd07::1/64", "IPv6 is disabled")


# --- refused as it stands -------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("obj", "word"),
    [
        (Route(C1, "0.0.0.0/0", "eth0", "203.0.113.1"), "203.0.113.1"),
        (Route(C1, "::/0", "eth0", "2001:db8::1", 1024), "2001:db8::1"),
        (Bridge("a-name-that-is-too-long", "02:00:00:00:00:01", 1500, NETWORK), "a-name-that-is-too-long"),
        (Bridge("brt0", "01:00:5e:00:00:01", 1500, NETWORK), "01:00:5e:00:00:01"),
        (Bridge("brt0", "02:00:00:00:00:01", 1_000_000, NETWORK), "1000000"),
        (Veth("bv0", "plug", 1500, ENDPOINT, C1, "an inner name", "02:00:00:00:02:01"), "an inner name"),
        (NftTable("inet", "t1", "x/1", "  chain a { bogus words }\n"), "table inet t1"),
    ],
)
def test_what_the_kernel_will_not_have(stage: Host, obj: Obj, word: str) -> None:
    before = stage.everything()
    refusal(Refused, sending(Add(obj)), word)
    assert stage.everything() == before


def test_a_cable_into_something_that_is_no_bridge(stage: Host) -> None:
    before = stage.everything()
    refusal(Unsupported, sending(Add(Veth("bv0", "up0", 1500, ENDPOINT, C1, "eth1", "02:00:00:00:02:01"))), "up0")
    assert stage.everything() == before


def test_the_refused_element_is_the_one_that_is_named(host: Host) -> None:
    host.send(Add(tables.inet()))
    one, two, three = (NftElement("inet", "berth", "bridges", (("ifname", f"brt{n}"),)) for n in (1, 2, 3))
    sh("nft add element inet berth bridges '{ brt2 }'")
    message = refusal(Taken, sending(Add(one), Add(two), Add(three)), "brt2")
    assert "brt1" not in message and "brt3" not in message
    assert host.read(one, two, three) == {two}, "all or none"


# --- many at once ---------------------------------------------------------------------------------------


def test_a_batch_goes_on_after_a_refusal(stage: Host) -> None:
    """The kernel's own way: see the design, 4.2. Reaching back to what was before undoes both."""
    addresses = [Addr(C1, "eth0", f"10.7.0.{number}/24") for number in range(1, 6)]
    sh("ip -n c1 addr add 10.7.0.2/24 dev eth0 && ip -n c1 addr add 10.7.0.4/24 dev eth0")
    message = refusal(Taken, sending(*map(Add, addresses)), "10.7.0.2/24")
    assert "10.7.0.4" not in message, "the first refusal"
    assert stage.read(*addresses) == set(addresses)


def test_a_batch_longer_than_the_answers_that_fit(stage: Host) -> None:
    """Acknowledgements are taken in as they come; the 150th refusal still names the 150th address."""
    addresses = [Addr(C1, "eth0", f"10.7.{number}.1/24") for number in range(200)]
    sh("ip -n c1 addr add 10.7.150.1/24 dev eth0")
    refusal(Taken, sending(*map(Add, addresses)), "10.7.150.1/24")
    assert stage.read(*addresses) == set(addresses)
    stage.send(*map(Del, addresses))
    assert stage.read(*addresses) == frozenset()


def _ports(count: int) -> list[NftElement]:
    def element(number: int) -> NftElement:
        match = (("ipv4", f"10.8.{number >> 16}.2"), ("proto", "tcp"), ("port", str(number & 0xFFFF)))
        return NftElement("inet", "berth", "port4", match, (("ipv4", "10.9.0.2"), ("port", "80")))

    return [element(number) for number in range(count)]


def test_thousands_of_elements_in_one_transaction(host: Host) -> None:
    host.send(Add(tables.inet()))
    ports = _ports(5000)
    host.send(*map(Add, ports))
    assert host.read(*ports) == set(ports)
    host.send(*map(Del, ports))
    assert host.read(*ports) == frozenset()


def test_more_elements_than_a_socket_takes(host: Host, monkeypatch: pytest.MonkeyPatch) -> None:
    """Most machines have a net.core.wmem_max of 208 KiB."""

    def little_room(self: Netlink, size: int) -> None:
        self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 212_992)

    monkeypatch.setattr(Netlink, "room", little_room)
    host.send(Add(tables.inet()))
    ports = _ports(20_000)
    host.send(*map(Add, ports))
    assert host.read(*ports) == set(ports)
