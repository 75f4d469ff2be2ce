"""What a WireGuard tells of itself, whoever carries it out."""

from __future__ import annotations

from dataclasses import dataclass, field


@dataclass(slots=True)
class Peer:
    """Somebody at the other end."""

    public: str  # in base64
    endpoint: str = ""  # "192.0.2.2:51820", "[2001:db8::2]:51820"; "": not known
    allowed: list[str] = field(default_factory=list)  # subnets


@dataclass(slots=True)
class Told:
    """Key, port and peers."""

    public: str = ""
    port: int = 0
    peers: list[Peer] = field(default_factory=list)
