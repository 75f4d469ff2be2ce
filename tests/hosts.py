"""A Debian with every system that configures a host's network, for tests that let the real ones read our files."""

from __future__ import annotations

from pathlib import Path

import trees

# With a kernel: the tests of a reboot start this very tree as a virtual machine. debootstrap knows no virtual packages:
# libpam-systemd (logind) and python3-cffi-backend are for polkitd and python3-cryptography.
_PACKAGES = (
    "systemd,systemd-sysv,udev,dbus,network-manager,netplan.io,ifupdown,bridge-utils,isc-dhcp-client,dhcpcd-base,"
    "cloud-init,libpam-systemd,python3-cffi-backend,python3-yaml,iproute2,iputils-ping,dnsmasq-base,nftables,kmod,"
    "procps,openvswitch-switch,linux-image-cloud-amd64"
)


# libpam-systemd (logind) for polkitd, which firewalld wants, as above.
_FIREWALLS = "systemd,libpam-systemd,dbus,firewalld,ufw,iptables,nftables,iproute2,procps"


def firewall_tree() -> Path:
    """A Debian with every program that looks after a host's firewall; shared as the other is."""
    return trees.tree("bookworm-firewalls", "bookworm", _FIREWALLS, lambda made: None)


def net_tree() -> Path:
    """The tree, made once; it is shared, and nobody may write to it."""
    return trees.tree("bookworm-net", "bookworm", _PACKAGES, lambda made: None)
