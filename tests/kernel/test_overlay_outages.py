"""Each fault that hosts of an overlay live through, by itself, and how long they take: `pytest -s` prints it."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from pathlib import Path

import msgspec
import pytest

from berth import schema
from berth.errors import BerthError
from berth.store.gateway import Gateway
from berth.store.rpc import GRANT, REVOKE, TXN

from .conftest import Host, sh
from .overlay_hosts import pings
from .overlay_model import Model, hosts, met
from .overlay_world import TTL, until

pytestmark = pytest.mark.timeout(300)


@pytest.fixture
def model(host: Host, tmp_path: Path) -> Iterator[Model]:
    """Three hosts with a container each: c0 on h1, c1 on h2, c2 on h3."""
    with met(tmp_path) as model:
        for name in ("c0", "c1", "c2"):
            attach(model, name)
        model.recovery("they never met")
        yield model


def attach(model: Model, name: str, *addresses: str) -> tuple[str, ...]:
    """As soon as the host takes it."""
    given: list[tuple[str, ...]] = []

    def tried() -> bool:
        try:
            given.append(model.world.plug(model.containers[name].host, name, *addresses))
        except BerthError:
            return False
        return True

    took = until(tried, f"{name} is not attached")
    model.attached(name, given[0])
    tell(f"{name} attached", took)
    return given[0]


def tell(what: str, seconds: float) -> None:
    print(f"{what}: {seconds:.1f} s")


def all_reach(model: Model) -> bool:
    """Whether the first three containers still do."""
    return all(
        pings(one, address)
        for one in ("c0", "c1", "c2")
        for two in ("c0", "c1", "c2")
        for address in (model.containers[two].addresses or ())
        if one != two
    )


def test_members_of_etcd_are_lost_and_then_all_of_it(model: Model) -> None:
    world = model.world
    world.kill("e1")
    attach(model, "c3")
    tell("after the loss of a member, all is well", model.recovery("a member was lost", 30))
    world.pause("e2")  # no majority any more, and one that takes connections
    with pytest.raises(BerthError):
        world.plug("h2", "c4")
    model.containers["c4"].sure = False  # who waits for a member that hangs may get an answer from it later
    assert all_reach(model)
    world.resume()
    tell("after a hanging member, all is well", model.recovery("a member hung", 30))
    for member in world.members:
        world.kill(member)
    time.sleep(TTL + 1)  # longer than a host's lease
    assert all_reach(model)
    world.mend()
    tell("after the loss of all of etcd, all is well", model.recovery("all of etcd was lost", 40))
    if model.containers["c4"].addresses is None:
        attach(model, "c4")
    model.recovery("the last one was never seen", 30)
    world.lose_etcd()
    tell("after etcd was made anew with nothing in it, all is well", model.recovery("etcd was made anew", 40))
    attach(model, "c5")
    model.recovery("the last one was never seen", 30)
    assert model.lost == 0


def test_a_host_that_is_cut_off_catches_up(model: Model) -> None:
    """Though what it missed is no longer kept, and whatever its clock says."""
    world = model.world
    world.kill("h3")
    world.start("h3", "+400d")
    world.kill("h2")
    world.start("h2", "-400d")
    until(lambda: len({host.since[:4] for host in hosts(model.store)}) == 3, "the clocks are not skewed")
    tell("with clocks two years apart, all is well", model.recovery("clocks are skewed", 40))
    world.cut("h1", "store")
    for name in ("c4", "c5"):
        attach(model, name)
    world.unplug_from("h2", "c1")
    model.containers["c1"].addresses = None
    world.compact()
    assert pings("c0", (model.containers["c2"].addresses or ("",))[0])
    with pytest.raises(BerthError):
        world.plug("h1", "c3")
    world.connect()
    tell("after a cut from etcd, all is well", model.recovery("a host was cut off", 40))
    world.unplug("h2")
    time.sleep(TTL / 2)
    attach(model, "c3")
    world.connect()
    tell("after a pulled cable, all is well", model.recovery("a cable was pulled", 40))


def test_a_dead_host_s_addresses_are_given_to_others_and_it_is_back(model: Model) -> None:
    world = model.world
    old = model.containers["c2"].addresses or ()
    world.kill("h3")  # its containers live on, and nobody says that they have lost anything
    begun = time.monotonic()
    until(lambda: "10.0.0.3" not in world.tells("h1") + world.tells("h2"), "a dead host is still known")
    tell("a silent host is forgotten", time.monotonic() - begun)
    attach(model, "c4", *old)
    tell("its address is somebody else's", time.monotonic() - begun)
    world.start("h3")
    tell("it is back, and its container is detached: all is well", model.recovery("two have one address", 40))
    assert model.lost == 1 and model.containers["c2"].addresses is None
    assert old[0] in world.log("h3") and "detached" in world.log("h3")
    attach(model, "c2")
    world.power_off("h2", model.on("h2"))
    for name in model.on("h2"):
        model.containers[name].addresses = None
        sh(f"ip netns add {name}; ip -n {name} link set lo up")
    tell("a host without power is forgotten, all is well", model.recovery("a host lost its power", 60))
    world.power_on("h2")
    tell("it has power again, all is well", model.recovery("a host had power again", 40))


def test_a_thousand_changes_a_second_are_followed(model: Model) -> None:
    """Of 400 endpoints on a simulated host, a hundred of which move to another underlay address in each transaction."""
    world, net = model.world, model.network()
    gateway = Gateway(world.where)
    lease = gateway.call(GRANT, {"TTL": 300})["ID"]
    with model.store.read() as tx:
        known = tx.endpoints(network=net.id)[0]
    pattern = json.loads(schema.dump(known))
    begun, changes = time.monotonic(), 0
    for step in range(50):
        ops = []
        for number in range(100):
            at = step * 100 % 400 + number
            ep = {**pattern, "id": f"{at:064x}", "name": f"sim{at}", "host": "sim", "vtep": f"10.0.0.{100 + step % 7}"}
            ep["mac"] = f"02:50:00:00:{at >> 8:02x}:{at & 255:02x}"
            ep["addresses"] = [f"10.{51 + (at >> 8)}.0.{at & 255}/8"]
            key = f"/berth/seen/endpoint/{net.id}/{ep['id']}".encode()
            ops.append({"request_put": {"key": key, "value": msgspec.json.encode(ep), "lease": lease}})
        gateway.call(TXN, {"success": ops})
        changes += len(ops)
        time.sleep(max(0.0, begun + (step + 1) / 10 - time.monotonic()))
    seconds = time.monotonic() - begun
    print(f"{changes / seconds:,.0f} changes a second for {seconds:.0f} s")
    want = {
        f"02:50:00:00:{at >> 8:02x}:{at & 255:02x} dst 10.0.0.{100 + s % 7}" for s in range(46, 50) for at in _at(s)
    }

    def followed() -> bool:
        return all(each in told for told in map(world.tells, world.names) for each in want)

    tell("all three have followed", until(followed, "they lag", 90))
    gateway.call(REVOKE, {"ID": lease})
    gateway.close()
    tell("and all of them are gone again", model.recovery("the simulated endpoints stay", 60))


def _at(step: int) -> range:
    return range(step * 100 % 400, step * 100 % 400 + 100)
