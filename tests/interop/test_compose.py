"""Compose files: the example of the documentation, and containers that are made anew."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from .engines import IMAGE
from .harbour import Harbour

pytestmark = pytest.mark.timeout(180)

EXAMPLE = Path(__file__).parents[2] / "examples/compose/docker-compose.yml"


class Project:
    """A Compose file in a directory of its own."""

    def __init__(self, harbour: Harbour, text: str) -> None:
        self._harbour = harbour
        self._home = harbour.lab.work / "project"
        self._home.mkdir()
        (self._home / "docker-compose.yml").write_text(text)
        (self._home / ".env").write_text(f"IMAGE={IMAGE}\n")

    def compose(self, *args: str) -> str:
        """What `docker-compose …` prints."""
        return self._harbour.engine.compose("--project-name", "p", *args, cwd=self._home, timeout=120)

    def container(self, service: str) -> str:
        """The container of a service."""
        return self.compose("ps", "-q", service).strip()

    def remove(self) -> None:
        """Remove the directory."""
        shutil.rmtree(self._home)


@pytest.fixture
def example(harbour: Harbour) -> Iterator[Project]:
    project = Project(harbour, EXAMPLE.read_text())
    yield project
    project.compose("down", "--timeout", "1")
    project.remove()


def identity(harbour: Harbour, container: str) -> dict[str, tuple[str, str]]:
    """A container's address and MAC on each of its networks."""
    format_ = "{{range $n, $e := .NetworkSettings.Networks}}{{$n}} {{$e.IPAddress}} {{$e.MacAddress}}\n{{end}}"
    lines = harbour.docker("inspect", "--format", format_, container).splitlines()
    return {name: (address, mac) for name, address, mac in (line.split() for line in lines if line)}


def test_the_example(harbour: Harbour, example: Project) -> None:
    example.compose("up", "-d")
    assert harbour.asks("laptop", "192.168.2.200") == "web"
    web = example.container("web")
    assert harbour.inside(web, "wget", "-q", "-O-", "http://db/") == "db"
    assert not harbour.reaches("laptop", identity(harbour, example.container("db"))["p_backend"][0])


def test_a_service_made_anew_keeps_its_address_and_its_mac(harbour: Harbour, example: Project) -> None:
    example.compose("up", "-d")
    for service in ("web", "db"):
        before = example.container(service), identity(harbour, example.container(service))
        example.compose("up", "-d", "--force-recreate", "--no-deps", "--timeout", "1", service)
        after = example.container(service), identity(harbour, example.container(service))
        assert before[0] != after[0]
        assert before[1] == after[1]


def test_down_and_up_again(harbour: Harbour, example: Project) -> None:
    example.compose("up", "-d")
    example.compose("down", "--timeout", "1")
    assert harbour.berth("network", "ls") == []
    assert harbour.held() == []
    example.compose("up", "-d")
    assert harbour.asks("laptop", "192.168.2.200") == "web"
