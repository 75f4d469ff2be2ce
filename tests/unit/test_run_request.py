"""What `berth run` takes, and what it refuses."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from ipaddress import ip_address
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from berth.cli import run as cli
from berth.errors import Invalid, NotFound
from berth.model import AttachRequest, Endpoint, Network, PortMapping, Sandbox
from berth.run import Mode, RunRequest, network_word
from berth.run.join import joined
from berth.run.looks import look


@pytest.mark.parametrize(
    ("text", "mode", "name"),
    [
        ("lan", Mode.NETWORK, "lan"),
        ("host", Mode.HOST, ""),
        ("none", Mode.NONE, ""),
        ("container:web", Mode.JOIN, "web"),
        ("container:pid:7", Mode.JOIN, "pid:7"),
        ("hosts", Mode.NETWORK, "hosts"),
        ("container", Mode.NETWORK, "container"),
    ],
)
def test_network_word(text: str, mode: Mode, name: str) -> None:
    assert network_word(text) == (mode, name)


def test_a_container_without_a_name_is_refused() -> None:
    with pytest.raises(Invalid, match="container:NAME"):
        network_word("container:")


@pytest.mark.parametrize("hostname", ["", "a b", "a\nb", "-a", "a-", "a.", "a/b", "x" * 65])
def test_bad_hostnames(hostname: str) -> None:
    with pytest.raises(Invalid, match="hostname"):
        RunRequest(("true",), Mode.NONE, hostname=hostname)


def test_a_rootfs_that_is_no_directory(tmp_path: Path) -> None:
    with pytest.raises(Invalid, match="not a directory"):
        RunRequest(("true",), Mode.NONE, rootfs=tmp_path / "nothing")


def test_no_command() -> None:
    with pytest.raises(Invalid, match="after `--`"):
        RunRequest((), Mode.NONE)


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> list[RunRequest]:
    """The requests that the command line has made, each of which ended with code 5."""
    requests: list[RunRequest] = []

    @contextmanager
    def engine(_: object) -> Iterator[None]:
        yield None

    def run_command(_: object, request: RunRequest, **__: Any) -> int:
        requests.append(request)
        return 5

    monkeypatch.setattr(cli, "engine", engine)
    monkeypatch.setattr(cli, "run_command", run_command)
    return requests


def test_command_line(asked: list[RunRequest], tmp_path: Path) -> None:
    words = (
        f"--network lan --name web --hostname www --ip 10.0.0.9 --mac 02:00:00:00:00:09 -p 8080:80 --rootfs {tmp_path}"
    )
    done = CliRunner().invoke(cli.run, [*words.split(), "--rm", "-it", "--", "httpd", "-p", "80", "--rm"])
    assert done.exit_code == 5, done.output
    attach = AttachRequest(
        network="lan",
        sandbox=f"pid:{os.getpid()}",
        name="web",
        addresses=(ip_address("10.0.0.9"),),
        mac="02:00:00:00:00:09",
        ports=(PortMapping(None, 8080, 80),),
    )
    assert asked == [
        RunRequest(
            command=("httpd", "-p", "80", "--rm"),
            mode=Mode.NETWORK,
            attach=attach,
            name="web",
            hostname="www",
            rootfs=tmp_path,
            interactive=True,
            terminal=True,
            remove=True,
        )
    ]


def test_what_stands_behind_the_command_is_its_own(asked: list[RunRequest]) -> None:
    CliRunner().invoke(cli.run, ["--network", "none", "ls", "-l", "--name", "x", "--", "-t"])
    assert asked == [RunRequest(("ls", "-l", "--name", "x", "--", "-t"), Mode.NONE)]


@pytest.mark.parametrize(
    "words",
    [
        "--network none -p 80:80 -- true",
        "--network host --ip 10.0.0.1 -- true",
        "--network container:web --mac 02:00:00:00:00:01 -- true",
        "--network lan --name a/b -- true",
        "--network la/n -- true",
        "--network lan --ip rubbish -- true",
    ],
)
def test_refused_early(asked: list[RunRequest], words: str) -> None:
    done = CliRunner().invoke(cli.run, words.split())
    assert isinstance(done.exception, Invalid)
    assert not asked


@pytest.mark.parametrize("words", ["--network none", "true", "--network none --nmae x -- true"])
def test_bad_usage(asked: list[RunRequest], words: str) -> None:
    assert CliRunner().invoke(cli.run, words.split()).exit_code == 2
    assert not asked


# --- which namespace to be in ---------------------------------------------------------------------------

HERE = "/proc/self/ns/net"


def endpoint(identity: str, name: str, sandbox: Sandbox) -> Endpoint:
    return Endpoint(
        id=identity * 32, network="n", name=name, sandbox=sandbox, link="bv1", ifname="eth0", mac="", addresses=()
    )


class Endpoints:
    """As much of an Api as is asked here."""

    def __init__(self, *endpoints: Endpoint) -> None:
        self._endpoints = endpoints

    def endpoints(self, network: str | None = None) -> tuple[Endpoint, ...]:
        return self._endpoints


def find(text: str) -> Sandbox:
    if text == "gone":
        raise NotFound("no sandbox named gone")
    return Sandbox(HERE, "me")


WEB = endpoint("ab", "web", Sandbox(HERE, "me"))


@pytest.mark.parametrize(("text", "name"), [("web", "web"), ("ab" * 32, "web"), ("ab" * 6, "web"), ("elsewhere", None)])
def test_join_by_name_id_or_sandbox(text: str, name: str | None) -> None:
    with joined(Endpoints(WEB), text, find) as target:  # type: ignore[arg-type]
        assert target.name == name
        assert os.readlink(f"/proc/self/fd/{target.fd}") == os.readlink(HERE)


def test_join_refuses_two_of_one_name() -> None:
    other = endpoint("cd", "web", Sandbox("/run/netns/x", "other"))
    with pytest.raises(Invalid, match="abababababab, cdcdcdcdcdcd"), joined(Endpoints(WEB, other), "web", find):  # type: ignore[arg-type]
        pass


def test_join_takes_one_sandbox_on_two_networks() -> None:
    other = endpoint("cd", "web", Sandbox(HERE, "me"))
    with joined(Endpoints(WEB, other), "web", find) as target:  # type: ignore[arg-type]
        assert target.name == "web"


@pytest.mark.parametrize("sandbox", [Sandbox(HERE, "former"), Sandbox("/run/netns/nothing", "me")])
def test_join_refuses_a_namespace_that_is_another_now(sandbox: Sandbox) -> None:
    api = Endpoints(endpoint("ab", "web", sandbox))
    with pytest.raises(NotFound, match="berth reconcile"), joined(api, "web", find):  # type: ignore[arg-type]
        pass


def test_join_tells_what_it_does_not_find() -> None:
    with pytest.raises(NotFound, match="gone"), joined(Endpoints(), "gone", find):  # type: ignore[arg-type]
        pass


# --- what it looks like ---------------------------------------------------------------------------------

NET = Network(id="n", name="lan", driver="flat", bridge="br0", pools=(), mtu=1500, created="")


def test_hostname_is_the_name_unless_it_is_given() -> None:
    asked = AttachRequest("lan", "pid:1")
    assert look(RunRequest(("x",), Mode.NETWORK, asked), "web", (NET, WEB)).hostname == "web"
    assert look(RunRequest(("x",), Mode.NETWORK, asked, hostname="www"), "web", (NET, WEB)).hostname == "www"
    assert look(RunRequest(("x",), Mode.NONE), "a" * 100).hostname == "a" * 64


def test_on_the_hosts_network_all_is_the_hosts_unless_a_name_is_given() -> None:
    assert look(RunRequest(("x",), Mode.HOST), "id").hostname is None
    assert look(RunRequest(("x",), Mode.HOST), "id").files == {}
    assert look(RunRequest(("x",), Mode.HOST, name="web"), "web").hostname == "web"


def test_in_anothers_network_the_hostname_is_the_others() -> None:
    with joined(Endpoints(WEB), "web", find) as target:  # type: ignore[arg-type]
        assert look(RunRequest(("x",), Mode.JOIN, join="web"), "id", target=target).hostname == "web"
        assert look(RunRequest(("x",), Mode.JOIN, join="web", name="me"), "me", target=target).hostname == "me"
