"""Makes a topology's nodes in the lab's namespaces, with the system's own tools.

Not a hot path: what counts here is that a reader recognises every line as what they would type.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import traceback
from collections.abc import Iterable, Sequence
from pathlib import Path

from berth.errors import Refused, Unsupported
from berth.lab import syscalls
from berth.lab.server import HttpServer
from berth.lab.topology import DOMAIN, Host, Nic, Node, Router, Server, Switch, Topology

NETNS = Path("/run/netns")  # where `ip netns` pins namespaces; the lab has a private one
LEASE_TIME = "1h"
_TOOLS = {
    "ip": "iproute2",
    "nft": "nftables",
    "dnsmasq": "dnsmasq-base",
    "nsenter": "util-linux",
    "sysctl": "procps",
}
# A home switch forwards at once, and the host's bridge is set up as one should be: no listening, no learning wait.
_BRIDGE = "type bridge forward_delay 0 stp_state 0"

_MASQUERADE = """
table inet nat {{
    chain postrouting {{
        type nat hook postrouting priority srcnat
        oifname "{uplink}" masquerade
    }}
}}
"""


def build(topology: Topology, work: Path) -> None:
    """Make every node, connect and address it, and start its servers."""
    for tool, package in _TOOLS.items():
        if shutil.which(tool) is None:
            raise Unsupported(f"the lab needs `{tool}`, which is not installed: install the package {package}")
    for node in topology.nodes:
        _directories(node, work / node.name)
    _ip(f"netns add {node.name}" for node in topology.nodes)
    _ip(_cable_lines(topology))
    for node in topology.nodes:
        _ip(_switch_lines(node, topology) if isinstance(node, Switch) else _node_lines(node), node.name)
    for node in topology.nodes:
        _forward(node)
        if isinstance(node, Router):
            _start_router(node, topology, work / node.name)
        elif isinstance(node, Server):
            _start_server(node)


def _directories(node: Node, home: Path) -> None:
    home.mkdir()
    if isinstance(node, Host):
        (home / "state").mkdir()
        (home / "run").mkdir()


def _cable_lines(topology: Topology) -> Iterable[str]:
    for cable in topology.cables:
        (node, link), (other, peer) = cable.a, cable.b
        yield (
            f"link add {link} {_address(cable.mac_a)} netns {node.name} type veth"
            f" peer name {peer} {_address(cable.mac_b)} netns {other.name}"
        )


def _address(mac: str | None) -> str:
    return "" if mac is None else f"address {mac}"


def _switch_lines(switch: Node, topology: Topology) -> Iterable[str]:
    yield "link set lo up"
    yield f"link add {switch.name} up {_BRIDGE}"
    for cable in topology.cables:
        if cable.b[0] is switch:
            yield f"link set {cable.b[1]} up master {switch.name}"


def _node_lines(node: Node) -> Iterable[str]:
    yield "link set lo up"
    for nic in node.nics:
        yield from _nic_lines(nic)
    for gateway in node.gateways:
        yield f"route add default via {gateway}"


def _nic_lines(nic: Nic) -> Iterable[str]:
    if nic.bridge is None:
        yield f"link set {nic.name} up"
    else:
        yield f"link add {nic.bridge} up {_address(nic.mac)} {_BRIDGE}"
        yield f"link set {nic.name} up master {nic.bridge}"
    for address in nic.addresses:
        # Duplicate address detection would keep the IPv6 address unusable for the lab's first two seconds.
        yield f"address add {address} dev {nic.bridge or nic.name} {'nodad' if address.version == 6 else ''}"


def _forward(node: Node) -> None:
    """Have routers forward and others not: a new namespace starts with what the machine itself does for IPv4."""
    flag = int(isinstance(node, Router))
    _in(node, ["sysctl", "-qw", f"net.ipv4.ip_forward={flag}", f"net.ipv6.conf.all.forwarding={flag}"])


def _start_router(router: Router, topology: Topology, home: Path) -> None:
    if router.uplink:
        _in(router, ["nft", "-f", "-"], _MASQUERADE.format(uplink=router.uplink))
    config = home / "dnsmasq.conf"
    config.write_text("\n".join(_dnsmasq_lines(router, topology, home)) + "\n")
    # It returns when its sockets are open. The two empty options keep it from changing its user and group, which
    # an unprivileged user namespace does not allow.
    _in(router, ["dnsmasq", f"--conf-file={config}", "--user=", "--group="])


def _dnsmasq_lines(router: Router, topology: Topology, home: Path) -> Iterable[str]:
    yield from ("no-hosts", "no-resolv", "no-poll", "bind-interfaces", "pid-file=")
    yield from (f"interface={nic.name}" for nic in router.inside)
    yield from (f"domain={DOMAIN}", f"local=/{DOMAIN}/")
    for node in topology.nodes:
        if node.addresses:
            yield f"host-record={node.name}.{DOMAIN},{','.join(str(address.ip) for address in node.addresses)}"
    if router.leases is not None:
        # It would ping an address before it offers it, and make every client wait for that.
        yield from ("no-ping", "dhcp-authoritative", "log-dhcp", f"dhcp-leasefile={home}/leases")
        yield f"dhcp-range={router.leases.first},{router.leases.last},{LEASE_TIME}"
    yield f"log-facility={home}/dnsmasq.log"


def _start_server(node: Server) -> None:
    """Fork a web server into the node: the calling process has all that it needs, and starts no other program."""
    ready, started = os.pipe()
    if os.fork() == 0:
        try:
            with (NETNS / node.name).open("rb") as namespace:
                syscalls.setns(namespace.fileno(), syscalls.CLONE_NEWNET)
            server = HttpServer()
            os.write(started, b"+")
            os.closerange(0, 2)  # the holder's pipes: their readers wait for the last one to close them
            server.serve_forever()
        except BaseException:
            traceback.print_exc()  # into holder.log
        finally:
            os._exit(1)
    os.close(started)
    if os.read(ready, 1) != b"+":
        raise Refused(f"the web server of node {node.name} did not start")
    os.close(ready)


def _ip(lines: Iterable[str], node: str = "") -> None:
    """Give `ip` a batch of lines, in a node or in the holder's own namespace."""
    _call(["ip", *(["-n", node] if node else []), "-batch", "-"], "\n".join(lines))


def _in(node: Node, argv: Sequence[str], text: str = "") -> None:
    """Run a program in a node's network namespace."""
    _call(["nsenter", f"--net={NETNS / node.name}", *argv], text)


def _call(argv: Sequence[str], text: str) -> None:
    done = subprocess.run(argv, input=text, text=True, capture_output=True, check=False)
    if done.returncode != 0:
        raise Refused(f"`{' '.join(argv)}` failed: {done.stderr.strip()}; it was given: {text.strip()}")
