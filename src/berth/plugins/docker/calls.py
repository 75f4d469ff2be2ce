"""Docker's calls: each is one verb of the engine's.

Docker repeats a call whose answer it did not get, and calls off what never was: every call may come twice, and
undoing what is not there is fine. Nothing here asks Docker anything, which would wait for the very call.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Generic, Protocol, TypeVar

import msgspec

from berth.engine.engine import Engine
from berth.errors import BerthError, Invalid, NotFound
from berth.model import Endpoint, Network
from berth.plugins.docker import messages as m
from berth.spec import static_routes

Json = dict[str, Any]
M = TypeVar("M", bound=m.Message)


class Unreadable(Invalid):
    """Not a request of the protocol at all."""


@dataclass(frozen=True, slots=True)
class Call(Generic[M]):
    """One call of the protocol."""

    request: type[M]
    answer: Callable[[M], Json]
    gives: bool = False  # an address, of which a LAN may have to be asked first: no short work

    @property
    def instant(self) -> bool:
        """Whether the answer is always the same."""
        return self.request is m.Nothing

    def __call__(self, body: bytes) -> Json:
        """Answer a request's body. Raises `BerthError`."""
        if self.instant:
            return self.answer(m.Nothing())  # type: ignore[arg-type]
        if not body.strip():
            raise Unreadable("the request is empty, as Docker's is when it repeats a call that broke off")
        try:
            return self.answer(msgspec.json.decode(body, type=self.request))
        except (msgspec.DecodeError, msgspec.ValidationError, UnicodeDecodeError, RecursionError) as error:
            raise Unreadable(f"the request cannot be read: {error}") from None


class Chores(Protocol):
    """What is left to do when a call is answered."""

    def sweep(self) -> None:
        """Delete cables that are out of service."""
        ...

    def refresh(self) -> None:
        """Docker has just started, and set up its chains: see that networks pass them."""
        ...

    def announce(self, identity: str, ns: str) -> None:
        """Tell an endpoint's neighbours, as soon as it is up in its sandbox."""
        ...

    def learn(self, network: str) -> None:
        """Find out what Docker calls a network and the containers on it."""
        ...


def calls(engine: Engine, chores: Chores) -> Mapping[str, Call[Any]]:
    """All calls by their names in the protocol."""
    return {
        "Plugin.Activate": Call(m.Nothing, lambda _: {"Implements": ["NetworkDriver", "IpamDriver"]}),
        **_network_calls(engine, chores),
        **_ipam_calls(engine),
    }


# --- network driver -------------------------------------------------------------------------------------


def _network_calls(engine: Engine, chores: Chores) -> dict[str, Call[Any]]:
    table: dict[str, Call[Any]] = {
        "GetCapabilities": Call(m.Nothing, lambda _: _capabilities(chores)),
        "GwAllocCheck": Call(m.GwAllocCheck, _gateway_check),
        "CreateNetwork": Call(m.CreateNetwork, lambda asked: _create_network(engine, chores, asked)),
        "DeleteNetwork": Call(m.OfNetwork, lambda asked: _delete_network(engine, chores, asked)),
        "CreateEndpoint": Call(m.CreateEndpoint, lambda asked: _create_endpoint(engine, asked), gives=True),
        "DeleteEndpoint": Call(m.OfEndpoint, lambda asked: _delete_endpoint(engine, chores, asked)),
        "EndpointOperInfo": Call(m.OfEndpoint, lambda asked: _about(engine, asked)),
        "Join": Call(m.Join, lambda asked: _join(engine, chores, asked)),
        "Leave": Call(m.OfEndpoint, lambda asked: _revoke(engine, asked)),
        "ProgramExternalConnectivity": Call(m.OfEndpoint, lambda asked: _program(engine, asked)),
        "RevokeExternalConnectivity": Call(m.OfEndpoint, lambda asked: _revoke(engine, asked)),
        "DiscoverNew": Call(m.Nothing, lambda _: {}),
        "DiscoverDelete": Call(m.Nothing, lambda _: {}),
    }
    return {f"NetworkDriver.{name}": call for name, call in table.items()}


def _capabilities(chores: Chores) -> Json:
    """A managed plugin is asked this first, any other is activated before."""
    chores.refresh()
    return {"Scope": "local", "ConnectivityScope": "local", "GwAllocChecker": True}


def _gateway_check(asked: m.GwAllocCheck) -> Json:
    """Whether Docker shall reserve no gateway: only where nobody has its address.

    On a LAN the gateway is the router's address, which Docker's own IPAM gives to a container if it is not reserved.
    """
    inhibited = m.generic(asked.options).get("com.docker.network.bridge.inhibit_ipv4", "")
    without = m.flag(asked.options, "com.docker.network.internal") and inhibited.lower() in ("1", "t", "true")
    return {"SkipIPv4": without, "SkipIPv6": False}


def _create_network(engine: Engine, chores: Chores, asked: m.CreateNetwork) -> Json:
    spec = m.network_spec(asked)
    if not any(net.id == spec.id for net in engine.networks()):
        engine.create_network(spec)
    chores.learn(spec.id)
    return {}


def _delete_network(engine: Engine, chores: Chores, asked: m.OfNetwork) -> Json:
    """Docker has dropped the network whatever the answer is, and its containers' endpoints with it."""
    ident = m.identity(asked.network_id, "network")
    try:
        endpoints = engine.endpoints(ident)
    except NotFound:
        return {}
    for ep in endpoints:
        if not ep.sandbox.path:
            engine.release(ep.id)
    engine.remove_network(ident)
    chores.sweep()
    return {}


def _create_endpoint(engine: Engine, asked: m.CreateEndpoint) -> Json:
    ep = engine.attach(m.attach_request(asked)).value
    there = asked.interface or m.EndpointInterface()
    # To return what was given already, even the same, is an error for Docker.
    return {"Interface": {} if there.mac_address else {"MacAddress": ep.mac}}


def _delete_endpoint(engine: Engine, chores: Chores, asked: m.OfEndpoint) -> Json:
    engine.release(m.identity(asked.endpoint_id, "endpoint"))
    chores.sweep()
    return {}


def _about(engine: Engine, asked: m.OfEndpoint) -> Json:
    ep = engine.endpoint(m.identity(asked.endpoint_id, "endpoint"))
    return {"Value": {} if ep is None else {"berth.name": ep.name, "berth.link": ep.link}}


def _join(engine: Engine, chores: Chores, asked: m.Join) -> Json:
    """Where Docker finds the inner end, and what else the container's network needs."""
    net, ep = _known(engine, asked)
    options = dict(ep.options)
    prefix = options.get("iface_prefix") or net.ifname_prefix
    answer: Json = {"InterfaceName": {"SrcName": ep.ifname, "DstPrefix": prefix}, "StaticRoutes": _routes(net, ep)}
    chores.learn(asked.network_id)  # as this Docker calls it
    if asked.sandbox_key:
        chores.announce(ep.id, asked.sandbox_key)
    gateways = _gateways(net, ep) if options.get("gateway") != "false" else {}
    # Without a gateway Docker would plug the container into a bridge of its own as well.
    return answer | (gateways or {"DisableGatewayService": True})


def _known(engine: Engine, asked: m.OfEndpoint) -> tuple[Network, Endpoint]:
    ep = engine.endpoint(m.identity(asked.endpoint_id, "endpoint"))
    if ep is None:
        raise NotFound(f"no endpoint {asked.endpoint_id[:12]}: Berth's records were lost; start the container again")
    return engine.network(ep.network), ep


def _gateways(net: Network, ep: Endpoint) -> Json:
    """The next hops; not one that is advertised, since Docker takes no link-local one, and the kernel does."""
    found = {}
    for pool in () if net.internal else net.pools:
        version = pool.subnet.version
        if version == 6 and ep.learnt.advertised:
            continue
        gateway = next((router for router in ep.learnt.routers if router.version == version), pool.gateway)
        if gateway is not None and any(address.version == version for address in ep.addresses):
            found["Gateway" if version == 4 else "GatewayIPv6"] = str(gateway)
    return found


def _routes(net: Network, ep: Endpoint) -> list[Json]:
    own = ep.option("routes")
    leased = [route for route in ep.learnt.routes if not route.via.is_unspecified]
    routes = [*net.routes, *leased, *(static_routes(own) if own else ())]
    return [{"Destination": str(route.subnet), "RouteType": 0, "NextHop": str(route.via)} for route in routes]


def _program(engine: Engine, asked: m.OfEndpoint) -> Json:
    """Publish ports. On a LAN there is nothing to publish: the container's own address has all its ports."""
    wanted = m.port_requests(asked.options)
    net, ep = _known(engine, asked)
    if net.nat:
        engine.publish(ep.id, wanted)
    return {}


def _revoke(engine: Engine, asked: m.OfEndpoint) -> Json:
    ep = engine.endpoint(m.identity(asked.endpoint_id, "endpoint"))
    if ep is not None and ep.ports:
        engine.publish(ep.id, ())
    return {}


# --- IPAM driver ----------------------------------------------------------------------------------------


def _ipam_calls(engine: Engine) -> dict[str, Call[Any]]:
    spaces = {"LocalDefaultAddressSpace": m.SPACE, "GlobalDefaultAddressSpace": m.SPACE}
    # No MAC: Docker would make one up for who has none, and Berth's stay the same. No replay: Berth remembers.
    capabilities = {"RequiresMACAddress": False, "RequiresRequestReplay": False}
    table: dict[str, Call[Any]] = {
        "GetCapabilities": Call(m.Nothing, lambda _: capabilities),
        "GetDefaultAddressSpaces": Call(m.Nothing, lambda _: spaces),
        "RequestPool": Call(m.RequestPool, lambda asked: _request_pool(engine, asked)),
        "ReleasePool": Call(m.ReleasePool, lambda asked: _release_pool(engine, asked)),
        "RequestAddress": Call(m.RequestAddress, lambda asked: _request_address(engine, asked), gives=True),
        "ReleaseAddress": Call(m.RequestAddress, lambda asked: _release_address(engine, asked)),
    }
    return {f"IpamDriver.{name}": call for name, call in table.items()}


def _request_pool(engine: Engine, asked: m.RequestPool) -> Json:
    pool = engine.request_pool(m.pool_request(asked))
    return {"PoolID": pool.owner, "Pool": str(pool.subnet), "Data": {}}


def _release_pool(engine: Engine, asked: m.ReleasePool) -> Json:
    engine.release_pool(asked.pool_id)
    return {}


def _request_address(engine: Engine, asked: m.RequestAddress) -> Json:
    options, wanted = asked.options or {}, m.wanted_address(asked)
    if options.get("RequestAddressType") == m.GATEWAY:
        given = engine.request_gateway(asked.pool_id, wanted)
    else:
        given = engine.request_address(asked.pool_id, wanted, options.get(m.NAME, ""))
    return {"Address": str(given), "Data": {}}


def _release_address(engine: Engine, asked: m.RequestAddress) -> Json:
    address = m.wanted_address(asked)
    if address is not None:
        engine.release_address(asked.pool_id, address)
    return {}


def refusal(error: BerthError | str) -> Json:
    """An error in Docker's shape; the IPAM protocol has another word for it."""
    return {"Err": str(error), "Error": str(error)}
