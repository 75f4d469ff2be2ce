"""The daemon's own API keeps what its OpenAPI document promises, for any request that Schemathesis thinks of."""

from __future__ import annotations

import asyncio
import os
import threading
from collections.abc import Iterator
from typing import Any

import pytest
import schemathesis
import schemathesis.engine
from schemathesis.engine import events
from starlette.types import ASGIApp

from berth import wire
from berth.daemon.app import app as daemon_app
from berth.daemon.app import routes
from berth.daemon.leases import Leases
from berth.daemon.names import Names
from berth.daemon.tidy import Tidy
from berth.daemon.worker import Worker
from berth.errors import NotFound
from berth.kernel.linux import LinuxKernel
from berth.model import Sandbox
from berth.names.records import Place
from berth.plan import Plan

from .conftest import Host
from .running import until

pytestmark = pytest.mark.timeout(180)

THREAD = "/proc/thread-self/ns/net"
EXAMPLES = 30  # of each operation and kind
OUTSIDE = os.readlink(THREAD)  # the machine's, or that of who runs the tests


class Fenced(LinuxKernel):
    """A kernel that is never let out of the test's namespaces, whatever is asked."""

    def __init__(self) -> None:
        self.here = os.readlink(THREAD)

    def send(self, plan: Plan) -> None:
        if os.readlink(THREAD) != self.here or self.here == OUTSIDE:
            os._exit(99)
        super().send(plan)

    def sandbox(self, text: str) -> Sandbox:
        if text.removeprefix("/run/netns/") not in ("c1", "c2"):
            raise NotFound("out of bounds")
        return super().sandbox(text)


class Silent(Names):
    """Listens nowhere: a call here has a loop that ends with it."""

    def _open(self, place: Place) -> None:
        pass


@pytest.fixture
def app(host: Host, monkeypatch: pytest.MonkeyPatch) -> Iterator[ASGIApp]:
    """The daemon's application, its engine in a thread that is in the test's namespaces."""
    monkeypatch.setenv("BERTH_STATE", "/run/berth-state")
    host.sandbox("c1")
    host.sandbox("c2")
    engine = wire.engine(kernel=Fenced())
    worker = Worker(engine.free)
    # A thread is born in the namespaces of who starts it, and Schemathesis keeps one of its own for all tests.
    thread = worker._thread.submit(threading.get_native_id).result()
    loop = asyncio.new_event_loop()  # where chores wait for ever

    async def chores() -> tuple[Tidy, Leases, Names]:
        return Tidy(engine, worker), Leases(engine, worker, wire.lease_clients), Silent(engine, worker)

    try:
        tidy, leases, names = loop.run_until_complete(chores())
        api = routes(engine, worker, tidy, leases, names)
        yield daemon_app(engine, tidy, worker, leases, api, "/run/berth/berth-dhcp.sock")
    finally:
        worker.close(engine.close)
        loop.close()
    until(lambda: not os.path.exists(f"/proc/self/task/{thread}"))  # or setns(2) refuses to go home


async def _nothing(scope: Any, receive: Any, send: Any) -> None:
    """An application with an empty document."""
    if scope["type"] == "http":
        await send({"type": "http.response.start", "status": 200, "headers": [(b"content-type", b"application/json")]})
        await send({"type": "http.response.body", "body": b'{"openapi": "3.1.0", "paths": {}}'})


@pytest.fixture(scope="session", autouse=True)
def loop() -> None:
    """Have Schemathesis start the thread that it keeps: born in the test's namespaces, it would hold on to them."""
    schemathesis.openapi.from_asgi("/", _nothing)


@pytest.fixture
def promised(loop: None, host: Host, app: ASGIApp) -> schemathesis.BaseSchema:
    """What the application promises, tried once where it may be seen."""
    config = schemathesis.Config.from_dict({
        "continue-on-failure": True,
        "generation": {"max-examples": EXAMPLES, "database": "none"},
        "phases": {"stateful": {"enabled": False}},
        # A name, an address, an option: what a text may say is `spec`'s to know, and 400 is a promise too.
        "checks": {"positive_data_acceptance": {"enabled": False}},
    })  # fmt: skip
    schema = schemathesis.openapi.from_asgi("/openapi.json", app, config=config)
    bodies: dict[str, Any] = {
        "/v1/networks": {"name": "first", "subnets": ["10.66.0.0/24"], "ipv6": True},
        "/v1/endpoints": {"network": "first", "sandbox": "c1"},
    }
    for path, body in bodies.items():
        said = schema[path]["POST"].Case(body=body, media_type="application/json").call()
        assert said.status_code == 200, said.text
    made = [link["ifname"] for link in host.ip("link") if link["ifname"].startswith(("brt", "bv"))]
    if len(made) != 2 or os.readlink(THREAD) == OUTSIDE:
        pytest.exit("the engine's thread is not in the test's network namespace")
    return schema


def test_the_engines_thread_is_in_the_tests_namespaces(host: Host, promised: schemathesis.BaseSchema) -> None:
    assert "eth0" in {link["ifname"] for link in host.ip("link", ns="/run/netns/c1")}


def meaningful(texts: Any) -> None:
    """Let a request be about what there is, every other time."""
    for key, known in (("sandbox", ("c1", "c2")), ("network", ("first",))) if isinstance(texts, dict) else ():
        text = texts.get(key)
        if isinstance(text, str) and text and len(text) % 2:
            texts[key] = known[len(text) // 2 % len(known)]
    if isinstance(texts, dict) and isinstance(texts.get("name"), str) and "sandbox" not in texts:
        texts["name"] = f"net{len(texts['name'])}"


def test_every_promise_is_kept(promised: schemathesis.BaseSchema) -> None:
    @promised.hook
    def map_case(context: schemathesis.HookContext, case: schemathesis.Case[Any]) -> schemathesis.Case[Any]:
        for part in (case.body, case.query):
            meaningful(part)
        return case

    broken: dict[str, str] = {}
    checks = 0
    for event in schemathesis.engine.from_schema(promised).execute():
        assert not isinstance(event, events.NonFatalError | events.FatalError), event
        if isinstance(event, events.ScenarioFinished):
            for nodes in event.recorder.checks.values():
                for node in nodes:
                    checks += 1
                    if node.failure_info is not None:
                        title = f"{event.recorder.label}: {node.failure_info.failure.title}"
                        broken.setdefault(title, f"{node.failure_info.failure}\n{node.failure_info.code_sample}")
    assert broken == {}, "\n\n".join(f"{title}\n{what}" for title, what in broken.items())
    assert checks > 1000
