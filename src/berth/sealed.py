"""The nouns of encryption between hosts: this host's WireGuard, and who is at its other ends.

Sources: include/uapi/linux/wireguard.h; wg(8); https://www.wireguard.com/xplatform/.
"""

from __future__ import annotations

import shlex
from typing import ClassVar

from berth.noun import HOST, MARK, Key, Noun

SEAL = "bwg"  # how the names of such links begin
SEALS = ("wireguard", "tun")  # what kind of link they are
SEAL_MARK = MARK + "wireguard "  # of the link's alias; behind it comes the file that its private key is in


class WireGuard(Noun, frozen=True, tag=True):
    """This host's end of all encrypted ways: the kernel's, or a tap into wireguard-go where the kernel has none.

    Of the private key only the file is told, so that no plan and no record ever holds it.
    """

    rank: ClassVar[int] = 11  # before the tunnels that lead through it
    name: str
    public: str  # the public key that belongs to its private one, in base64; "": none, or nobody is at work behind it
    port: int  # UDP
    mtu: int
    key_file: str

    @property
    def key(self) -> Key:
        return ("link", HOST, self.name)

    @property
    def alias(self) -> str:
        """What the link is marked with."""
        return SEAL_MARK + self.key_file

    @property
    def owner(self) -> str | None:
        return self.alias

    @property
    def holds(self) -> tuple[Key, ...]:
        return (("dev", HOST, self.name),)

    def describe(self) -> str:
        tap = f"ip tuntap add {self.name} mode tun && wireguard-go {self.name} 2>/dev/null"
        return f"{{ ip link add {self.name} type wireguard 2>/dev/null || {{ {tap}; }}; }} && {self._set()}"

    def describe_removal(self) -> str:
        return f"ip link del {self.name}"

    def describe_change(self, old: Noun) -> str:
        again = f"wireguard-go {self.name} && " if isinstance(old, WireGuard) and not old.public else ""
        return again + self._set()

    def _set(self) -> str:
        return (
            f"sysctl -qw net.ipv6.conf.{self.name}.disable_ipv6=0"
            f" && wg set {self.name} private-key {shlex.quote(self.key_file)} listen-port {self.port}"
            f" && ip link set {self.name} mtu {self.mtu} alias {shlex.quote(self.alias)} addrgenmode none up"
        )


class WireGuardPeer(Noun, frozen=True, tag=True):
    """Another host: its key, where it is reached, and the one address that may come and go by that key."""

    rank: ClassVar[int] = 55  # after this host's own address there, which it is greeted from
    dev: str
    public: str  # in base64
    endpoint: str  # "192.0.2.2:51820", "[2001:db8::2]:51820"
    address: str  # "fe80::…"

    @property
    def key(self) -> Key:
        return ("seal-peer", HOST, self.dev, self.public)

    @property
    def holders(self) -> tuple[Key, ...]:
        return (("dev", HOST, self.dev),)

    def describe(self) -> str:
        return f"wg set {self.dev} peer {self.public} endpoint {self.endpoint} allowed-ips {self.address}/128"

    def describe_removal(self) -> str:
        return f"wg set {self.dev} peer {self.public} remove"
