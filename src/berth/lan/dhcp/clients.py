"""All DHCP leases of one host, in one asyncio loop."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping

from berth.model import Address, Lease, LeaseRequest

Check = Callable[[str, Address, str], Awaitable[str | None]]


class Clients:
    """Asks for leases, keeps them and gives them back."""

    def __init__(
        self, changed: Callable[[Lease], None], lost: Callable[[Lease, str], None], check: Check | None = None
    ) -> None:
        self._leases: dict[str, Lease] = {}

    async def acquire(self, request: LeaseRequest, timeout: float = 10) -> Lease:
        """A lease; raises `Refused` after `timeout` seconds, saying who did what."""
        raise NotImplementedError

    def resume(self, lease: Lease) -> None:
        """Go on with a lease that another process acquired."""

    async def release(self, key: str, *, tell: bool = True) -> None:
        """End a lease; `tell` also says so to the server."""

    def update(self, request: LeaseRequest) -> None:
        """Say something else with the next renewal, which begins at once."""

    def leases(self) -> Mapping[str, Lease]:
        """The leases in force, by their requests' keys."""
        return self._leases

    def close(self) -> None:
        """Stop without a word to any server."""
