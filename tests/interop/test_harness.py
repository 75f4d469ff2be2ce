"""The engines are what the other tests take them for, and nothing of them stays behind."""

from __future__ import annotations

import json
import os
import socketserver
from collections.abc import Callable, Iterator
from contextlib import suppress
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from threading import Thread

import pytest

from berth.lab.session import Session

from .engines import Dockerd, EngineError

LAN = (
    "network create --driver=bridge --ip-range=192.168.2.0/24 --subnet=192.168.2.0/24"
    " --aux-address=ip1=192.168.2.10 -o com.docker.network.bridge.name=br0 br0"
)
COMPOSE = """
services:
  one:
    image: bb
    command: echo hello from compose
"""


class Plugin(socketserver.ThreadingUnixStreamServer):
    """A network driver that agrees to everything."""

    def __init__(self, path: Path) -> None:
        self.asked: list[str] = []
        super().__init__(str(path), Agreeing)


class Agreeing(BaseHTTPRequestHandler):
    """Gives the same answer to every request."""

    server: Plugin

    def do_POST(self) -> None:
        """Answer."""
        self.server.asked.append(self.path)
        self.rfile.read(int(self.headers.get("Content-Length") or 0))
        answer = json.dumps({"Implements": ["NetworkDriver"], "Scope": "local"}).encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(answer)))
        self.end_headers()
        self.wfile.write(answer)

    def log_message(self, format: str, *args: object) -> None:
        """Keep quiet."""

    def address_string(self) -> str:
        """A Unix socket has no address."""
        return "docker"


@pytest.fixture
def plugin(tmp_path: Path) -> Iterator[Plugin]:
    """A plugin that listens."""
    with Plugin(tmp_path / "plugin.sock") as server:
        Thread(target=server.serve_forever, daemon=True).start()
        yield server
        server.shutdown()


def addresses(lab: Session, device: str) -> list[str]:
    """The IPv4 addresses of a device of the host."""
    shown = lab.run("host", ["ip", "-j", "-4", "addr", "show", "dev", device], check=True)
    return [f"{each['local']}/{each['prefixlen']}" for link in json.loads(shown.stdout) for each in link["addr_info"]]


def traces(name: str) -> list[str]:
    """What of any process has to do with an engine: its command line, variables, control groups, mounts, open files."""
    found = []
    for process in Path("/proc").glob("[0-9]*"):
        with suppress(OSError):  # it has just ended
            opened = [str(file.readlink()) for file in (process / "fd").iterdir()]
            texts = [
                (process / each).read_text(errors="replace") for each in ("cmdline", "environ", "cgroup", "mountinfo")
            ]
            found += [text for text in (*opened, *texts) if name in text]
    return found


def assert_gone(engine: Dockerd) -> None:
    """Nothing is left of an engine."""
    assert traces(engine.name) == []
    assert engine.cgroups() == []
    assert not engine.home.exists()


def test_the_version_is_that_of_its_kind(engine: Dockerd, engine_kind: str) -> None:
    version = engine.api("GET", "/version")["Version"]
    assert version.startswith(engine_kind)
    assert engine.docker("version", "--format", "{{.Server.Version}} {{.Client.Version}}").split() == [version] * 2


def test_a_container_runs_on_dockers_own_bridge(engine: Dockerd) -> None:
    assert engine.docker("run", "--rm", "bb", "ip", "-4", "-o", "addr", "show", "eth0").split()[3] == "172.17.0.2/16"
    assert engine.docker("run", "--rm", "-i", "bb", "cat", input="typed") == "typed"


def test_the_hosts_other_programs_find_a_containers_process_and_network(engine: Dockerd) -> None:
    container = engine.docker("run", "--rm", "-d", "bb", "sleep", "1000").strip()
    told = engine.api("GET", f"/containers/{container}/json")
    for handle in (f"/proc/{told['State']['Pid']}/ns/net", told["NetworkSettings"]["SandboxKey"]):
        inside = engine.lab.run("host", ["nsenter", f"--net={handle}", "ip", "-4", "addr", "show", "eth0"], check=True)
        assert f"inet {told['NetworkSettings']['IPAddress']}/16" in inside.stdout
    engine.docker("rm", "-f", container)


def test_exec_is_in_the_container(engine: Dockerd) -> None:
    container = engine.docker("run", "--rm", "-d", "bb", "sleep", "1000").strip()
    assert (
        engine.docker("exec", container, "ls", "/bin").split()
        == engine.docker("run", "--rm", "bb", "ls", "/bin").split()
    )
    engine.docker("rm", "-f", container)


def test_the_engine_sees_the_links_of_the_labs_host(engine: Dockerd) -> None:
    links = engine.lab.run("host", ["ip", "-j", "link"], check=True)
    seen = set(engine.run(["ls", "/sys/class/net"]).stdout.split())
    assert seen - {"bonding_masters"} == {link["ifname"] for link in json.loads(links.stdout)}


def test_an_error_tells_what_docker_said(engine: Dockerd) -> None:
    with pytest.raises(EngineError, match="ended with 3:\nto one\nto the other"):
        engine.docker("run", "--rm", "bb", "sh", "-c", "echo to one; echo to the other >&2; exit 3")
    assert "nowhere" in engine.docker("network", "inspect", "nowhere", check=False)
    with pytest.raises(EngineError, match=r"GET /networks/nowhere was answered with 404: .*nowhere"):
        engine.api("GET", "/networks/nowhere")


def test_api_takes_and_gives_json(engine: Dockerd) -> None:
    made = engine.api("POST", "/networks/create", {"Name": "made-by-api"})
    assert engine.docker("network", "inspect", "-f", "{{.Id}}", "made-by-api").strip() == made["Id"]
    assert engine.api("DELETE", f"/networks/{made['Id']}") == ""


def test_compose(engine: Dockerd, tmp_path: Path) -> None:
    (tmp_path / "compose.yaml").write_text(COMPOSE)
    engine.compose("-p", "project", "up", "-d", cwd=tmp_path)
    assert "hello from compose" in engine.compose("-p", "project", "logs", "--no-color", cwd=tmp_path)
    engine.compose("-p", "project", "down", cwd=tmp_path)
    assert engine.docker("network", "ls", "--filter", "name=project", "-q") == ""


def test_plugins_are_found_by_their_spec(engine: Dockerd, plugin: Plugin) -> None:
    engine.plugin("agreeing.spec", f"unix://{plugin.server_address}")
    engine.docker("network", "create", "-d", "agreeing", "agreed")
    assert plugin.asked == ["/Plugin.Activate", "/NetworkDriver.GetCapabilities", "/NetworkDriver.CreateNetwork"]
    engine.docker("network", "rm", "agreed")
    assert not Path("/etc/docker/plugins/agreeing.spec").exists()


def test_a_restarted_engine_has_its_networks_and_images(engine: Dockerd) -> None:
    network = engine.docker("network", "create", "kept").strip()
    engine.restart()
    assert engine.docker("network", "inspect", "-f", "{{.Id}}", "kept").strip() == network
    assert engine.docker("run", "--rm", "--network=kept", "bb", "echo", "kept") == "kept\n"
    engine.docker("network", "rm", "kept")


def test_containers_live_on_without_the_daemon(fresh_lab: Session, engine_kind: str) -> None:
    with Dockerd(fresh_lab, engine_kind, live_restore=True) as engine:
        container = engine.docker("run", "-d", "bb", "sleep", "1000").strip()
        pid = engine.api("GET", f"/containers/{container}/json")["State"]["Pid"]
        for end in (engine.stop, engine.kill9):
            end()
            with pytest.raises(EngineError, match=r"Cannot connect|Is the docker daemon running"):
                engine.docker("ps")
            engine.start()
            assert engine.api("GET", f"/containers/{container}/json")["State"]["Pid"] == pid
            assert engine.docker("exec", container, "echo", "alive") == "alive\n"


def running(engine: Dockerd) -> None:
    """Let the engine run."""


@pytest.mark.parametrize("end", [running, Dockerd.stop, Dockerd.kill9])
def test_nothing_is_left(fresh_lab: Session, engine_kind: str, end: Callable[[Dockerd], None]) -> None:
    with Dockerd(fresh_lab, engine_kind, live_restore=True, plugins={"a.spec": "unix:///nowhere"}) as engine:
        engine.docker("run", "-d", "bb", "sleep", "1000")
        engine.docker("run", "-d", "--pid=host", "--network=host", "--init", "bb", "sleep", "1000")
        assert any("sleep 1000" in line for line in engine.processes().values())
        assert traces(engine.name)
        assert engine.cgroups()
        end(engine)
    assert_gone(engine)


def test_nothing_is_left_of_an_engine_whose_lab_ends_first(fresh_lab: Session, engine_kind: str) -> None:
    with Dockerd(fresh_lab, engine_kind) as engine:
        engine.docker("run", "-d", "bb", "sleep", "1000")
        os.kill(fresh_lab.record.pid, 9)
    assert_gone(engine)


def test_a_failure_shows_the_log_and_leaves_nothing(fresh_lab: Session, engine_kind: str) -> None:
    with pytest.raises(ZeroDivisionError) as caught, Dockerd(fresh_lab, engine_kind) as engine:
        raise ZeroDivisionError
    assert "Daemon has completed initialization" in caught.value.__notes__[0]
    assert_gone(engine)
    engine = Dockerd(fresh_lab, engine_kind, args=["--no-such-option"])
    with (
        pytest.raises(EngineError, match=r"before it answered\nthe log of .*\n.*unknown flag: --no-such-option"),
        engine,
    ):
        pass
    assert_gone(engine)


def test_dockers_own_bridge_driver_on_the_lan(fresh_lab: Session, engine_kind: str) -> None:
    """What Berth's flat network is measured against: Docker takes the router's address, and gives away the host's."""
    with Dockerd(fresh_lab, engine_kind) as engine:
        assert addresses(fresh_lab, "br0") == ["192.168.2.2/24"]
        engine.docker(*LAN.split())
        assert addresses(fresh_lab, "br0") == ["192.168.2.1/24"]
        assert fresh_lab.run("host", ["ip", "-4", "route", "show", "default"], check=True).stdout == ""
        shown = engine.docker("run", "--rm", "--network=br0", "bb", "ip", "-4", "-o", "addr", "show", "eth0")
        assert shown.split()[3] == "192.168.2.2/24"
