"""Docker's calls to Berth's other IPAM driver, `berth-dhcp`: the addresses are leases of the LAN's own DHCP server,
those of IPv6 as the LAN's routers advertise.

It has a socket of its own, since Docker tells no driver under which name it was asked for. Its calls may take seconds,
and none of them holds up another.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from typing import Any, Generic, Protocol

import msgspec

from berth.errors import Invalid
from berth.model import Address, Interface, Pool, PoolRequest
from berth.plugins.docker import messages as m
from berth.plugins.docker.calls import Json, M, Unreadable
from berth.spec import mac


class Lessor(Protocol):
    """Who keeps the leases."""

    async def request_pool(self, asked: PoolRequest) -> Pool: ...
    async def release_pool(self, owner: str) -> None: ...
    async def request_gateway(self, owner: str, wanted: Address | None) -> Interface: ...
    async def request_address(self, owner: str, wanted: Address | None, holder: str, mac: str) -> Interface: ...
    async def release_address(self, owner: str, address: Address) -> None: ...


@dataclass(frozen=True, slots=True)
class SlowCall(Generic[M]):
    """One call of the protocol, whose answer takes its time."""

    request: type[M]
    answer: Callable[[M], Awaitable[Json]]

    async def __call__(self, body: bytes) -> Json:
        """Answer a request's body. Raises `BerthError`."""
        try:
            asked = msgspec.json.decode(body or b"{}", type=self.request)
        except (msgspec.DecodeError, msgspec.ValidationError, UnicodeDecodeError, RecursionError) as error:
            raise Unreadable(f"the request cannot be read: {error}") from None
        return await self.answer(asked)


def leased_calls(lessor: Lessor) -> Mapping[str, SlowCall[Any]]:
    """All calls of the IPAM driver by their names in the protocol."""
    spaces = {"LocalDefaultAddressSpace": m.LEASED, "GlobalDefaultAddressSpace": m.LEASED}
    # With the MAC, as servers may know containers by it.
    capabilities = {"RequiresMACAddress": True, "RequiresRequestReplay": False}
    table: dict[str, SlowCall[Any]] = {
        "GetCapabilities": SlowCall(m.Nothing, _always(capabilities)),
        "GetDefaultAddressSpaces": SlowCall(m.Nothing, _always(spaces)),
        "RequestPool": SlowCall(m.RequestPool, lambda asked: _request_pool(lessor, asked)),
        "ReleasePool": SlowCall(m.ReleasePool, lambda asked: _release_pool(lessor, asked)),
        "RequestAddress": SlowCall(m.RequestAddress, lambda asked: _request_address(lessor, asked)),
        "ReleaseAddress": SlowCall(m.RequestAddress, lambda asked: _release_address(lessor, asked)),
    }
    activate = SlowCall(m.Nothing, _always({"Implements": ["IpamDriver"]}))
    return {"Plugin.Activate": activate, **{f"IpamDriver.{name}": call for name, call in table.items()}}


def _always(said: Json) -> Callable[[m.Nothing], Awaitable[Json]]:
    async def answer(_: m.Nothing) -> Json:
        return said

    return answer


async def _request_pool(lessor: Lessor, asked: m.RequestPool) -> Json:
    pool = await lessor.request_pool(m.pool_request(asked))
    return {"PoolID": pool.owner, "Pool": str(pool.subnet), "Data": {}}


async def _release_pool(lessor: Lessor, asked: m.ReleasePool) -> Json:
    await lessor.release_pool(asked.pool_id)
    return {}


async def _request_address(lessor: Lessor, asked: m.RequestAddress) -> Json:
    options, wanted = asked.options or {}, m.wanted_address(asked)
    if options.get("RequestAddressType") == m.GATEWAY:
        given = await lessor.request_gateway(asked.pool_id, wanted)
    elif not options.get(m.MAC):
        raise Invalid("aux-addresses are the DHCP server's own affair with berth-dhcp: leave --aux-address out")
    else:
        holder, address = options.get(m.NAME, ""), mac(options[m.MAC])
        given = await lessor.request_address(asked.pool_id, wanted, holder, address)
    return {"Address": str(given), "Data": {}}


async def _release_address(lessor: Lessor, asked: m.RequestAddress) -> Json:
    address = m.wanted_address(asked)
    if address is not None:
        await lessor.release_address(asked.pool_id, address)
    return {}
