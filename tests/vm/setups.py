"""How a Debian's network card is set up before anybody thinks of a bridge: one set of files for each system."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from .image import enable

ADDRESS = "192.168.2.2"

_LOOPBACK = "# Set up by the installer.\nauto lo\niface lo inet loopback\n\n"
_INTERFACES = "/etc/network/interfaces"
_NETWORK = "/etc/systemd/network/20-lan.network"
_KEYFILE = "/etc/NetworkManager/system-connections/lan.nmconnection"
_NETPLAN = "/etc/netplan/01-lan.yaml"
_KEYFILE_HEAD = """[connection]
id=lan
uuid=5e9d0a1c-3d0f-4b53-9f21-6a1d8f0c2b11
type=ethernet
interface-name=eth0
autoconnect=true

[ethernet]
# the office's switch wants it
wake-on-lan=0
"""


@dataclass(frozen=True, slots=True)
class Setup:
    """A machine's files and the units that read them; `fixed`: whether it has ADDRESS, or else whatever is leased."""

    name: str
    fixed: bool
    files: dict[str, str]
    units: tuple[str, ...]
    mode: int = 0o644  # of the files: what may hold passwords is not for everybody
    delay: int = 0  # hundredths of a second: what the bridge's forward delay is in the end

    def write(self, directory: Path) -> None:
        """Write the files below a directory, and have the units started."""
        for name, content in self.files.items():
            path = directory / name.lstrip("/")
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(content)
            path.chmod(self.mode)
        for unit in self.units:
            enable(directory, unit)


def _ifupdown(name: str, fixed: bool, stanza: str) -> Setup:
    return Setup(name, fixed, {_INTERFACES: _LOOPBACK + stanza}, ("networking.service",))


def _networkd(name: str, fixed: bool, body: str) -> Setup:
    files = {_NETWORK: f"# The only card.\n[Match]\nName=eth0\n\n[Network]\n{body}"}
    return Setup(name, fixed, files, ("systemd-networkd.service", "systemd-networkd-wait-online.service"))


def _network_manager(name: str, fixed: bool, ipv4: str) -> Setup:
    # Whatever the profile says, it sets the kernel's own forward delay while STP is off, when nothing waits for it.
    # Debian's own settings leave what ifupdown's file names to ifupdown; this file names nothing but lo.
    files = {_KEYFILE: f"{_KEYFILE_HEAD}\n[ipv4]\n{ipv4}\n[ipv6]\nmethod=auto\n"}
    return Setup(name, fixed, files, ("NetworkManager.service", "NetworkManager-wait-online.service"), 0o600, 1500)


def _netplan(name: str, fixed: bool, body: str) -> Setup:
    files = {_NETPLAN: f"# Written by hand.\nnetwork:\n  version: 2\n  ethernets:\n    eth0:\n{body}"}
    return Setup(name, fixed, files, ("systemd-networkd.service", "systemd-networkd-wait-online.service"), 0o600)


#: By name; the first is the quickest.
SETUPS = {
    setup.name: setup
    for setup in (
        _ifupdown(
            "ifupdown-static",
            True,
            "# the office's only card\nauto eth0\niface eth0 inet static\n"
            "\taddress 192.168.2.2/24\n\tgateway 192.168.2.1\n\tdns-nameservers 192.168.2.1\n",
        ),
        _ifupdown("ifupdown-dhcp", False, "allow-hotplug eth0\niface eth0 inet dhcp\n"),
        _networkd("networkd-static", True, "Address=192.168.2.2/24\nGateway=192.168.2.1\nDNS=192.168.2.1\n"),
        _networkd("networkd-dhcp", False, "DHCP=ipv4\n"),
        _network_manager(
            "networkmanager-static", True, "method=manual\naddress1=192.168.2.2/24,192.168.2.1\ndns=192.168.2.1;\n"
        ),
        _network_manager("networkmanager-dhcp", False, "method=auto\n"),
        _netplan(
            "netplan-static",
            True,
            "      addresses: [192.168.2.2/24]  # asked for by the office\n"
            "      routes:\n        - to: default\n          via: 192.168.2.1\n"
            "      nameservers:\n        addresses: [192.168.2.1]\n",
        ),
        _netplan("netplan-dhcp", False, "      dhcp4: true\n"),
    )
}
