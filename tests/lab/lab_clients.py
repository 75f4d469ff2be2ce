"""Clients of a host, and what they tell: what the tests against real servers have in common."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Generic, Protocol, TypeVar

from berth.kernel.netns import inside
from berth.lan.dhcp import Clients
from berth.lan.dhcp.clients import Check
from berth.model import Lease
from lan_servers import Lan

T = TypeVar("T", covariant=True)


class Make(Protocol[T]):
    """How clients are made."""

    def __call__(
        self, changed: Callable[[Lease], None], lost: Callable[[Lease, str], None], check: Check | None = None
    ) -> T: ...


class Heard(Generic[T]):
    """Clients of any kind, and what they tell."""

    def __init__(self, make: Make[T], check: Check | None = None) -> None:
        self.changed: list[Lease] = []
        self.lost: list[tuple[Lease, str]] = []
        self.clients = make(self.changed.append, lambda lease, why: self.lost.append((lease, why)), check)

    async def until(self, true: Callable[[], object], what: str, seconds: float = 20) -> None:
        end = asyncio.get_running_loop().time() + seconds
        while not true():
            assert asyncio.get_running_loop().time() < end, f"{what}: {self.changed} {self.lost}"
            await asyncio.sleep(0.02)


class Told(Heard[Clients]):
    """The clients of DHCP servers."""

    def __init__(self, check: Check | None = None) -> None:
        super().__init__(Clients, check)


def run(home: Lan, work: Callable[[], Awaitable[None]]) -> None:
    """Run in the host's namespace."""

    async def whole() -> None:
        await work()

    with inside(home.host):
        asyncio.run(whole())
