"""Every test of this folder plays host in a network namespace of its own, with a /run of its own.

The test's own process steps into the new namespaces and back out of them, so what a test makes cannot reach
the machine's links, and all of it is gone with the last process in it.

    ip("addr", ns="c1")        the real iproute2 as a second opinion
"""

from __future__ import annotations

import ctypes
import json
import os
import re
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest

from berth.kernel import netns, read, send
from berth.plan import Op, Plan
from berth.seams import Scope
from berth.state import HOST, Key, Obj, State, keys

C1, C2 = "/run/netns/c1", "/run/netns/c2"
Entries = list[dict[str, Any]]

_NEWNS, _NEWNET, _SHARED_FS = 0x0002_0000, 0x4000_0000, 0x0000_0200
_PRIVATE, _RECURSIVE = 0x4_0000, 0x4000

_libc = ctypes.CDLL(None, use_errno=True)
_libc.mount.argtypes = (ctypes.c_char_p, ctypes.c_char_p, ctypes.c_char_p, ctypes.c_ulong, ctypes.c_char_p)


def ip(*args: str, ns: str = HOST) -> Entries:
    """What `ip -j` says, in the host or in a sandbox (its path)."""
    done = subprocess.run(["ip", "-j", *_where(ns), *args], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return [entry for entry in json.loads(done.stdout or "[]") if entry]


def _where(ns: str) -> list[str]:
    return ["-n", ns.rpartition("/")[2]] if ns else []


def sh(line: str) -> str:
    """What a shell prints for a line; the line must succeed."""
    done = subprocess.run(["sh", "-c", f"set -e\n{line}"], capture_output=True, text=True, check=False)
    assert done.returncode == 0, f"{line}\n{done.stderr}"
    return done.stdout


def type_in(op: Op) -> None:
    """Run the line that a plan prints for an operation, without its sign."""
    sh(str(op)[2:])


class Host:
    """The host that a test plays, in the namespaces that the test is in."""

    def sandbox(self, name: str) -> str:
        """The path of a new sandbox of that name."""
        sh(f"ip netns add {name}")
        return f"/run/netns/{name}"

    def ip(self, *args: str, ns: str = HOST) -> Entries:
        """See the function."""
        return ip(*args, ns=ns)

    def batch(self, lines: str, *options: str, ns: str = HOST) -> str:
        """Carry out `ip` commands, one a line, by one process; what it prints."""
        argv = ["ip", *options, *_where(ns), "-batch", "-"]
        done = subprocess.run(argv, input=lines, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr
        return done.stdout

    def send(self, *ops: Op) -> None:
        """Carry out operations as the engine does."""
        send.send(Plan(ops))

    def read(self, *objects: Obj, marked: bool = False, more: frozenset[Key] = frozenset()) -> State:
        """What is there under the keys of the objects."""
        return read.read(Scope(keys(objects) | more, marked, self.namespaces()))

    def namespaces(self) -> frozenset[str]:
        """The paths of all sandboxes."""
        names = os.listdir("/run/netns") if os.path.isdir("/run/netns") else []
        return frozenset(f"/run/netns/{name}" for name in names)

    def everything(self) -> frozenset[str]:
        """All that a change of Berth's could touch, as `ip` and `nft` tell it."""
        # What a daemon keeps connections translated by comes and goes with it.
        seen = [("nft", re.sub(r"table inet berth_steady \{.*?\n\}\n", "", sh("nft list ruleset"), flags=re.DOTALL))]
        for ns in sorted({HOST, *self.namespaces()}):
            links, addresses, routes = _documents(self.batch(_LISTS, "-j", "-d", ns=ns))
            seen += [(ns, str(_link(entry))) for entry in links]
            seen += [(ns, f"{entry['ifname']} has {address}") for entry in addresses for address in _addresses(entry)]
            seen += [(ns, str(_route(entry))) for entry in routes if not _by_the_kernel(entry)]
        return frozenset(f"{where or 'host'}: {what}" for where, what in seen)


_LISTS = "link show\naddr show\nroute show table all\n"  # the last for both families
_LINK = ("ifname", "mtu", "master", "ifalias", "group", "address", "link", "qdisc")
_ADDRESS = ("family", "local", "address", "prefixlen", "broadcast", "scope", "nodad", "dynamic")
_ROUTE = ("type", "dst", "gateway", "via", "dev", "metric", "protocol", "scope", "table", "nexthops", "flags")


def _documents(text: str) -> Iterator[Entries]:
    """The JSON documents in a text, one after the other."""
    while text := text.lstrip():
        found, end = json.JSONDecoder().raw_decode(text)
        yield [entry for entry in found if entry]
        text = text[end:]


def _link(entry: dict[str, Any]) -> dict[str, Any]:
    info = entry.get("linkinfo", {})
    data = info.get("info_data", {})
    kept = {name: entry[name] for name in _LINK if name in entry} | {
        "up": "UP" in entry["flags"],
        "kind": info.get("info_kind"),
    }
    if not str(kept.get("address")).startswith("02:00:00:"):
        kept["address"] = "chosen by the kernel"
    return kept | {name: data[name] for name in ("stp_state", "forward_delay") if name in data}


def _addresses(entry: dict[str, Any]) -> Entries:
    held = [address for address in entry["addr_info"] if not address["local"].startswith("fe80")]
    return [{name: address[name] for name in _ADDRESS if name in address} for address in held]


def _route(entry: dict[str, Any]) -> dict[str, Any]:
    kept = {name: entry[name] for name in _ROUTE if name in entry}
    return kept | {"flags": sorted({*entry["flags"]} - {"linkdown", "dead"})}  # which follow the carrier, some time


def _by_the_kernel(entry: dict[str, Any]) -> bool:
    return entry["table"] == "local" or bool(re.match("fe80|ff00|multicast", entry["dst"]))  # in its own time


# --- namespaces -----------------------------------------------------------------------------------------


def _call(name: str, *args: Any) -> None:
    if getattr(_libc, name)(*args):
        code = ctypes.get_errno()
        raise OSError(code, f"{name}: {os.strerror(code)}")


def _forget_home() -> None:
    """Have Berth learn anew which namespace it is at home in; its descriptor would keep the old one alive."""
    os.close(netns._home(os.getpid()))
    netns._home.cache_clear()


_FILES = {_NEWNS: "/proc/thread-self/ns/mnt", _NEWNET: "/proc/thread-self/ns/net"}


@contextmanager
def _own_namespaces() -> Iterator[None]:
    directory = os.getcwd()
    outside = {kind: os.open(path, os.O_RDONLY | os.O_CLOEXEC) for kind, path in _FILES.items()}
    _call("unshare", _NEWNS | _NEWNET)
    try:
        _call("mount", b"none", b"/", b"", _PRIVATE | _RECURSIVE, b"")
        _call("mount", b"run", b"/run", b"tmpfs", 0, b"mode=755")
        _forget_home()
        yield
    finally:
        _call("unshare", _SHARED_FS)  # a thread may be about to end still, which setns(2) does not like
        for kind, fd in outside.items():
            _call("setns", fd, kind)
            os.close(fd)
        os.chdir(directory)  # the step into a mount namespace has led to its root
        _forget_home()


@pytest.fixture(scope="session")
def privileged() -> None:
    """That this process may leave its namespaces and come back: tried, in place, before the first test does."""
    directory = os.getcwd()
    try:
        _call("unshare", _SHARED_FS)
        with open(_FILES[_NEWNS]) as here:
            _call("setns", here.fileno(), _NEWNS)
    except PermissionError:
        pytest.skip("needs root: run `unshare -rnm .venv/bin/python -m pytest tests/kernel`")
    os.chdir(directory)


@pytest.fixture(autouse=True)
def host(privileged: None) -> Iterator[Host]:
    """A host that is this test's alone, with nothing but a loopback link."""
    with _own_namespaces():
        sh("ip link set lo up")
        try:
            yield Host()
        finally:
            _end_seals()


def _end_seals() -> None:
    """Delete the taps of all namespaces: wireguard-go ends with its own, and would outlive the test otherwise."""
    if not os.path.isdir("/run/wireguard"):
        return
    for at in ("", *(f"-n {path.rpartition('/')[2]}" for path in Host().namespaces())):
        for name in re.findall(r"^\d+: (\w+):", sh(f"ip {at} -o link show type tun"), re.MULTILINE):
            sh(f"ip {at} link del {name}")


#: What is there before: sandboxes, a bridge, and a cable into a sandbox, none of them Berth's.
_HOST_STAGE = """\
netns add c1
link add plug address 02:00:00:00:01:00 type bridge
link add plug2 address 02:00:00:00:01:04 type bridge
link add up0 address 02:00:00:00:01:01 type veth peer name eth0 address 02:00:00:00:01:02 netns c1
link add up1 address 02:00:00:00:01:03 type veth peer name eth0.7 address 02:00:00:00:01:05 netns c1
link set plug up
link set plug2 up
link set up0 up
addr add 10.8.0.2/24 dev plug
addr add fd08::2/64 dev plug nodad
"""
_SANDBOX_STAGE = """\
link set lo up
link set eth0 up
addr add 10.9.0.2/24 dev eth0
addr add fd09::2/64 dev eth0 nodad
"""


@pytest.fixture
def stage(host: Host) -> Host:
    """A host with a sandbox, two bridges and two cables, none of them Berth's."""
    host.batch(_HOST_STAGE)
    host.batch(_SANDBOX_STAGE, ns=C1)
    return host
