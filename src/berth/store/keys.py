"""This host's key for the encrypted ways to others: a file of its own, which nothing else ever holds."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from berth import durable, x25519
from berth.errors import Invalid
from berth.model import SealKey


@dataclass(frozen=True, slots=True)
class KeyFile:
    """A private key, in the form of wg(8)'s files."""

    path: Path
    port: int  # UDP; where WireGuard listens

    def current(self) -> SealKey:
        """The key, made up when there is none. Raises `Invalid` for a file that holds none, `Denied`, `Refused`."""
        found = durable.read(self.path)
        return self.renew() if found is None else self._told(found[0])

    def renew(self) -> SealKey:
        """Another key, in place of the one there was. Raises `Denied`, `Refused`."""
        private = x25519.fresh()
        durable.write(self.path, private + "\n", 0o600)
        return self._told(private)

    def _told(self, text: str) -> SealKey:
        try:
            return SealKey(x25519.public(text.strip()), str(self.path), self.port)
        except ValueError:
            raise Invalid(f"{self.path} holds no key of WireGuard's: remove it, and Berth makes another") from None
