"""Who gets to the page, and what the daemon tells besides: events, metrics, and streams that end with it."""

from __future__ import annotations

import http.client
import json
import os
import re
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import urlsplit

import pytest

from .conftest import Host, sh
from .running import BERTH, until

pytestmark = pytest.mark.timeout(90)

SOCKET = Path("/run/berth/berth.sock")


class Daemon:
    """A daemon, and the page's own port."""

    def __init__(self, state: Path) -> None:
        self.environment = {**os.environ, "BERTH_STATE": str(state), "BERTH_RUN": "/run/berth"}
        self.log = state.parent / "log"
        with self.log.open("wb") as log:
            self.process = subprocess.Popen([BERTH, "daemon"], env=self.environment, stdout=log, stderr=log)
        until(SOCKET.exists)
        self.others: list[subprocess.Popen[str]] = []

    def berth(self, *words: str) -> str:
        done = subprocess.run([BERTH, *words], env=self.environment, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr
        return done.stdout.strip()

    def begin(self, *words: str) -> subprocess.Popen[str]:
        self.others.append(subprocess.Popen([BERTH, *words], env=self.environment, stdout=subprocess.PIPE, text=True))
        return self.others[-1]

    def end(self) -> None:
        for process in self.others:
            process.kill()
            process.wait()
            if process.stdout is not None:
                process.stdout.close()
        self.process.kill()
        self.process.wait()


@pytest.fixture
def daemon(host: Host, tmp_path: Path) -> Iterator[Daemon]:
    daemon = Daemon(tmp_path / "state")
    try:
        yield daemon
    finally:
        daemon.end()


class Browser:
    """What a browser would send, and what another site could make it send."""

    def __init__(self, link: str) -> None:
        self.link = urlsplit(link)
        self.host = self.link.netloc
        self.cookie = ""

    def ask(self, path: str, method: str = "GET", body: str = "", **headers: str) -> http.client.HTTPResponse:
        connection = http.client.HTTPConnection("127.0.0.1", self.link.port, timeout=20)
        known = {"Host": self.host, "Cookie": self.cookie} | headers
        connection.request(method, path, body or None, {key: value for key, value in known.items() if value})
        response = connection.getresponse()
        response.read()
        return response

    def enter(self) -> http.client.HTTPResponse:
        response = self.ask(f"/?{self.link.query}")
        self.cookie = response.headers.get("Set-Cookie", "").partition(";")[0]
        return response


def test_only_the_link_opens_the_page(daemon: Daemon) -> None:
    browser = Browser(daemon.berth("web"))
    for path in (
        "/",
        "/metrics",
        "/v1/networks",
        "/v1/events",
        "/web/page.js",
        "/web/examine",
        "/?token=guessed",
        "/?token=",
    ):
        assert browser.ask(path).status == 403, path
    entered = browser.enter()
    cookie = entered.headers["Set-Cookie"].lower()
    assert entered.status == 303 and "httponly" in cookie and "samesite=strict" in cookie
    assert browser.link.query.removeprefix("token=") not in entered.headers["Set-Cookie"]
    shown = browser.ask("/")
    assert shown.status == 200
    assert shown.headers["Content-Security-Policy"].startswith("default-src 'self'")
    assert browser.ask("/", Host="evil.example").status == 421  # a name that was made to mean 127.0.0.1
    assert browser.ask("/", Cookie=browser.cookie + "x").status == 403
    assert browser.ask("/web/../door.py").status == 404 and browser.ask("/web/page.html").status == 404


@pytest.mark.parametrize("write", [False, True])
def test_only_berths_own_page_changes_things_and_only_when_asked_to(daemon: Daemon, write: bool) -> None:
    browser = Browser(daemon.berth("web", *(["--write"] if write else [])))
    browser.enter()
    own, body = f"http://{browser.host}", json.dumps({"name": "n1"})
    assert browser.ask("/v1/networks", "POST", body).status == 403
    assert browser.ask("/v1/networks", "POST", body, Origin="http://evil.example").status == 403
    assert browser.ask("/v1/web", "POST", '{"write": true}', Origin=own).status in (403, 404)
    assert daemon.berth("network", "ls", "--json") == "[]"
    assert browser.ask("/v1/networks", "POST", body, Origin=own).status == (200 if write else 403)
    assert len(json.loads(daemon.berth("network", "ls", "--json"))) == write


def test_events_and_metrics(daemon: Daemon) -> None:
    follower = daemon.begin("events", "--json", "--since", "1h")
    sorted_out = daemon.begin(
        "events", "--json", "--since", "1h",
        *("--filter", "type=endpoint", "--filter", "event=detach", "--filter", "event=remove"),
    )  # fmt: skip
    sh("ip netns add c1")
    daemon.berth("network", "create", "--subnet", "10.9.0.0/24", "n1")
    daemon.berth("network", "create", "--dry-run", "n2")
    daemon.berth("attach", "n1", "c1", "--name", "c1", "-p", "8080:80")
    daemon.berth("detach", "n1", "c1")
    daemon.berth("network", "rm", "n1")
    assert follower.stdout is not None
    told = [json.loads(follower.stdout.readline()) for _ in range(4)]
    assert [(event["type"], event["action"], event["name"]) for event in told] == [
        ("network", "create", "n1"), ("endpoint", "attach", "c1"), ("endpoint", "detach", "c1"),
        ("network", "remove", "n1"),
    ]  # fmt: skip
    assert told[1]["attributes"]["ports"] == "8080:80/tcp" and told[1]["attributes"]["addresses"] == "10.9.0.2/24"
    assert sorted_out.stdout is not None
    assert json.loads(sorted_out.stdout.readline())["action"] == "detach"
    log = daemon.log.read_text().splitlines()
    for said in ("op=create", "op=attach", "op=detach", "op=remove"):
        (line,) = (line for line in log if line.startswith(f"{said} "))
        assert re.fullmatch(rf"{said} ms=\d+\.\d\d (network|endpoint)=\w+ ok=true", line), line


def test_events_are_filtered_by_what_they_have(daemon: Daemon) -> None:
    done = subprocess.run(
        [BERTH, "events", "--filter", "colour=red"], env=daemon.environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == 2 and "'colour=red': give type=…, event=…, name=…, id=…" in done.stderr


def test_metrics_tell_what_there_is_and_what_was_done(daemon: Daemon) -> None:
    sh("ip netns add c1")
    daemon.berth("network", "create", "--subnet", "10.9.0.0/24", "n1")
    daemon.berth("attach", "n1", "c1", "--name", "c1", "-p", "8080:80")
    browser = Browser(daemon.berth("web"))
    browser.enter()
    connection = http.client.HTTPConnection("127.0.0.1", browser.link.port, timeout=20)
    connection.request("GET", "/metrics?endpoints=true", headers={"Host": browser.host, "Cookie": browser.cookie})
    lines = connection.getresponse().read().decode().splitlines()
    connection.close()
    assert 'berth_endpoints{network="n1"} 1.0' in lines
    assert 'berth_published_ports{network="n1"} 1.0' in lines
    assert 'berth_pool_used{network="n1",pool="10.9.0.0/24"} 1.0' in lines
    assert 'berth_operation_seconds_count{verb="attach"} 1.0' in lines
    assert any(line.startswith('berth_endpoint_received_bytes_total{endpoint="c1",network="n1"}') for line in lines)


def test_who_looks_on_does_not_keep_the_daemon(daemon: Daemon) -> None:
    daemon.berth("network", "create", "n1")
    follower = daemon.begin("events", "--since", "1h")
    assert follower.stdout is not None
    assert "n1" in follower.stdout.readline()  # so it has reached the daemon
    browser = Browser(daemon.berth("web"))
    browser.enter()
    connection = http.client.HTTPConnection("127.0.0.1", browser.link.port, timeout=20)
    connection.request("GET", "/web/stream", headers={"Host": browser.host, "Cookie": browser.cookie})
    assert connection.getresponse().readline() == b"event: hello\n"
    daemon.process.send_signal(signal.SIGTERM)
    assert daemon.process.wait(8) == 0  # it gives a call that is under way ten
    assert follower.wait(8) == 0
    connection.close()
